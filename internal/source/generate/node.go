package generate

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// node is a file or directory of an artifact that is being composed. A file is one of a
// source, or a merged one. A directory is one of a source as a whole, or taken apart,
// once something was put into it.
type node struct {
	// from and at are where it is in a source; at is empty for what is in none.
	from Source
	at   string
	dir  bool
	// children are those of a directory that was taken apart, by name.
	children map[string]*node
	// content is that of a merged file.
	content    []byte
	executable bool
	// sum is remembered; guarded by composed.mu.
	sum string
}

func newDirectory() *node { return &node{dir: true, children: map[string]*node{}} }

// whole tells whether it is a directory of a source, as it is there.
func (n *node) whole() bool { return n.dir && n.children == nil }

// info describes a file as it is in its source.
func (n *node) info() (fs.FileInfo, error) { return n.from.Files.Stat(n.at) }

// read gives the content of a file.
func (n *node) read() ([]byte, error) {
	if n.at == "" {
		return n.content, nil
	}
	return n.from.Files.ReadFile(n.at)
}

// size is the length of a file in bytes.
func (n *node) size() (int64, error) {
	if n.at == "" {
		return int64(len(n.content)), nil
	}
	info, err := n.info()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// prune removes directories without a file.
func (n *node) prune() {
	for name, child := range n.children {
		if !child.dir || child.whole() {
			continue
		}
		if child.prune(); len(child.children) == 0 {
			delete(n.children, name)
		}
	}
}

// takeApart lists a directory that is whole.
func (b *composing) takeApart(n *node) error {
	if !n.whole() {
		return nil
	}
	entries, err := n.from.Files.ReadDir(n.at)
	if err != nil {
		return err
	}
	if err := b.look(b.ctx, len(entries)); err != nil {
		return err
	}
	if err := b.hold(len(entries)); err != nil {
		return err
	}
	n.children = make(map[string]*node, len(entries))
	for _, e := range entries {
		n.children[e.Name()] = &node{from: n.from, at: join(n.at, e.Name()), dir: e.IsDir()}
	}
	n.at, n.from = "", Source{}
	return nil
}

// find gives what is at a path, nil where there is nothing. Nothing is taken apart.
func (b *composing) find(name string) (*node, error) {
	n, rest := b.root.down(name)
	if n == nil || rest == "." {
		return n, nil
	}
	if !n.dir {
		return nil, nil
	}
	at := join(n.at, rest)
	info, err := n.from.Files.Stat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &node{from: n.from, at: at, dir: info.IsDir()}, nil
}

// down goes along a path until its end, or to the directory of a source that it leads
// into, or to a file in the way. It gives the rest of the path, and nil where there is
// nothing.
func (n *node) down(name string) (at *node, rest string) {
	for name != "." {
		if n.whole() || !n.dir {
			return n, name
		}
		first, below, more := strings.Cut(name, "/")
		if n = n.children[first]; n == nil {
			return nil, ""
		}
		if name = below; !more {
			name = "."
		}
	}
	return n, "."
}

// directory gives the directory at a path, taken apart, and makes it where it is missing.
func (b *composing) directory(name string) (*node, error) {
	n, at := b.root, "."
	if err := b.takeApart(n); err != nil {
		return nil, err
	}
	if name == "." {
		return n, nil
	}
	for _, element := range strings.Split(name, "/") {
		at = join(at, element)
		next := n.children[element]
		switch {
		case next == nil:
			if err := b.hold(1); err != nil {
				return nil, err
			}
			next = newDirectory()
			n.children[element] = next
		case !next.dir:
			return nil, fmt.Errorf("%q is a file in the artifact already, and cannot be a directory", at)
		}
		if err := b.takeApart(next); err != nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// put places a file or a directory at a path. A file takes the place of another one; a
// directory is joined with the one that is there.
func (b *composing) put(name string, n *node) error {
	if name == "." {
		if !n.dir {
			return errors.New("a file cannot be the artifact itself")
		}
		if len(b.root.children) == 0 && !b.root.whole() {
			b.root = n
			return nil
		}
		return b.join(".", b.root, n)
	}
	parent, err := b.directory(path.Dir(name))
	if err != nil {
		return err
	}
	return b.enter(parent, name, n)
}

// enter places a node in a directory that was taken apart.
func (b *composing) enter(parent *node, name string, n *node) error {
	there := parent.children[path.Base(name)]
	switch {
	case there == nil || !there.dir && !n.dir:
		if there == nil {
			if err := b.hold(1); err != nil {
				return err
			}
		}
		parent.children[path.Base(name)] = n
		return nil
	case !n.dir:
		return fmt.Errorf("%q is a directory in the artifact already, and cannot be a file", name)
	case !there.dir:
		return fmt.Errorf("%q is a file in the artifact already, and cannot be a directory", name)
	}
	return b.join(name, there, n)
}

// join puts everything of one directory into another.
func (b *composing) join(name string, into, n *node) error {
	if into.whole() && n.whole() && into.from.ID == n.from.ID && into.at == n.at {
		return nil
	}
	if err := errors.Join(b.takeApart(into), b.takeApart(n)); err != nil {
		return err
	}
	for _, child := range slices.Sorted(maps.Keys(n.children)) {
		if err := b.enter(into, join(name, child), n.children[child]); err != nil {
			return err
		}
	}
	return nil
}

// join is path.Join for two paths of io/fs.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	if name == "." {
		return dir
	}
	return dir + "/" + name
}
