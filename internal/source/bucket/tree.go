package bucket

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/paging"
	"github.com/plumb-gitops/plumb/internal/source"
)

// tree is a gitops.Tree over contents on disk. It never changes. What it has is in a file, and
// in memory while it is looked at.
type tree struct {
	remote   *remote
	revision string
	paged    *paging.Table[table]
	// bytes are about those that all files and the state take on the disk.
	bytes int64

	// All below is guarded by the remote's mutex.

	kept
	// users counts the view and the readers.
	users int
	// broken is set when the file is found to be damaged.
	broken bool
}

// newTreeLocked makes a tree with one user, who hands over one use of each content that the
// file names. The table may be nil.
func (r *remote) newTreeLocked(revision, file string, bytes int64, made *table) *tree {
	t := &tree{remote: r, revision: revision, kept: kept{file: file}, bytes: bytes, users: 1}
	t.paged = r.store.tables.Keep(made, t.load)
	r.trees[t] = true
	return t
}

// smallState is how many bytes a state has at most of which any number is read at once.
const smallState = 1 << 20

// load reads the table from the file.
func (t *tree) load() (*table, error) {
	r := t.remote
	file, err := r.openState(&t.kept)
	if errors.Is(err, fs.ErrClosed) {
		return nil, err
	}
	if err != nil {
		return nil, t.unread(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Size() > smallState {
		r.store.loading.Lock()
		defer r.store.loading.Unlock()
	}
	var entries []entry
	s, err := scan(file, func(e entry) error {
		e.etag = ""
		entries = append(entries, e)
		return nil
	})
	if err == nil && s.revision != t.revision {
		err = errors.New("it is of another revision")
	}
	if err != nil {
		return nil, t.unread(err)
	}
	made, err := newTable(entries)
	if err != nil {
		return nil, t.unread(err)
	}
	return made, nil
}

// unread is the error of a state that cannot be read. One that is damaged is not kept.
func (t *tree) unread(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data folder: %w", of.Err)
	}
	t.remote.mu.Lock()
	t.broken = true
	t.remote.mu.Unlock()
	return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: ReasonFailed, Cause: errors.New("what is kept of the bucket is damaged; it is fetched again")}
}

// useLocked counts a reader more.
func (t *tree) useLocked() {
	t.users++
	t.remote.readers++
}

// release counts a reader less. What nobody uses any more is removed a little later.
func (t *tree) release() {
	r := t.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.users > 1 {
		t.users--
	} else {
		r.leaveLocked(left{tree: t})
		r.clearLocked()
	}
	r.readers--
	r.endLocked()
}

// damaged tells whether a content, or what says which there are, was found to be damaged. The
// caller uses the tree.
func (t *tree) damaged() bool {
	r := t.remote
	r.mu.Lock()
	broken, damaged := t.broken, maps.Clone(r.damaged)
	r.mu.Unlock()
	if broken || len(damaged) == 0 {
		return broken
	}
	found := false
	_, err := r.scan(&t.kept, func(e entry) error {
		found = found || damaged[e.sum]
		return nil
	})
	return found || err != nil
}

// lookup finds a file, or a directory.
func (t *tree) lookup(op, name string) (*entry, *directory, error) {
	if !fs.ValidPath(name) {
		return nil, nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	all, err := t.paged.Get()
	if err != nil {
		return nil, nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return all.lookup(op, name)
}

// Open opens a file or directory.
func (t *tree) Open(name string) (fs.File, error) {
	e, d, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if d != nil {
		_, base := split(name)
		return source.OpenDir(source.DirInfo(base), d.list()), nil
	}
	in, err := t.remote.read(e.sum)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return source.OpenFile(e.info(), in), nil
}

// ReadFile reads a file, of no more bytes than Options.FileBytes.
func (t *tree) ReadFile(name string) ([]byte, error) {
	e, d, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if d != nil {
		return nil, source.IsDirectory("read", name)
	}
	if most := t.remote.store.options.FileBytes; e.size > most {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("the file has %d bytes, at most %d are read at once", e.size, most)}
	}
	text, err := t.remote.content(e)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return text, nil
}

// content reads a content.
func (r *remote) content(e *entry) ([]byte, error) {
	in, err := r.read(e.sum)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var text bytes.Buffer
	text.Grow(int(e.size) + bytes.MinRead)
	if _, err = text.ReadFrom(io.LimitReader(in, e.size+1)); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// ReadDir lists a directory.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	_, d, err := t.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, source.NotDirectory("readdir", name)
	}
	return d.list(), nil
}

// Stat describes a file or directory.
func (t *tree) Stat(name string) (fs.FileInfo, error) {
	e, d, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	if d != nil {
		_, base := split(name)
		return source.DirInfo(base), nil
	}
	return e.info(), nil
}

// Sum is the sum of the content of a file, or of all names and sums of a directory.
func (t *tree) Sum(name string) (string, error) {
	e, d, err := t.lookup("sum", name)
	if err != nil {
		return "", err
	}
	if d != nil {
		return d.contentSum(), nil
	}
	return e.contentSum(), nil
}

// FindFiles gives the paths of all files with a name, a directory's own before those
// below it.
func (t *tree) FindFiles(name string) ([]string, error) {
	all, err := t.paged.Get()
	if err != nil {
		return nil, err
	}
	return all.find(".", name), nil
}

// checked reads a content and compares it with its name.
type checked struct {
	file   *os.File
	hash   hash.Hash
	sum    sum
	remote *remote
}

// Read gives bytes of the content. That they are other ones than were fetched is seen at
// the end.
func (c *checked) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	c.hash.Write(p[:n])
	if err == io.EOF && sum(c.hash.Sum(nil)) != c.sum { //nolint:errorlint // readers return the end itself
		c.remote.spoil(c.sum)
		return n, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: ReasonFailed, Cause: errDamaged()}
	}
	var of *fs.PathError
	if errors.As(err, &of) {
		err = fmt.Errorf("data folder: %w", of.Err)
	}
	return n, err
}

func errDamaged() error {
	return errors.New("what is kept of an object is damaged; it is fetched again")
}

// Close ends reading.
func (c *checked) Close() error { return c.file.Close() }
