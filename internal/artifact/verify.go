package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Damaged is the error of a stored file that is not what was stored. Its text is the same
// each time.
type Damaged struct{ text string }

// Error says what is wrong with the file.
func (d *Damaged) Error() string { return d.text }

// Adopt takes over an artifact that an earlier process packed and advertised, if
// its file is still there with the advertised digest and size; the error of one that is
// there and not so is Damaged. It reads the file once and writes nothing but the removal of
// older ones.
func (s *Store) Adopt(artifact gitops.Artifact, file string) (bool, error) {
	target, err := Path(artifact.Source, file)
	if err != nil {
		return false, err
	}
	if _, err := s.root.Lstat(target); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	r := record{path: target, artifact: artifact}
	if r.modified, err = s.read(context.Background(), r, func(int) error { return nil }); err != nil {
		return false, err
	}
	return true, s.advertise(path.Dir(target), r)
}

// Check tells whether the file of an artifact that was stored is still there and as it was.
// It does not read the file, unless somebody has touched it. The error of one that is not
// as it was is Damaged, and its file is not served from then on.
func (s *Store) Check(ctx context.Context, artifact gitops.Artifact, file string) error {
	target, err := Path(artifact.Source, file)
	if err != nil {
		return err
	}
	s.mu.Lock()
	var found *record
	if src, ok := s.sources[path.Dir(target)]; ok {
		for _, r := range src.files {
			if r.path == target && r.artifact.Digest == artifact.Digest {
				found = &r
			}
		}
	}
	s.mu.Unlock()
	if found == nil {
		return &Damaged{"the stored file is not there"}
	}
	return s.examine(ctx, *found, false, func(int) error { return nil })
}

// Examine checks all files that are served, with their content where deep is set, and calls
// damaged for the source of each that is not as it was. Read is called before so many bytes
// of a file are read, and ends the examination by an error.
func (s *Store) Examine(ctx context.Context, deep bool, read func(bytes int) error, damaged func(gitops.OwnerRef)) error {
	s.mu.Lock()
	var all []record
	for _, src := range s.sources {
		all = append(all, src.files...)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b record) int { return strings.Compare(a.path, b.path) })
	for _, r := range all {
		var d *Damaged
		switch err := s.examine(ctx, r, deep, read); {
		case errors.As(err, &d):
			damaged(r.artifact.Source)
		case err != nil:
			return err
		}
	}
	return nil
}

// examine checks one file, and has it not served where it is damaged.
func (s *Store) examine(ctx context.Context, r record, deep bool, read func(int) error) error {
	if r.damage != nil {
		return r.damage
	}
	info, err := s.root.Lstat(r.path)
	if err == nil && !deep && sound(info, r) && info.ModTime().Equal(r.modified) {
		return nil
	}
	modified, err := s.read(ctx, r, read)
	var d *Damaged
	if err != nil && !errors.As(err, &d) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	src, ok := s.sources[path.Dir(r.path)]
	if !ok {
		return nil
	}
	for i := range src.files {
		// One that was stored, or removed, meanwhile is not the one that was read.
		if now := &src.files[i]; now.path == r.path && now.modified.Equal(r.modified) && now.artifact.Digest == r.artifact.Digest {
			now.modified, now.damage = modified, d
			if d != nil {
				return d
			}
		}
	}
	return nil
}

func sound(info os.FileInfo, r record) bool {
	return info.Mode().IsRegular() && info.Size() == r.artifact.Size
}

// readAtOnce is how many bytes of a file are read at once.
const readAtOnce = 256 << 10

// read sums a stored file, and gives when it was written. The error of one that cannot be
// read or is another one is Damaged.
func (s *Store) read(ctx context.Context, r record, read func(int) error) (time.Time, error) {
	broken := func(format string, args ...any) (time.Time, error) {
		return r.modified, &Damaged{fmt.Sprintf(format, args...)}
	}
	// What is no file, such as a pipe, is not even opened: that may wait.
	info, err := s.root.Lstat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return broken("the stored file is not there")
	case err != nil:
		return broken("the stored file cannot be read: %s", own(err))
	case !info.Mode().IsRegular():
		return broken("the stored file is not a regular file")
	case info.Size() != r.artifact.Size:
		return broken("the stored file has %d bytes, and had %d", info.Size(), r.artifact.Size)
	}
	in, err := s.root.Open(r.path)
	if err != nil {
		return broken("the stored file cannot be read: %s", own(err))
	}
	defer in.Close()
	algorithm, sum, err := summing(r.artifact.Digest)
	if err != nil {
		return broken("%s", err)
	}
	for {
		if err := errors.Join(ctx.Err(), read(readAtOnce)); err != nil {
			return r.modified, err
		}
		_, err := io.CopyN(sum, in, readAtOnce)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return broken("the stored file cannot be read: %s", own(err))
		}
	}
	if digest := algorithm.digest(sum); digest != r.artifact.Digest {
		return broken("the stored file has digest %s, and had %s", digest, r.artifact.Digest)
	}
	return info.ModTime(), nil
}
