package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// memory is a tree of files whose names and sums are in memory.
type memory struct {
	fsys map[string]*memoryFile
	sums map[string]string
	// refused is why there are no files, where there cannot be any.
	refused error
}

// memoryFile is a file or a directory.
type memoryFile struct {
	name string // its path
	// open opens the content, which has size bytes; sum is that of it, in hexadecimal.
	open       func() (io.ReadCloser, error)
	sum        string
	size       int64
	executable bool
	isDir      bool
	entries    []fs.DirEntry
}

// unreadable is a tree whose every use says why there are no files.
func unreadable(why string) *memory {
	m := newMemory()
	m.refused = errors.New(why)
	return m
}

func newMemory() *memory {
	return &memory{fsys: map[string]*memoryFile{".": {name: ".", isDir: true}}, sums: map[string]string{}}
}

// add enters a file whose content is in memory.
func (m *memory) add(name string, content []byte, executable bool) error {
	sum := sha256.Sum256(content)
	return m.file(&memoryFile{
		name: name, executable: executable, size: int64(len(content)), sum: hex.EncodeToString(sum[:]),
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	})
}

// file enters a file and the directories that lead to it.
func (m *memory) file(f *memoryFile) error {
	name := f.name
	if _, twice := m.fsys[name]; twice {
		return fmt.Errorf("%q is in it twice", name)
	}
	if len(m.fsys) >= maxReadFiles {
		return fmt.Errorf("more than %d files", maxReadFiles)
	}
	return m.enter(f)
}

func (m *memory) enter(file *memoryFile) error {
	m.fsys[file.name] = file
	dir := path.Dir(file.name)
	parent := m.fsys[dir]
	if parent == nil {
		parent = &memoryFile{name: dir, isDir: true}
		if err := m.enter(parent); err != nil {
			return err
		}
	}
	if !parent.isDir {
		return fmt.Errorf("%q is a file and a directory", dir)
	}
	parent.entries = append(parent.entries, fs.FileInfoToDirEntry(file))
	return nil
}

// finish orders the directories and sums everything.
func (m *memory) finish() {
	for _, f := range m.fsys {
		slices.SortFunc(f.entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
	m.sum(m.fsys["."])
}

func (m *memory) sum(f *memoryFile) string {
	switch {
	case f.isDir:
		h := sha256.New()
		for _, entry := range f.entries {
			_, _ = fmt.Fprintf(h, "%s\x00%s\x00", entry.Name(), m.sum(m.fsys[path.Join(f.name, entry.Name())]))
		}
		m.sums[f.name] = "dir:" + hex.EncodeToString(h.Sum(nil))
	case f.executable:
		m.sums[f.name] = "executable:" + f.sum
	default:
		m.sums[f.name] = "file:" + f.sum
	}
	return m.sums[f.name]
}

func (m *memory) find(op, name string) (*memoryFile, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if m.refused != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: m.refused}
	}
	if f := m.fsys[name]; f != nil {
		return f, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Sum implements gitops.Tree.
func (m *memory) Sum(name string) (string, error) {
	f, err := m.find("sum", name)
	if err != nil {
		return "", err
	}
	return m.sums[f.name], nil
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
	if f.isDir {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	if f.size > mostReadFile {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it has %d bytes, at most %d are read of a file", f.size, mostReadFile)}
	}
	in, err := f.open()
	if err != nil {
		return nil, err
	}
	content := make([]byte, f.size)
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
	if !f.isDir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return slices.Clone(f.entries), nil
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
	o := &openMemory{memoryFile: f, rest: f.entries, left: f.size}
	if !f.isDir {
		if o.content, err = f.open(); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (f *memoryFile) Name() string       { return path.Base(f.name) }
func (f *memoryFile) Size() int64        { return f.size }
func (f *memoryFile) IsDir() bool        { return f.isDir }
func (f *memoryFile) ModTime() time.Time { return time.Time{} }
func (f *memoryFile) Sys() any           { return nil }
func (f *memoryFile) Mode() fs.FileMode {
	switch {
	case f.isDir:
		return fs.ModeDir | 0o755
	case f.executable:
		return 0o755
	default:
		return 0o644
	}
}

// openMemory is an open file or directory.
type openMemory struct {
	*memoryFile
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
	if o.isDir {
		return 0, &fs.PathError{Op: "read", Path: o.name, Err: errors.New("is a directory")}
	}
	n, err := o.content.Read(p)
	if o.left -= int64(n); errors.Is(err, io.EOF) && o.left > 0 {
		err = io.ErrUnexpectedEOF // the content file lost its end
	}
	return n, own(err)
}

// ReadDir lists the next n entries, all that are left where n is not positive.
func (o *openMemory) ReadDir(n int) ([]fs.DirEntry, error) {
	if !o.isDir {
		return nil, &fs.PathError{Op: "readdir", Path: o.name, Err: errors.New("not a directory")}
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
