// Package egress is the way out to the servers of sources: it makes the HTTP
// transports and dialers that every adapter uses, so that one place decides what is
// reached and who gets a credential.
//
// Link-local and metadata addresses are never reached, whatever name stands for
// them: the address is looked at when it is dialed. Nor are the servers of the operator
// itself (Own), which have what all tenants have. A redirect takes no credential
// and no client certificate to another host, port or scheme, and never leads from
// https to http. A Policy can refuse more.
//
// Errors are put into words that are the same each time by Explain.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Policy refuses connections that Flux makes. Its zero value refuses none but those
// to link-local and metadata addresses. What it refuses by its flags is part of the keys of
// what is kept of a server; Own, which is the same for all, is not.
type Policy struct {
	// NoPrivate refuses loopback, private (RFC 1918, RFC 4193), shared (RFC 6598) and
	// unspecified addresses, those of proxies too, but for the proxy of the environment.
	// What a proxy connects to is judged by its literal address only: the names are
	// resolved there.
	NoPrivate bool
	// NoPlainCredentials refuses to send a credential over HTTP without TLS.
	NoPlainCredentials bool
	// Own are the operator's own servers, which are never reached; nil for none.
	Own *Own
}

// TLS is how a server is trusted, and how we are known to it. All fields are in PEM
// and may be empty.
type TLS struct {
	// CA are the certificates of authorities to be trusted besides the system's, as in
	// Flux.
	CA []byte
	// Certificate and Key are the client certificate.
	Certificate, Key []byte
	// Insecure trusts any certificate of the first host; those that it redirects to are
	// verified.
	Insecure bool
}

// Proxy is a proxy to be used instead of that of the environment.
type Proxy struct {
	// Address is its URL: http, https or socks5. Where it is empty the environment
	// decides (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
	Address string
	// Username and Password are those of the proxy.
	Username, Password string
}

// Options say how a server is reached.
type Options struct {
	TLS    TLS
	Proxy  Proxy
	Policy Policy
	// Origin, where it is set, is the only server that gets credentials and the client
	// certificate: scheme://host[:port]. Where it is empty, it is for each request the
	// server that the first request of a row of redirects went to.
	Origin string
}

// Transport is an http.RoundTripper that keeps the rules of this package. It is safe
// for use by several goroutines. Close it with CloseIdleConnections.
type Transport struct {
	origin string
	policy Policy
	proxy  func(*url.URL) (*url.URL, error)
	// ambient is set where the environment decides on the proxy.
	ambient bool
	// own and foreign are the settings for the origin and for other servers.
	own, foreign *tls.Config

	mu sync.Mutex // guards transports
	// transports are made when they are needed, by whether they are for another
	// server than the origin and whether they go through a proxy.
	transports map[[2]bool]*http.Transport
}

// Refused is the error of a connection that the rules refuse.
type Refused struct {
	Text string
	// private is set where Policy.NoPrivate is the rule.
	private bool
}

// Error says what is refused and why.
func (e *Refused) Error() string { return e.Text }

// Misconfigured is the error of options that cannot be used. It names no values.
type Misconfigured struct{ Text string }

// Error says what cannot be used.
func (e *Misconfigured) Error() string { return e.Text }

// NewTransport makes a transport; it connects to nothing yet. The error is Misconfigured.
func NewTransport(o Options) (*Transport, error) {
	via, err := o.Proxy.URL()
	if err != nil {
		return nil, err
	}
	t := &Transport{origin: o.Origin, policy: o.Policy, proxy: environment(), transports: map[[2]bool]*http.Transport{}}
	t.ambient = via == nil
	if via != nil {
		t.proxy = func(*url.URL) (*url.URL, error) { return via, nil }
	}
	if t.own, err = o.TLS.Config(); err != nil {
		return nil, err
	}
	t.foreign = t.own.Clone()
	t.foreign.Certificates, t.foreign.InsecureSkipVerify = nil, false
	return t, nil
}

// environment is the proxy that the environment wants for a URL.
func environment() func(*url.URL) (*url.URL, error) {
	return httpproxy.FromEnvironment().ProxyFunc()
}

// sensitive are the headers that are for the origin only. The referrer is one: a query
// may hold a signature.
func sensitive() []string {
	return []string{"Authorization", "Cookie", "Cookie2", "Private-Token", "Referer", "Www-Authenticate", "X-Amz-Security-Token", "X-Goog-Iam-Authorization-Token"}
}

// RoundTrip sends a request as the rules allow. Errors of the rules are Refused.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := t.judge(request); err != nil {
		if request.Body != nil {
			_ = request.Body.Close()
		}
		return nil, err
	}
	foreign := !sameServer(t.originOf(request), request.URL)
	request = t.policy.Own.sign(request)
	if foreign && slices.ContainsFunc(sensitive(), func(name string) bool { return request.Header.Get(name) != "" }) {
		request = request.Clone(request.Context())
		for _, name := range sensitive() {
			request.Header.Del(name)
		}
	}
	via, err := t.proxy(request.URL)
	if err != nil {
		return nil, &Refused{Text: "the proxy of the environment is not a URL"}
	}
	response, err := t.transport(foreign, via).RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if t.policy.Own.answered(response) {
		_ = response.Body.Close()
		return nil, answersItself(net.JoinHostPort(request.URL.Hostname(), portOf(request.URL)))
	}
	noteWish(response)
	return bound(response)
}

