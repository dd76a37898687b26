package artifact

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
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
type Malformed struct {
	Cause error
	// whole is set where the packed file itself is there, with its digest.
	whole bool
}

// Error says what is wrong with the artifact.
func (e *Malformed) Error() string { return e.Cause.Error() }

// Unwrap gives the cause.
func (e *Malformed) Unwrap() error { return e.Cause }

// download gets an artifact, whose digest has to be the one that is asked for, and
// unpacks it. It is unpacked from a file, after its digest was found to be right.
func (c *Cache) download(ctx context.Context, of Packed, folder string, sum hash.Hash) (err error) {
	body, err := of.Open(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	at := path.Join(folder, packedFile)
	packed, err := c.root.OpenFile(at, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return own(err)
	}
	defer func() {
		err = errors.Join(err, own(packed.Close()))
		if !of.Keep {
			err = errors.Join(err, own(c.root.Remove(at)))
		}
	}()
	n, err := io.Copy(io.MultiWriter(packed, sum), io.LimitReader(&endable{ctx, body}, maxReadBytes+1))
	_, want, _ := strings.Cut(of.Digest, ":")
	switch got := hex.EncodeToString(sum.Sum(nil)); {
	case err != nil:
		return withoutURL(err)
	case n > maxReadBytes:
		return &Malformed{Cause: fmt.Errorf("it has more than %d bytes", maxReadBytes)}
	case !strings.EqualFold(want, got):
		return fmt.Errorf("its content does not have the digest %s: it is truncated or was changed", strings.ToLower(of.Digest))
	}
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return own(err)
	}
	return malformed(ctx, c.unpack(ctx, packed, path.Join(folder, filesFolder)))
}

// malformed says of an error of unpacking that it is one of the content, where it is
// none of the disk or of the context.
func malformed(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, disk := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, disk) {
			return err
		}
	}
	return &Malformed{Cause: err, whole: true}
}

// open asks for an artifact at a URL.
func (c *Cache) open(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("it is no URL that can be asked")
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("it is answered with %s", response.Status)
	}
	return response.Body, nil
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

// unpack writes the regular files of an artifact into a folder. Links are left out, as
// Flux does; a name that leaves the artifact is an error.
func (c *Cache) unpack(ctx context.Context, packed io.Reader, folder string) error {
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return fmt.Errorf("it is no gzipped tar: %w", err)
	}
	limited := &io.LimitedReader{R: &endable{ctx, unzipped}, N: c.most.total + 1}
	archive := tar.NewReader(limited)
	left := c.most.total
	for files := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		header, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && limited.N > 0:
			return nil
		case limited.N <= 0:
			return fmt.Errorf("its files have more than %d bytes", c.most.total)
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
		if len(name) > maxPathBytes || strings.Count(name, "/") > maxPathDepth {
			return fmt.Errorf("it has a path of more than %d bytes or %d folders", maxPathBytes, maxPathDepth)
		}
		// The holes of a sparse file take no space in the archive, and all of it here.
		for record := range header.PAXRecords {
			if strings.HasPrefix(record, "GNU.sparse.") {
				return fmt.Errorf("%q is a sparse file", header.Name)
			}
		}
		if left -= header.Size; left < 0 {
			return fmt.Errorf("its files have more than %d bytes", c.most.total)
		}
		if files++; files > c.most.entries {
			return fmt.Errorf("it has more than %d files", c.most.entries)
		}
		if err := c.unpackFile(archive, path.Join(folder, name), header.Mode&0o100 != 0); err != nil {
			return fmt.Errorf("%q: %w", header.Name, err)
		}
	}
}

func (c *Cache) unpackFile(content io.Reader, name string, executable bool) (err error) {
	if err := own(c.root.MkdirAll(path.Dir(name), 0o700)); err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	if executable {
		mode = 0o700
	}
	out, err := c.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return own(err)
	}
	defer func() { err = errors.Join(err, own(out.Close())) }()
	_, err = io.Copy(out, content)
	return err
}

// index reads the names and sums of an unpacked artifact, whose files will be read from
// another folder.
func (c *Cache) index(folder, from string) (*memory, error) {
	m := newMemory()
	root := path.Join(folder, filesFolder)
	err := fs.WalkDir(c.root.FS(), root, func(at string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		sum, err := c.sum(at)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(at, root+"/")
		return m.file(&memoryFile{
			name: name, size: info.Size(), sum: sum, executable: info.Mode()&0o100 != 0,
			load: func() ([]byte, error) {
				content, err := c.root.ReadFile(path.Join(from, filesFolder, name))
				return content, own(err)
			},
		})
	})
	if err != nil {
		return nil, own(err)
	}
	m.finish()
	return m, nil
}

func (c *Cache) sum(name string) (string, error) {
	in, err := c.root.Open(name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, in)
	return hex.EncodeToString(sum.Sum(nil)), err
}
