// Package authtest stands in for the clouds and for GitHub in tests: one server in the
// process answers for all of their hosts, speaks their protocols and checks what it is
// sent: tokens and their audiences, signatures, scopes.
package authtest

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Canary is in everything that must not be shown: tokens, keys, and what servers say.
const Canary = "canary"

// Clouds answers for all hosts.
type Clouds struct {
	// GitHubKey is the key that claims of GitHub Apps are verified with.
	GitHubKey *rsa.PublicKey
	// GoogleAddress and GoogleCA say where the cluster of Google Cloud is, and GoogleToken,
	// where it is set, is the token that everybody gets for it. They are set before
	// anything is asked.
	GoogleAddress, GoogleToken string
	GoogleCA                   []byte
	// URL is that of the server, over HTTP, for what cannot be given a transport.
	URL string

	server, plain *httptest.Server
	mu            sync.Mutex
	// failing are answers by host.
	failing map[string]failure
	// asked are "METHOD host/path" of requests, in order.
	asked []string
	// roles are the secret keys of AWS credentials, and who holds them.
	keys map[string]awsKey
	made int
	// hold, where it is not nil, keeps requests waiting.
	hold *hold
}

// hold says when the first request waits, and until when requests do: both are closed.
type hold struct {
	waiting, released chan struct{}
	first             sync.Once
}

type failure struct {
	status int
	body   string
}

// New starts the server; it ends with the test.
func New(t testing.TB) *Clouds {
	t.Helper()
	c := &Clouds{GoogleAddress: "203.0.113.7", GoogleCA: []byte("the authority of Google"), failing: map[string]failure{}, keys: map[string]awsKey{}}
	c.server = httptest.NewTLSServer(c)
	c.plain = httptest.NewServer(c)
	c.URL = c.plain.URL
	t.Cleanup(c.server.Close)
	t.Cleanup(c.plain.Close)
	return c
}

// Transport sends every request to the server, whatever host it is for.
func (c *Clouds) Transport() http.RoundTripper {
	target, _ := url.Parse(c.server.URL)
	next := c.server.Client().Transport
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		host := r.URL.Host
		r = r.Clone(r.Context())
		r.Host = host
		r.URL.Host, r.URL.Scheme = target.Host, target.Scheme
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip sends a request.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Fail has a host answer with a status and a body, until Mend.
func (c *Clouds) Fail(host string, status int, body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing[host] = failure{status, body}
}

// Mend has a host answer again.
func (c *Clouds) Mend(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.failing, host)
}

// Hold keeps requests waiting until release is called. The channel is closed once there is
// a request that waits.
func (c *Clouds) Hold() (waiting <-chan struct{}, release func()) {
	h := &hold{waiting: make(chan struct{}), released: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = h
	return h.waiting, sync.OnceFunc(func() { close(h.released) })
}

// Asked are the requests so far that have a text in "METHOD host/path".
func (c *Clouds) Asked(text string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.asked), func(request string) bool { return !strings.Contains(request, text) })
}

// ServeHTTP answers for the host that the request is for.
func (c *Clouds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked = append(c.asked, r.Method+" "+r.Host+r.URL.Path)
	failing, fails := c.failing[r.Host]
	hold := c.hold
	c.mu.Unlock()
	if hold != nil {
		hold.first.Do(func() { close(hold.waiting) })
		select {
		case <-hold.released:
		case <-r.Context().Done():
			return
		}
	}
	if fails {
		w.WriteHeader(failing.status)
		_, _ = w.Write([]byte(failing.body))
		return
	}
	switch host := r.Host; {
	case r.Header.Get("Metadata-Flavor") == "Google":
		c.googleMetadata(w, r)
	case host == "169.254.169.254" && strings.HasPrefix(r.URL.Path, "/metadata/"):
		c.azureMetadata(w, r)
	case host == "169.254.169.254":
		c.awsMetadata(w, r)
	case host == "login.microsoftonline.com":
		c.entra(w, r)
	case strings.HasSuffix(host, ".azurecr.io"):
		c.azureRegistry(w, r)
	case host == "management.azure.com":
		c.azureManager(w, r)
	case strings.HasSuffix(host, ".googleapis.com"):
		c.google(w, r)
	case host == "api.github.com" || host == "github.example.com":
		c.github(w, r)
	case strings.HasPrefix(host, "sts."):
		c.assume(w, r)
	default:
		c.awsService(w, r)
	}
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

// Token is one as the API server issues them, but for the signature, which nobody here
// verifies.
func Token(namespace, name string, audiences []string) string {
	payload, _ := json.Marshal(map[string]any{"sub": "system:serviceaccount:" + namespace + ":" + name, "aud": audiences, "exp": 4102444800})
	return strings.Join([]string{
		base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256"}`)), base64.RawURLEncoding.EncodeToString(payload), Canary,
	}, ".")
}

// subject reads from a token of the API server whose it is; an error where it is not for
// the audience.
func subject(token, audience string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("no token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Subject  string   `json:"sub"`
		Audience []string `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", err
	}
	if !slices.Contains(claims.Audience, audience) {
		return "", fmt.Errorf("audience %v", claims.Audience)
	}
	return claims.Subject, nil
}
