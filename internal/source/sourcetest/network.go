package sourcetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

func checkRedirect(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	var mu sync.Mutex
	var seen bytes.Buffer
	// Another port is another host; the same name must not be enough.
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		mu.Lock()
		_ = request.Header.Write(&seen)
		mu.Unlock()
		http.NotFound(w, request)
	}))
	defer elsewhere.Close()
	r.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			http.Redirect(w, request, elsewhere.URL+request.URL.RequestURI(), http.StatusMovedPermanently)
		})
	})
	r.refuse(t, r.Fetcher, patience)
	mu.Lock()
	defer mu.Unlock()
	if seen.Len() == 0 {
		t.Error("the redirect was not followed, so that nothing was proven")
	}
	for _, header := range []string{"Authorization", "Cookie", "Private-Token"} {
		if strings.Contains(seen.String(), header+":") {
			t.Errorf("%s was sent to another host", header)
		}
	}
}

// hidden is the name of a host that only the proxy of a test knows.
const hidden = "behind-the-proxy"

// proxy is an HTTP proxy that asks for a credential.
type proxy struct {
	*httptest.Server
	target string
	next   *httputil.ReverseProxy
	wait   sync.WaitGroup
	// served is how often it did what it was asked for.
	served atomic.Int64
}

const proxyUser, proxyPassword = "via", "pr0xy-word"

// newProxy makes a proxy that reaches a target under the hidden name.
func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	p := &proxy{target: target}
	transport := &http.Transport{DialContext: p.dial, DisableCompression: true}
	p.next = &httputil.ReverseProxy{
		Rewrite: func(*httputil.ProxyRequest) {}, Transport: transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
	}
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Start()
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
		transport.CloseIdleConnections()
		p.wait.Wait()
	})
	return p
}

// way is that of the hidden name through the proxy.
func (p *proxy) way(password string) Way {
	return Way{Address: hidden + ":4711", Proxy: egress.Proxy{Address: p.URL, Username: proxyUser, Password: password}}
}

func (p *proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, _ := net.SplitHostPort(address); host == hidden {
		address = p.target
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// ServeHTTP hands on a request, or makes a tunnel.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+proxyPassword)) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.served.Add(1)
	if r.Method != http.MethodConnect {
		p.next.ServeHTTP(w, r)
		return
	}
	up, err := p.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	down, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = up.Close()
		return
	}
	_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
	p.wait.Go(func() { pipe(down, up) })
}

// pipe joins two connections until one of them ends.
func pipe(a, b net.Conn) {
	var wait sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		wait.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = a.Close()
			_ = b.Close()
		})
	}
	wait.Wait()
}

func checkProxy(t *testing.T, r Remote) {
	files := map[string]string{"a": "1", "d/b": "2"}
	r.Put(t, files)
	p := newProxy(t, r.Address)
	through := r
	through.Fetcher = r.Reach(t, p.way(proxyPassword))
	through.check(t, through.get(t, ""), files)
	if p.served.Load() == 0 {
		t.Error("the proxy was not asked")
	}
}

func checkSecureProxy(t *testing.T, r Remote) {
	files := map[string]string{"a": "1", "d/b": "2"}
	r.Put(t, files)
	authority := newAuthority(t)
	front := newFront(t, r.Address, authority.issue(t, hidden, time.Now().Add(time.Hour)))
	p := newProxy(t, front.address())
	way := p.way(proxyPassword)
	way.TLS, way.CA = true, authority.pem
	through := r
	through.Fetcher = r.Reach(t, way)
	through.check(t, through.get(t, ""), files)
	if p.served.Load() == 0 || front.received.Load() == 0 {
		t.Error("the proxy was not asked")
	}
}

func checkBadProxy(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	r.Secrets = append([]string{proxyPassword, "wr0ng-proxy-word"}, r.Secrets...)
	p := newProxy(t, r.Address)
	r.refuse(t, r.Reach(t, p.way("wr0ng-proxy-word")), patience)
	if p.served.Load() != 0 {
		t.Error("the proxy has let in a wrong password")
	}
	silent := newRelay(t, r.Address)
	silent.set(trouble{hang: true})
	way := p.way(proxyPassword)
	way.Proxy.Address = "http://" + silent.address()
	began := time.Now()
	if err := r.refuse(t, r.Reach(t, way), 200*time.Millisecond); err.Kind != gitops.Transient {
		t.Errorf("a proxy that hangs: kind %q of %q, want %q", err.Kind, err, gitops.Transient)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("two fetches with a deadline of 200ms took %s", took)
	}
	closed := listen(t)
	way.Proxy.Address = "http://" + closed.Addr().String()
	_ = closed.Close()
	if err := r.refuse(t, r.Reach(t, way), patience); err.Kind != gitops.Transient {
		t.Errorf("a proxy that is not there: kind %q of %q, want %q", err.Kind, err, gitops.Transient)
	}
}

// authority signs certificates.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pem         []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key: key, certificate: template, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for a host, a name or an address, that ends sometime.
func (a *authority) issue(t testing.TB, host string, ends time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: ends,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// front is a TLS server that hands on what it is sent.
type front struct {
	listener net.Listener
	wait     sync.WaitGroup
	// received is how many bytes it was sent behind the handshake.
	received atomic.Int64
}

func newFront(t testing.TB, target string, certificate tls.Certificate) *front {
	t.Helper()
	f := &front{listener: listen(t)}
	ctx, cancel := context.WithCancel(context.Background())
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	f.wait.Go(func() {
		accept(f.listener, &f.wait, func(conn net.Conn) {
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			secured := tls.Server(conn, config)
			if secured.HandshakeContext(ctx) != nil {
				return
			}
			up, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			pipe(&counter{secured, &f.received}, up)
		})
	})
	t.Cleanup(func() {
		cancel()
		_ = f.listener.Close()
		f.wait.Wait()
	})
	return f
}

func (f *front) address() string { return f.listener.Addr().String() }

// counter counts what is read.
type counter struct {
	net.Conn
	read *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func checkCertificates(t *testing.T, r Remote) {
	files := map[string]string{"a": "1", "d/b": "2"}
	r.Put(t, files)
	soon := time.Now().Add(time.Hour)
	known, other := newAuthority(t), newAuthority(t)
	good := newFront(t, r.Address, known.issue(t, "127.0.0.1", soon))
	trusted := r
	trusted.Fetcher = r.Reach(t, Way{Address: good.address(), TLS: true, CA: known.pem})
	trusted.check(t, trusted.get(t, ""), files)
	if good.received.Load() == 0 {
		t.Error("the server was not asked with TLS")
	}
	for name, row := range map[string]struct {
		certificate tls.Certificate
		ca          []byte
		words       string
	}{
		"an authority that nobody knows": {known.issue(t, "127.0.0.1", soon), nil, "unknown authority"},
		"another authority":              {known.issue(t, "127.0.0.1", soon), other.pem, "unknown authority"},
		"an expired certificate":         {known.issue(t, "127.0.0.1", time.Now().Add(-time.Hour)), known.pem, "expired"},
		"one for another host":           {known.issue(t, "192.0.2.1", soon), known.pem, "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			front := newFront(t, r.Address, row.certificate)
			err := r.refuse(t, r.Reach(t, Way{Address: front.address(), TLS: true, CA: row.ca}), patience)
			if err.Kind != gitops.Denied || !strings.Contains(err.Error(), row.words) {
				t.Errorf("kind %q of %q, want %q and %q", err.Kind, err, gitops.Denied, row.words)
			}
			if n := front.received.Load(); n > 0 {
				t.Errorf("%d bytes were sent to it", n)
			}
		})
	}
}
