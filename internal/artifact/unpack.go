package artifact

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
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
func (c *Cache) download(ctx context.Context, of Packed, temporary string, sum hash.Hash) (u *unpacking, err error) {
	most := c.most.limits
	if of.Own {
		most = c.own
	}
	body, err := of.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	from := io.TeeReader(io.LimitReader(Counted(ctx, Endable(ctx, body)), most.packed+1), sum)
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
	case n > most.packed:
		return nil, &Malformed{fmt.Errorf("it has more than %d bytes", most.packed)}
	case !strings.EqualFold(want, got):
		return nil, fmt.Errorf("its content does not have the digest %s: it is truncated or was changed", strings.ToLower(of.Digest))
	}
	return c.write(ctx, of, packed, temporary, most)
}

// write unpacks an artifact into a file, and adds the index.
func (c *Cache) write(ctx context.Context, of Packed, packed io.Reader, temporary string, most limits) (u *unpacking, err error) {
	out, err := c.root.OpenFile(of.contentOf(temporary), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, own(err)
	}
	defer func() { err = errors.Join(err, own(out.Close())) }()
	u = &unpacking{
		files: listing{most: most}, out: bufio.NewWriterSize(CountedWriter(ctx, out), 32<<10), buffer: make([]byte, 32<<10),
		list: growing{ctx: ctx, of: c.vast},
	}
	defer u.list.leave()
	err = malformed(ctx, u.unpack(ctx, packed))
	var bad *Malformed
	if of.Keep && of.Opaque && errors.As(err, &bad) {
		reason := bad.Error()
		u.opaque, u.files, u.made = strings.ToValidUTF8(reason[:min(len(reason), mostReason)], ""), listing{}, nil
		_, err = out.Seek(0, io.SeekStart)
		u.out.Reset(out)
		err = errors.Join(own(err), own(out.Truncate(0)))
	}
	if err != nil {
		return nil, err
	}
	err = own(writeIndex(u.out, &u.files, u.made, u.opaque))
	u.files = listing{} // it takes as much memory as the table
	return u, err
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
