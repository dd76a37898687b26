// Package bucket follows the objects of a bucket: it lists them, gets what is new or
// has changed, and shows them as a gitops.Tree.
//
// Four kinds of stores are spoken to: whatever speaks S3, Amazon's own, Google Cloud
// Storage and Azure Blob Storage. For each there is a client, which lists and reads;
// all else is the same. Requests go through egress, with limits, deadlines and a few
// attempts.
//
// The revision is Flux's: the SHA-256 sum of the keys and entity tags that are
// counted. What a .sourceignore file at the root and the request's own patterns
// exclude is not counted and not fetched; that file itself is not counted either, but
// fetched. Keys that end with a slash are folders and left out, as is an empty object
// x beside x/y. Any other key that is no path below the root is refused by name.
//
// What is kept on disk of a bucket, as one credential sees it, is a folder of contents
// under their SHA-256 sums, and for each prefix with its patterns a file that says
// which object has which content. A fetch gets an object only where the listing names
// an entity tag that is not kept, and insists on that tag when it reads; where an
// object has changed meanwhile, the bucket is listed again, so that no tree is a mix of
// two listings. What a fetch brought before it failed is kept for the next one, and has a
// file of its own. A content that no file names and no reader holds is removed. A kill at
// any point leaves a folder that opens; what is damaged is found when it is read, and
// fetched again.
//
// A bucket may have 100,000 objects with long keys, and is followed for as long as its
// object lives. So what is in memory of all of them together is bounded: the keys and sums
// of those that were read last (see package paging). The files have the rest, and are written and
// read an entry at a time; which content is used by whom is counted when that changes.
package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/paging"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Options configure a Store. Zero values mean the defaults.
type Options struct {
	// Objects is the largest number of objects of a revision: 100,000 by default.
	Objects int
	// Listed is the largest number of objects that a bucket may list, with those that
	// are ignored: 250,000 by default.
	Listed int
	// Pages is the largest number of pages that a bucket is listed in: 10,000 by
	// default.
	Pages int
	// ObjectBytes is the largest object that is taken, in bytes: 1 GiB by default.
	ObjectBytes int64
	// TotalBytes is what the objects of a revision may have together: 4 GiB by default.
	TotalBytes int64
	// FileBytes is the largest file that is read into memory: 64 MiB by default.
	FileBytes int64
	// Downloads is how many objects of a bucket are fetched at the same time: 16 by
	// default.
	Downloads int
	// Now is the clock by which credentials expire: time.Now by default.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	o.Objects = source.Limit(o.Objects, 100_000)
	o.Listed = source.Limit(o.Listed, 250_000)
	o.Pages = source.Limit(o.Pages, 10_000)
	o.ObjectBytes = source.Limit(o.ObjectBytes, 1<<30)
	o.TotalBytes = source.Limit(o.TotalBytes, 4<<30)
	o.FileBytes = source.Limit(o.FileBytes, 64<<20)
	o.Downloads = source.Limit(o.Downloads, 16)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// mostTables is how many bytes of keys and sums of buckets are in memory.
const mostTables = 64 << 20

// Store keeps the buckets that are followed, below one folder. It is safe for use by
// several goroutines, and by one process at a time.
type Store struct {
	options Options
	folder  *source.Folder
	// dial makes the connection to a bucket.
	dial func(context.Context, Request) (*connection, error)
	// reading is held while a client certificate is read.
	reading chan struct{}
	tables  *paging.Tables[table]
	// loading is held while a long table is made again.
	loading sync.Mutex

	mu      sync.Mutex // guards all below
	remotes map[string]*remote
	closed  bool
}

// Open opens the store below a folder, which is made where it is missing.
func Open(path string, o Options) (*Store, error) {
	folder, err := source.OpenFolder(path, "bucket store")
	if err != nil {
		return nil, err
	}
	s := &Store{options: o.withDefaults(), folder: folder, remotes: map[string]*remote{}, reading: make(chan struct{}, 1), tables: paging.New(mostTables, func(t *table) int64 { return t.cost })}
	s.dial = s.connect
	return s, nil
}

// Close closes what no reader holds any more.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	remotes := s.remotes
	s.remotes = map[string]*remote{}
	s.mu.Unlock()
	for _, r := range remotes {
		r.close()
	}
	return s.folder.Close()
}

