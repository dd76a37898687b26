package artifact

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
)

// The index of an artifact stands behind the content of its files, and says where in that
// they are: indexOfFiles, the sum of the tree, and for each file, in the order of their
// contents, the length of its name with a bit for executable ones, the name, its size and its
// sum. It is written and read file by file, so that it costs no memory beside what is made of
// it. Where there are no files, because the artifact cannot be unpacked, it is indexOfNone and
// why. Behind it stand its length and its mark.
const (
	indexOfFiles = 'f'
	indexOfNone  = 'n'
	// indexMark is that of this format: an earlier one, which had no mark but ended in a
	// length, counts as damaged, and for the programs of that time this one does.
	indexMark = "plumbix2"
	// indexTrailer is the length of what stands behind the index.
	indexTrailer = 8 + len(indexMark)
	// mostReason is how many bytes are kept of why there are no files.
	mostReason = 16 << 10
)

// append adds a file to what is written of an index.
func (f listed) append(to []byte, name string) []byte {
	head := uint64(len(name)) << 1
	if f.executable {
		head |= 1
	}
	to = append(binary.AppendUvarint(to, head), name...)
	return append(binary.AppendUvarint(to, uint64(f.size)), f.sum[:]...) //nolint:gosec // never negative
}

// writeIndex writes the index of a table's files; or why there are none, where there is no
// table. Its error is that of Flush.
func writeIndex(out *bufio.Writer, files *listing, made *table, reason string) error {
	length, part := 0, []byte(nil)
	write := func() {
		n, _ := out.Write(part)
		length, part = length+n, part[:0]
	}
	if made == nil {
		part = append(append(part, indexOfNone), reason...)
	} else {
		root := made.root()
		part = append(append(part, indexOfFiles), root[:]...)
	}
	write()
	for i, f := range files.files {
		part = f.append(part, files.name(int32(i))) //nolint:gosec // limits are smaller
		write()
	}
	part = append(binary.BigEndian.AppendUint64(part, uint64(length)), indexMark...) //nolint:gosec // never negative
	write()
	return out.Flush()
}

// errChanged is the error of an index that is not as it was written.
var errChanged = errors.New("storage: the unpacked artifact was changed")

// index reads what writeIndex has written. It believes nothing: an index holds no more than
// what a Store packs may have, and what is read at once is bounded before it is.
type index struct {
	in   *bufio.Reader
	most limits
	// length is that of the index, and content that of the files before it.
	length, content int64
	// root is the sum of the tree; reason is why there is none.
	root   [sha256.Size]byte
	reason string
	// offset, files and names are how much was read so far.
	offset       int64
	files, names int
}

// readIndex begins to read what stands behind the content.
func readIndex(in *os.File, most limits) (*index, error) {
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() < int64(indexTrailer) {
		return nil, errChanged
	}
	end := info.Size() - int64(indexTrailer)
	var trailer [indexTrailer]byte
	if _, err := in.ReadAt(trailer[:], end); err != nil || string(trailer[8:]) != indexMark {
		return nil, errChanged
	}
	length := binary.BigEndian.Uint64(trailer[:])
	if length > uint64(end) {
		return nil, errChanged
	}
	x := &index{most: most, length: int64(length), content: end - int64(length)}
	x.in = bufio.NewReaderSize(io.NewSectionReader(in, x.content, x.length), 32<<10)
	switch kind, err := x.in.ReadByte(); {
	case err == nil && kind == indexOfFiles:
		_, err = io.ReadFull(x.in, x.root[:])
		return x, changed(err)
	case err == nil && kind == indexOfNone && x.length <= mostReason+1:
		reason, err := io.ReadAll(x.in)
		x.reason = string(reason)
		if x.reason == "" {
			return nil, errChanged
		}
		return x, changed(err)
	}
	return nil, errChanged
}

// changed is errChanged in place of any error.
func changed(err error) error {
	if err != nil {
		return errChanged
	}
	return nil
}

// next gives a file, and io.EOF after the last one.
func (x *index) next() (name string, f listed, err error) {
	if _, err := x.in.Peek(1); errors.Is(err, io.EOF) && x.offset == x.content {
		return "", listed{}, io.EOF
	}
	head, err := binary.ReadUvarint(x.in)
	if err != nil || head>>1 > maxPathBytes {
		return "", listed{}, errChanged
	}
	if x.files++; x.files > x.most.entries {
		return "", listed{}, errChanged
	}
	if x.names += int(head >> 1); x.names > x.most.names { //nolint:gosec // checked above
		return "", listed{}, errChanged
	}
	text := make([]byte, head>>1)
	if _, err := io.ReadFull(x.in, text); err != nil {
		return "", listed{}, errChanged
	}
	size, err := binary.ReadUvarint(x.in)
	if err != nil || size > uint64(x.content-x.offset) { //nolint:gosec // never negative
		return "", listed{}, errChanged
	}
	name, f = string(text), listed{size: int64(size), at: x.offset, executable: head&1 == 1} //nolint:gosec // checked above
	if _, err := io.ReadFull(x.in, f.sum[:]); err != nil || !fs.ValidPath(name) || name == "." {
		return "", listed{}, errChanged
	}
	x.offset += f.size
	return name, f, nil
}

// whole reads and sums the content of all files, and tells whether they are as they were
// written.
func (x *index) whole(in io.Reader) bool {
	in = bufio.NewReaderSize(in, 64<<10)
	sum := sha256.New()
	for {
		_, f, err := x.next()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			return false
		}
		sum.Reset()
		if n, err := io.CopyN(sum, in, f.size); err != nil || n != f.size || [sha256.Size]byte(sum.Sum(nil)) != f.sum {
			return false
		}
	}
}

// readTable makes the table of a content file from its index.
func (c *Cache) readTable(in *os.File) (*table, error) {
	x, err := readIndex(in, c.own)
	if err != nil {
		return nil, err
	}
	defer c.vast.alone(x.length)()
	files := listing{most: c.own}
	for {
		name, f, err := x.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = files.add(name, f)
		}
		if err != nil {
			return nil, err
		}
	}
	made, err := files.lay()
	if err != nil || made.root() != x.root {
		return nil, errChanged
	}
	return made, nil
}

// readTree makes the tree of a content file, after it has read and summed all files; nil
// where something is not as it was written.
func (c *Cache) readTree(of Packed, in *os.File, content string) *memory {
	x, err := readIndex(in, c.own)
	if err != nil {
		return nil
	}
	if x.reason != "" {
		if !of.Opaque {
			return nil
		}
		return unreadable(x.reason)
	}
	if !x.whole(in) {
		return nil
	}
	made, err := c.readTable(in)
	if err != nil {
		return nil
	}
	return c.tree(made, content)
}

// tree is that of a content file. Its table is made again from the index.
func (c *Cache) tree(made *table, content string) *memory {
	sum := made.root()
	p := c.tables.Keep(made, func() (*table, error) {
		in, err := c.root.Open(content)
		if err != nil {
			return nil, own(err)
		}
		defer in.Close()
		made, err := c.readTable(in)
		if err == nil && made.root() != sum {
			err = errChanged
		}
		return made, err
	})
	return &memory{table: p.Get, forget: p.Forget, open: c.opener(content)}
}
