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

// version tells an object's contents apart.
type version struct{ key, etag string }

// In the folder of a remote are the contents, files that are being written, and for
// each view a file that names its entries.
const (
	contentsFolder = "contents"
	incomingFolder = "incoming"
	viewPrefix     = "view-"
)

// remote is what is kept of one bucket as one credential sees it.
type remote struct {
	store      *Store
	key        string
	connection *connection

	mu     sync.Mutex // guards all below; held for moments, and while the folder is opened
	dir    *os.Root   // nil until the folder was opened
	views  map[string]*view
	closed bool
	// readers counts the results that were not released yet.
	readers int
	// uses counts for each content who needs it: views, trees and fetches. What has no
	// use has no file.
	uses map[sum]int
	// damaged are contents that were found to be others than their names say.
	damaged map[sum]bool
	serial  int // names files that are being written
}

func newRemote(s *Store, key string, c *connection) *remote {
	return &remote{store: s, key: key, connection: c, views: map[string]*view{}, uses: map[sum]int{}, damaged: map[sum]bool{}}
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
	defer r.mu.Unlock()
	if r.closed {
		return unfollowed()
	}
	if r.dir != nil {
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
	r.dir = dir
	err = errors.Join(dir.RemoveAll(incomingFolder), dir.MkdirAll(incomingFolder, 0o700), dir.MkdirAll(contentsFolder, 0o700))
	if err == nil {
		err = r.load()
	}
	if err == nil {
		err = r.sweep()
	}
	if err != nil {
		r.dir = nil
		return errors.Join(err, dir.Close())
	}
	return nil
}

// load reads the views. What cannot be read is as good as missing, and what was read before
// the folder could not be opened to the end is read again.
func (r *remote) load() error {
	clear(r.uses)
	for _, v := range r.views {
		v.current, v.ignore, v.partial = nil, nil, nil
	}
	files, err := fs.ReadDir(r.dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, f := range files {
		name, ok := strings.CutPrefix(f.Name(), viewPrefix)
		if f.Name() == contentsFolder || f.Name() == incomingFolder {
			continue
		}
		var kept state
		if ok {
			kept, err = readState(r.dir, f.Name())
		}
		if !ok || err != nil {
			if err := r.dir.RemoveAll(f.Name()); err != nil {
				return err
			}
			continue
		}
		r.viewLocked(name).restore(kept)
	}
	return nil
}

// sweep removes contents that nothing names.
func (r *remote) sweep() error {
	return fs.WalkDir(r.dir.FS(), contentsFolder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var s sum
		if raw, err := hex.DecodeString(d.Name()); err == nil && len(raw) == len(s) {
			s = sum(raw)
		}
		if r.uses[s] > 0 && s.file() == name {
			return nil
		}
		return r.dir.Remove(name)
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

// take keeps a content for one more user. It is false where the content is not there,
// or was found to be damaged.
func (r *remote) take(s sum) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses[s] == 0 || r.damaged[s] {
		return false
	}
	r.uses[s]++
	return true
}

// dropLocked gives contents up for one user.
func (r *remote) dropLocked(entries []entry) {
	for _, e := range entries {
		if r.uses[e.sum]--; r.uses[e.sum] > 0 {
			continue
		}
		delete(r.uses, e.sum)
		delete(r.damaged, e.sum)
		if r.dir != nil {
			_ = r.dir.Remove(e.sum.file()) // what is left is swept when the folder is opened next
		}
	}
}

// spoil says that a content is not what its name says; the next fetch gets it again.
func (r *remote) spoil(s sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses[s] > 0 {
		r.damaged[s] = true
	}
}

// kept are the entries of all views, by what they are the content of.
func (r *remote) kept() map[version]entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[version]entry{}
	for _, v := range r.views {
		for _, e := range v.entriesLocked() {
			if !r.damaged[e.sum] {
				all[version{e.key, e.etag}] = e
			}
		}
	}
	return all
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
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil || r.closed {
		return unfollowed()
	}
	if r.uses[s] > 0 && !r.damaged[s] {
		if err := r.dir.Remove(name); err != nil {
			return err
		}
		r.uses[s]++
		return nil
	}
	if err := r.dir.MkdirAll(path.Dir(s.file()), 0o700); err != nil {
		return err
	}
	if err := r.dir.Rename(name, s.file()); err != nil {
		return err
	}
	delete(r.damaged, s)
	r.uses[s]++
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

// retain forgets the views that are not wanted, and tells whether nobody reads.
func (r *remote) retain(wanted map[string]bool) (unread bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, v := range r.views {
		if !wanted[name] {
			v.forgetLocked()
			delete(r.views, name)
		}
	}
	if r.dir == nil {
		return r.readers == 0, nil
	}
	files, err := fs.ReadDir(r.dir.FS(), ".")
	errs := []error{err}
	for _, f := range files {
		if name, ok := strings.CutPrefix(f.Name(), viewPrefix); ok && !wanted[name] {
			errs = append(errs, r.dir.Remove(f.Name()))
		}
	}
	return r.readers == 0, errors.Join(errs...)
}
