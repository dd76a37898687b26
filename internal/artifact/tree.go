package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"time"
)

// memory is a tree of files whose names and sums are in memory.
type memory struct {
	// table gives the files and directories.
	table func() (*table, error)
	// forget has the table dropped, where nobody uses the tree any more.
	forget func()
	// open opens the content of a file.
	open func(at, size int64) (io.ReadCloser, error)
	// refused is why there are no files, where there cannot be any.
	refused error
}

// unreadable is a tree whose every use says why there are no files.
func unreadable(why string) *memory { return &memory{refused: errors.New(why), forget: func() {}} }

// contents are files whose content is in memory.
type contents struct {
	listing
	all [][]byte
}

// add enters a file.
func (c *contents) add(name string, content []byte, executable bool) error {
	c.all = append(c.all, content)
	return c.listing.add(name, listed{executable: executable, size: int64(len(content)), sum: sha256.Sum256(content), at: int64(len(c.all) - 1)})
}

// tree makes the tree of them.
func (c *contents) tree() (*memory, error) {
	made, err := c.lay()
	if err != nil {
		return nil, err
	}
	all := c.all
	return &memory{
		table: func() (*table, error) { return made, nil }, forget: func() {},
		open: func(at, _ int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(all[at])), nil },
	}, nil
}

// root is the sum of all.
func (t *table) root() [sha256.Size]byte { return t.nodes[0].sum }

// sumDirectory sums a directory whose entries have their sums.
func (t *table) sumDirectory(at int) {
	h := sha256.New()
	for _, e := range (memoryFile{in: t, at: at}).entries() {
		_, _ = fmt.Fprintf(h, "%s\x00%s\x00", e.Name(), e.sum())
	}
	h.Sum(t.nodes[at].sum[:0])
}

// memoryFile is a file or a directory of a memory.
type memoryFile struct {
	of *memory
	in *table
	at int
}

func (f memoryFile) node() *node { return &f.in.nodes[f.at] }

// sum is that of gitops.Tree.
func (f memoryFile) sum() string {
	n := f.node()
	return [...]string{kindFile: "file:", kindExecutable: "executable:", kindDirectory: "dir:"}[n.kind] + hex.EncodeToString(n.sum[:])
}

// entries are those of a directory.
func (f memoryFile) entries() []memoryFile {
	dir := f.node()
	entries := make([]memoryFile, dir.size)
	for i := range entries {
		entries[i] = memoryFile{f.of, f.in, int(dir.at) + i}
	}
	return entries
}

// list gives the entries of a directory.
func (f memoryFile) list() []fs.DirEntry {
	entries := f.entries()
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = e
	}
	return list
}

func (m *memory) find(op, name string) (memoryFile, error) {
	if !fs.ValidPath(name) {
		return memoryFile{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if m.refused != nil {
		return memoryFile{}, &fs.PathError{Op: op, Path: name, Err: m.refused}
	}
	in, err := m.table()
	if err != nil {
		return memoryFile{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	at := memoryFile{m, in, 0}
	if name == "." {
		return at, nil
	}
	for element := range strings.SplitSeq(name, "/") {
		dir := at.node()
		if dir.kind != kindDirectory {
			return memoryFile{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		i, found := sort.Find(int(dir.size), func(i int) int {
			return strings.Compare(element, memoryFile{m, in, int(dir.at) + i}.Name())
		})
		if !found {
			return memoryFile{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		at.at = int(dir.at) + i
	}
	return at, nil
}

// Sum implements gitops.Tree.
func (m *memory) Sum(name string) (string, error) {
	f, err := m.find("sum", name)
	if err != nil {
		return "", err
	}
	return f.sum(), nil
}

// mostReadFile is the largest file that ReadFile reads, in bytes, as of other sources. Open
// has no such bound: it holds nothing of a file.
const mostReadFile = 64 << 20

// ReadFile implements gitops.Tree. A file of more than mostReadFile bytes is an error.
func (m *memory) ReadFile(name string) ([]byte, error) {
	f, err := m.find("read", name)
	if err != nil {
		return nil, err
	}
	if f.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	if f.Size() > mostReadFile {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it has %d bytes, at most %d are read of a file", f.Size(), mostReadFile)}
	}
	in, err := f.content()
	if err != nil {
		return nil, err
	}
	content := make([]byte, f.Size())
	_, err = io.ReadFull(in, content)
	if err = errors.Join(own(err), in.Close()); err != nil {
		return nil, err
	}
	return content, nil
}

// ReadDir implements gitops.Tree.
func (m *memory) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := m.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !f.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return f.list(), nil
}

// Stat implements gitops.Tree.
func (m *memory) Stat(name string) (fs.FileInfo, error) {
	f, err := m.find("stat", name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open implements gitops.Tree.
func (m *memory) Open(name string) (fs.File, error) {
	f, err := m.find("open", name)
	if err != nil {
		return nil, err
	}
	o := &openMemory{memoryFile: f, path: name, left: f.Size()}
	if f.IsDir() {
		o.rest = f.list()
	} else if o.content, err = f.content(); err != nil {
		return nil, err
	}
	return o, nil
}

// content opens the content of a file.
func (f memoryFile) content() (io.ReadCloser, error) { return f.of.open(f.node().at, f.node().size) }

// Name is the last element of the path.
func (f memoryFile) Name() string {
	n := f.node()
	return f.in.names[n.name:][:n.length]
}

// Size is the length of a file; 0 for a directory.
func (f memoryFile) Size() int64 {
	if f.IsDir() {
		return 0
	}
	return f.node().size
}

func (f memoryFile) IsDir() bool                { return f.node().kind == kindDirectory }
func (f memoryFile) ModTime() time.Time         { return time.Time{} }
func (f memoryFile) Sys() any                   { return nil }
func (f memoryFile) Type() fs.FileMode          { return f.Mode().Type() }
func (f memoryFile) Info() (fs.FileInfo, error) { return f, nil }
func (f memoryFile) Mode() fs.FileMode {
	switch f.node().kind {
	case kindDirectory:
		return fs.ModeDir | 0o755
	case kindExecutable:
		return 0o755
	default:
		return 0o644
	}
}

// openMemory is an open file or directory.
type openMemory struct {
	memoryFile
	path    string
	content io.ReadCloser // of a file
	left    int64         // how much of it was not read
	rest    []fs.DirEntry // of a directory
}

func (o *openMemory) Stat() (fs.FileInfo, error) { return o.memoryFile, nil }

func (o *openMemory) Close() error {
	if o.content == nil {
		return nil
	}
	return own(o.content.Close())
}

func (o *openMemory) Read(p []byte) (int, error) {
	if o.IsDir() {
		return 0, &fs.PathError{Op: "read", Path: o.path, Err: errors.New("is a directory")}
	}
	n, err := o.content.Read(p)
	if o.left -= int64(n); errors.Is(err, io.EOF) && o.left > 0 {
		err = io.ErrUnexpectedEOF // the content file lost its end
	}
	return n, own(err)
}

// ReadDir lists the next n entries, all that are left where n is not positive.
func (o *openMemory) ReadDir(n int) ([]fs.DirEntry, error) {
	if !o.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: o.path, Err: errors.New("not a directory")}
	}
	if n <= 0 {
		n = len(o.rest)
	} else if len(o.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(o.rest))
	entries := o.rest[:n]
	o.rest = o.rest[n:]
	return slices.Clone(entries), nil
}
