package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Values of Read.Seen for ReadKindOf.
const (
	seenFile = "file"
	seenDir  = "dir"
)

// readKey is what was asked, without what was seen.
type readKey struct {
	kind gitops.ReadKind
	path string
}

// recorder is the file system of a build: a tree that writes down what it is
// asked. It also passes on the end of the build's context, as kustomize cannot
// be cancelled.
type recorder struct {
	ctx  context.Context
	tree gitops.Tree
	seen map[readKey]string
	// broken is the first failure of the tree itself. What was built after it
	// says nothing about the files.
	broken error
}

func newRecorder(ctx context.Context, tree gitops.Tree) *recorder {
	return &recorder{ctx: ctx, tree: tree, seen: make(map[readKey]string)}
}

// Open opens a file or a directory and records its content.
func (r *recorder) Open(path string) (fs.File, error) {
	info, err := r.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if _, err := r.ReadDir(path); err != nil {
			return nil, err
		}
	} else if _, err := r.ReadFile(path); err != nil {
		return nil, err
	}
	return r.tree.Open(path)
}

// ReadFile reads a file and records its sum. That a path is missing or a
// directory is recorded as such.
func (r *recorder) ReadFile(path string) ([]byte, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	content, err := r.tree.ReadFile(path)
	if err != nil {
		return nil, r.failed(gitops.ReadFile, path, err)
	}
	sum, err := r.tree.Sum(path)
	if err != nil {
		return nil, r.fail(err)
	}
	r.seen[readKey{gitops.ReadFile, path}] = sum
	return content, nil
}

// ReadDir lists a directory and records the listing.
func (r *recorder) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := r.tree.ReadDir(path)
	if err != nil {
		return nil, r.failed(gitops.ReadListing, path, err)
	}
	sum, err := r.tree.Sum(path)
	if err != nil {
		return nil, r.fail(err)
	}
	r.seen[readKey{gitops.ReadListing, path}] = sum + listingSeparator + listingDigest(entries)
	return entries, nil
}

// Stat records whether a path exists and what it is. Size and mode are not
// recorded: nothing may depend on them but an answer that ReadFile gives too.
func (r *recorder) Stat(path string) (fs.FileInfo, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	info, err := r.tree.Stat(path)
	if err != nil {
		if !isMissing(err) {
			return nil, r.fail(err)
		}
		r.seen[readKey{gitops.ReadKindOf, path}] = ""
		return nil, err
	}
	r.seen[readKey{gitops.ReadKindOf, path}] = kindOf(info)
	return info, nil
}

// failed records why a path could not be read: it is missing, or it is of the
// other kind. Any other reason is the tree's own.
func (r *recorder) failed(kind gitops.ReadKind, path string, err error) error {
	info, statErr := r.tree.Stat(path)
	switch {
	case statErr == nil && info.IsDir() != (kind == gitops.ReadListing):
		r.seen[readKey{gitops.ReadKindOf, path}] = kindOf(info)
	case statErr != nil && isMissing(statErr):
		r.seen[readKey{kind, path}] = ""
	default:
		return r.fail(err)
	}
	return err
}

func (r *recorder) fail(err error) error {
	if r.broken == nil {
		r.broken = err
	}
	return err
}

// trace is what was seen, in a fixed order that begins with the listings.
func (r *recorder) trace() gitops.Trace {
	trace := make(gitops.Trace, 0, len(r.seen)+1)
	for key, seen := range r.seen {
		trace = append(trace, gitops.Read{Kind: key.kind, Path: key.path, Seen: seen})
	}
	slices.SortFunc(trace, compareReads)
	return trace
}

func compareReads(a, b gitops.Read) int {
	if a.Kind != b.Kind && (a.Kind == gitops.ReadListing || b.Kind == gitops.ReadListing) {
		if a.Kind == gitops.ReadListing {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind))
}

func kindOf(info fs.FileInfo) string {
	if info.IsDir() {
		return seenDir
	}
	return seenFile
}

// isMissing tells whether a path does not exist.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// listingSeparator stands between a directory's sum and the digest of its listing.
const listingSeparator = " "

// listingDigest identifies the names and kinds of a directory's entries.
func listingDigest(entries []fs.DirEntry) string {
	lines := make([]string, len(entries))
	for i, e := range entries {
		kind := "f "
		if e.IsDir() {
			kind = "d "
		}
		lines[i] = kind + e.Name() + "\x00"
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, line := range lines {
		h.Write([]byte(line))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
