package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Limits of an artifact that is read into memory.
const (
	maxReadBytes = 512 << 20
	maxReadFiles = 200_000
)

// Fetch reads the artifact at a URL into memory and checks its digest,
// algorithm:hex with sha256, unless that is empty.
func Fetch(ctx context.Context, url, digest string) (gitops.Tree, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxReadBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("get %s: %w", url, err)
	case len(data) > maxReadBytes:
		return nil, fmt.Errorf("get %s: more than %d bytes", url, maxReadBytes)
	}
	if sum := sha256.Sum256(data); digest != "" && digest != "sha256:"+hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("get %s: the content is not that of %s", url, digest)
	}
	return Read(bytes.NewReader(data))
}

// Read reads a packed artifact, a gzipped tar, into memory. Anything but regular
// files and directories, and any name that leaves the artifact, is an error.
func Read(packed io.Reader) (gitops.Tree, error) {
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("read artifact: %w", err)
	}
	limited := &io.LimitedReader{R: unzipped, N: maxReadBytes}
	archive := tar.NewReader(limited)
	m := newMemory()
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) && limited.N > 0 {
			m.finish()
			return m, nil
		}
		if limited.N <= 0 {
			return nil, fmt.Errorf("read artifact: more than %d bytes", maxReadBytes)
		}
		if err != nil {
			return nil, fmt.Errorf("read artifact: %w", err)
		}
		name := path.Clean(header.Name)
		if header.Typeflag == tar.TypeDir && name == "." {
			continue
		}
		if !fs.ValidPath(name) || name == "." {
			return nil, fmt.Errorf("read artifact: %q is outside of it", header.Name)
		}
		switch header.Typeflag {
		case tar.TypeDir:
			continue
		case tar.TypeReg:
		default:
			return nil, fmt.Errorf("read artifact: %q is no regular file", header.Name)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return nil, fmt.Errorf("read artifact: %q: %w", header.Name, err)
		}
		if err := m.add(name, content, header.Mode&0o100 != 0); err != nil {
			return nil, fmt.Errorf("read artifact: %w", err)
		}
	}
}

// ReadFolder reads the regular files of a folder into memory; Git's own are left out.
func ReadFolder(files fs.FS) (gitops.Tree, error) {
	m := newMemory()
	total := 0
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == ".git" && entry.IsDir():
			return fs.SkipDir
		case !entry.Type().IsRegular() || entry.Name() == ".git":
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if total += int(info.Size()); total > maxReadBytes {
			return fmt.Errorf("more than %d bytes", maxReadBytes)
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		return m.add(name, content, info.Mode()&0o100 != 0)
	})
	if err != nil {
		return nil, fmt.Errorf("read folder: %w", err)
	}
	m.finish()
	return m, nil
}

// memory is a tree of files in memory.
type memory struct {
	fsys map[string]*memoryFile
	sums map[string]string
}

// memoryFile is a file or a directory.
type memoryFile struct {
	name       string // its path
	content    []byte
	executable bool
	isDir      bool
	entries    []fs.DirEntry
}

func newMemory() *memory {
	return &memory{fsys: map[string]*memoryFile{".": {name: ".", isDir: true}}, sums: map[string]string{}}
}

// add enters a file and the directories that lead to it.
func (m *memory) add(name string, content []byte, executable bool) error {
	if _, twice := m.fsys[name]; twice {
		return fmt.Errorf("%q is in it twice", name)
	}
	if len(m.fsys) >= maxReadFiles {
		return fmt.Errorf("more than %d files", maxReadFiles)
	}
	return m.enter(&memoryFile{name: name, content: content, executable: executable})
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
	h := sha256.New()
	kind := "file:"
	switch {
	case f.isDir:
		kind = "dir:"
		for _, entry := range f.entries {
			_, _ = fmt.Fprintf(h, "%s\x00%s\x00", entry.Name(), m.sum(m.fsys[path.Join(f.name, entry.Name())]))
		}
	default:
		if f.executable {
			kind = "executable:"
		}
		_, _ = h.Write(f.content)
	}
	m.sums[f.name] = kind + hex.EncodeToString(h.Sum(nil))
	return m.sums[f.name]
}

func (m *memory) find(op, name string) (*memoryFile, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
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

// ReadFile implements gitops.Tree.
func (m *memory) ReadFile(name string) ([]byte, error) {
	f, err := m.find("read", name)
	if err != nil {
		return nil, err
	}
	if f.isDir {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return slices.Clone(f.content), nil
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
	return &openMemory{memoryFile: f, reader: bytes.NewReader(f.content), rest: f.entries}, nil
}

func (f *memoryFile) Name() string       { return path.Base(f.name) }
func (f *memoryFile) Size() int64        { return int64(len(f.content)) }
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
	reader *bytes.Reader
	rest   []fs.DirEntry
}

func (o *openMemory) Stat() (fs.FileInfo, error) { return o.memoryFile, nil }
func (o *openMemory) Close() error               { return nil }

func (o *openMemory) Read(p []byte) (int, error) {
	if o.isDir {
		return 0, &fs.PathError{Op: "read", Path: o.name, Err: errors.New("is a directory")}
	}
	return o.reader.Read(p)
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
