package bucket

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
)

// sum names a content.
type sum [sha256.Size]byte

func (s sum) String() string { return hex.EncodeToString(s[:]) }

// file is where the content is.
func (s sum) file() string {
	text := s.String()
	return path.Join(contentsFolder, text[:2], text)
}

// entry is an object whose content is on disk.
type entry struct {
	key, etag string
	size      int64
	sum       sum
}

// In the folder of a remote are the contents, files that are being written, and for
// each view a file that names its entries.
const (
	contentsFolder = "contents"
	incomingFolder = "incoming"
	viewPrefix     = "view-"
	// partialPrefix is for what a fetch of a view brought that failed.
	partialPrefix = "part-"
)

// remote is what is kept of one bucket as one credential sees it.
type remote struct {
	store      *Store
	key        string
	connection *connection

	// counting is held by who changes which content is used by whom, or opens the folder. It
	// takes as long as all states take to read, and is only waited for by those who bring
	// something of this bucket. Who holds mu must not wait for it. It guards the two below.
	counting chan struct{}
	// uses counts for each content who needs it: views, trees and fetches. What has no use
	// has no file. It is nil while nothing changes: see count.
	uses map[sum]int
	// uncounted is set where a state could not be read, so that nothing is removed.
	uncounted bool

	// mu guards all below. Everybody waits for it, others' buckets too: it is held for
	// moments, never while a state is read.
	mu     sync.Mutex
	dir    *os.Root // nil until the folder was opened
	views  map[string]*view
	closed bool
	// readers counts the results that were not released yet.
	readers int
	// trees are those that a view or a reader uses, or that are leaving.
	trees map[*tree]bool
	// leaving is what was given up and is counted still. Clearing is closed when all of it is
	// gone; nil where nothing is.
	leaving  []left
	clearing chan struct{}
	// fetching is how many fetches are under way.
	fetching int
	// damaged are contents that were found to be others than their names say.
	damaged map[sum]bool
	serial  int // names files that are being written
}

func newRemote(s *Store, key string, c *connection) *remote {
	return &remote{store: s, key: key, connection: c, counting: make(chan struct{}, 1), views: map[string]*view{}, trees: map[*tree]bool{}, damaged: map[sum]bool{}}
}

// view gives what is kept under a name.
func (r *remote) view(name string) *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.viewLocked(name)
}

func (r *remote) viewLocked(name string) *view {
	v := r.views[name]
	if v == nil {
		v = &view{remote: r, name: name, turn: make(chan struct{}, 1)}
		r.views[name] = v
	}
	return v
}

// open opens the folder once, and removes what a killed process has left in it.
func (r *remote) open() error {
	r.mu.Lock()
	there := r.dir != nil && !r.closed
	r.mu.Unlock()
	if there {
		return nil
	}
	defer r.change()()
	r.mu.Lock()
	there, closed := r.dir != nil, r.closed
	r.mu.Unlock()
	if closed {
		return unfollowed()
	}
	if there {
		return nil
	}
	root := r.store.folder.Root()
	if err := root.MkdirAll(r.key, 0o700); err != nil {
		return err
	}
	dir, err := root.OpenRoot(r.key)
	if err != nil {
		return err
	}
	var found map[string]*restored
	err = errors.Join(dir.RemoveAll(incomingFolder), dir.MkdirAll(incomingFolder, 0o700), dir.MkdirAll(contentsFolder, 0o700))
	if err == nil {
		found, err = load(dir)
	}
	if err == nil {
		err = sweep(dir, found)
	}
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.Join(unfollowed(), dir.Close())
	}
	r.dir = dir
	for name, f := range found {
		v := r.viewLocked(name)
		v.ignore = f.ignore
		if f.partial {
			v.partial = &kept{file: v.partialFile()}
		}
		if f.current {
			v.current = r.newTreeLocked(f.revision, v.file(), f.bytes, nil)
		}
	}
	return nil
}

