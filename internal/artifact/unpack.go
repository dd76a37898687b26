package artifact

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"syscall"
)

// Malformed is the error of a packed artifact that is not as it has to be: no gzipped
// tar, too large, or with names that leave it.
type Malformed struct{ Cause error }

// Error says what is wrong with the artifact.
func (e *Malformed) Error() string { return e.Cause.Error() }

// Unwrap gives the cause.
func (e *Malformed) Unwrap() error { return e.Cause }

// mostInMemory is the longest packed file that is unpacked from memory, in bytes.
const mostInMemory = 1 << 20

// download gets an artifact, whose digest has to be the one that is asked for, and
// unpacks it after its digest was found to be right.
func (c *Cache) download(ctx context.Context, of Packed, name, temporary string, sum hash.Hash) (tree *memory, err error) {
	body, err := of.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	from := io.TeeReader(io.LimitReader(Counted(ctx, Endable(ctx, body)), maxReadBytes+1), sum)
	start := bytes.NewBuffer(nil)
	n, err := io.Copy(start, io.LimitReader(from, mostInMemory))
	packed := io.Reader(start)
	if err == nil && (of.Keep || n == mostInMemory) {
		at := temporary + "-download"
		if of.Keep {
			at = path.Join(temporary, packedFile)
		}
		file, openErr := c.root.OpenFile(at, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if openErr != nil {
			return nil, own(openErr)
		}
		defer func() {
			err = errors.Join(err, own(file.Close()))
			if !of.Keep {
				err = errors.Join(err, own(c.root.Remove(at)))
			}
		}()
		n, err = io.Copy(file, io.MultiReader(start, from))
		if _, seekErr := file.Seek(0, io.SeekStart); err == nil {
			err = own(seekErr)
		}
		packed = file
	}
	_, want, _ := strings.Cut(of.Digest, ":")
	switch got := hex.EncodeToString(sum.Sum(nil)); {
	case err != nil:
		return nil, withoutURL(err)
	case n > maxReadBytes:
		return nil, &Malformed{fmt.Errorf("it has more than %d bytes", maxReadBytes)}
	case !strings.EqualFold(want, got):
		return nil, fmt.Errorf("its content does not have the digest %s: it is truncated or was changed", strings.ToLower(of.Digest))
	}
	return c.write(ctx, of, packed, name, temporary)
}

// write unpacks an artifact into a file, and adds the index.
func (c *Cache) write(ctx context.Context, of Packed, packed io.Reader, name, temporary string) (tree *memory, err error) {
	out, err := c.root.OpenFile(of.contentOf(temporary), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, own(err)
	}
	defer func() { err = errors.Join(err, own(out.Close())) }()
	u := &unpacking{
		most: c.most, out: bufio.NewWriterSize(CountedWriter(ctx, out), 32<<10), buffer: make([]byte, 32<<10),
	}
	err = malformed(ctx, u.unpack(ctx, packed))
	var bad *Malformed
	if of.Keep && of.Opaque && errors.As(err, &bad) {
		u.listed, tree = index{Opaque: bad.Error()}, unreadable(bad.Error())
		_, err = out.Seek(0, io.SeekStart)
		u.out.Reset(out)
		err = errors.Join(own(err), own(out.Truncate(0)))
	}
	if err != nil {
		return nil, err
	}
	if tree == nil {
		tree = c.tree(u.made, of.contentOf(name))
	}
	return tree, own(u.finish())
}

// malformed says of an error of unpacking that it is one of the content, where it is
// none of the disk or of the context.
func malformed(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var full *NoRoom
	if errors.As(err, &full) {
		return err
	}
	for _, disk := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, disk) {
			return err
		}
	}
	return &Malformed{err}
}

// open asks for an artifact at a URL.
func (c *Cache) open(ctx context.Context, url string) (io.ReadCloser, error) {
	answer := c.most.pace.keeping(ctx)
	request, err := http.NewRequestWithContext(answer.ctx, http.MethodGet, url, nil)
	if err != nil {
		answer.cancel(nil)
		return nil, errors.New("it is no URL that can be asked")
	}
	var response *http.Response
	_, err = answer.wait(func() (_ int, err error) {
		response, err = c.client.Do(request)
		return 0, err
	})
	if err != nil {
		answer.cancel(nil)
		return nil, withoutURL(err)
	}
	answer.ReadCloser = response.Body
	if response.StatusCode != http.StatusOK {
		_ = answer.Close()
		return nil, fmt.Errorf("it is answered with %s", response.Status)
	}
	return answer, nil
}

// withoutURL takes the URL, which is named anyway, and addresses out of an error.
func withoutURL(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it is not answered in time")
	}
	for below := errors.Unwrap(err); below != nil; below = errors.Unwrap(below) {
		err = below
	}
	return err
}

// index lists the files whose content is in the content file.
type index struct {
	Files []indexed `json:"files"`
	// Sum is that of the tree.
	Sum string `json:"sum"`
	// Opaque is why there are none, where the artifact cannot be unpacked.
	Opaque string `json:"opaque,omitempty"`
}

// indexed is a file; its content comes after that of the file before.
type indexed struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Sum        string `json:"sum"`
	Executable bool   `json:"executable,omitempty"`
}