// judge refuses what may not be sent.
func (t *Transport) judge(request *http.Request) error {
	if scheme := request.URL.Scheme; scheme != "http" && scheme != "https" {
		return &Refused{Text: fmt.Sprintf("scheme %s is refused; use https", Quote(scheme))}
	}
	if from := request.Response; from != nil && from.Request != nil && from.Request.URL.Scheme == "https" && request.URL.Scheme == "http" {
		return &Refused{Text: "the server redirects from https to http, which is refused"}
	}
	if err := t.policy.CheckServer(request.Context(), request.URL.Hostname(), portOf(request.URL)); err != nil {
		return err
	}
	if t.policy.NoPlainCredentials && request.URL.Scheme == "http" && request.Header.Get("Authorization") != "" {
		return &Refused{Text: "a credential would be sent over http, which --no-plain-credentials refuses; use https"}
	}
	return nil
}

// originOf is the server that a request's credentials are for.
func (t *Transport) originOf(request *http.Request) *url.URL {
	if t.origin != "" {
		if u, err := url.Parse(t.origin); err == nil {
			return u
		}
	}
	first := request
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	return first.URL
}

func sameServer(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

func (t *Transport) transport(foreign bool, via *url.URL) *http.Transport {
	key := [2]bool{foreign, via != nil}
	t.mu.Lock()
	defer t.mu.Unlock()
	if made := t.transports[key]; made != nil {
		return made
	}
	config, policy := t.own, t.policy
	if foreign {
		config = t.foreign
	}
	if via != nil && t.ambient {
		// The proxy of the environment is where whoever runs the operator wants it.
		policy.NoPrivate = false
	}
	made := &http.Transport{
		DialContext:           policy.Dialer().DialContext,
		TLSClientConfig:       config.Clone(),
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          32,
		MaxIdleConnsPerHost:   32, // as many as ask one server at once
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   30 * time.Second,
		ExpectContinueTimeout: time.Second,
		// What is fetched is packed already, and what unpacks to more than it seems
		// is to pass our own limits.
		DisableCompression: true,
	}
	if via != nil {
		made.Proxy = func(request *http.Request) (*url.URL, error) { return t.proxy(request.URL) }
	}
	t.transports[key] = made
	return made
}

// CloseIdleConnections closes connections that are not in use.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, transport := range t.transports {
		transport.CloseIdleConnections()
	}
}

// longestRedirect is the most redirects that are followed.
const longestRedirect = 10

// Client is an HTTP client that follows at most ten redirects. It has no timeout: the
// context of a request decides.
func (t *Transport) Client() *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > longestRedirect {
			return &Refused{Text: fmt.Sprintf("the server redirects more than %d times", longestRedirect)}
		}
		return nil
	}}
}

// Config is that of the TLS library. The error is Misconfigured.
func (c TLS) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure} //nolint:gosec // asked for by the object's own field
	if len(c.CA) > 0 {
		config.RootCAs = pool()
		if !config.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, &Misconfigured{"the CA is not a certificate in PEM"}
		}
	}
	if len(c.Certificate) == 0 && len(c.Key) == 0 {
		return config, nil
	}
	if err := CheckKey(c.Key); err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, &Misconfigured{"the client certificate and its key cannot be used: " + strings.TrimPrefix(err.Error(), "tls: ")}
	}
	config.Certificates = []tls.Certificate{certificate}
	return config, nil
}

// pool are the system's authorities, to which others are added. Where they cannot be read,
// there are none.
func pool() *x509.CertPool {
	if system, err := x509.SystemCertPool(); err == nil {
		return system
	}
	return x509.NewCertPool()
}

// URL is the proxy's, nil where the environment decides. The error is Misconfigured.
func (p Proxy) URL() (*url.URL, error) {
	if p.Address == "" {
		return nil, nil
	}
	u, err := url.Parse(p.Address)
	if err != nil || u.Host == "" {
		return nil, &Misconfigured{"the proxy's address is not a URL"}
	}
	switch u.Scheme {
	case "http", "https", "socks5":
	default:
		return nil, &Misconfigured{fmt.Sprintf("scheme %s of the proxy is not supported; use http, https or socks5", Quote(u.Scheme))}
	}
	if p.Username != "" {
		u.User = url.UserPassword(p.Username, p.Password)
	}
	return u, nil
}

// Dialer makes connections to addresses that the policy allows.
func (p Policy) Dialer() *net.Dialer {
	return &net.Dialer{Timeout: 30 * time.Second, ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &Refused{Text: fmt.Sprintf("%s is not an address", Quote(address))}
		}
		return p.check(ctx, to)
	}}
}

// ContextDialer makes connections.
type ContextDialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}
