package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/paging"
)

const (
	// maxCache is how many bytes the unpacked artifacts may have that nobody uses: where
	// there are more, those go first that were used longest ago.
	maxCache = 4 << 30
	// mostTables is how many bytes of names and sums of the artifacts in use are in memory.
	mostTables = 64 << 20
	// slowBytes in slowTime are brought by a server at least: it is in the same cluster, and
	// one that is slower hangs, whatever it says.
	slowBytes = 16 << 10
	slowTime  = 15 * time.Second
	// keepUnused is how long an artifact is kept that nobody uses: after a restart it
	// takes a while until its users ask for it.
	keepUnused = time.Hour
)

// Cache keeps artifacts that others have packed, each once in a scope, by its digest: those
// who may see the same share it, and after a restart nothing is loaded again. A digest is no
// secret, so who only knows one is shown nothing that others have loaded. It is safe for use
// by several goroutines, and by one process at a time.
type Cache struct {
	root   *os.Root
	client *http.Client
	now    func() time.Time
	most   cacheLimits
	// own are the limits of what a Store has packed.
	own    limits
	tables *paging.Tables[table]
	vast   *vast

	mu sync.Mutex
	// held are the artifacts in use, by digest and scope; guarded by mu.
	held map[string]*cached
	// left are the namespaces that used artifacts last which nobody uses; guarded by mu.
	left map[string]string
}

// cacheLimits bound an artifact of others, the bytes of those that nobody uses, and the time that a
// server takes.
type cacheLimits struct {
	limits
	unused int64
	pace   pace
}

// cached is an artifact in use.
type cached struct {
	// users is guarded by Cache.mu.
	users int
	// tenants counts the users of namespaces; guarded by Cache.mu.
	tenants map[string]int
	// loading has one place, which is taken while it is loaded; it guards tree.
	loading chan struct{}
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
	c := &Cache{root: root, client: http.DefaultClient, now: time.Now, held: map[string]*cached{}, left: map[string]string{}, tables: paging.New(mostTables, (*table).cost), vast: newVast(), own: ofOurs(), most: cacheLimits{limits: ofOthers(), unused: maxCache, pace: pace{slowBytes, slowTime}}}
	return c, c.clean(func(name string) bool { return strings.HasPrefix(name, unfinished) })
}

// Through has artifacts loaded by a client, in place of that of the standard library. It is
// called before the first Get.
func (c *Cache) Through(client *http.Client) { c.client = client }

// Packed is an artifact as somebody else has packed it: a gzipped tar.
type Packed struct {
	// Digest is that of the packed file: algorithm:hex with sha256, sha384, sha512 or blake3.
	Digest string
	// Open opens the packed file where it comes from.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Keep keeps the packed file itself too.
	Keep bool
	// Opaque takes a packed file that is to be kept also where it cannot be unpacked:
	// every use of its Files says why then.
	Opaque bool
	// Own is set for a file of a Store, for which the limits hold that it was packed with.
	Own bool
	// Scope is who may have it, in letters and digits: what was loaded in one scope is not
	// shown in another, where only its digest may be known. Empty is a scope too.
	Scope string
}

// NamespaceScope is the scope of what everybody in a namespace may see: artifacts that the
// status of an object there names, and what is made of them.
func NamespaceScope(namespace string) string {
	sum := sha256.Sum256([]byte("namespace " + namespace))
	return hex.EncodeToString(sum[:16])
}

// Unpacked is an artifact in use. It can be read until Release is called, which may be
// called more than once.
type Unpacked struct {
	Files   gitops.Tree
	Release func()
	// Packed opens the packed file, where it was to be kept.
	Packed func() (io.ReadCloser, error)
}

