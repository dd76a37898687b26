package artifact

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
)

// node is a file or a directory of a table. There may be 200,000 of them in one, so that each
// byte counts: there are no pointers, names are parts of one
// text, and paths, which would repeat those of directories, are not kept at all.
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

// listing are the files that a table is made of.
type listing struct {
	files []indexed
	// at is where the content of each file is.
	at []int64
}

// add enters a file.
func (l *listing) add(f indexed, at int64) error {
	if len(l.files) >= maxReadFiles {
		return tooMany()
	}
	l.files, l.at = append(l.files, f), append(l.at, at)
	return nil
}

func tooMany() error { return fmt.Errorf("more than %d files", maxReadFiles) }

// lay makes a table of files, with the directories that lead to them.
func (l listing) lay() (*table, error) {
	order := make([]int32, len(l.files))
	for i := range order {
		order[i] = int32(i) //nolint:gosec // there are no more than maxReadFiles
	}
	slices.SortFunc(order, func(a, b int32) int { return comparePaths(l.files[a].Name, l.files[b].Name) })
	b := layout{listing: l, order: order, nodes: []node{{kind: kindDirectory}}, ranges: []below{{to: len(order)}}}
	b.text(0, ".")
	// The entries of a directory are one after the other, and those of the directories among
	// them come later.
	for at := 0; at < len(b.nodes); at++ {
		if err := b.fill(at); err != nil {
			return nil, err
		}
	}
	t := &table{nodes: slices.Clone(b.nodes), names: strings.Clone(b.names.String())}
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
	listing
	// order are the files, ordered by their paths.
	order []int32
	nodes []node
	names strings.Builder
	// ranges are those of the directories whose entries are not there yet, in their order.
	ranges []below
}

// below are the files of a directory in the order, and how long its path is with the slash.
type below struct{ from, to, prefix int }

// text gives a node its name.
func (b *layout) text(at int, name string) {
	b.nodes[at].name, b.nodes[at].length = uint32(b.names.Len()), uint16(len(name)) //nolint:gosec // checked by fill
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
		file := b.files[b.order[i]]
		name, _, isDir := strings.Cut(file.Name[in.prefix:], "/")
		whole := file.Name[:in.prefix+len(name)]
		end := i + 1
		for end < in.to && b.under(whole, end) {
			end++
		}
		switch {
		case !isDir && end > i+1 && b.files[b.order[i+1]].Name == whole:
			return fmt.Errorf("%q is in it twice", whole)
		case !isDir && end > i+1:
			return fmt.Errorf("%q is a file and a directory", whole)
		case len(b.nodes) > maxReadFiles:
			return tooMany()
		case len(name) > math.MaxUint16 || b.names.Len() > math.MaxInt32:
			return fmt.Errorf("the name of %.100q, or all names together, are too long", name)
		}
		n := node{kind: kindDirectory}
		if !isDir {
			sum, err := hex.DecodeString(file.Sum)
			if err != nil || len(sum) != len(n.sum) {
				return fmt.Errorf("the sum of %q is none", whole)
			}
			n = node{kind: kindFile, size: file.Size, at: b.at[b.order[i]], sum: [sha256.Size]byte(sum)}
			if file.Executable {
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
	rest, ok := strings.CutPrefix(b.files[b.order[i]].Name, whole)
	return ok && (rest == "" || rest[0] == '/')
}
