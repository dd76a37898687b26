package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Limits of an artifact that is read into memory.
const (
	maxReadBytes = 512 << 20
	maxReadFiles = 200_000
)

// Fetch reads the artifact at a URL into memory and checks its digest,
// algorithm:hex, unless that is empty.
func Fetch(ctx context.Context, url, digest string) (gitops.Tree, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxReadBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("get %s: %w", url, err)
	case len(data) > maxReadBytes:
		return nil, fmt.Errorf("get %s: more than %d bytes", url, maxReadBytes)
	}
	if digest != "" {
		algorithm, sum, err := summing(digest)
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", url, err)
		}
		sum.Write(data)
		if algorithm.digest(sum) != digest {
			return nil, fmt.Errorf("get %s: the content is not that of %s", url, digest)
		}
	}
	return Read(bytes.NewReader(data))
}

// Read reads the regular files of a packed artifact, a gzipped tar, into memory. A name
// that leaves the artifact is an error.
func Read(packed io.Reader) (gitops.Tree, error) {
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("read artifact: %w", err)
	}
	limited := &io.LimitedReader{R: unzipped, N: maxReadBytes}
	archive := tar.NewReader(limited)
	m := contents{}
	names := 0
	left := int64(maxReadBytes) // a sparse file has more than the archive
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) && limited.N > 0 {
			tree, err := m.tree()
			if err != nil {
				return nil, fmt.Errorf("read artifact: %w", err)
			}
			return tree, nil
		}
		if limited.N <= 0 {
			return nil, fmt.Errorf("read artifact: more than %d bytes", maxReadBytes)
		}
		if err != nil {
			return nil, fmt.Errorf("read artifact: %w", err)
		}
		name := path.Clean(header.Name)
		if header.Typeflag == tar.TypeDir && name == "." {
			continue
		}
		if !fs.ValidPath(name) || name == "." {
			return nil, fmt.Errorf("read artifact: %q is outside of it", header.Name)
		}
		switch header.Typeflag {
		case tar.TypeReg:
		default:
			continue // a folder, or a link, which Flux leaves out too
		}
		if names += len(name); names > mostNames {
			return nil, fmt.Errorf("read artifact: the names of its files have more than %d bytes together", mostNames)
		}
		if left -= header.Size; left < 0 {
			return nil, fmt.Errorf("read artifact: more than %d bytes", maxReadBytes)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return nil, fmt.Errorf("read artifact: %q: %w", header.Name, err)
		}
		if err := m.add(name, content, header.Mode&0o100 != 0); err != nil {
			return nil, fmt.Errorf("read artifact: %w", err)
		}
	}
}

// ReadFolder reads the regular files of a folder into memory; Git's own are left out.
func ReadFolder(files fs.FS) (gitops.Tree, error) {
	m := contents{}
	total := 0
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.Name() == ".git" && entry.IsDir():
			return fs.SkipDir
		case !entry.Type().IsRegular() || entry.Name() == ".git":
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if total += int(info.Size()); total > maxReadBytes {
			return fmt.Errorf("more than %d bytes", maxReadBytes)
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		return m.add(name, content, info.Mode()&0o100 != 0)
	})
	if err != nil {
		return nil, fmt.Errorf("read folder: %w", err)
	}
	tree, err := m.tree()
	if err != nil {
		return nil, fmt.Errorf("read folder: %w", err)
	}
	return tree, nil
}
