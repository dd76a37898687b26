package source

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

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
	o := &overlay{base: tree, at: map[string]int{}, above: map[string][]int{}, sums: map[string]string{}, shape: shapeOf(tree)}
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
		o.add(mount)
	}
	return o, nil
}

// Parts is of how many Trees a Tree is joined by Overlay, counted again for each place where
// they are shown: those that are in those that it is joined of, too.
func Parts(tree gitops.Tree) int { return shapeOf(tree).parts }

// Depth is how deep the Trees of which a Tree is made, by Overlay or as Made says, stand in one
// another: 0 where it is made of none.
func Depth(tree gitops.Tree) int { return shapeOf(tree).depth }

// Made is a Tree that is made of others each time it is looked at.
type Made interface {
	gitops.Tree
	// Depth is how deep they stand in one another: 1 where they are made of none.
	Depth() int
}

// shape is what Parts and Depth say of a Tree.
type shape struct{ parts, depth int }

func shapeOf(tree gitops.Tree) shape {
	switch t := tree.(type) {
	case *overlay:
		return t.shape
	case *filtered:
		return shapeOf(t.tree)
	case *sparse:
		return shapeOf(t.tree)
	case Made:
		return shape{parts: 1, depth: t.Depth()}
	}
	return shape{parts: 1}
}

// overlay is a Tree with others in it.
type overlay struct {
	base   gitops.Tree
	mounts []Mount
	// at is the last mount at a path, and above are those below a directory, in their order.
	at    map[string]int
	above map[string][]int
	shape shape

	mu sync.Mutex
	// sums are those of directories above mounts; guarded by mu. What is nested would
	// ask for each of them again and again.
	sums map[string]string
}

// add adds a mount whose path is free.
func (o *overlay) add(m Mount) {
	i := len(o.mounts)
	o.mounts = append(o.mounts, m)
	of := shapeOf(m.Tree)
	o.shape.parts += of.parts
	o.shape.depth = max(o.shape.depth, 1+of.depth)
	o.at[m.At] = i
	for dir := m.At; dir != "."; {
		dir = parent(dir)
		o.above[dir] = append(o.above[dir], i)
	}
}

// parent is path.Dir for a path of io/fs.
func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
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
	for at := name; at != "."; at = parent(at) {
		if i, ok := o.at[at]; ok {
			m := o.mounts[i]
			return m.Tree, join(m.From, relative(at, name))
		}
	}
	return o.base, name
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
	below := o.above[name]
	if len(below) == 0 {
		return entries, rename(name, err)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, rename(name, err)
	}
	byName := func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }
	entries = slices.Clone(entries)
	for _, i := range below {
		m := o.mounts[i]
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
	if len(o.above[name]) > 0 {
		return DirInfo(path.Base(name)), nil
	}
	if i, ok := o.at[name]; ok {
		if m := o.mounts[i]; m.file != nil {
			return m.file, nil
		}
		return DirInfo(path.Base(name)), nil
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
	below := o.above[name]
	if len(below) == 0 {
		sum, err := tree.Sum(inner)
		return sum, rename(name, err)
	}
	o.mu.Lock()
	known, ok := o.sums[name]
	o.mu.Unlock()
	if ok {
		return known, nil
	}
	sum, err := tree.Sum(inner)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", rename(name, err)
	}
	parts := []string{sum}
	for _, i := range below {
		m := o.mounts[i]
		mounted, err := m.Tree.Sum(m.From)
		if err != nil {
			return "", rename(m.At, err)
		}
		parts = append(parts, relative(name, m.At), mounted)
	}
	sum = "overlay:" + digestOf(parts)
	o.mu.Lock()
	o.sums[name] = sum
	o.mu.Unlock()
	return sum, nil
}

// FindFiles gives the paths of all files with a name, without a walk where the Trees have none.
func (o *overlay) FindFiles(name string) ([]string, error) {
	found := map[string]bool{}
	for _, m := range append([]Mount{{Tree: o.base, From: ".", At: "."}}, o.mounts...) {
		if m.file != nil {
			if path.Base(m.At) == name {
				found[m.At] = true
			}
			continue
		}
		files, err := search(m.Tree, name)
		if err != nil {
			return nil, rename(m.At, err)
		}
		for _, file := range files {
			if contains(m.From, file) {
				found[join(m.At, relative(m.From, file))] = true
			}
		}
		if len(found) > mostFound {
			return nil, fmt.Errorf("more than %d files are called %q", mostFound, name)
		}
	}
	// A directory's path with the slash is the beginning of those below it.
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		return strings.Compare(strings.TrimSuffix(a, name), strings.TrimSuffix(b, name))
	}), nil
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
