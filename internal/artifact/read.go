package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/plumb-gitops/plumb/internal/gitops"
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
	most := inMemory().packed
	data, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("get %s: %w", url, err)
	case int64(len(data)) > most:
		return nil, fmt.Errorf("get %s: more than %d bytes", url, most)
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
	return read(ctx, bytes.NewReader(data))
}

// Read reads the regular files of a packed artifact, a gzipped tar, into memory. What it
// refuses a Cache refuses too, and the other way round, but for artifacts that are unpacked
// too large for the memory.
func Read(packed io.Reader) (gitops.Tree, error) { return read(context.Background(), packed) }

func read(ctx context.Context, packed io.Reader) (gitops.Tree, error) {
	m := contents{listing: listing{most: inMemory()}}
	err := m.most.extract(ctx, packed, func(name string, executable bool, in io.Reader) error {
		content, err := io.ReadAll(in)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		return m.add(name, content, executable)
	})
	var tree *memory
	if err == nil {
		tree, err = m.tree()
	}
	if err != nil {
		return nil, fmt.Errorf("read artifact: %w", err)
	}
	return tree, nil
}

// ReadFolder reads the regular files of a folder into memory; Git's own are left out.
func ReadFolder(files fs.FS) (gitops.Tree, error) {
	m := contents{listing: listing{most: inMemory()}}
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
		if total += int(info.Size()); total > maxInMemory {
			return fmt.Errorf("more than %d bytes", maxInMemory)
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
