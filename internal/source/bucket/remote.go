package bucket

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
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

	mu     sync.Mutex // guards all below; held for moments, and while the folder is opened
	dir    *os.Root   // nil until the folder was opened
	views  map[string]*view
	closed bool
	// readers counts the results that were not released yet.
	readers int
	// trees are those that a view or a reader uses.
	trees map[*tree]bool
	// uses counts for each content who needs it: views, trees and fetches. What has no use
	// has no file. It is nil while nothing changes: see usesLocked.
	uses map[sum]int
	// uncounted is set where a state could not be read, so that nothing is removed.
	uncounted bool
	// fetching is how many fetches are under way.
	fetching int
	// damaged are contents that were found to be others than their names say.
	damaged map[sum]bool
	serial  int // names files that are being written
}

func newRemote(s *Store, key string, c *connection) *remote {
	return &remote{store: s, key: key, connection: c, views: map[string]*view{}, trees: map[*tree]bool{}, damaged: map[sum]bool{}}
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
		r.unloadLocked()
		return errors.Join(err, dir.Close())
	}
	return nil
}

// unloadLocked forgets what was read of the folder.
func (r *remote) unloadLocked() {
	clear(r.trees)
	r.uses = nil
	for _, v := range r.views {
		v.current, v.ignore, v.partial = nil, nil, false
	}
}

// load reads the views. What cannot be read is as good as missing, and what was read before
// the folder could not be opened to the end is read again.
func (r *remote) load() error {
	r.unloadLocked()
	files, err := fs.ReadDir(r.dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, f := range files { // partial ones come before the views
		if f.Name() == contentsFolder || f.Name() == incomingFolder {
			continue
		}
		if name, ok := strings.CutPrefix(f.Name(), partialPrefix); ok {
			err = r.viewLocked(name).restorePartialLocked()
		} else if name, ok := strings.CutPrefix(f.Name(), viewPrefix); ok {
			err = r.viewLocked(name).restoreLocked()
		} else {
			err = r.dir.RemoveAll(f.Name())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep removes contents that nothing names.
func (r *remote) sweep() error {
	uses := r.usesLocked()
	defer r.idleLocked()
	if r.uncounted {
		return nil
	}
	return fs.WalkDir(r.dir.FS(), contentsFolder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var s sum
		if raw, err := hex.DecodeString(d.Name()); err == nil && len(raw) == len(s) {
			s = sum(raw)
		}
		if uses[s] > 0 && s.file() == name {
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

// usesLocked counts who needs which content, unless that is known: it is counted when something
// is about to change, and forgotten when nothing does, for it takes much memory.
func (r *remote) usesLocked() map[sum]int {
	if r.uses != nil {
		return r.uses
	}
	r.uses, r.uncounted = map[sum]int{}, false
	count := func(e entry) error {
		r.uses[e.sum]++
		return nil
	}
	for t := range r.trees {
		if _, err := r.scanLocked(t.file, count); err != nil {
			t.broken, r.uncounted = true, true
		}
	}
	for _, v := range r.views {
		if v.ignore != nil {
			r.uses[v.ignore.sum]++
		}
		if v.partial {
			if _, err := r.scanLocked(v.partialFile(), count); err != nil {
				r.uncounted = true
			}
		}
	}
	return r.uses
}

// idleLocked forgets what is counted where no fetch needs it.
func (r *remote) idleLocked() {
	if r.fetching == 0 {
		r.uses = nil
	}
}

// fetchBegins and fetchEnds say when contents may have uses that no file names.
func (r *remote) fetchBegins() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching++
}

func (r *remote) fetchEnds() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching--
	r.idleLocked()
}

// dropLocked gives a content up for one user.
func (r *remote) dropLocked(e entry) {
	uses := r.usesLocked()
	if uses[e.sum]--; uses[e.sum] > 0 {
		return
	}
	delete(uses, e.sum)
	delete(r.damaged, e.sum)
	if r.dir != nil && !r.uncounted {
		_ = r.dir.Remove(e.sum.file()) // what is left is swept when the folder is opened next
	}
}

// dropFileLocked gives up what a file names, and removes it; gone forgets whose it is.
func (r *remote) dropFileLocked(name string, gone func()) {
	if r.dir == nil {
		gone()
		return
	}
	r.usesLocked() // with the file's own
	_, _ = r.scanLocked(name, func(e entry) error {
		r.dropLocked(e)
		return nil
	})
	gone()
	_ = r.dir.Remove(name) // else it goes when the folder is opened next
}

// drop gives up contents that a fetch has brought.
func (r *remote) drop(entries []entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.dropLocked(e)
	}
}

// spoil says that a content is not what its name says; the next fetch gets it again.
func (r *remote) spoil(s sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.damaged[s] = true
}

// reuse gives the contents that are there of objects, which are in the order of their keys,
// each for one use, and the objects of which there is none.
func (r *remote) reuse(objects []object) (entries []entry, missing []object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil {
		return nil, objects
	}
	uses, found := r.usesLocked(), make([]bool, len(objects))
	take := func(e entry) error {
		i, ok := slices.BinarySearchFunc(objects, e.key, func(o object, key string) int { return strings.Compare(o.key, key) })
		if !ok || found[i] || e.etag == "" || objects[i].etag != e.etag || uses[e.sum] == 0 || r.damaged[e.sum] {
			return nil
		}
		uses[e.sum]++
		found[i] = true
		entries = append(entries, entry{key: objects[i].key, etag: objects[i].etag, size: e.size, sum: e.sum})
		return nil
	}
	for _, v := range r.views {
		// What cannot be read is fetched again.
		if v.ignore != nil {
			_ = take(*v.ignore)
		}
		if v.current != nil {
			_, _ = r.scanLocked(v.current.file, take)
		}
		if v.partial {
			_, _ = r.scanLocked(v.partialFile(), take)
		}
	}
	for i, o := range objects {
		if !found[i] {
			missing = append(missing, o)
		}
	}
	return entries, missing
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
	uses := r.usesLocked()
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

// retain forgets the views that are not wanted, and tells whether nobody reads.
func (r *remote) retain(wanted map[string]bool) (unread bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.idleLocked()
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
		name, ok := strings.CutPrefix(f.Name(), viewPrefix)
		if !ok {
			name, ok = strings.CutPrefix(f.Name(), partialPrefix)
		}
		if ok && !wanted[name] {
			errs = append(errs, r.dir.Remove(f.Name()))
		}
	}
	return r.readers == 0, errors.Join(errs...)
}
