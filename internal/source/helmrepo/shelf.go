package helmrepo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// shelf is the folder of one repository as one credential sees it, or of the charts that
// are packaged from one source.
type shelf struct {
	store *Store
	key   string
	turns turns

	mu sync.Mutex // guards all below; held for a moment only
	// dir is nil until the shelf was opened.
	dir   *os.Root
	state state
	// held counts the readers of files, by name.
	held   map[string]int
	serial int
	closed bool
}

// state is what a shelf knows beside its files. It is written as one file, by renaming,
// before anything is removed that it no longer names.
type state struct {
	Version int `json:"version"`
	// Index is that of the repository; nil where none was fetched.
	Index *indexState `json:"index,omitempty"`
	// Charts are the charts that are followed, by what is followed.
	Charts map[string]chartState `json:"charts"`
}

// indexState describes an index.
type indexState struct {
	// Revision is the digest of the index as it came: sha256:hex.
	Revision string `json:"revision"`
	// ETag and LastModified are what the server gave to ask whether it has changed.
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
	Warning      string `json:"warning,omitempty"`
}

// chartState describes a chart that was got or packaged.
type chartState struct {
	Name string `json:"name"`
	// Version is its version with build metadata: the revision.
	Version string `json:"version"`
	// Digest is that of the packed chart: sha256:hex.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Origin is the digest that the index or the registry had for it; empty without one.
	Origin       string   `json:"origin,omitempty"`
	ValuesFiles  []string `json:"valuesFiles,omitempty"`
	Dependencies int      `json:"dependencies,omitempty"`
	Packaged     bool     `json:"packaged,omitempty"`
}

const (
	stateFile    = "state.json"
	stateNew     = "state.new"
	stateVersion = 1
	indexPrefix  = "index-"
	chartPrefix  = "chart-"
	newPrefix    = "new-"
	// indexBook is the index among what is retained.
	indexBook = "index"
)

// file is the name of the file of an index.
func (s *indexState) file() string { return indexPrefix + strings.TrimPrefix(s.Revision, "sha256:") }

// file is the name of the file of a chart.
func (s chartState) file() string { return chartPrefix + strings.TrimPrefix(s.Digest, "sha256:") }

// names tells whether a file is one that the state needs.
func (s state) names(file string) bool {
	if file == stateFile || s.Index != nil && s.Index.file() == file {
		return true
	}
	for _, c := range s.Charts {
		if c.file() == file {
			return true
		}
	}
	return false
}