// Get gives the files of the artifact at a URL, whose digest and scope are those of Packed.
// They can be read until release is called. Errors name the URL and what is wrong with the
// artifact.
func (c *Cache) Get(ctx context.Context, url, digest, scope string) (files gitops.Tree, release func(), err error) {
	unpacked, err := c.Load(ctx, Packed{Digest: digest, Scope: scope, Open: func(ctx context.Context) (io.ReadCloser, error) { return c.open(ctx, url) }})
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
	if name, err = of.folder(name); err != nil {
		return Unpacked{}, err
	}
	c.mu.Lock()
	entry := c.held[name]
	if entry == nil {
		entry = &cached{loading: make(chan struct{}, 1), tenants: map[string]int{}}
		c.held[name] = entry
	}
	entry.users++
	tenant := Tenant(ctx)
	entry.tenants[tenant]++
	c.mu.Unlock()
	var once sync.Once
	release := func() { once.Do(func() { c.leave(name, entry, tenant) }) }
	// Whoever loads it may have more time than we have.
	select {
	case entry.loading <- struct{}{}:
		defer func() { <-entry.loading }()
	case <-ctx.Done():
		release()
		return Unpacked{}, ctx.Err()
	}
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

// folder is the name of the artifact's folder, beginning with that of its digest.
func (of Packed) folder(name string) (string, error) {
	if strings.ContainsFunc(of.Scope, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
		return "", fmt.Errorf("scope %q of an artifact has more than letters and digits", of.Scope)
	}
	if of.Scope != "" {
		name += "-" + of.Scope
	}
	if of.Keep {
		name += keptSuffix
	}
	return name, nil
}

// leave gives an artifact up for one user. Its files stay for a while.
func (c *Cache) leave(name string, entry *cached, tenant string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry.tenants[tenant]--; entry.tenants[tenant] == 0 {
		delete(entry.tenants, tenant)
	}
	if entry.users--; entry.users == 0 && c.held[name] == entry {
		delete(c.held, name)
		if entry.tree != nil {
			entry.tree.forget()
			c.left[name] = tenant
		}
		now := c.now()
		_ = c.root.Chtimes(name, now, now) // It is only kept for less long then.
	}
}

// parseDigest gives the name of a digest's folder, and what to sum with.
func parseDigest(digest string) (name string, sum hash.Hash, err error) {
	algorithm, sum, err := summing(digest)
	if err != nil {
		return "", nil, err
	}
	_, text, _ := strings.Cut(digest, ":")
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != sum.Size() {
		return "", nil, fmt.Errorf("digest %q is no %s sum", digest, algorithm)
	}
	return string(algorithm) + "-" + strings.ToLower(text), sum, nil
}

// An artifact is one file: the content of all its files, one after the other, then an index
// of them, and the length of that. It gets its name when it is whole. Where the packed file
// is kept too, it is a folder of both, with another name. To make a file costs more than to
// fill it, where many artifacts come at once.
const (
	contentFile = "content"
	packedFile  = "packed"
	keptSuffix  = "-packed"
)

// contentOf is where the content is of an artifact that has a name.
func (of Packed) contentOf(name string) string {
	if of.Keep {
		return path.Join(name, contentFile)
	}
	return name
}

// load finds an artifact on the disk, or gets it from where it comes from.
func (c *Cache) load(ctx context.Context, of Packed, name string, sum hash.Hash) (*memory, error) {
	if tree := c.kept(of, name); tree != nil {
		return tree, nil
	}
	temporary := unfinished + name
	if err := errors.Join(own(c.root.RemoveAll(temporary)), own(c.root.RemoveAll(name))); err != nil {
		return nil, err
	}
	u, err := c.make(ctx, of, name, temporary, sum)
	if err != nil {
		return nil, errors.Join(err, own(c.root.RemoveAll(temporary)))
	}
	if u.opaque != "" {
		return unreadable(u.opaque), nil
	}
	return c.tree(u.made, of.contentOf(name)), nil
}

// kept is an artifact of an earlier process, if it is whole; nil where it is not.
func (c *Cache) kept(of Packed, name string) *memory {
	if of.Keep && !c.intact(of, name) {
		return nil
	}
	in, err := c.root.Open(of.contentOf(name))
	if err != nil {
		return nil
	}
	defer in.Close()
	tree := c.readTree(of, in, of.contentOf(name))
	if tree != nil {
		now := c.now()
		_ = c.root.Chtimes(name, now, now) // It is only kept for less long then.
	}
	return tree
}

// intact tells whether the packed file that was kept still has its digest.
func (c *Cache) intact(of Packed, name string) bool {
	_, sum, err := parseDigest(of.Digest)
	if err != nil {
		return false
	}
	packed, err := c.root.Open(path.Join(name, packedFile))
	if err != nil {
		return false
	}
	defer packed.Close()
	_, err = io.Copy(sum, packed)
	_, want, _ := strings.Cut(of.Digest, ":")
	return err == nil && strings.EqualFold(want, hex.EncodeToString(sum.Sum(nil)))
}

// make gets an artifact and puts it into place.
func (c *Cache) make(ctx context.Context, of Packed, name, temporary string, sum hash.Hash) (*unpacking, error) {
	if of.Keep {
		if err := own(c.root.Mkdir(temporary, 0o700)); err != nil {
			return nil, err
		}
	}
	u, err := c.download(ctx, of, temporary, sum)
	if err != nil {
		return nil, err
	}
	return u, own(c.root.Rename(temporary, name))
}
