package verifytest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// TUF is a repository that a Sigstore publishes its trusted root in.
type TUF struct {
	*httptest.Server
	// Anchor is its first root.json.
	Anchor []byte

	key ed25519.PrivateKey

	mu sync.Mutex // guards what follows
	// files are answered by path.
	files map[string][]byte
	// version is that of the newest metadata.
	version int64
	// asked counts the requests.
	asked int
	// instead answers in its place, where it is not nil.
	instead http.HandlerFunc
}

// NewTUF starts a repository with a trusted root, whose metadata expire at a time.
func NewTUF(t testing.TB, trustedRoot []byte, expires time.Time) *TUF {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &TUF{key: key, files: map[string][]byte{}}
	public, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	anchor := metadata.Root(time.Now().Add(24 * time.Hour))
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if err := anchor.Signed.AddKey(public, role); err != nil {
			t.Fatal(err)
		}
	}
	r.Anchor = sign(t, anchor, key)
	r.Publish(t, trustedRoot, expires)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Server.Close)
	return r
}

// ServeHTTP answers with a file.
func (r *TUF) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.asked++
	content, ok := r.files[request.URL.Path]
	instead := r.instead
	r.mu.Unlock()
	switch {
	case instead != nil:
		instead(w, request)
	case !ok:
		http.NotFound(w, request)
	default:
		_, _ = w.Write(content)
	}
}

// Asked is how many requests there were.
func (r *TUF) Asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// Instead has a handler answer, nil the repository itself.
func (r *TUF) Instead(handler http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instead = handler
}

// Spoil changes the trusted root without saying so in the metadata.
func (r *TUF) Spoil(trustedRoot []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path := range r.files {
		if len(path) > len("/targets/") && path[:len("/targets/")] == "/targets/" {
			r.files[path] = trustedRoot
		}
	}
}

// Publish publishes another trusted root.
func (r *TUF) Publish(t testing.TB, trustedRoot []byte, expires time.Time) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
	const target = "trusted_root.json"
	targets := metadata.Targets(expires)
	file, err := metadata.TargetFile().FromBytes(target, trustedRoot, "sha256")
	if err != nil {
		t.Fatal(err)
	}
	targets.Signed.Targets[target], targets.Signed.Version = file, r.version
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version, snapshot.Signed.Meta["targets.json"] = r.version, metadata.MetaFile(r.version)
	timestamp := metadata.Timestamp(expires)
	timestamp.Signed.Version, timestamp.Signed.Meta["snapshot.json"] = r.version, metadata.MetaFile(r.version)
	digest := sha256.Sum256(trustedRoot)
	version := string(rune('0' + r.version))
	r.files["/"+version+".targets.json"] = sign(t, targets, r.key)
	r.files["/"+version+".snapshot.json"] = sign(t, snapshot, r.key)
	r.files["/timestamp.json"] = sign(t, timestamp, r.key)
	r.files["/targets/"+hex.EncodeToString(digest[:])+"."+target] = trustedRoot
}

func sign[T metadata.Roles](t testing.TB, m *metadata.Metadata[T], key ed25519.PrivateKey) []byte {
	t.Helper()
	signer, err := signature.LoadSigner(key, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Sign(signer); err != nil {
		t.Fatal(err)
	}
	raw, err := m.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