// unpacking writes the files of an artifact.
type unpacking struct {
	most   cacheLimits
	out    *bufio.Writer
	buffer []byte
	offset int64
	files  listing
	listed index // of the files, once all are there
	made   *table
	// names is how many bytes the names of files have so far.
	names int
}

// unpack writes the content of the regular files of an artifact. Links are left out, as
// Flux does; a name that leaves the artifact is an error.
func (u *unpacking) unpack(ctx context.Context, packed io.Reader) error {
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return fmt.Errorf("it is no gzipped tar: %w", err)
	}
	most := u.most
	limited := &io.LimitedReader{R: Endable(ctx, unzipped), N: most.total + 1}
	archive := tar.NewReader(limited)
	left := most.total
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		header, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && limited.N > 0:
			if u.made, err = u.files.lay(); err != nil {
				return err
			}
			u.listed = index{Files: u.files.files, Sum: u.made.root()}
			return nil
		case limited.N <= 0:
			return fmt.Errorf("its files have more than %d bytes", most.total)
		case err != nil:
			return fmt.Errorf("it is no gzipped tar: %w", err)
		}
		name := path.Clean(header.Name)
		if !fs.ValidPath(name) {
			return fmt.Errorf("%q is outside of it", header.Name)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := checkHeader(header, name); err != nil {
			return err
		}
		if header.Size > most.file {
			return fmt.Errorf("%q has %d bytes, at most %d are unpacked of a file", header.Name, header.Size, most.file)
		}
		if left -= header.Size; left < 0 {
			return fmt.Errorf("its files have more than %d bytes", most.total)
		}
		if len(u.files.files) >= most.entries {
			return fmt.Errorf("it has more than %d files", most.entries)
		}
		if err := u.file(archive, name, header.Mode&0o100 != 0); err != nil {
			return err
		}
	}
}

// checkHeader refuses files that are not unpacked.
func checkHeader(header *tar.Header, name string) error {
	if name == "." || len(name) > maxPathBytes || strings.Count(name, "/") > maxPathDepth {
		return fmt.Errorf("it has a file without a name, or with a path of more than %d bytes or %d folders", maxPathBytes, maxPathDepth)
	}
	// The holes of a sparse file take no space in the archive, and all of it here.
	for record := range header.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return fmt.Errorf("%q is a sparse file", header.Name)
		}
	}
	return nil
}

// mostNames is how many bytes the names of an artifact's files have together at most: they
// are held in memory while it is in use.
const mostNames = 32 << 20

func (u *unpacking) file(content io.Reader, name string, executable bool) error {
	sum := sha256.New()
	size, err := io.CopyBuffer(io.MultiWriter(u.out, sum), content, u.buffer)
	if err != nil {
		return fmt.Errorf("%q: %w", name, own(err))
	}
	if u.names += len(name); u.names > u.most.names {
		return fmt.Errorf("the names of its files have more than %d bytes together", u.most.names)
	}
	f := indexed{Name: name, Size: size, Sum: hex.EncodeToString(sum.Sum(nil)), Executable: executable}
	if err := u.files.add(f, u.offset); err != nil {
		return err
	}
	u.offset += size
	return nil
}

// finish writes the index behind the content.
func (u *unpacking) finish() error {
	data, err := json.Marshal(u.listed)
	if err != nil {
		return err
	}
	if _, err := u.out.Write(binary.BigEndian.AppendUint64(data, uint64(len(data)))); err != nil {
		return err
	}
	return u.out.Flush()
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
		listed, _ := readIndex(in)
		files, offset := listing{}, int64(0)
		for _, f := range listed.Files {
			if err := files.add(f, offset); err != nil {
				return nil, err
			}
			offset += f.Size
		}
		made, err := files.lay()
		if err != nil || made.root() != sum {
			return nil, errors.New("storage: the unpacked artifact was changed")
		}
		return made, nil
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

// readIndex reads what stands behind the content.
func readIndex(in *os.File) (listed index, ok bool) {
	const trailer = 8
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() < trailer {
		return index{}, false
	}
	var length [trailer]byte
	if _, err := in.ReadAt(length[:], info.Size()-trailer); err != nil {
		return index{}, false
	}
	size := binary.BigEndian.Uint64(length[:])
	if size > uint64(info.Size()-trailer) {
		return index{}, false
	}
	from := io.NewSectionReader(in, info.Size()-trailer-int64(size), int64(size))
	return listed, json.NewDecoder(from).Decode(&listed) == nil
}

// readTree makes the tree of a content file, after it has read and summed all files; nil
// where something is not as it was written.
func (c *Cache) readTree(of Packed, in *os.File, content string) *memory {
	listed, ok := readIndex(in)
	if !ok {
		return nil
	}
	if listed.Opaque != "" {
		if !of.Opaque {
			return nil
		}
		return unreadable(listed.Opaque)
	}
	files, offset, buffered := listing{}, int64(0), bufio.NewReaderSize(in, 64<<10)
	for _, f := range listed.Files {
		sum := sha256.New()
		if n, err := io.CopyN(sum, buffered, f.Size); err != nil || n != f.Size || hex.EncodeToString(sum.Sum(nil)) != f.Sum || !fs.ValidPath(f.Name) {
			return nil
		}
		if err := files.add(f, offset); err != nil {
			return nil
		}
		offset += f.Size
	}
	made, err := files.lay()
	if err != nil || made.root() != listed.Sum {
		return nil
	}
	return c.tree(made, content)
}
