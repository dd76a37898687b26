package artifact

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Modes of what stands in an artifact, whatever it had in its source.
const (
	fileMode       = 0o600
	executableMode = 0o700
	directoryMode  = 0o750
)

// Pack writes the files of a tree as an artifact of its source, under a file
// name, and serves it. Digest, Size and Time of the result are those of the
// file. A later Pack for the same source ends one under way, which returns
// ErrSuperseded. On an error the artifacts that are there stay as they are.
//
// An artifact that has a digest already is one that was stored before: what is made
// has to have that digest too, or is not stored.
func (s *Store) Pack(ctx context.Context, artifact gitops.Artifact, file string, files gitops.Tree) (gitops.Artifact, error) {
	return s.put(ctx, artifact, file, func(ctx context.Context, w io.Writer) error { return write(ctx, w, files, s.limits) })
}

// Put stores a file that is packed already as an artifact of its source, as Pack does.
// Of content it takes what it has until its end, which is an error where that is more
// than the limit for a file.
func (s *Store) Put(ctx context.Context, artifact gitops.Artifact, file string, content func() (io.ReadCloser, error)) (gitops.Artifact, error) {
	return s.put(ctx, artifact, file, func(ctx context.Context, w io.Writer) (err error) {
		in, err := content()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
		n, err := io.Copy(w, io.LimitReader(Endable(ctx, in), s.limits.file+1))
		if err == nil && n > s.limits.file {
			err = tooLarge("the file has more than %d bytes, which is the most that is stored", s.limits.file)
		}
		return err
	})
}

func (s *Store) put(ctx context.Context, artifact gitops.Artifact, file string, content func(context.Context, io.Writer) error) (gitops.Artifact, error) {
	target, err := Path(artifact.Source, file)
	if err != nil {
		return gitops.Artifact{}, err
	}
	folder := path.Dir(target)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.mu.Lock()
	src := s.source(folder)
	src.end(ErrSuperseded)
	src.stop = stop
	s.mu.Unlock()

	src.turn.Lock()
	defer src.turn.Unlock()
	if err := context.Cause(ctx); err != nil {
		return gitops.Artifact{}, err
	}
	modified, same, err := s.unchanged(ctx, &artifact, target, content)
	if err == nil && !same {
		modified, err = s.write(ctx, &artifact, target, content)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return gitops.Artifact{}, fmt.Errorf("store artifact of %s: %w", artifact.Source, err)
	}
	if err := s.advertise(folder, record{path: target, artifact: artifact, modified: modified}); err != nil {
		return gitops.Artifact{}, err
	}
	return artifact, nil
}

// unchanged tells whether a content is that of the file in its place, and when that was
// written. After a restart this is so for nearly all: they need not be written again, which
// would take room and time of the disk. Content that is another one is made twice.
func (s *Store) unchanged(ctx context.Context, artifact *gitops.Artifact, target string, content func(context.Context, io.Writer) error) (modified time.Time, same bool, err error) {
	known, ok := s.record(target)
	if !ok || known.damage != nil {
		return modified, false, nil
	}
	if info, err := s.root.Lstat(target); err != nil || !sound(info, known) {
		return modified, false, nil //nolint:nilerr // it is stored then
	}
	algorithm, hashing, err := summing(known.artifact.Digest)
	if err != nil || artifact.Digest == "" && algorithm != s.digest || artifact.Digest != "" && artifact.Digest != known.artifact.Digest {
		return modified, false, nil //nolint:nilerr // as above
	}
	sum := &counted{w: io.Discard, hash: hashing}
	if err := content(ctx, sum); err != nil {
		return modified, false, err
	}
	if algorithm.digest(hashing) != known.artifact.Digest {
		return modified, false, nil
	}
	if modified, err = s.read(ctx, known, func(int) error { return nil }); err != nil {
		return modified, false, context.Cause(ctx)
	}
	if artifact.Digest == "" {
		artifact.Time = s.now()
		if known.replaced.IsZero() && known.artifact.Revision == artifact.Revision {
			artifact.Time = known.artifact.Time
		}
	}
	artifact.Digest, artifact.Size = known.artifact.Digest, sum.size
	return modified, true, context.Cause(ctx)
}

// record is what is known of the file at a path.
func (s *Store) record(target string) (record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.source(path.Dir(target))
	i := slices.IndexFunc(src.files, func(r record) bool { return r.path == target })
	if i < 0 {
		return record{}, false
	}
	return src.files[i], true
}

