// Package helmrepo gets Helm charts: from Helm repositories over HTTP and from OCI
// registries, or by packaging what is in a Git repository or a bucket.
//
// The index of a repository, which may have 50 MB, is never held in memory. It is kept on
// the disk, once for each URL and credential, in a form in which one chart is found by
// reading little. It is asked for with the condition that it has changed, where the server
// can do that, and by all who want it at one moment together.
//
// A chart is checked before it is used: its digest where the index has one, its name and
// version, and the limits for bytes, files and packed charts inside of it. Nothing of a
// chart is written to the disk but the packed chart, under a name of ours; it is unpacked by
// artifact.Cache. Charts from a tree are loaded from the tree, never from the disk, and the
// same tree makes the same bytes.
//
// What the store knows of a repository, or of the charts of a source, is a shelf: a folder
// with a small state file, the index, and the charts that are followed. Files that the state
// does not name are removed, when their last reader is done. A kill at any point leaves a
// shelf that opens, or one that is found damaged, dropped and fetched again.
//
// The composition root hands in how OCI registries are asked: see Registry.
package helmrepo

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Options configure a Store. Zero values mean the defaults, which are Flux's.
type Options struct {
	// IndexBytes is the longest index that is taken: 50 MiB by default.
	IndexBytes int64
	// ChartBytes is the longest packed chart that is taken or made: 10 MiB by default.
	ChartBytes int64
	// FileBytes is the longest file of a chart: 5 MiB by default.
	FileBytes int64
}

func (o Options) withDefaults() Options {
	o.IndexBytes = source.Limit(o.IndexBytes, 50<<20)
	o.ChartBytes = source.Limit(o.ChartBytes, 10<<20)
	o.FileBytes = source.Limit(o.FileBytes, 5<<20)
	return o
}

// Store keeps indexes and charts below one folder. It is safe for use by several
// goroutines, and by one process at a time.
type Store struct {
	options  Options
	folder   *source.Folder
	unpacked *artifact.Cache
	// dial makes the connection to a repository.
	dial func(Repository) (*remote, error)
	// packing is the turn to have the files of a chart in memory: see alone.
	packing source.Turns
	// indexes is the turn to convert an index, and smallIndexes that for small ones.
	indexes, smallIndexes source.Turns

	mu      sync.Mutex // guards all below
	remotes map[string]*remote
	shelves map[string]*shelf
	closed  bool
}

// Open opens the store below a folder, which is made where it is missing. Charts are
// unpacked in the cache, which may be that of others too.
func Open(path string, unpacked *artifact.Cache, o Options) (*Store, error) {
	folder, err := source.OpenFolder(path, "chart store")
	if err != nil {
		return nil, err
	}
	return &Store{
		options: o.withDefaults(), folder: folder, unpacked: unpacked,
		remotes: map[string]*remote{}, shelves: map[string]*shelf{}, dial: newRemote, smallIndexes: source.Turns{Places: smallIndexes},
	}, nil
}

// Close lets go of connections and of the folder. Nothing is read after it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, r := range s.remotes {
		r.close()
	}
	var errs []error
	for _, sh := range s.shelves {
		errs = append(errs, sh.close())
	}
	clear(s.remotes)
	clear(s.shelves)
	return errors.Join(append(errs, s.folder.Close())...)
}

// Measure charges namespaces with what is kept for them.
func (s *Store) Measure(charge func(namespace string, bytes int64)) error {
	return s.folder.Measure(charge)
}

// key names the shelf of a repository and a credential.
func (s *Store) key(r Repository) string {
	identity := ""
	if r.Registry != nil {
		identity = "registry " + r.Registry.Identity
	}
	at := r.URL
	if base, _, err := r.base(); err == nil && base.User == nil {
		at = base.String()
	}
	// A credential in the URL is one too.
	return s.folder.Name(
		"repository", r.URL, at, identity, r.Auth.Username, r.Auth.Password,
		string(r.TLS.CA), string(r.TLS.Certificate), string(r.TLS.Key), strconv.FormatBool(r.TLS.Insecure),
		r.Proxy.Address, r.Proxy.Username, r.Proxy.Password, strconv.FormatBool(r.PassCredentials),
		strconv.FormatBool(r.Policy.NoPrivate), strconv.FormatBool(r.Policy.NoPlainCredentials),
	)
}

// remote gives what the store has of a repository.
func (s *Store) remote(ctx context.Context, r Repository) (*remote, error) {
	key := s.key(r)
	s.folder.Use(ctx, key)
	if known, err := s.known(key, nil); known != nil || err != nil {
		return known, err
	}
	// It reads keys, which takes as long as somebody has made them: nobody waits for it.
	made, err := s.dial(r)
	if err != nil {
		return nil, err
	}
	return s.known(key, made)
}

// known gives the repository that is there, or takes one that was made; without one there
// may be none.
func (s *Store) known(key string, made *remote) (*remote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.remotes[key]; ok || made == nil {
		return known, nil
	}
	var err error
	if made.shelf, err = s.shelf(key); err != nil {
		return nil, err
	}
	s.remotes[key] = made
	return made, nil
}

// shelf gives the shelf with a key. The caller holds mu.
func (s *Store) shelf(key string) (*shelf, error) {
	if s.closed {
		return nil, fault(gitops.Transient, ReasonFailed, errors.New("the chart store is closed"))
	}
	sh, ok := s.shelves[key]
	if !ok {
		sh = &shelf{store: s, key: key, held: map[string]int{}}
		s.shelves[key] = sh
	}
	return sh, nil
}

// packages gives the shelf for the charts that are packaged from a source.
func (s *Store) packages(ctx context.Context, source string) (*shelf, error) {
	key := s.folder.Name("source", source)
	s.folder.Use(ctx, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shelf(key)
}

// Followed is everything that a Store is still to keep.
type Followed struct {
	Repositories []Repository
	Charts       []ChartRequest
	Packages     []PackageRequest
}

// Retain removes what nothing that is followed needs, and nobody reads: what is still read
// goes when that has ended, or with the next call.
func (s *Store) Retain(followed Followed) error {
	wanted := map[string]map[string]bool{}
	want := func(shelf, book string) {
		if wanted[shelf] == nil {
			wanted[shelf] = map[string]bool{}
		}
		wanted[shelf][book] = true
	}
	for _, r := range followed.Repositories {
		want(s.key(r), indexBook)
	}
	for _, c := range followed.Charts {
		want(s.key(c.Repository), indexBook)
		want(s.key(c.Repository), c.book())
	}
	for _, p := range followed.Packages {
		want(s.folder.Name("source", p.Source), p.book())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	kept := map[string]bool{}
	for key, sh := range s.shelves {
		busy, err := sh.retain(wanted[key])
		if errs = append(errs, err); busy || wanted[key] != nil {
			kept[key] = true
			continue
		}
		if r := s.remotes[key]; r != nil {
			r.close()
		}
		delete(s.remotes, key)
		delete(s.shelves, key)
		errs = append(errs, sh.close())
	}
	s.folder.Forget(wanted)
	errs = append(errs, s.folder.Sweep(func(key string) bool { return kept[key] || wanted[key] != nil }))
	return errors.Join(errs...)
}
