package kustomize_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// memoryTree is a gitops.Tree of files in memory, indexed as one in a Git
// repository is.
type memoryTree struct {
	files map[string]string
	dirs  map[string][]fs.DirEntry
	sums  map[string]string
}

// newTree makes a tree of paths and contents.
func newTree(files map[string]string) *memoryTree {
	t := &memoryTree{files: files, dirs: map[string][]fs.DirEntry{".": nil}, sums: map[string]string{}}
	for name, content := range files {
		t.add(memoryInfo{name: name, size: int64(len(content))})
	}
	for _, entries := range t.dirs {
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
	t.sum(".")
	return t
}

// add enters a file or directory into its directory, which is made on demand.
func (t *memoryTree) add(info memoryInfo) {
	dir := path.Dir(info.name)
	if _, known := t.dirs[dir]; !known {
		t.add(memoryInfo{name: dir, dir: true})
	}
	if info.dir {
		t.dirs[info.name] = nil
	}
	t.dirs[dir] = append(t.dirs[dir], fs.FileInfoToDirEntry(info))
}

// sum hashes a path and everything below it.
func (t *memoryTree) sum(name string) string {
	h := sha256.New()
	prefix := "file:"
	if entries, isDir := t.dirs[name]; isDir {
		prefix = "dir:"
		for _, e := range entries {
			h.Write([]byte(e.Name() + "\x00" + t.sum(path.Join(name, e.Name())) + "\x00"))
		}
	} else {
		h.Write([]byte(t.files[name]))
	}
	t.sums[name] = prefix + hex.EncodeToString(h.Sum(nil))
	return t.sums[name]
}

func missing(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func (t *memoryTree) Sum(name string) (string, error) {
	if sum, found := t.sums[name]; found {
		return sum, nil
	}
	return "", missing("sum", name)
}

func (t *memoryTree) ReadFile(name string) ([]byte, error) {
	if content, found := t.files[name]; found {
		return []byte(content), nil
	}
	if _, isDir := t.dirs[name]; isDir {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return nil, missing("read", name)
}

func (t *memoryTree) ReadDir(name string) ([]fs.DirEntry, error) {
	if entries, found := t.dirs[name]; found {
		return entries, nil
	}
	if _, isFile := t.files[name]; isFile {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	return nil, missing("readdir", name)
}

func (t *memoryTree) Stat(name string) (fs.FileInfo, error) {
	if content, found := t.files[name]; found {
		return memoryInfo{name: name, size: int64(len(content))}, nil
	}
	if _, isDir := t.dirs[name]; isDir {
		return memoryInfo{name: name, dir: true}, nil
	}
	return nil, missing("stat", name)
}

func (t *memoryTree) Open(name string) (fs.File, error) { return nil, missing("open", name) }

// memoryInfo describes a file or a directory by its path.
type memoryInfo struct {
	name string
	size int64
	dir  bool
}

func (i memoryInfo) Name() string       { return path.Base(i.name) }
func (i memoryInfo) Size() int64        { return i.size }
func (i memoryInfo) IsDir() bool        { return i.dir }
func (i memoryInfo) ModTime() time.Time { return time.Time{} }
func (i memoryInfo) Sys() any           { return nil }
func (i memoryInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
