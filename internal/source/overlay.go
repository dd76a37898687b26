package source

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Mount is a Tree that stands at a path of another one.
type Mount struct {
	// At is the path, which must not be in use but for a file by another one.
	At string
	// From is the directory or file of Tree that is shown; empty for all of it.
	From string
	Tree gitops.Tree

	// file describes From where it is a file; nil for a directory.
	file fs.FileInfo
}

// ErrOutside is the error of a path that leads out of its Tree.
var ErrOutside = errors.New("the path leads out of the source")

// Overlay shows other Trees at paths of a Tree. The paths must be free, unless a file takes
// the place of another one, and the directories or files that are shown must exist; the error
// says which one is not so. Later mounts may stand in earlier ones.
func Overlay(tree gitops.Tree, mounts ...Mount) (gitops.Tree, error) {
	if len(mounts) == 0 {
		return tree, nil
	}
	o := &overlay{base: tree}
	for _, m := range mounts {
		at := cleanPath(m.At)
		switch {
		case !fs.ValidPath(at):
			return nil, fmt.Errorf("include at %q: %w", m.At, ErrOutside)
		case at == ".":
			return nil, fmt.Errorf("include at %q: not a path below the root", m.At)
		}
		from := cleanPath(cmp.Or(m.From, "."))
		if !fs.ValidPath(from) {
			return nil, fmt.Errorf("include at %q: path %q of the included source: %w", m.At, m.From, ErrOutside)
		}
		info, err := m.Tree.Stat(from)
		if err != nil {
			return nil, fmt.Errorf("include at %q: path %q of the included source: %w", m.At, m.From, cause(err))
		}
		mount := Mount{At: at, From: from, Tree: m.Tree}
		if !info.IsDir() {
			mount.file = namedInfo{info, path.Base(at)}
		}
		if err := o.free(at, mount.file != nil); err != nil {
			return nil, fmt.Errorf("include at %q: %w", m.At, err)
		}
		o.mounts = append(o.mounts, mount)
	}
	return o, nil
}

// overlay is a Tree with others in it.
type overlay struct {
	base   gitops.Tree
	mounts []Mount
}

// free tells whether nothing is at a path and no file stands above it. A file may take the
// place of another one.
func (o *overlay) free(at string, file bool) error {
	if info, err := o.Stat(at); err == nil && file && !info.IsDir() {
		return nil
	} else if err == nil {
		return fmt.Errorf("the path exists already")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return cause(err)
	}
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		if info, err := o.Stat(dir); err == nil && !info.IsDir() {
			return fmt.Errorf("%q is a file", dir)
		}
	}
	return nil
}

// owner gives the Tree that a path belongs to and the path in it.
func (o *overlay) owner(name string) (gitops.Tree, string) {
	tree, inner, depth := o.base, name, -1
	for _, m := range o.mounts {
		if contains(m.At, name) && len(m.At) >= depth {
			tree, inner, depth = m.Tree, join(m.From, relative(m.At, name)), len(m.At)
		}
	}
	return tree, inner
}

// relative is a path as seen from a directory above it.
func relative(dir, name string) string {
	if dir == "." {
		return name
	}
	if dir == name {
		return "."
	}
	return name[len(dir)+1:]
}

// below gives the mounts that stand below a path.
func (o *overlay) below(name string) []Mount {
	var below []Mount
	for _, m := range o.mounts {
		if m.At != name && contains(name, m.At) {
			below = append(below, m)
		}
	}
	return below
}

// Open opens a file or directory.
func (o *overlay) Open(name string) (fs.File, error) {
	info, err := o.Stat(name)
	if err != nil {
		return nil, reop("open", err)
	}
	if info.IsDir() {
		entries, err := o.ReadDir(name)
		if err != nil {
			return nil, reop("open", err)
		}
		return OpenDir(info, entries), nil
	}
	tree, inner := o.owner(name)
	opened, err := tree.Open(inner)
	if err == nil && info.Name() != path.Base(inner) {
		opened = &file{info: info, content: opened}
	}
	return opened, rename(name, err)
}

// ReadFile reads a file.
func (o *overlay) ReadFile(name string) ([]byte, error) {
	if err := checkPath("open", name); err != nil {
		return nil, err
	}
	tree, inner := o.owner(name)
	data, err := tree.ReadFile(inner)
	return data, rename(name, err)
}

// ReadDir lists a directory.
func (o *overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := checkPath("readdir", name); err != nil {
		return nil, err
	}
	tree, inner := o.owner(name)
	entries, err := tree.ReadDir(inner)
	below := o.below(name)
	if len(below) == 0 {
		return entries, rename(name, err)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, rename(name, err)
	}
	byName := func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }
	entries = slices.Clone(entries)
	for _, m := range below {
		first, _, _ := strings.Cut(relative(name, m.At), "/")
		entry := fs.DirEntry(DirInfo(first))
		if m.file != nil && join(name, first) == m.At {
			entry = fs.FileInfoToDirEntry(m.file)
		}
		at, found := slices.BinarySearchFunc(entries, entry, byName)
		switch {
		case !found:
			entries = slices.Insert(entries, at, entry)
		case !entry.IsDir():
			entries[at] = entry // it takes the place of the file there
		}
	}
	return entries, nil
}

// Stat describes a file or directory.
func (o *overlay) Stat(name string) (fs.FileInfo, error) {
	if err := checkPath("stat", name); err != nil {
		return nil, err
	}
	if len(o.below(name)) > 0 {
		return DirInfo(path.Base(name)), nil
	}
	for _, m := range slices.Backward(o.mounts) {
		switch {
		case m.At == name && m.file != nil:
			return m.file, nil
		case m.At == name:
			return DirInfo(path.Base(name)), nil
		}
	}
	tree, inner := o.owner(name)
	info, err := tree.Stat(inner)
	return info, rename(name, err)
}

// Sum is that of the Tree that a path belongs to, together with what is mounted
// below the path.
func (o *overlay) Sum(name string) (string, error) {
	if err := checkPath("sum", name); err != nil {
		return "", err
	}
	tree, inner := o.owner(name)
	sum, err := tree.Sum(inner)
	below := o.below(name)
	if len(below) == 0 {
		return sum, rename(name, err)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", rename(name, err)
	}
	parts := []string{sum}
	for _, m := range below {
		mounted, err := m.Tree.Sum(m.From)
		if err != nil {
			return "", rename(m.At, err)
		}
		parts = append(parts, relative(name, m.At), mounted)
	}
	return "overlay:" + digestOf(parts), nil
}

// namedInfo describes a file that has another name where it is shown.
type namedInfo struct {
	fs.FileInfo
	name string
}

// Name is the last element of the path where the file is shown.
func (n namedInfo) Name() string { return n.name }

// digestOf is a digest of texts that tells where one ends.
func digestOf(parts []string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:20])
}

// rename names the path in a path error as the caller knows it.
func rename(name string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && p.Path != name {
		return &fs.PathError{Op: p.Op, Path: name, Err: p.Err}
	}
	return err
}
