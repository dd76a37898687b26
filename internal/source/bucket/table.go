package bucket

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source"
)

// table is what a tree has of its files in memory: their keys, sizes and sums, and the
// directories that they make. It never changes.
type table struct {
	// entries are the files, in the order of their keys, without entity tags.
	entries []entry
	dirs    map[string]*directory
	// cost is about what it holds in memory, in bytes.
	cost int64
}

// directory lists what stands in a directory, in the order of the names.
type directory struct {
	children []child
	sum      sum
}

// child is a file, or a directory where entry is nil.
type child struct {
	name  string
	entry *entry
}

const (
	// entryCost and directoryCost are about what an entry and a directory hold beside their
	// names, a child of a directory counted with each.
	entryCost     = 72 + 24
	directoryCost = 160
)

// newTable makes a table. The keys have been checked; it is an error where one is there twice,
// or as file and directory.
func newTable(entries []entry) (*table, error) {
	t := &table{entries: slices.Clone(entries), dirs: map[string]*directory{".": {}}}
	for i := range t.entries {
		e := &t.entries[i]
		e.etag = ""
		t.cost += entryCost + int64(len(e.key))
		dir, name := split(e.key)
		d, err := t.directory(dir)
		if err != nil {
			return nil, err
		}
		d.children = append(d.children, child{name: name, entry: e})
	}
	for at, d := range t.dirs {
		t.cost += directoryCost
		d.children = slices.Clone(d.children) // without room for more
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

func (t *table) directory(at string) (*directory, error) {
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

// sum sums a directory up, and those below it.
func (t *table) sum(at string) string {
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
	d.sum = sum(h.Sum(nil))
	return d.contentSum()
}

func (d *directory) contentSum() string { return "dir:" + d.sum.String() }

func (e *entry) contentSum() string { return "file:" + e.sum.String() }

// lookup finds a file, or a directory.
func (t *table) lookup(op, name string) (*entry, *directory, error) {
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

func (t *table) find(at, name string) []string {
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
