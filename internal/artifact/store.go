// Package artifact keeps packed artifacts on disk: a Store those that the operator makes,
// a Cache those that it unpacks. Rooms bound what both, and the stores of sources, keep for
// each namespace.
//
// An artifact is a gzipped tar of a gitops.Tree, the same bytes for the same
// files. A Store serves it over HTTP to consumers outside the process: inside, files are
// read through the Tree itself, so that packing is never waited for. A file appears
// under its name when it is whole, and its digest is known by then; the last one
// stays in place until there is a newer one, whatever happens meanwhile. Beside the
// present artifact of a source those before it are kept for a while, for whoever has
// begun to load one. What is advertised is kept however many newer ones there are, until
// Keep says that another one is: a newer one may wait for long to be told, or never be.
//
// A Cache has the way back: it checks what another controller or a registry serves, or what a
// Store has kept over a restart, and gives a Tree that is read from the disk. It is shared by
// those alone who may see the same. Read and Fetch are for commands: they give a Tree in
// memory.
//
// All paths go through an os.Root. The front end decides what a source is
// called and which files are advertised.
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
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Options configure a Store. Zero values mean the defaults.
type Options struct {
	// Records is how many artifacts of a source are kept at most; the newest is always.
	Records int
	// TTL is how long an artifact is kept after a newer one took its place: that of one
	// that is kept by name, when another one is. The one before the newest stays for some
	// seconds at least, whatever Records and TTL say: until the API has the newer one, it
	// is the one that is advertised.
	TTL time.Duration
	// FileBytes is the largest file that is packed, in bytes: 1 GiB by default, and at most.
	FileBytes int64
	// Bytes is how many bytes the files of an artifact may have together, before
	// they are compressed: 4 GiB by default, and at most.
	Bytes int64
	// Digest is the algorithm of the digests: SHA256 by default.
	Digest Algorithm
	// Rooms bound what is kept for each namespace; nil for no bound.
	Rooms *Rooms
	// Now is the clock: time.Now by default.
	Now func() time.Time
}

// grace is how long the artifact before the newest one is kept at least.
const grace = 5 * time.Second

// Store keeps packed artifacts below a folder. It is safe for use by several
// goroutines, and by one process at a time.
type Store struct {
	root    *os.Root
	records int
	ttl     time.Duration
	digest  Algorithm
	now     func() time.Time
	limits  limits
	rooms   *Rooms

	mu      sync.Mutex // guards sources
	sources map[string]*source
}

// source is what the Store knows of one source.
type source struct {
	// stop ends the packing under way; nil where there is none.
	stop context.CancelCauseFunc
	// turn is held while a file is put into place.
	turn sync.Mutex
	// files are those that are served, the newest last; guarded by Store.mu.
	files []record
}

// record is a file that is served.
type record struct {
	path     string
	artifact gitops.Artifact
	// replaced is when a newer one took its place; zero for the newest.
	replaced time.Time
	// named is set where Keep has named it last.
	named bool
	// modified is when the file was written last, as far as we know.
	modified time.Time
	// damage is what is wrong with the file; nil for nothing.
	damage *Damaged
}

// ErrSuperseded is the error of a Pack that a newer one for the same source, or
// the removal of the source, has ended.
var ErrSuperseded = errors.New("a newer artifact is being packed")

// Open opens the store below a folder, which is made where it is missing. Files
// that an earlier process left are served again once they are adopted; what it
// did not finish is removed.
func Open(folder string, o Options) (*Store, error) {
	if o.Digest == "" {
		o.Digest = SHA256
	}
	if o.Digest.hash() == nil {
		return nil, fmt.Errorf("open artifact store: there is no digest %q", o.Digest)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	s := &Store{root: root, records: max(o.Records, 1), ttl: o.TTL, digest: o.Digest, now: o.Now, rooms: o.Rooms, sources: map[string]*source{}}
	s.limits = ofOurs()
	if o.FileBytes > 0 {
		s.limits.file = min(o.FileBytes, s.limits.file)
	}
	if o.Bytes > 0 {
		s.limits.total = min(o.Bytes, s.limits.total)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.clean(); err != nil {
		return nil, errors.Join(fmt.Errorf("open artifact store: %w", err), root.Close())
	}
	s.rooms.Add(s)
	return s, nil
}

// Rooms are what bounds the namespaces; nil for nothing.
func (s *Store) Rooms() *Rooms { return s.rooms }

// Measure charges each namespace with the files of its sources.
func (s *Store) Measure(charge func(namespace string, bytes int64)) error {
	return fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		parts := strings.Split(name, "/") // kind, namespace, name and file
		if err != nil || len(parts) < 3 || d.IsDir() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err == nil {
			charge(parts[1], info.Size())
		}
		return ignoreMissing(err)
	})
}

// Close ends the packing under way and closes the folder.
func (s *Store) Close() error {
	s.mu.Lock()
	for _, src := range s.sources {
		src.end(ErrSuperseded)
	}
	s.mu.Unlock()
	return s.root.Close()
}

func (src *source) end(cause error) {
	if src.stop != nil {
		src.stop(cause)
		src.stop = nil
	}
}

// unfinished marks the files of a packing under way.
const unfinished = ".unfinished-"

// clean removes unfinished files.
func (s *Store) clean() error {
	var left []string
	err := fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasPrefix(d.Name(), unfinished) {
			left = append(left, name)
		}
		return err
	})
	for _, name := range left {
		err = errors.Join(err, s.root.Remove(name))
	}
	return err
}

