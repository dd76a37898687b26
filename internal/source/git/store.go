// Package git follows Git repositories: it fetches what is new of a ref into a
// bare object store and shows the files of a commit straight from there, as a
// gitops.Tree, without a checkout.
//
// There is one store for each URL and credential, so that nobody reads through
// the cache what the credential would not give. It holds no history: each ref
// that is followed has a tip, and of a tip the store promises the commit and
// all its files, and says so to the server ("shallow"). A fetch asks for the new
// commit alone, as the difference to the tips, so that a rewritten branch costs
// not more than any other commit. Whether the new commit descends from the old
// one is seen from its parents; only where several commits came at once, or the
// branch was rewritten, the commits between the two are fetched, without files.
//
// A store is a list of packs and a small state file. Packs that pile up, and
// objects that no tip needs any more, are left behind when everything that is
// still needed is copied into one new pack, which is never larger than those: what
// the rest stands on stays where there is no room without it. Readers hold the packs that they
// began with until they are done; the space is given back then. A kill at any
// point leaves a store that opens, or one that is found damaged, dropped and
// fetched again.
package git

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/lru"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// Options configure a Store. Zero values mean the defaults.
type Options struct {
	// CacheBytes bounds the objects and directories that are kept decoded in
	// memory, over all repositories: 16 MiB by default. Directories of many
	// thousands of files come to that while somebody reads them, up to 104 MiB, and
	// indexes of packs of many objects, up to 32 MiB.
	CacheBytes int64
	// PackBytes is the largest pack that is taken, in bytes: 2 GiB by default.
	PackBytes int64
	// PackObjects is the largest number of objects of a pack: 500,000 by
	// default.
	PackObjects int
	// FileBytes is the largest file that is read into memory, and the largest
	// object that takes part in a delta: 64 MiB by default.
	FileBytes int64
	// TreeEntries is the largest number of files and directories of a revision,
	// with those of its submodules: one million by default. A directory that
	// stands at several places counts at each.
	TreeEntries int64
	// TreeBytes is what the files of a revision, with those of its submodules,
	// may have together, counted in the same way: 4 GiB by default. The objects of the
	// packs that bring them may have twice as much when they are inflated.
	TreeBytes int64
	// Refs is the largest number of refs that a server may list: 100,000 by
	// default.
	Refs int
	// Packs is the number of packs of a repository from which on they are
	// joined: 32 by default.
	Packs int
	// Patience is how long a fetch waits for another one of the same repository before it
	// goes beside it: ten seconds by default, and a quarter of its own time at most.
	Patience time.Duration
	// Policy refuses connections that Flux makes; none by default.
	Policy egress.Policy
	// SSH are the algorithms that servers are offered; by default the library's.
	SSH SSH
	// News is called with the followers, as requests name them, for whom a server has
	// answered with other refs than when they asked, because somebody else asked. It must
	// not wait for a fetch. Nobody is told by default.
	News func(follower string)
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	o.CacheBytes = source.Limit(o.CacheBytes, 16<<20)
	o.PackBytes = source.Limit(o.PackBytes, 2<<30)
	o.PackObjects = source.Limit(o.PackObjects, 500_000)
	o.FileBytes = source.Limit(o.FileBytes, 64<<20)
	o.Refs = source.Limit(o.Refs, 100_000)
	o.TreeEntries = source.Limit(o.TreeEntries, 1_000_000)
	o.TreeBytes = source.Limit(o.TreeBytes, 4<<30)
	o.Packs = source.Limit(o.Packs, 32)
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.News == nil {
		o.News = func(string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Store keeps the repositories that are followed, below one folder. It is safe
// for use by several goroutines, and by one process at a time.
type Store struct {
	options Options
	folder  *source.Folder
	objects *pack.Cache
	dirs    *dirCache
	extents *extentCache
	serial  atomic.Uint64
	slots   *pack.Slots
	// dial makes the client of a repository.
	dial func(wire.Options) (*wire.Client, error)

	// life ends with Close; it is the context of work behind a Fetch.
	life context.Context //nolint:containedctx // the owner of background work
	end  context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex // guards all below
	remotes map[string]*remote
	closed  bool
	// roots are the tips that are followed for their own sake; nil until that is known.
	roots map[root]bool
	// held counts for each tip of a submodule the fetches that need it just now.
	held map[child]int
	// kept is set where something was kept only because it was held.
	kept bool
}

// Open opens the stores below a folder, which is made where it is missing.
func Open(path string, o Options) (*Store, error) {
	if err := o.SSH.Check(); err != nil {
		return nil, err
	}
	folder, err := source.OpenFolder(path, "git store")
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s := &Store{
		options: o,
		folder:  folder,
		// Most builds read a file once, while directories are looked up again
		// and again.
		objects: pack.NewCache(o.CacheBytes / 2),
		dirs:    newDirCache(o.CacheBytes / 2),
		extents: lru.New[treeKey, extent](extentBytes),
		slots:   pack.NewSlots(),
		remotes: map[string]*remote{},
		held:    map[child]int{},
		dial:    wire.New,
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Close ends background work and closes what no reader holds any more.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	remotes := s.remotes
	s.remotes = map[string]*remote{}
	s.mu.Unlock()
	s.end()
	s.work.Wait()
	s.dirs.close()
	for _, r := range remotes {
		r.close()
	}
	return s.folder.Close()
}

// goes does work beside its caller, which Close ends and waits for; false where the store is
// closed.
func (s *Store) goes(work func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.work.Go(work)
	return true
}

// shut is the error of work in a store that is closed.
func shut() error { return &wire.Error{Code: wire.CodeCanceled, Text: "the store is closed"} }

// Measure charges namespaces with what is kept for them.
func (s *Store) Measure(charge func(namespace string, bytes int64)) error {
	return s.folder.Measure(charge)
}

// key names the store of a repository and a credential. What later versions add is
// named at the end and only where it is set, so that stores of earlier ones are found.
func (s *Store) key(request Request) string {
	auth, proxy := request.Auth, request.Proxy
	parts := []string{
		request.URL, auth.Username, auth.Password, auth.BearerToken, string(auth.CA), string(auth.Certificate),
		string(auth.Key), string(auth.Identity), auth.Passphrase, string(auth.KnownHosts),
		proxy.Address, proxy.Username, proxy.Password,
	}
	if auth.LoginName != "" {
		parts = append(parts, auth.LoginName)
	}
	return s.folder.Name(parts...)
}

// remote gives the store of a request, and opens or makes it.
func (s *Store) remote(ctx context.Context, request Request) (*remote, error) {
	key := s.key(request)
	s.folder.Use(ctx, key)
	if r, err := s.known(key, nil); r != nil || err != nil {
		return r, err
	}
	u, err := parseURL(request.URL)
	if err != nil {
		return nil, err
	}
	// It reads keys, which takes as long as somebody has made them: nobody waits for it.
	client, err := s.dial(wire.Options{
		URL: u, Auth: request.Auth, Proxy: request.Proxy, Policy: s.options.Policy, SSH: s.options.SSH, Limits: wire.Limits{Refs: s.options.Refs},
	})
	if err != nil {
		return nil, err
	}
	return s.known(key, client)
}

// known gives a store that is there, or makes it with a client; without one there may be
// none.
func (s *Store) known(key string, client *wire.Client) (*remote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, shut()
	}
	r := s.remotes[key]
	if r == nil && client != nil {
		r = newRemote(s, key, client)
		s.remotes[key] = r
	}
	return r, nil
}
