package artifact

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// unpacking writes the files of an artifact into one file.
type unpacking struct {
	out    *bufio.Writer
	buffer []byte
	offset int64
	files  listing
	list   growing
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
	defer u.list.of.alone(int64(u.list.bytes))()
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
	if err := u.list.add(name); err != nil {
		return err
	}
	return u.files.add(name, f)
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
