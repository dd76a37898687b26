package artifact

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
)

// unpacking writes the files of an artifact into one file.
type unpacking struct {
	out    *bufio.Writer
	buffer []byte
	offset int64
	files  listing
	// made is the table of the files, once all are there.
	made *table
	// opaque is why there are none, where the artifact cannot be unpacked.
	opaque string
}

// unpack writes the content of the files.
func (u *unpacking) unpack(ctx context.Context, packed io.Reader) error {
	if err := u.files.most.extract(ctx, packed, u.file); err != nil {
		return err
	}
	made, err := u.files.lay()
	u.made = made
	return err
}

func (u *unpacking) file(name string, executable bool, content io.Reader) error {
	sum := sha256.New()
	size, err := io.CopyBuffer(io.MultiWriter(u.out, sum), content, u.buffer)
	if err != nil {
		return fmt.Errorf("%q: %w", name, own(err))
	}
	f := listed{executable: executable, size: size, at: u.offset, sum: [sha256.Size]byte(sum.Sum(nil))}
	u.offset += size
	return u.files.add(name, f)
}

// Behind the content there is the index: what is said of all, and then each file, in JSON.
// Its length is in the last bytes.

// index says something of all files.
type index struct {
	// Sum is that of the tree.
	Sum string `json:"sum"`
	// Opaque is why there are none, where the artifact cannot be unpacked.
	Opaque string `json:"opaque,omitempty"`
}

// indexed is a file; its content comes after that of the file before.
type indexed struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Sum        []byte `json:"sum"`
	Executable bool   `json:"executable,omitempty"`
}

// trailer is how many bytes the length of the index has.
const trailer = 8

// finish writes the index behind the content, one file after the other: all of them together
// would take more memory than the table.
func (u *unpacking) finish() error {
	out := &measuring{w: u.out}
	to := json.NewEncoder(out)
	said := index{Opaque: u.opaque}
	if u.made != nil {
		said.Sum = u.made.root()
	}
	if err := to.Encode(said); err != nil {
		return err
	}
	for i, f := range u.files.files {
		name := u.files.name(int32(i)) //nolint:gosec // limits are smaller
		if err := to.Encode(indexed{Name: name, Size: f.size, Sum: f.sum[:], Executable: f.executable}); err != nil {
			return err
		}
	}
	if _, err := u.out.Write(binary.BigEndian.AppendUint64(nil, out.bytes)); err != nil {
		return err
	}
	return u.out.Flush()
}

// measuring counts what is written.
type measuring struct {
	w     io.Writer
	bytes uint64
}

// Write passes bytes on.
func (m *measuring) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.bytes += uint64(n)
	return n, err
}

// tree is that of a content file. Its table is made again from the index.
func (c *Cache) tree(made *table, content string) *memory {
	sum := made.root()
	p := c.tables.keep(made, func() (*table, error) {
		in, err := c.root.Open(content)
		if err != nil {
			return nil, own(err)
		}
		defer in.Close()
		if made, _ := readFiles(in, nil); made != nil && made.root() == sum {
			return made, nil
		}
		return nil, errors.New("storage: the unpacked artifact was changed")
	})
	return &memory{table: p.get, forget: p.forget, open: c.opener(content)}
}

// opener opens files of a tree, read from where they stand in a content file.
func (c *Cache) opener(content string) func(offset, size int64) (io.ReadCloser, error) {
	return func(offset, size int64) (io.ReadCloser, error) {
		in, err := c.root.Open(content)
		if err != nil {
			return nil, own(err)
		}
		return section{io.NewSectionReader(in, offset, size), in}, nil
	}
}

// section is a part of a file, which is closed with it.
type section struct {
	io.Reader
	io.Closer
}

// readTree makes the tree of a content file, after it has read and summed all files; nil
// where something is not as it was written.
func (c *Cache) readTree(of Packed, in *os.File, content string) *memory {
	made, said := readFiles(in, bufio.NewReaderSize(in, 64<<10))
	switch {
	case made != nil:
		return c.tree(made, content)
	case said.Opaque != "" && of.Opaque:
		return unreadable(said.Opaque)
	default:
		return nil
	}
}

// readFiles makes the table of a content file. With its content it is compared with the sums.
// It is nil where something is not as it was written, and where there are no files.
func readFiles(in *os.File, content io.Reader) (*table, index) {
	var said index
	listed := readIndex(in)
	if listed == nil || listed.Decode(&said) != nil || said.Opaque != "" {
		return nil, said
	}
	// They were limited when they were written.
	files, offset := listing{most: limits{entries: math.MaxInt32, names: math.MaxInt32}}, int64(0)
	for listed.More() {
		var f indexed
		if listed.Decode(&f) != nil || !fs.ValidPath(f.Name) || f.Size < 0 || len(f.Sum) != sha256.Size || content != nil && !f.isNext(content) {
			return nil, said
		}
		if files.add(f.Name, f.at(offset)) != nil {
			return nil, said
		}
		offset += f.Size
	}
	made, err := files.lay()
	if err != nil || made.root() != said.Sum {
		return nil, said
	}
	return made, said
}

// at is what a listing has of a file whose content is at an offset.
func (f indexed) at(offset int64) listed {
	return listed{executable: f.Executable, size: f.Size, at: offset, sum: [sha256.Size]byte(f.Sum)}
}

// isNext tells whether what comes next of the content is that of a file.
func (f indexed) isNext(content io.Reader) bool {
	sum := sha256.New()
	n, err := io.CopyN(sum, content, f.Size)
	return err == nil && n == f.Size && bytes.Equal(sum.Sum(nil), f.Sum)
}

// readIndex gives what stands behind the content; nil where that is nothing.
func readIndex(in *os.File) *json.Decoder {
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() < trailer {
		return nil
	}
	var length [trailer]byte
	if _, err := in.ReadAt(length[:], info.Size()-trailer); err != nil {
		return nil
	}
	size := binary.BigEndian.Uint64(length[:])
	if size > uint64(info.Size()-trailer) {
		return nil
	}
	return json.NewDecoder(io.NewSectionReader(in, info.Size()-trailer-int64(size), int64(size)))
}
