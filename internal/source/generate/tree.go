package generate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// composed is the Tree of a composed artifact. Its nodes do not change any more, but for
// their sums.
type composed struct {
	root  *node
	depth int
	mu    sync.Mutex // guards the sums of all nodes
}

// Depth is how deep what it is made of stands in one another.
func (c *composed) Depth() int { return c.depth }

// place is a path of a composed artifact: a node, or a path in the Tree of a source.
type place struct {
	node *node
	// tree and at are set where it is in a source.
	tree gitops.Tree
	at   string
	// id is that of the source.
	id string
}

func (c *composed) find(op, name string) (place, error) {
	if !fs.ValidPath(name) {
		return place{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n, rest := c.root.down(name)
	switch {
	case n == nil || !n.dir && rest != ".":
		return place{}, source.NotExist(op, name)
	case n.at == "":
		return place{node: n}, nil
	}
	return place{node: n, tree: n.from.Files, at: join(n.at, rest), id: n.from.ID}, nil
}

// Open opens a file or directory.
func (c *composed) Open(name string) (fs.File, error) {
	info, err := c.stat("open", name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		entries, err := c.readDir("open", name)
		if err != nil {
			return nil, err
		}
		return source.OpenDir(info, entries), nil
	}
	p, err := c.find("open", name)
	if err != nil {
		return nil, err
	}
	if p.tree == nil {
		return source.OpenFile(info, io.NopCloser(strings.NewReader(string(p.node.content)))), nil
	}
	file, err := p.tree.Open(p.at)
	if err != nil {
		return nil, rename(name, err)
	}
	return source.OpenFile(info, file), nil
}

// ReadFile reads a file.
func (c *composed) ReadFile(name string) ([]byte, error) {
	p, err := c.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case p.tree != nil:
		data, err := p.tree.ReadFile(p.at)
		return data, rename(name, err)
	case p.node.dir:
		return nil, source.IsDirectory("read", name)
	}
	return slices.Clone(p.node.content), nil
}

// ReadDir lists a directory.
func (c *composed) ReadDir(name string) ([]fs.DirEntry, error) { return c.readDir("readdir", name) }

func (c *composed) readDir(op, name string) ([]fs.DirEntry, error) {
	p, err := c.find(op, name)
	switch {
	case err != nil:
		return nil, err
	case p.tree != nil:
		entries, err := p.tree.ReadDir(p.at)
		return entries, rename(name, err)
	case !p.node.dir:
		return nil, source.NotDirectory(op, name)
	}
	entries := make([]fs.DirEntry, 0, len(p.node.children))
	for _, child := range slices.Sorted(maps.Keys(p.node.children)) {
		entries = append(entries, entry{tree: c, path: join(name, child), dir: p.node.children[child].dir})
	}
	return entries, nil
}

// Stat describes a file or directory.
func (c *composed) Stat(name string) (fs.FileInfo, error) { return c.stat("stat", name) }

func (c *composed) stat(op, name string) (fs.FileInfo, error) {
	p, err := c.find(op, name)
	if err != nil {
		return nil, err
	}
	base := path.Base(name)
	if p.tree == nil {
		if p.node.dir {
			return source.DirInfo(base), nil
		}
		content := p.node.content
		return source.FileInfo(base, p.node.executable, func() (int64, error) { return int64(len(content)), nil }), nil
	}
	info, err := p.tree.Stat(p.at)
	switch {
	case err != nil:
		return nil, rename(name, err)
	case info.IsDir():
		return source.DirInfo(base), nil
	}
	return source.FileInfo(base, info.Mode()&0o100 != 0, func() (int64, error) { return info.Size(), nil }), nil
}

// Sum of what is in a source is made from the sum there, which is cheap; that of a
// directory that was taken apart from those of what is in it, and that of a merged file
// from its content.
func (c *composed) Sum(name string) (string, error) {
	p, err := c.find("sum", name)
	if err != nil {
		return "", err
	}
	if p.tree != nil {
		sum, err := p.tree.Sum(p.at)
		return "copied:" + digestOf(p.id, sum), rename(name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sum, err := p.node.summed()
	return sum, rename(name, err)
}

// summed is the sum of a node; the lock of the Tree is held.
func (n *node) summed() (string, error) {
	switch {
	case n.sum != "":
		return n.sum, nil
	case n.at != "":
		sum, err := n.from.Files.Sum(n.at)
		return "copied:" + digestOf(n.from.ID, sum), err
	case !n.dir:
		n.sum = "merged:" + digestOf(string(n.content), fmt.Sprint(n.executable))
		return n.sum, nil
	}
	parts := make([]string, 0, 2*len(n.children))
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		sum, err := n.children[name].summed()
		if err != nil {
			return "", err
		}
		parts = append(parts, name, sum)
	}
	n.sum = "composed:" + digestOf(parts...)
	return n.sum, nil
}

// digestOf is a digest of texts that tells where one ends.
func digestOf(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
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

// entry is what stands in a directory that was taken apart.
type entry struct {
	tree *composed
	path string
	dir  bool
}

// Name is the last element of the path.
func (e entry) Name() string { return path.Base(e.path) }

// IsDir tells whether it is a directory.
func (e entry) IsDir() bool { return e.dir }

// Type is the kind.
func (e entry) Type() fs.FileMode {
	if e.dir {
		return fs.ModeDir
	}
	return 0
}

// Info describes it.
func (e entry) Info() (fs.FileInfo, error) { return e.tree.Stat(e.path) }

// Number is what Flux calls the file of an artifact after: a checksum of the names and
// contents of all files, those among them that are not packed. It is short, and not for
// telling contents apart. Name is that of the artifact. All files are read, until
// the context ends.
func (c Composition) Number(ctx context.Context, name string) (string, error) {
	var files []string
	err := fs.WalkDir(c.all, ".", func(at string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path.Join(name, at))
		}
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	all := adler32.New()
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		sum, err := checksum(c.all, strings.TrimPrefix(file, name+"/"))
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(all, "%x  %s\n", sum, file)
	}
	return fmt.Sprint(all.Sum32()), nil
}

func checksum(files gitops.Tree, name string) (sum uint32, err error) {
	file, err := files.Open(name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	h := adler32.New()
	_, err = io.Copy(h, file)
	return h.Sum32(), err
}
