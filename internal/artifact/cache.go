package artifact

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// maxPathBytes and maxPathDepth bound the names of files.
	maxPathBytes = 4096
	maxPathDepth = 100
	// maxUnpacked is how many bytes the files of an artifact may have together.
	maxUnpacked = 2 << 30
	// maxCache is how many bytes the unpacked artifacts may have that nobody uses: where
	// there are more, those go first that were used longest ago.
	maxCache = 4 << 30
	// keepUnused is how long an artifact is kept that nobody uses: after a restart it
	// takes a while until its users ask for it.
	keepUnused = time.Hour
)

// Cache keeps artifacts that others have packed, each once, by its digest: sources of
// the same content share it, and after a restart nothing is loaded again. It is safe
// for use by several goroutines, and by one process at a time.
type Cache struct {
	root   *os.Root
	client *http.Client
	now    func() time.Time
	most   cacheLimits

	mu sync.Mutex
	// held are the artifacts in use, by digest; guarded by mu.
	held map[string]*cached
}

// cacheLimits bound an artifact when it is unpacked, in bytes and files, and the bytes of
// those that nobody uses.
type cacheLimits struct {
	total, unused int64
	entries       int
}

// cached is an artifact in use.
type cached struct {
	// users is guarded by Cache.mu.
	users int
	// loading is held while it is loaded; it guards tree.
	loading sync.Mutex
	tree    *memory
}

// OpenCache opens the cache in a folder, which is made where it is missing.
func OpenCache(folder string) (*Cache, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("open artifact cache: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open artifact cache: %w", err)
	}
	c := &Cache{root: root, client: http.DefaultClient, now: time.Now, held: map[string]*cached{}, most: cacheLimits{total: maxUnpacked, unused: maxCache, entries: maxReadFiles}}
	return c, c.clean(func(name string) bool { return strings.HasPrefix(name, unfinished) })
}

// Through has artifacts loaded by a client, in place of that of the standard library. It is
// called before the first Get.
func (c *Cache) Through(client *http.Client) { c.client = client }

// Packed is an artifact as somebody else has packed it: a gzipped tar.
type Packed struct {
	// Digest is that of the packed file: algorithm:hex with sha256, sha384 or sha512.
	Digest string
	// Open opens the packed file where it comes from.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Keep keeps the packed file itself too.
	Keep bool
}

// Unpacked is an artifact in use. It can be read until Release is called, which may be
// called more than once.
type Unpacked struct {
	Files   gitops.Tree
	Release func()
	// Packed opens the packed file, where it was to be kept.
	Packed func() (io.ReadCloser, error)
}

// Get gives the files of the artifact at a URL, whose digest is that of Packed. They can
// be read until release is called. Errors name the URL and what is wrong with the
// artifact.
func (c *Cache) Get(ctx context.Context, url, digest string) (files gitops.Tree, release func(), err error) {
	unpacked, err := c.Load(ctx, Packed{Digest: digest, Open: func(ctx context.Context) (io.ReadCloser, error) { return c.open(ctx, url) }})
	if err != nil {
		return nil, nil, fmt.Errorf("artifact at %s: %w", url, err)
	}
	return unpacked.Files, unpacked.Release, nil
}

// Load gives the files of a packed artifact, which is opened where they are not there.
// Errors say what is wrong with it, or are those of Open.
func (c *Cache) Load(ctx context.Context, of Packed) (Unpacked, error) {
	name, sum, err := parseDigest(of.Digest)
	if err != nil {
		return Unpacked{}, err
	}
	if of.Keep {
		name += keptSuffix
	}
	c.mu.Lock()
	entry := c.held[name]
	if entry == nil {
		entry = &cached{}
		c.held[name] = entry
	}
	entry.users++
	c.mu.Unlock()
	var once sync.Once
	release := func() { once.Do(func() { c.leave(name, entry) }) }
	entry.loading.Lock()
	defer entry.loading.Unlock()
	if entry.tree == nil {
		if entry.tree, err = c.load(ctx, of, name, sum); err != nil {
			release()
			return Unpacked{}, err
		}
	}
	return Unpacked{Files: entry.tree, Release: release, Packed: func() (io.ReadCloser, error) {
		file, err := c.root.Open(path.Join(name, packedFile))
		return file, own(err)
	}}, nil
}

// leave gives an artifact up for one user. Its files stay for a while.
func (c *Cache) leave(name string, entry *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry.users--; entry.users == 0 && c.held[name] == entry {
		delete(c.held, name)
		now := c.now()
		_ = c.root.Chtimes(name, now, now) // It is only kept for less long then.
	}
}

