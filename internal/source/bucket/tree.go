package bucket

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// tree is a gitops.Tree over contents on disk. It never changes.
type tree struct {
	remote   *remote
	revision string
	// entries are the files, in the order of their keys.
	entries []entry
	dirs    map[string]*directory

	// users counts the view and the readers; guarded by the remote's mutex.
	users int
}

// directory lists what stands in a directory, in the order of the names.
type directory struct {
	children []child
	sum      string
}

// child is a file, or a directory where entry is nil.
type child struct {
	name  string
	entry *entry
}

// newTree makes a tree with one user, who hands over one use of each content. The keys
// have been checked; it is an error where one is there twice, or as file and directory.
func newTree(r *remote, revision string, entries []entry) (*tree, error) {
	t := &tree{remote: r, revision: revision, entries: entries, users: 1, dirs: map[string]*directory{".": {}}}
	for i := range entries {
		e := &entries[i]
		dir, name := split(e.key)
		d, err := t.directory(dir)
		if err != nil {
			return nil, err
		}
		d.children = append(d.children, child{name: name, entry: e})
	}
	for at, d := range t.dirs {
		slices.SortFunc(d.children, func(a, b child) int { return cmp.Compare(a.name, b.name) })
		for i := 1; i < len(d.children); i++ {
			if d.children[i].name == d.children[i-1].name {
				return nil, fmt.Errorf("%q is there twice in %q", d.children[i].name, at)
			}
		}
	}
	t.sum(".")
	return t, nil
}

func split(key string) (dir, name string) {
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		return key[:i], key[i+1:]
	}
	return ".", key
}

func (t *tree) directory(at string) (*directory, error) {
	if d := t.dirs[at]; d != nil {
		return d, nil
	}
	if len(t.dirs) >= mostDirectories {
		return nil, fmt.Errorf("they make more than %d directories; exclude some in ignore, or follow a prefix", mostDirectories)
	}
	above, name := split(at)
	parent, err := t.directory(above)
	if err != nil {
		return nil, err
	}
	parent.children = append(parent.children, child{name: name})
	d := &directory{}
	t.dirs[at] = d
	return d, nil
}

func below(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

func (t *tree) sum(at string) string {
	d, h := t.dirs[at], sha256.New()
	for _, c := range d.children {
		of := ""
		if c.entry == nil {
			of = t.sum(below(at, c.name))
		} else {
			of = c.entry.contentSum()
		}
		_, _ = fmt.Fprintf(h, "%s\x00%s\x00", c.name, of)
	}
	d.sum = "dir:" + hex.EncodeToString(h.Sum(nil))
	return d.sum
}

func (e *entry) contentSum() string { return "file:" + e.sum.String() }

// useLocked counts a reader more.
func (t *tree) useLocked() {
	t.users++
	t.remote.readers++
}

// giveLocked counts a user less.
func (t *tree) giveLocked() {
	if t.users--; t.users == 0 {
		t.remote.dropLocked(t.entries)
	}
}

// release counts a reader less.
func (t *tree) release() {
	r := t.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	t.giveLocked()
	r.readers--
	r.endLocked()
}

// damagedLocked tells whether a content was found to be damaged.
func (t *tree) damagedLocked() bool {
	return len(t.remote.damaged) > 0 && slices.ContainsFunc(t.entries, func(e entry) bool { return t.remote.damaged[e.sum] })
}

// lookup finds a file, or a directory.
func (t *tree) lookup(op, name string) (*entry, *directory, error) {
	if !fs.ValidPath(name) {
		return nil, nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if d := t.dirs[name]; d != nil {
		return nil, d, nil
	}
	dir, base := split(name)
	if d := t.dirs[dir]; d != nil {
		i, ok := slices.BinarySearchFunc(d.children, base, func(c child, name string) int { return cmp.Compare(c.name, name) })
		if ok {
			return d.children[i].entry, nil, nil
		}
	}
	return nil, nil, source.NotExist(op, name)
}

func (e *entry) info() source.Info {
	_, name := split(e.key)
	return source.FileInfo(name, false, func() (int64, error) { return e.size, nil })
}

func (d *directory) list() []fs.DirEntry {
	entries := make([]fs.DirEntry, len(d.children))
	for i, c := range d.children {
		if c.entry == nil {
			entries[i] = source.DirInfo(c.name)
		} else {
			entries[i] = c.entry.info()
		}
	}
	return entries
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
		return d.sum, nil
	}
	return e.contentSum(), nil
}

// FindFiles gives the paths of all files with a name, a directory's own before those
// below it.
func (t *tree) FindFiles(name string) ([]string, error) { return t.find(".", name), nil }

func (t *tree) find(at, name string) []string {
	var found []string
	d := t.dirs[at]
	for _, c := range d.children {
		if c.entry != nil && c.name == name {
			found = append(found, c.entry.key)
		}
	}
	for _, c := range d.children {
		if c.entry == nil {
			found = append(found, t.find(below(at, c.name), name)...)
		}
	}
	return found
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
