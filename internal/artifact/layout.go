package artifact

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
)

// node is a file or a directory of a table. There may be a million of them in one, so that
// each byte counts: there are no pointers, names are parts of one text, and paths, which would
// repeat those of directories, are not kept at all.
type node struct {
	sum [sha256.Size]byte
	// size and at are the length of a file and where its content is, or how many entries a
	// directory has and which the first one is.
	size, at int64
	// name is where the name begins in the names, and length how long it is.
	name   uint32
	length uint16
	kind   nodeKind
}

type nodeKind uint8

const (
	kindFile nodeKind = iota
	kindExecutable
	kindDirectory
)

// listing are the files that a table is made of. There may be a million of them, so that it
// holds as little as a table.
type listing struct {
	most  limits
	names strings.Builder
	files []listed
}

// listed is a file of a listing.
type listed struct {
	sum [sha256.Size]byte
	// at is where its content is.
	size, at int64
	// path is where the path begins in the names, and length how long it is.
	path       uint32
	length     uint16
	executable bool
}

// add enters a file, unless that passes the limits.
func (l *listing) add(name string, f listed) error {
	switch {
	case len(l.files) >= l.most.entries:
		return tooMany(l.most.entries)
	case len(name) > math.MaxUint16:
		return fmt.Errorf("the path %.100q is too long", name)
	case l.names.Len()+len(name) > l.most.names:
		return fmt.Errorf("the names of its files have more than %d bytes together", l.most.names)
	}
	f.path, f.length = uint32(l.names.Len()), uint16(len(name)) //nolint:gosec // checked above
	l.names.WriteString(name)
	l.files = append(l.files, f)
	return nil
}

// name is the path of a file.
func (l *listing) name(i int32) string {
	f := &l.files[i]
	return l.names.String()[f.path:][:f.length]
}

func tooMany(most int) error { return fmt.Errorf("more than %d files", most) }

// lay makes a table of files, with the directories that lead to them.
func (l *listing) lay() (*table, error) {
	order := make([]int32, len(l.files))
	for i := range order {
		order[i] = int32(i) //nolint:gosec // limits are smaller
	}
	slices.SortFunc(order, func(a, b int32) int { return comparePaths(l.name(a), l.name(b)) })
	b := layout{listing: l, order: order, ranges: []below{{to: len(order)}}}
	b.grow()
	b.nodes = append(b.nodes, node{kind: kindDirectory})
	b.text(0, ".")
	// The entries of a directory are one after the other, and those of the directories among
	// them come later.
	for at := 0; at < len(b.nodes); at++ {
		if err := b.fill(at); err != nil {
			return nil, err
		}
	}
	t := &table{nodes: b.nodes, names: b.names.String()}
	for at := len(t.nodes) - 1; at >= 0; at-- {
		if t.nodes[at].kind == kindDirectory {
			t.sumDirectory(at)
		}
	}
	return t, nil
}

// comparePaths orders paths by their elements.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

// layout is a table that is being made.
type layout struct {
	*listing
	// order are the files, ordered by their paths.
	order []int32
	nodes []node
	names strings.Builder
	// ranges are those of the directories whose entries are not there yet, in their order.
	ranges []below
}

// grow makes room for exactly what will be entered.
func (b *layout) grow() {
	nodes, names, last := 1, 1, ""
	for _, i := range b.order {
		name := b.name(i)
		// What is new of a path is what stands behind the directories of the one before it.
		rest := name
		for at := range min(len(name), len(last)) {
			if name[at] != last[at] {
				break
			}
			if name[at] == '/' {
				rest = name[at+1:]
			}
		}
		directories := strings.Count(rest, "/")
		nodes, names, last = nodes+directories+1, names+len(rest)-directories, name
	}
	b.nodes = make([]node, 0, nodes)
	b.names.Grow(names)
}

// below are the files of a directory in the order, and how long its path is with the slash.
type below struct{ from, to, prefix int }

// text gives a node its name.
func (b *layout) text(at int, name string) {
	b.nodes[at].name, b.nodes[at].length = uint32(b.names.Len()), uint16(len(name)) //nolint:gosec // parts of paths, which add has checked
	b.names.WriteString(name)
}

// fill enters what is directly in a directory.
func (b *layout) fill(at int) error {
	if b.nodes[at].kind != kindDirectory {
		return nil
	}
	in := b.ranges[0]
	b.ranges = b.ranges[1:]
	first := len(b.nodes)
	for i := in.from; i < in.to; {
		path := b.name(b.order[i])
		name, _, isDir := strings.Cut(path[in.prefix:], "/")
		whole := path[:in.prefix+len(name)]
		end := i + 1
		for end < in.to && b.under(whole, end) {
			end++
		}
		switch {
		case !isDir && end > i+1 && b.name(b.order[i+1]) == whole:
			return fmt.Errorf("%q is in it twice", whole)
		case !isDir && end > i+1:
			return fmt.Errorf("%q is a file and a directory", whole)
		case len(b.nodes) > b.most.entries:
			return tooMany(b.most.entries)
		}
		n := node{kind: kindDirectory}
		if !isDir {
			file := &b.files[b.order[i]]
			n = node{kind: kindFile, size: file.size, at: file.at, sum: file.sum}
			if file.executable {
				n.kind = kindExecutable
			}
		} else {
			b.ranges = append(b.ranges, below{i, end, len(whole) + 1})
		}
		b.nodes = append(b.nodes, n)
		b.text(len(b.nodes)-1, name)
		i = end
	}
	b.nodes[at].at, b.nodes[at].size = int64(first), int64(len(b.nodes)-first)
	return nil
}

// under tells whether a file in the order is a path or below it.
func (b *layout) under(whole string, i int) bool {
	rest, ok := strings.CutPrefix(b.name(b.order[i]), whole)
	return ok && (rest == "" || rest[0] == '/')
}