// load reads the views of a folder. What cannot be read is as good as missing.
func load(dir *os.Root) (map[string]*restored, error) {
	found := map[string]*restored{}
	files, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	of := func(name string) *restored {
		if found[name] == nil {
			found[name] = &restored{}
		}
		return found[name]
	}
	for _, f := range files { // partial ones come before the views
		if f.Name() == contentsFolder || f.Name() == incomingFolder {
			continue
		}
		if name, ok := strings.CutPrefix(f.Name(), partialPrefix); ok {
			err = of(name).readPartial(dir, f.Name())
		} else if name, ok := strings.CutPrefix(f.Name(), viewPrefix); ok {
			err = of(name).read(dir, name)
		} else {
			err = dir.RemoveAll(f.Name())
		}
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// sweep removes contents that nothing names. It removes none where that is not known.
func sweep(dir *os.Root, found map[string]*restored) error {
	uses := map[sum]bool{}
	for name, f := range found {
		if f.ignore != nil {
			uses[f.ignore.sum] = true
		}
		for file, there := range map[string]bool{viewPrefix + name: f.current, partialPrefix + name: f.partial} {
			if !there {
				continue
			}
			if _, err := scanFile(dir, file, func(e entry) error {
				uses[e.sum] = true
				return nil
			}); err != nil {
				return nil //nolint:nilerr // who looks at it says so
			}
		}
	}
	return fs.WalkDir(dir.FS(), contentsFolder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var s sum
		if raw, err := hex.DecodeString(d.Name()); err == nil && len(raw) == len(s) {
			s = sum(raw)
		}
		if uses[s] && s.file() == name {
			return nil
		}
		return dir.Remove(name)
	})
}

// close lets go of everything in memory. Trees in use can still be read.
func (r *remote) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.endLocked()
	r.connection.close()
}

// endLocked closes the folder of a closed remote that nobody reads.
func (r *remote) endLocked() {
	if r.closed && r.readers == 0 && r.dir != nil {
		_ = r.dir.Close()
		r.dir = nil
	}
}

// spoil says that a content is not what its name says; the next fetch gets it again.
func (r *remote) spoil(s sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.damaged[s] = true
}

// create opens a new file for a content whose name is not known yet.
func (r *remote) create() (*os.File, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil || r.closed {
		return nil, "", unfollowed()
	}
	name := r.incomingLocked()
	file, err := r.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return file, name, err
}

// incomingLocked names a file that is going to be written.
func (r *remote) incomingLocked() string {
	r.serial++
	return path.Join(incomingFolder, strconv.Itoa(r.serial))
}

// place puts a file that is whole under the name of its content, which it keeps for one
// user.
func (r *remote) place(name string, s sum) error {
	defer r.change()()
	uses := r.count()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil || r.closed {
		return unfollowed()
	}
	if uses[s] > 0 && !r.damaged[s] {
		if err := r.dir.Remove(name); err != nil {
			return err
		}
		uses[s]++
		return nil
	}
	if err := r.dir.MkdirAll(path.Dir(s.file()), 0o700); err != nil {
		return err
	}
	if err := r.dir.Rename(name, s.file()); err != nil {
		return err
	}
	delete(r.damaged, s)
	uses[s]++
	return nil
}

// discard removes a file that did not become whole.
func (r *remote) discard(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil {
		return nil
	}
	if err := r.dir.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// read opens a content.
func (r *remote) read(s sum) (io.ReadCloser, error) {
	r.mu.Lock()
	dir := r.dir
	r.mu.Unlock()
	if dir == nil {
		return nil, fs.ErrClosed
	}
	file, err := dir.Open(s.file())
	if err != nil {
		r.spoil(s)
		var of *fs.PathError
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, err
	}
	return &checked{file: file, hash: sha256.New(), sum: s, remote: r}, nil
}

// retain forgets the views that are not wanted, and tells whether nobody reads. What they kept
// is removed a little later, for that takes a while.
func (r *remote) retain(wanted map[string]bool) (unread bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, v := range r.views {
		if !wanted[name] {
			v.forgetLocked()
			delete(r.views, name)
		}
	}
	unread = r.readers == 0
	if r.dir == nil || unread && wanted == nil {
		return unread, nil // all of it is about to be removed
	}
	r.clearLocked()
	files, err := fs.ReadDir(r.dir.FS(), ".")
	errs := []error{err}
	for _, f := range files {
		name, ok := strings.CutPrefix(f.Name(), viewPrefix)
		if !ok {
			name, ok = strings.CutPrefix(f.Name(), partialPrefix)
		}
		if ok && !wanted[name] {
			errs = append(errs, r.dir.Remove(f.Name()))
		}
	}
	return unread, errors.Join(errs...)
}
