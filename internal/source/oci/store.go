// Package oci follows artifacts in OCI registries: it finds out what a tag, a
// version range or a digest stands for, and shows the files of one layer.
//
// Only the first answer, that of the tag, is taken from the registry's word. All
// that follows goes by digest: what is verified is exactly what is pulled, also
// where the tag moves meanwhile. A new digest, and new settings of the
// verification, are verified before anything is stored; what fails is not kept,
// and the last good one stays.
//
// Whatever was fetched is known by a key of the whole request, its credential
// among it, and layers are kept by repository and credential: nobody reads
// through the store what his own credential would not give. Requests with the
// same registry and credential share connections and tokens.
package oci

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Options configure a Store. Zero values mean the defaults.
type Options struct {
	// LayerBytes is the largest layer that is fetched, packed: 512 MiB by default, which
	// is also the most that the cache takes. What it holds unpacked is bounded there.
	LayerBytes int64
	// ManifestBytes is the largest manifest: 4 MiB by default.
	ManifestBytes int64
	// Tags and TagPages are the most tags that a registry may list, and the most pages
	// in which it may do so: 100,000 and 1,000 by default.
	Tags, TagPages int
	// Annotations and AnnotationBytes are the most annotations of a manifest, and the
	// bytes of them all: 1,000 and 256 KiB by default.
	Annotations, AnnotationBytes int
	// UserAgent is what registries are told that we are.
	UserAgent string
	// Now is the clock: time.Now by default.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	o.LayerBytes = source.Limit(o.LayerBytes, 512<<20)
	o.ManifestBytes = source.Limit(o.ManifestBytes, 4<<20)
	o.Tags = source.Limit(o.Tags, 100_000)
	o.TagPages = source.Limit(o.TagPages, 1_000)
	o.Annotations = source.Limit(o.Annotations, 1_000)
	o.AnnotationBytes = source.Limit(o.AnnotationBytes, 256<<10)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Store keeps what is known of the artifacts that are followed, below one folder; their
// files are in an artifact.Cache. It is safe for use by several goroutines, and by one
// process at a time.
type Store struct {
	cache   *artifact.Cache
	options Options
	folder  *source.Folder
	journal *journal
	// transport makes the way to a registry.
	transport func(egress.Options) (*egress.Transport, error)

	mu        sync.Mutex // guards what follows
	sessions  map[string]*session
	followers map[string]*follower
	closed    bool
}

// Open opens the store in a folder, which is made where it is missing.
func Open(cache *artifact.Cache, path string, o Options) (*Store, error) {
	folder, err := source.OpenFolder(path, "OCI store")
	if err != nil {
		return nil, err
	}
	states, err := openJournal(folder.Root())
	if err != nil {
		return nil, fmt.Errorf("open OCI store: %w", errors.Join(err, folder.Close()))
	}
	return &Store{
		cache: cache, options: o.withDefaults(), folder: folder, journal: states, transport: egress.NewTransport,
		sessions: map[string]*session{}, followers: map[string]*follower{},
	}, nil
}

// Close closes idle connections and the folder. What was fetched can still be read.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, session := range s.sessions {
		session.egress.CloseIdleConnections()
	}
	s.sessions, s.followers = map[string]*session{}, map[string]*follower{}
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return errors.Join(s.journal.close(), s.folder.Close())
}

// keys are the names of what belongs to a request: of the repository with its credential,
// and of the request as a whole.
type keys struct{ repository, request string }

func (s *Store) keys(request Request, repository name.Repository) keys {
	parts := append(reach(request, repository), repository.RepositoryStr(), request.Auth.Username, request.Auth.Password)
	for _, config := range request.Auth.DockerConfigs {
		parts = append(parts, string(config))
	}
	k := keys{repository: s.folder.Name(parts...)}
	ref, layer := request.Ref, request.Layer
	k.request = s.folder.Name(k.repository, ref.Tag, ref.SemVer, ref.SemVerFilter, ref.Digest, layer.MediaType, string(layer.operation()))
	return k
}

// reach is all that decides how a registry is reached, but for the credentials.
func reach(request Request, repository name.Repository) []string {
	tls, proxy, policy := request.TLS, request.Proxy, request.Policy
	return []string{
		repository.RegistryStr(), strconv.FormatBool(request.Insecure), request.LoginKey,
		string(tls.CA), string(tls.Certificate), string(tls.Key), strconv.FormatBool(tls.Insecure),
		proxy.Address, proxy.Username, proxy.Password,
		strconv.FormatBool(policy.NoPrivate), strconv.FormatBool(policy.NoPlainCredentials),
	}
}

// sessionKey names a registry with the credentials that are for a repository.
func (s *Store) sessionKey(request Request, repository name.Repository, credentials []authn.AuthConfig) string {
	parts := reach(request, repository)
	for _, c := range credentials {
		parts = append(parts, c.Username, c.Password, c.IdentityToken, c.RegistryToken)
	}
	return s.folder.Name(parts...)
}

// open gives what belongs to a request, and makes what is missing of it.
func (s *Store) open(request Request) (*client, *follower, error) {
	repository, err := request.repository()
	if err != nil {
		return nil, nil, err
	}
	if err := request.check(); err != nil {
		return nil, nil, err
	}
	credentials, err := request.Auth.credentials(repository)
	if err != nil {
		return nil, nil, err
	}
	k, sessionKey := s.keys(request, repository), s.sessionKey(request, repository, credentials)
	if c, f, err := s.known(request, repository, k, sessionKey, nil); c != nil || err != nil {
		return c, f, err
	}
	// It reads keys, which takes as long as somebody has made them: nobody waits for it.
	out, err := s.transport(egress.Options{TLS: request.TLS, Proxy: request.Proxy, Policy: request.Policy})
	if err != nil {
		return nil, nil, err
	}
	return s.known(request, repository, k, sessionKey, newSession(repository.Registry, out, credentials, request.Insecure, s.options))
}

// known gives what is there for a request, or makes it with a session; without one there
// may be none.
func (s *Store) known(request Request, repository name.Repository, k keys, sessionKey string, made *session) (*client, *follower, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errors.New("the store is closed")
	}
	shared := s.sessions[sessionKey]
	if shared == nil {
		if made == nil {
			return nil, nil, nil
		}
		shared = made
		s.sessions[sessionKey] = made
	}
	f := s.followers[k.request]
	if f == nil {
		f = newFollower(k)
		s.followers[k.request] = f
	}
	return newClient(shared, repository, request.Login, s.options), f, nil
}

// Retain drops what is known for none of the requests, on disk too. It must be given
// everything that is still followed; requests that cannot be used are passed over.
func (s *Store) Retain(requests []Request) error {
	sessions, wanted := map[string]bool{}, map[string]bool{}
	for _, request := range requests {
		if repository, err := request.repository(); err == nil {
			wanted[s.keys(request, repository).request] = true
			if credentials, err := request.Auth.credentials(repository); err == nil {
				sessions[s.sessionKey(request, repository, credentials)] = true
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, session := range s.sessions {
		if !sessions[key] {
			session.egress.CloseIdleConnections()
			delete(s.sessions, key)
		}
	}
	for key := range s.followers {
		if !wanted[key] {
			delete(s.followers, key)
		}
	}
	if s.closed {
		return errors.New("the store is closed")
	}
	return s.journal.retain(wanted)
}