// write stores content in an unfinished file and puts it into place when it is whole. It
// gives when the file was written.
func (s *Store) write(ctx context.Context, artifact *gitops.Artifact, target string, content func(context.Context, io.Writer) error) (modified time.Time, err error) {
	if err := s.root.MkdirAll(path.Dir(target), 0o700); err != nil {
		return modified, own(err)
	}
	temporary := path.Join(path.Dir(target), unfinished+path.Base(target))
	// A link that somebody has put there would have another artifact overwritten.
	if err := s.root.RemoveAll(temporary); err != nil {
		return modified, own(err)
	}
	out, err := s.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return modified, own(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(own(s.root.Remove(temporary))))
		}
	}()
	algorithm, hashing := s.digest, s.digest.hash()
	if artifact.Digest != "" {
		if algorithm, hashing, err = summing(artifact.Digest); err != nil {
			return modified, errors.Join(err, own(out.Close()))
		}
	}
	sum := &counted{w: CountedWriter(s.rooms.In(ctx, artifact.Source.Namespace), out), hash: hashing}
	err = content(ctx, sum)
	if err == nil {
		err = own(out.Sync())
	}
	if err = errors.Join(err, own(out.Close())); err != nil {
		return modified, err
	}
	info, err := s.root.Lstat(temporary)
	if err != nil {
		return modified, own(err)
	}
	digest := algorithm.digest(sum.hash)
	if artifact.Digest != "" && artifact.Digest != digest {
		return modified, fmt.Errorf("what is there makes a file with digest %s, and not %s", digest, artifact.Digest)
	}
	if err := context.Cause(ctx); err != nil {
		return modified, err
	}
	// A folder, or what else somebody has put there, would be in the way.
	if there, err := s.root.Lstat(target); err == nil && there.IsDir() {
		if err := s.root.RemoveAll(target); err != nil {
			return modified, own(err)
		}
	}
	if err := s.root.Rename(temporary, target); err != nil {
		return modified, own(err)
	}
	if artifact.Digest == "" {
		artifact.Time = s.now()
	}
	artifact.Digest, artifact.Size = digest, sum.size
	return info.ModTime(), nil
}

// own takes the names of our own files out of an error: what is wrong with the
// disk is the same each time.
func own(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("storage: %w", p.Err)
	}
	return err
}

// counted sums what it passes on.
type counted struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

// Write passes bytes on.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.hash.Write(p[:n])
	c.size += int64(n)
	return n, own(err)
}

// Write writes the files of a tree as a gzipped tar: the same bytes for the same
// files, and the same as Flux's for all but files that it ignores by itself. Names are
// relative and in order, a directory before what is in it, the root first;
// owners and times are zero. The default limits of a Store hold.
func Write(ctx context.Context, w io.Writer, files gitops.Tree) error {
	return write(ctx, w, files, ofOurs())
}

func write(ctx context.Context, w io.Writer, files gitops.Tree, most limits) error {
	zipped := gzip.NewWriter(w)
	p := packing{ctx: ctx, tar: tar.NewWriter(zipped), files: files, most: most}
	if err := fs.WalkDir(files, ".", p.add); err != nil {
		return err
	}
	if err := p.tar.Close(); err != nil {
		return err
	}
	return zipped.Close()
}

// packing is one walk over a tree.
type packing struct {
	ctx   context.Context
	tar   *tar.Writer
	files gitops.Tree
	most  limits

	total          int64
	entries, names int
}

// add writes a file or directory. It is an fs.WalkDirFunc.
func (p *packing) add(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if p.entries++; p.entries > p.most.entries {
		return tooLarge("more than %d files and directories, which is the most that is packed", p.most.entries)
	}
	if d.IsDir() {
		return p.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: directoryMode})
	}
	return p.addFile(name)
}

func (p *packing) addFile(name string) (err error) {
	file, err := p.files.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := p.most.path(name); err != nil {
		return tooLarge("%w, which is the most that is packed", err)
	}
	if p.names += len(name); p.names > p.most.names {
		return tooLarge("the names of its files have more than %d bytes together, which is the most that is packed", p.most.names)
	}
	// The tar takes no more of a file than its header says.
	if info.Size() > p.most.file {
		return tooLarge("%q has %d bytes, at most %d are packed", name, info.Size(), p.most.file)
	}
	if p.total += info.Size(); p.total > p.most.total {
		return tooLarge("the files have more than %d bytes together, which is the most that is packed", p.most.total)
	}
	mode := int64(fileMode)
	if info.Mode()&0o100 != 0 {
		mode = executableMode
	}
	if err := p.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(p.tar, Endable(p.ctx, file)); err != nil {
		return fmt.Errorf("%s: %w", strconv.Quote(name), err)
	}
	return nil
}

// tooLarge is an error about what the source holds.
func tooLarge(format string, args ...any) error {
	return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Invalid, Cause: fmt.Errorf(format, args...)}
}
