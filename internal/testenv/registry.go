package testenv

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is an OCI registry on the loopback interface. It ends with the test.
type Registry struct {
	// CA is the certificate of the registry's authority in PEM; empty without TLS.
	CA []byte

	options  RegistryOptions
	store    http.Handler
	server   *httptest.Server
	requests atomic.Int64
	tokens   atomic.Int64
	conns    atomic.Int64
	hang     chan struct{}
	mu       sync.Mutex // guards all below
	around   func(http.Handler) http.Handler
	realm    string
}

// RegistryOptions say how a Registry behaves.
type RegistryOptions struct {
	// Username and Password are asked for, by basic authentication.
	Username, Password string
	// Bearer asks for a token instead, which the registry's own /token gives out to
	// whoever has the user name and password; without these, to everybody.
	Bearer bool
	// Realm is where tokens are to be had, where it is not the registry's own /token.
	Realm string
	// TLS serves https, with a certificate made by Registry.CA.
	TLS bool
	// ClientCA asks for a client certificate that it signed, in PEM.
	ClientCA []byte
}

// NewRegistry starts an empty registry.
func NewRegistry(t testing.TB, o RegistryOptions) *Registry {
	t.Helper()
	r := &Registry{
		options: o, realm: o.Realm, hang: make(chan struct{}),
		store: registry.New(registry.Logger(quietLog(t)), registry.WithReferrersSupport(true)),
	}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.server.Config.ErrorLog = quietLog(t)
	r.server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		r.conns.Add(1)
		return ctx
	}
	if o.TLS {
		r.server.EnableHTTP2 = true // as registries have it
		if len(o.ClientCA) > 0 {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(o.ClientCA)
			r.server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
		}
		r.server.StartTLS()
		r.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	} else {
		r.server.Start()
	}
	t.Cleanup(func() {
		close(r.hang)
		r.server.CloseClientConnections()
		r.server.Close()
	})
	return r
}

// token is what the registry's /token gives out for a scope.
func token(scope string) string { return "token-for-" + strings.ReplaceAll(scope, ":", "-") }

func (r *Registry) serve(w http.ResponseWriter, request *http.Request) {
	r.requests.Add(1)
	if request.URL.Path == "/token" {
		r.giveToken(w, request)
		return
	}
	if !r.allows(request) {
		w.Header().Set("WWW-Authenticate", r.challenge(request))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	r.mu.Lock()
	around := r.around
	r.mu.Unlock()
	if around != nil {
		around(r.store).ServeHTTP(w, request)
		return
	}
	r.store.ServeHTTP(w, request)
}

func (r *Registry) allows(request *http.Request) bool {
	if r.options.Bearer {
		got, ok := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		return ok && got == token(scopeOf(request.URL.Path))
	}
	if r.options.Username == "" {
		return true
	}
	user, password, _ := request.BasicAuth()
	return user == r.options.Username && password == r.options.Password
}

// scopeOf is what a token has to be for to read a path.
func scopeOf(path string) string {
	elements := strings.Split(strings.TrimPrefix(path, "/v2/"), "/")
	if len(elements) < 3 {
		return ""
	}
	return "repository:" + strings.Join(elements[:len(elements)-2], "/") + ":pull"
}

func (r *Registry) challenge(request *http.Request) string {
	if !r.options.Bearer {
		return `Basic realm="registry"`
	}
	r.mu.Lock()
	realm := r.realm
	r.mu.Unlock()
	if realm == "" {
		realm = r.server.URL + "/token"
	}
	challenge := fmt.Sprintf(`Bearer realm=%q,service="registry"`, realm)
	if scope := scopeOf(request.URL.Path); scope != "" {
		challenge += fmt.Sprintf(`,scope=%q`, scope)
	}
	return challenge
}

func (r *Registry) giveToken(w http.ResponseWriter, request *http.Request) {
	r.tokens.Add(1)
	user, password, _ := request.BasicAuth()
	if r.options.Username != "" && (user != r.options.Username || password != r.options.Password) {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token(request.URL.Query().Get("scope")), "expires_in": 300})
}

// Host is where the registry is reached: host and port.
func (r *Registry) Host() string { return r.server.Listener.Addr().String() }

// URL is that of a repository, as in an OCIRepository.
func (r *Registry) URL(repository string) string { return "oci://" + r.Host() + "/" + repository }

// Requests is the number of HTTP requests so far, those for tokens among them.
func (r *Registry) Requests() int64 { return r.requests.Load() }

// Tokens is the number of requests for tokens so far.
func (r *Registry) Tokens() int64 { return r.tokens.Load() }

// Connections is the number of connections so far.
func (r *Registry) Connections() int64 { return r.conns.Load() }

// Around puts a handler in front of all later requests that are let in; nil takes it
// away.
func (r *Registry) Around(wrap func(http.Handler) http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.around = wrap
}

// SetRealm changes where tokens are to be had.
func (r *Registry) SetRealm(realm string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.realm = realm
}

// Hang leaves all later requests without an answer until the client goes away.
func (r *Registry) Hang() {
	r.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			select {
			case <-request.Context().Done():
			case <-r.hang:
			}
		})
	})
}

// call asks the registry's store without the network and without a credential.
func (r *Registry) call(t testing.TB, method, target, contentType string, body []byte, want int) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(method, target, bytes.NewReader(body))
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	answer := httptest.NewRecorder()
	r.store.ServeHTTP(answer, request)
	if answer.Code != want {
		t.Fatalf("%s %s: %d %s", method, target, answer.Code, answer.Body)
	}
	return answer
}