// Collect removes artifacts that nobody has used for a while, and more where they take too
// much of the disk.
func (c *Cache) Collect() error {
	old, err := c.excess()
	if err != nil {
		return err
	}
	return c.clean(func(name string) bool {
		info, err := c.root.Stat(name)
		return old[name] || err == nil && c.now().Sub(info.ModTime()) > keepUnused
	})
}

// excess are the unused artifacts beyond maxCache bytes.
func (c *Cache) excess() (map[string]bool, error) {
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return nil, own(err)
	}
	type kept struct {
		name string
		used time.Time
		size int64
	}
	var all []kept
	for _, e := range entries {
		info, err := e.Info()
		c.mu.Lock()
		inUse := c.held[e.Name()] != nil
		c.mu.Unlock()
		if err != nil || inUse || !e.IsDir() {
			continue
		}
		k := kept{name: e.Name(), used: info.ModTime()}
		if k.size, err = c.size(e.Name()); err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int { return b.used.Compare(a.used) })
	old, total := map[string]bool{}, int64(0)
	for _, k := range all {
		if total += k.size; total > c.most.unused {
			old[k.name] = true
		}
	}
	return old, nil
}

// size is the length of all files of an artifact.
func (c *Cache) size(name string) (total int64, err error) {
	err = fs.WalkDir(c.root.FS(), name, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, own(err)
}

// clean removes folders of artifacts that nobody uses.
func (c *Cache) clean(unwanted func(name string) bool) error {
	entries, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, e := range entries {
		if c.held[e.Name()] == nil && unwanted(e.Name()) {
			errs = append(errs, own(c.root.RemoveAll(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// parseDigest gives the name of a digest's folder, and what to sum with.
func parseDigest(digest string) (name string, sum hash.Hash, err error) {
	algorithm, text, _ := strings.Cut(digest, ":")
	switch algorithm {
	case "sha256":
		sum = sha256.New()
	case "sha384":
		sum = sha512.New384()
	case "sha512":
		sum = sha512.New()
	default:
		return "", nil, fmt.Errorf("digest %q is none of sha256, sha384 and sha512", digest)
	}
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != sum.Size() {
		return "", nil, fmt.Errorf("digest %q is no %s sum", digest, algorithm)
	}
	return algorithm + "-" + strings.ToLower(text), sum, nil
}

// In the folder of an artifact are its files, and a file with the sum of them all. The
// latter is written when the former are, so what a crash has left is told apart. Where the
// packed file is kept it is there too, and the folder has another name.
const (
	filesFolder = "files"
	sumFile     = "sum"
	packedFile  = "packed"
	keptSuffix  = "-packed"
)

// load finds an artifact on the disk, or gets it from where it comes from.
func (c *Cache) load(ctx context.Context, of Packed, name string, sum hash.Hash) (*memory, error) {
	if tree := c.kept(name); tree != nil {
		return tree, nil
	}
	temporary := unfinished + name
	if err := errors.Join(own(c.root.RemoveAll(temporary)), own(c.root.RemoveAll(name))); err != nil {
		return nil, err
	}
	tree, err := c.make(ctx, of, name, temporary, sum)
	if err != nil {
		return nil, errors.Join(err, own(c.root.RemoveAll(temporary)))
	}
	return tree, nil
}

// kept is an artifact of an earlier process, if it is whole; nil where it is not.
func (c *Cache) kept(name string) *memory {
	want, err := c.root.ReadFile(path.Join(name, sumFile))
	if err != nil {
		return nil
	}
	tree, err := c.index(name, name)
	if err != nil || tree.sums["."] != string(want) {
		return nil
	}
	now := c.now()
	_ = c.root.Chtimes(name, now, now) // It is only kept for less long then.
	return tree
}

// make gets an artifact and puts it into place.
func (c *Cache) make(ctx context.Context, of Packed, name, temporary string, sum hash.Hash) (*memory, error) {
	if err := own(c.root.MkdirAll(path.Join(temporary, filesFolder), 0o700)); err != nil {
		return nil, err
	}
	if err := c.download(ctx, of, temporary, sum); err != nil {
		return nil, err
	}
	tree, err := c.index(temporary, name)
	if err != nil {
		return nil, err
	}
	if err := own(c.root.WriteFile(path.Join(temporary, sumFile), []byte(tree.sums["."]), 0o600)); err != nil {
		return nil, err
	}
	return tree, own(c.root.Rename(temporary, name))
}

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
		return fmt.Errorf("it has more than %d bytes", maxReadBytes)
	case !strings.EqualFold(want, got):
		return fmt.Errorf("its content does not have the digest %s: it is truncated or was changed", strings.ToLower(of.Digest))
	}
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return own(err)
	}
	return c.unpack(ctx, packed, path.Join(folder, filesFolder))
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