// open reads the state once. The caller holds mu.
func (s *shelf) open() error {
	if s.closed {
		return fault(gitops.Transient, ReasonFailed, errors.New("the repository is not followed any more"))
	}
	if s.dir != nil {
		return nil
	}
	root := s.store.folder.Root()
	if err := root.Mkdir(s.key, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := root.OpenRoot(s.key)
	if err != nil {
		return err
	}
	s.dir, s.state = dir, readState(dir)
	return s.sweep()
}

// readState reads the state. One with any fault is as good as an empty one.
func readState(dir *os.Root) state {
	empty := state{Version: stateVersion, Charts: map[string]chartState{}}
	data, err := dir.ReadFile(stateFile)
	if err != nil {
		return empty
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil || s.Version != stateVersion {
		return empty
	}
	if s.Charts == nil {
		s.Charts = map[string]chartState{}
	}
	if s.Index != nil && !exists(dir, s.Index.file()) {
		s.Index = nil
	}
	maps.DeleteFunc(s.Charts, func(_ string, c chartState) bool { return !exists(dir, c.file()) })
	return s
}

func exists(dir *os.Root, name string) bool {
	info, err := dir.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// write replaces the state, and removes files that it does not name, also those that came for
// one that cannot be written. The caller holds mu.
func (s *shelf) write(next state) error {
	data, err := json.Marshal(next)
	if err == nil {
		err = s.dir.WriteFile(stateNew, data, 0o600)
	}
	if err == nil {
		err = s.dir.Rename(stateNew, stateFile)
	}
	if err == nil {
		s.state = next
	}
	return errors.Join(err, s.sweep())
}

// sweep removes what neither the state nor a reader needs. The caller holds mu.
func (s *shelf) sweep() error {
	entries, err := fs.ReadDir(s.dir.FS(), ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !s.state.names(e.Name()) && s.held[e.Name()] == 0 {
			errs = append(errs, s.dir.RemoveAll(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// hold keeps a file until the function that it returns is called, which may be more than
// once. The caller holds mu.
func (s *shelf) hold(file string) func() {
	s.held[file]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[file]--; s.held[file] > 0 {
			return
		}
		delete(s.held, file)
		if s.dir != nil && !s.state.names(file) {
			_ = s.dir.RemoveAll(file) // else it goes with the next sweep
		}
	})
}

// openFile opens a file that is held.
func (s *shelf) openFile(name string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return nil, err
	}
	return s.dir.Open(name)
}

// create makes a file for something new. It is gone after done, unless it was renamed.
func (s *shelf) create() (file *os.File, name string, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return nil, "", nil, err
	}
	s.serial++
	name = fmt.Sprintf("%s%06d", newPrefix, s.serial)
	if file, err = s.dir.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, "", nil, err
	}
	leave := s.hold(name)
	return file, name, func() { _ = file.Close(); leave() }, nil
}

// setIndex replaces the index by the one in a new file, or only what is known of it where
// the file is "".
func (s *shelf) setIndex(file string, index indexState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return err
	}
	if file != "" {
		if err := s.dir.Rename(file, index.file()); err != nil {
			return err
		}
	}
	next := s.clone()
	next.Index = &index
	return s.write(next)
}

// dropIndex forgets an index that is found damaged.
func (s *shelf) dropIndex(revision string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == nil || s.state.Index == nil || s.state.Index.Revision != revision {
		return
	}
	next := s.clone()
	next.Index = nil
	if s.write(next) != nil {
		s.state = next // the next start finds it damaged again
	}
}

func (s *shelf) clone() state {
	next := s.state
	next.Charts = maps.Clone(next.Charts)
	return next
}

// index gives what is known of the index, and holds its file.
func (s *shelf) index() (*indexState, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil || s.state.Index == nil {
		return nil, nil, err
	}
	return s.state.Index, s.hold(s.state.Index.file()), nil
}

// sizeOf is the length of a file that is held; 0 where it is not there.
func (s *shelf) sizeOf(file string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == nil {
		return 0
	}
	info, err := s.dir.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// chart gives the chart of what is followed, and holds its file.
func (s *shelf) chart(book string) (c chartState, release func(), ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return chartState{}, nil, false, err
	}
	if c, ok = s.state.Charts[book]; ok {
		release = s.hold(c.file())
	}
	return c, release, ok, nil
}

// same gives a chart that somebody else follows and that is as it came, with a digest.
func (s *shelf) same(name, version, origin string) (c chartState, release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	books := slices.Sorted(maps.Keys(s.state.Charts))
	for _, book := range books {
		c := s.state.Charts[book]
		if origin != "" && !c.Packaged && c.Name == name && c.Version == version && c.Origin == origin {
			return c, s.hold(c.file()), true
		}
	}
	return chartState{}, nil, false
}

// setChart makes a chart the one of what is followed. Its file is a new one, or "" where it
// is there already. It is held.
func (s *shelf) setChart(book, file string, c chartState) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return nil, err
	}
	if file != "" {
		if err := s.dir.Rename(file, c.file()); err != nil {
			return nil, err
		}
	}
	next := s.clone()
	next.Charts[book] = c
	if err := s.write(next); err != nil {
		return nil, err
	}
	return s.hold(c.file()), nil
}

// forgetDamaged forgets a chart whose file is not any more what was stored, so that it is
// got again. A full disk is no reason to forget it.
func (s *shelf) forgetDamaged(c chartState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == nil || s.whole(c) {
		return
	}
	next := s.clone()
	maps.DeleteFunc(next.Charts, func(_ string, other chartState) bool { return other.file() == c.file() })
	if s.write(next) != nil {
		s.state = next
	}
}

// whole tells whether the file of a chart has its digest. The caller holds mu.
func (s *shelf) whole(c chartState) bool {
	file, err := s.dir.Open(c.file())
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return err != nil || "sha256:"+hex.EncodeToString(sum.Sum(nil)) == c.Digest
}

// retain forgets what is not followed any more, and tells whether somebody reads a file.
func (s *shelf) retain(books map[string]bool) (busy bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return false, err
	}
	next := s.clone()
	maps.DeleteFunc(next.Charts, func(book string, _ chartState) bool { return !books[book] })
	if !books[indexBook] {
		next.Index = nil
	}
	if len(next.Charts) == len(s.state.Charts) && next.Index == s.state.Index {
		return len(s.held) > 0, nil
	}
	return len(s.held) > 0, s.write(next)
}

// close lets go of the folder.
func (s *shelf) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.dir == nil {
		return nil
	}
	err := s.dir.Close()
	s.dir = nil
	return err
}

// packed opens the file of a chart that is held, wherever its shelf is.
func (s *shelf) packed(c chartState) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return s.openFile(c.file()) }
}
