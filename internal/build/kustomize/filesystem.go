package kustomize

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/plumb-gitops/plumb/internal/build"
)

// root is where kustomize sees the snapshot. It is an unusual name so that a
// path that leaves the snapshot and comes back cannot be written by accident.
const root = "/~snapshot~"

// errReadOnly answers every attempt to write.
var errReadOnly = errors.New("the snapshot cannot be written")

// snapshotFS implements kustomize's FileSystem over a snapshot and an overlay of
// files made in memory. It belongs to one build and one goroutine.
type snapshotFS struct {
	files   build.Files
	overlay map[string][]byte // by path in the snapshot
	limits  Limits
	// inspect looks at each file before kustomize gets it; an error is a fault.
	inspect func(path string, content []byte) error

	// fault is the first reason for which the build must not go on. kustomize
	// tries one thing after the other, so its own last error can be misleading.
	fault error
	// outside is the first path outside the snapshot that was asked for.
	outside string
	// read holds every file that was read, for messages.
	read    map[string][]byte
	order   []string
	bytes   int
	looks   int
	kustoms int
	// reread and docs are the bytes read again and the documents read.
	reread int
	docs   int
	redocs int // documents read again
	// ctx ends the build at its next read.
	ctx context.Context

	// secrets are the encrypted files among those that were read.
	secrets secrets

	// clones passes on what lies in clones of remote bases; nil refuses it.
	clones *cloneFS
}

var _ filesys.FileSystem = (*snapshotFS)(nil)

func newSnapshotFS(files build.Files, limits Limits) *snapshotFS {
	return &snapshotFS{files: files, overlay: map[string][]byte{}, limits: limits, read: map[string][]byte{}, ctx: context.Background(),
		inspect: func(string, []byte) error { return nil }}
}

// inside translates a path of kustomize into one of the snapshot.
func (s *snapshotFS) inside(name string) (string, error) {
	if !filepath.IsAbs(name) {
		name = path.Join(root, name)
	}
	name = path.Clean(name)
	if name == root {
		return ".", nil
	}
	if rest, ok := strings.CutPrefix(name, root+"/"); ok && fs.ValidPath(rest) {
		return rest, nil
	}
	if s.outside == "" {
		s.outside = name
	}
	return "", fmt.Errorf("path %q is outside the snapshot", name)
}

// fail keeps the first fault.
func (s *snapshotFS) fail(err error) error {
	if s.fault == nil {
		s.fault = err
	}
	return err
}

// stat tells whether a path is there and a directory, overlay first.
func (s *snapshotFS) stat(name string) (isDir, found bool) {
	if _, ok := s.overlay[name]; ok {
		return false, true
	}
	for made := range s.overlay {
		if strings.HasPrefix(made, name+"/") {
			return true, true
		}
	}
	info, err := s.files.Stat(name)
	if err != nil {
		return false, false
	}
	return info.IsDir(), true
}

// CleanedAbs splits a path into a directory that exists and a file in it, which
// is empty where the path itself is a directory.
func (s *snapshotFS) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	if s.clones.has(name) {
		return s.clones.CleanedAbs(name)
	}
	inside, err := s.inside(name)
	if err != nil {
		return "", "", err
	}
	isDir, found := s.stat(inside)
	switch {
	case !found:
		return "", "", fmt.Errorf("%q does not exist", inside)
	case isDir:
		return filesys.ConfirmedDir(path.Join(root, inside)), "", nil
	default:
		return filesys.ConfirmedDir(path.Join(root, path.Dir(inside))), path.Base(inside), nil
	}
}

// Exists tells whether there is something at the path.
func (s *snapshotFS) Exists(name string) bool {
	if s.clones.has(name) {
		return s.clones.Exists(name)
	}
	inside, err := s.inside(name)
	if err != nil {
		return false
	}
	_, found := s.stat(inside)
	return found
}