// Path is where the artifact of a source with a file name is kept and served:
// kind/namespace/name/file, with the kind in lower case. The error says which
// part is not a name.
func Path(owner gitops.OwnerRef, file string) (string, error) {
	parts := []string{strings.ToLower(owner.Kind), owner.Namespace, owner.Name, file}
	for _, part := range parts {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, `/\`) || strings.HasPrefix(part, unfinished) {
			return "", fmt.Errorf("artifact path: %q is not a name", part)
		}
	}
	return path.Join(parts...), nil
}

func (s *Store) source(folder string) *source {
	src, ok := s.sources[folder]
	if !ok {
		src = &source{}
		s.sources[folder] = src
	}
	return src
}

// advertise makes a file the newest of its source, and drops what is too old.
func (s *Store) advertise(folder string, r record) error {
	s.mu.Lock()
	src := s.source(folder)
	now := s.now()
	src.files = slices.DeleteFunc(src.files, func(old record) bool {
		r.named = r.named || old.path == r.path && old.named
		return old.path == r.path
	})
	for i := range src.files {
		if src.files[i].replaced.IsZero() {
			src.files[i].replaced = now
		}
	}
	src.files = append(src.files, r)
	s.mu.Unlock()
	_, err := s.collect(folder, now)
	return err
}

// Keep says which file of a source is advertised. It is kept until another one is named.
func (s *Store) Keep(owner gitops.OwnerRef, file string) error {
	target, err := Path(owner, file)
	if err != nil {
		return err
	}
	folder, now, changed := path.Dir(target), s.now(), false
	s.mu.Lock()
	if src, ok := s.sources[folder]; ok {
		for i := range src.files {
			r := &src.files[i]
			was := r.named
			r.named = r.path == target
			changed = changed || was != r.named
			if was && !r.named && !r.replaced.IsZero() {
				r.replaced = now
			}
		}
	}
	s.mu.Unlock()
	if !changed {
		return nil
	}
	_, err = s.collect(folder, now)
	return err
}

// Collect removes artifacts that are not to be kept any more, of all
// sources, and tells when the next one will be; zero where none waits.
func (s *Store) Collect() (next time.Time, err error) {
	s.mu.Lock()
	folders := make([]string, 0, len(s.sources))
	for folder := range s.sources {
		folders = append(folders, folder)
	}
	s.mu.Unlock()
	now := s.now()
	var errs []error
	for _, folder := range folders {
		at, err := s.collect(folder, now)
		errs = append(errs, err)
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, errors.Join(errs...)
}

// collect removes from a source's folder every file that is not kept any more,
// those of an earlier process that nobody adopted among them.
func (s *Store) collect(folder string, now time.Time) (next time.Time, err error) {
	s.mu.Lock()
	src := s.source(folder)
	kept, number := src.files[:0], len(src.files)
	for i, r := range src.files {
		if r.replaced.IsZero() || r.named {
			kept = append(kept, r)
			continue
		}
		end := r.replaced.Add(s.ttl)
		if i < number-s.records {
			end = r.replaced
		}
		if least := r.replaced.Add(grace); i == number-2 && end.Before(least) {
			end = least
		}
		if !end.After(now) {
			continue
		}
		if next.IsZero() || end.Before(next) {
			next = end
		}
		kept = append(kept, r)
	}
	clear(src.files[len(kept):])
	src.files = kept
	names := make([]string, len(kept))
	for i, r := range kept {
		names[i] = path.Base(r.path)
	}
	s.mu.Unlock()
	if len(names) == 0 {
		return next, nil
	}
	entries, err := fs.ReadDir(s.root.FS(), folder)
	if err != nil {
		return next, fmt.Errorf("collect artifacts: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) && !strings.HasPrefix(e.Name(), unfinished) {
			errs = append(errs, ignoreMissing(s.root.Remove(path.Join(folder, e.Name()))))
		}
	}
	return next, errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Open opens the stored file of an artifact, whether or not it is served.
func (s *Store) Open(owner gitops.OwnerRef, file string) (io.ReadCloser, error) {
	target, err := Path(owner, file)
	if err != nil {
		return nil, err
	}
	in, err := s.root.Open(target)
	if err != nil {
		return nil, own(err)
	}
	return in, nil
}

// Remove ends the packing of a deleted source and removes all its artifacts.
func (s *Store) Remove(owner gitops.OwnerRef) error {
	file, err := Path(owner, "x")
	if err != nil {
		return err
	}
	if err := s.remove(path.Dir(file)); err != nil {
		return fmt.Errorf("remove artifacts of %s: %w", owner, err)
	}
	return nil
}

// remove waits for the end of the packing under way, so that it leaves nothing.
func (s *Store) remove(folder string) error {
	s.mu.Lock()
	src := s.source(folder)
	src.end(ErrSuperseded)
	s.mu.Unlock()
	src.turn.Lock()
	defer src.turn.Unlock()
	s.mu.Lock()
	delete(s.sources, folder)
	s.mu.Unlock()
	return s.root.RemoveAll(folder)
}

// Retain removes the folders of all sources of a kind but the given ones, such as those
// that were deleted while no process was running.
func (s *Store) Retain(kind string, owners []gitops.OwnerRef) error {
	wanted := map[string]bool{}
	for _, owner := range owners {
		file, err := Path(owner, "x")
		if err != nil {
			return err
		}
		wanted[path.Dir(file)] = true
	}
	folders, err := fs.Glob(s.root.FS(), strings.ToLower(kind)+"/*/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, folder := range folders {
		if !wanted[folder] {
			errs = append(errs, s.remove(folder))
		}
	}
	return errors.Join(errs...)
}