// Measure charges namespaces with what is kept for them.
func (s *Store) Measure(charge func(namespace string, bytes int64)) error {
	return s.folder.Measure(charge)
}

// key names the folder of a bucket as a credential sees it.
func (s *Store) key(r Request) string {
	azure := r.Auth.Azure
	return s.folder.Name(
		string(r.Provider), r.Bucket, r.Endpoint, r.Region, fmt.Sprint(r.Insecure, r.TLS.Insecure, r.STS.TLS.Insecure, azure.ClientCertificateSendChain, r.Login != nil, r.Policy.NoPrivate, r.Policy.NoPlainCredentials), r.Identity,
		r.Auth.AccessKey, r.Auth.SecretKey, string(r.Auth.ServiceAccountJSON),
		azure.TenantID, azure.ClientID, azure.ClientSecret, string(azure.ClientCertificate), azure.ClientCertificatePassword,
		azure.AccountKey, azure.SASKey, azure.AuthorityHost,
		r.STS.Provider, r.STS.Endpoint, r.STS.Username, r.STS.Password, string(r.STS.TLS.CA), string(r.STS.TLS.Certificate), string(r.STS.TLS.Key),
		string(r.TLS.CA), string(r.TLS.Certificate), string(r.TLS.Key), r.Proxy.Address, r.Proxy.Username, r.Proxy.Password,
	)
}

// view names what is kept of a bucket for a prefix and its patterns.
func (r Request) view() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(r.Prefix), r.Prefix, r.Ignore))
	return hex.EncodeToString(sum[:16])
}

// remote gives the bucket of a request, and its view.
func (s *Store) remote(ctx context.Context, request Request) (*remote, *view, error) {
	key := s.key(request)
	s.folder.Use(ctx, key)
	if r, v, err := s.known(key, request, nil); r != nil || err != nil {
		return r, v, err
	}
	// It reads keys, which takes as long as somebody has made them: nobody waits for it.
	made, err := s.dial(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	return s.known(key, request, made)
}

// known gives a bucket that is there, or makes it with a connection; without one there
// may be none.
func (s *Store) known(key string, request Request, made *connection) (*remote, *view, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, &fault{code: codeClosed, text: "the store is closed"}
	}
	r := s.remotes[key]
	if r == nil {
		if made == nil {
			return nil, nil, nil
		}
		r = newRemote(s, key, made)
		s.remotes[key] = r
	}
	if r.connection.external {
		r.connection.session.use(request.Login)
	}
	return r, r.view(request.view()), nil
}

// Retain removes the buckets, and what is kept of them for a prefix, that none of the
// requests needs. It must be given everything that is still followed. Contents of a bucket
// that is still followed go a little later: nobody waits until states are read.
func (s *Store) Retain(requests []Request) error {
	wanted := map[string]map[string]bool{}
	for _, request := range requests {
		request = request.withDefaults()
		key := s.key(request)
		if wanted[key] == nil {
			wanted[key] = map[string]bool{}
		}
		wanted[key][request.view()] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for key, r := range s.remotes {
		unread, err := r.retain(wanted[key])
		errs = append(errs, err)
		// What is read stays until a later call finds it unread.
		if wanted[key] == nil && unread {
			delete(s.remotes, key)
			r.close()
		}
	}
	s.folder.Forget(wanted)
	errs = append(errs, s.folder.Sweep(func(key string) bool { return wanted[key] != nil || s.remotes[key] != nil }))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean bucket store: %w", err)
	}
	return nil
}

// waitFor waits for a turn.
func waitFor(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx, "another fetch of the bucket did not end within the timeout")
	}
}

// ended says that a context has ended before anything was asked.
func ended(ctx context.Context, late string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &fault{code: codeCanceled, text: "canceled"}
	}
	return &fault{code: codeCanceled, text: late}
}