// IsDir tells whether there is a directory at the path.
func (s *snapshotFS) IsDir(name string) bool {
	if s.clones.has(name) {
		return s.clones.IsDir(name)
	}
	inside, err := s.inside(name)
	if err != nil {
		return false
	}
	isDir, found := s.stat(inside)
	return found && isDir
}

// ReadFile reads a file, if it is within the limits and inspection passes it.
func (s *snapshotFS) ReadFile(name string) ([]byte, error) {
	if s.fault == nil && s.ctx.Err() != nil {
		s.fault = fmt.Errorf("build: %w", context.Cause(s.ctx))
	}
	if s.fault != nil {
		return nil, s.fault
	}
	if s.clones.has(name) {
		return s.readClone(name)
	}
	inside, err := s.inside(name)
	if err != nil {
		return nil, err
	}
	content, made := s.overlay[inside]
	if !made {
		if content, err = s.load(inside); err != nil {
			return nil, err
		}
	}
	return content, s.look(inside, content)
}

// stopped is what stoppingFS panics with.
type stopped struct{ err error }

// stoppingFS is what kustomize itself reads through. kustomize takes what it
// cannot read as a file for a directory, and what looks remote for a
// repository to clone, so after a fault it must not get to its next step: it is
// ended by a panic, which the caller of kustomize turns into the fault.
type stoppingFS struct{ *snapshotFS }

// ReadFile reads a file, or ends the build on a fault. Where remote bases are
// off, it also ends it where a file that is not there has a name that the next
// step could take for the address of a repository.
func (s stoppingFS) ReadFile(name string) ([]byte, error) {
	content, err := s.snapshotFS.ReadFile(name)
	if err != nil && s.fault == nil && s.clones == nil && couldBeCloned(name) {
		err = s.fail(refusedRemote("", 0, path.Base(name)))
	}
	if s.fault != nil {
		panic(stopped{s.fault})
	}
	return content, err
}

// CleanedAbs splits a path, or ends the build on a fault.
func (s stoppingFS) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	if s.fault != nil {
		panic(stopped{s.fault})
	}
	return s.snapshotFS.CleanedAbs(name)
}

// couldBeCloned tells whether the end of a path is the address of a repository,
// as it looks once it is joined to a directory.
func couldBeCloned(name string) bool {
	for rest := strings.TrimPrefix(name, root); rest != ""; {
		rest = strings.TrimPrefix(rest, "/")
		lower := strings.ToLower(rest)
		for _, scheme := range []string{"ssh:/", "https:/", "http:/", "file:/", "git::"} {
			if strings.HasPrefix(lower, scheme) {
				return true
			}
		}
		if isRemoteBase(rest) {
			return true
		}
		i := strings.IndexByte(rest, '/')
		if i < 0 {
			return false
		}
		rest = rest[i:]
	}
	return false
}

// load reads a file of the snapshot.
func (s *snapshotFS) load(name string) ([]byte, error) {
	if content, again := s.read[name]; again {
		return content, nil
	}
	info, err := s.files.Stat(name)
	if err == nil && !info.IsDir() && info.Size() > int64(s.limits.FileBytes) {
		return nil, s.fail(invalid(name, 0, fmt.Errorf("the file has %d bytes, the limit is %d: split it", info.Size(), s.limits.FileBytes)))
	}
	content, err := s.files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return s.open(name, content)
}

