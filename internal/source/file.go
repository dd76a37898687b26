package source

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"time"
)

// Info describes a file or directory of a Tree. It is an fs.FileInfo and an
// fs.DirEntry. Files have mode 0644 or 0755, directories 0755, and no time.
type Info struct {
	name string
	mode fs.FileMode
	size func() (int64, error)
}

const (
	fileMode       fs.FileMode = 0o644
	executableMode fs.FileMode = 0o755
	directoryMode              = fs.ModeDir | 0o755
)

// FileInfo describes a file whose size is asked for when it is needed.
func FileInfo(name string, executable bool, size func() (int64, error)) Info {
	mode := fileMode
	if executable {
		mode = executableMode
	}
	return Info{name: name, mode: mode, size: size}
}

// DirInfo describes a directory.
func DirInfo(name string) Info { return Info{name: name, mode: directoryMode} }

// Name is the last element of the path.
func (i Info) Name() string { return i.name }

// Size is the length of a file; 0 for a directory, and where it cannot be told.
func (i Info) Size() int64 {
	if i.size == nil {
		return 0
	}
	size, err := i.size()
	if err != nil {
		return 0
	}
	return size
}

// Mode is the kind and the permissions.
func (i Info) Mode() fs.FileMode { return i.mode }

// Type is the kind.
func (i Info) Type() fs.FileMode { return i.mode.Type() }

// ModTime is the zero time.
func (Info) ModTime() time.Time { return time.Time{} }

// IsDir tells whether this is a directory.
func (i Info) IsDir() bool { return i.mode.IsDir() }

// Sys is nil.
func (Info) Sys() any { return nil }

// Info is the value itself, with its size fixed.
func (i Info) Info() (fs.FileInfo, error) {
	if i.size == nil {
		return i, nil
	}
	size, err := i.size()
	if err != nil {
		return nil, err
	}
	i.size = func() (int64, error) { return size, nil }
	return i, nil
}

// OpenFile makes an open file of content.
func OpenFile(info fs.FileInfo, content io.ReadCloser) fs.File {
	return &file{info: info, content: content}
}

// OpenDir makes an open directory of a listing.
func OpenDir(info fs.FileInfo, entries []fs.DirEntry) fs.File {
	return &directory{info: info, entries: entries}
}

type file struct {
	info    fs.FileInfo
	content io.ReadCloser
}

// Stat describes the file.
func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }

// Read gives bytes of the file.
func (f *file) Read(p []byte) (int, error) { return f.content.Read(p) }

// Close ends reading.
func (f *file) Close() error { return f.content.Close() }

type directory struct {
	info    fs.FileInfo
	entries []fs.DirEntry
}

// Stat describes the directory.
func (d *directory) Stat() (fs.FileInfo, error) { return d.info, nil }

// Read is an error.
func (d *directory) Read([]byte) (int, error) { return 0, IsDirectory("read", d.info.Name()) }

// Close does nothing.
func (*directory) Close() error { return nil }

// ReadDir gives the next entries.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		all := d.entries
		d.entries = nil
		return all, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	some := d.entries[:n]
	d.entries = d.entries[n:]
	return some, nil
}

// NotExist is the error for a path that is missing.
func NotExist(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// IsDirectory is the error for a directory where a file is needed.
func IsDirectory(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: errIsDirectory}
}

// NotDirectory is the error for a file where a directory is needed.
func NotDirectory(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: errNotDirectory}
}

var (
	errIsDirectory  = errors.New("is a directory")
	errNotDirectory = errors.New("not a directory")
)

// checkPath refuses what is not a path of io/fs.
func checkPath(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// contains tells whether a directory is, or leads to, a path.
func contains(dir, name string) bool {
	return dir == "." || name == dir || len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}

// join is path.Join for two paths of io/fs.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	if name == "." {
		return dir
	}
	return path.Join(dir, name)
}