// look counts and inspects what was read.
func (s *snapshotFS) look(name string, content []byte) error {
	if isKustomization(name) {
		if s.kustoms++; s.kustoms > s.limits.Kustomizations {
			return s.fail(invalid(name, 0, fmt.Errorf("kustomization files are read more than %d times: bases include each other too often", s.limits.Kustomizations)))
		}
	}
	if s.docs += 1 + bytes.Count(content, []byte("\n---")); s.docs > s.limits.Documents {
		return s.fail(invalid(name, 0, fmt.Errorf("more than %d YAML documents are read, counting those of bases that are included again: split the build into several", s.limits.Documents)))
	}
	if _, again := s.read[name]; again {
		if s.reread += len(content); s.reread > s.limits.RereadBytes {
			return s.fail(invalid(name, 0, fmt.Errorf("more than %d bytes are read again: bases include each other too often", s.limits.RereadBytes)))
		}
		if s.redocs += 1 + bytes.Count(content, []byte("\n---")); s.redocs > s.limits.RereadDocuments {
			return s.fail(invalid(name, 0, fmt.Errorf("more than %d YAML documents are read again: bases include each other too often", s.limits.RereadDocuments)))
		}
		return nil
	}
	s.read[name] = content
	s.order = append(s.order, name)
	s.bytes += len(content)
	switch {
	case len(content) > s.limits.FileBytes:
		return s.fail(invalid(name, 0, fmt.Errorf("the file has %d bytes, the limit is %d: split it", len(content), s.limits.FileBytes)))
	case s.bytes > s.limits.TotalBytes:
		return s.fail(invalid(name, 0, fmt.Errorf("the files of the build have more than %d bytes together: split the build into several", s.limits.TotalBytes)))
	}
	if err := s.count(name); err != nil {
		return err
	}
	if err := s.inspect(name, content); err != nil {
		return s.fail(err)
	}
	return nil
}

// count bounds files and directories.
func (s *snapshotFS) count(name string) error {
	if s.looks++; s.looks > s.limits.Files {
		return s.fail(invalid(name, 0, fmt.Errorf("more than %d files and directories are read: split the build into several", s.limits.Files)))
	}
	return nil
}

// readClone reads a file of a remote base.
func (s *snapshotFS) readClone(name string) ([]byte, error) {
	content, err := s.clones.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return content, s.look(name, content)
}

// ReadDir lists the names in a directory of the snapshot.
func (s *snapshotFS) ReadDir(name string) ([]string, error) {
	if s.clones.has(name) {
		return s.clones.ReadDir(name)
	}
	inside, err := s.inside(name)
	if err != nil {
		return nil, err
	}
	entries, err := s.files.ReadDir(inside)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Glob matches the names in one directory; kustomize's build does not use it.
func (s *snapshotFS) Glob(pattern string) ([]string, error) {
	dir := path.Dir(pattern)
	names, err := s.ReadDir(dir)
	if err != nil {
		return nil, nil
	}
	var matches []string
	for _, name := range names {
		if ok, err := path.Match(path.Base(pattern), name); err != nil {
			return nil, err
		} else if ok {
			matches = append(matches, path.Join(dir, name))
		}
	}
	return matches, nil
}

// Walk is not part of a build.
func (s *snapshotFS) Walk(string, filepath.WalkFunc) error {
	return errors.New("the snapshot cannot be walked")
}

// Open is not part of a build.
func (s *snapshotFS) Open(string) (filesys.File, error) {
	return nil, errors.New("a file of the snapshot can only be read as a whole")
}

// Create refuses: the snapshot is read-only.
func (s *snapshotFS) Create(string) (filesys.File, error) { return nil, errReadOnly }

// Mkdir refuses: the snapshot is read-only.
func (s *snapshotFS) Mkdir(string) error { return errReadOnly }

// MkdirAll refuses: the snapshot is read-only.
func (s *snapshotFS) MkdirAll(string) error { return errReadOnly }

// WriteFile refuses: the snapshot is read-only.
func (s *snapshotFS) WriteFile(string, []byte) error { return errReadOnly }

// RemoveAll removes the clone of a remote base and nothing else.
func (s *snapshotFS) RemoveAll(name string) error {
	if s.clones.has(name) {
		return os.RemoveAll(name)
	}
	return errReadOnly
}

// isKustomization tells whether a file is a kustomization by its name.
func isKustomization(name string) bool {
	return slices.Contains(konfig.RecognizedKustomizationFileNames(), path.Base(name))
}
