package egress

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]struct{ always, private bool }{
		"169.254.169.254": {always: true}, "169.254.0.1": {always: true}, "::ffff:169.254.169.254": {always: true},
		"64:ff9b::a9fe:a9fe": {always: true}, "fe80::1": {always: true}, "fe80::1%eth0": {always: true}, "fd00:ec2::254": {always: true},
		"127.0.0.1": {private: true}, "::1": {private: true}, "10.0.0.1": {private: true}, "192.168.1.1": {private: true},
		"100.64.0.1": {private: true}, "0.0.0.0": {private: true}, "::ffff:10.1.1.1": {private: true}, "64:ff9b::a00:1": {private: true},
		"100.100.100.200": {always: true}, "168.63.129.16": {always: true}, "fd20:ce::254": {always: true},
		"64:ff9b:1::a9fe:a9fe": {always: true}, "::a9fe:a9fe": {always: true}, "::a00:1": {private: true},
		"fd00:c1::a9fe:a9fe": {always: true}, "fd00:ec2::23": {always: true}, "fd00:c1::a9fe:a9ff": {private: true},
		// Behind a local prefix of 48, 56 and 64 bits.
		"64:ff9b:1:a9fe:a9:fe00::": {always: true}, "64:ff9b:1:a9:fe:a9fe::": {always: true}, "64:ff9b:1:0:a9:fea9:fe00:0": {always: true},
		"64:ff9b:1::808:808": {}, "64:ff9b:1::a00:1": {private: true}, "64:ff9b::808:808": {}, "::ffff:0:a9fe:a9fe": {always: true}, "::ffff:0:808:808": {},
		// 6to4, and the server and the client of Teredo.
		"2002:a9fe:a9fe::1": {always: true}, "2002:a00:1::1": {private: true}, "2002:808:808::1": {}, "2003:a9fe:a9fe::1": {},
		"2001:0:a9fe:a9fe::1": {always: true}, "2001:0:808:808::5601:5601": {always: true}, "2001:0:808:808::f5ff:fffe": {private: true},
		"2001:0:808:808::f7f7:f7f7": {}, "2001:1:a9fe:a9fe::1": {},
		"2001:db8::5efe:a9fe:a9fe": {always: true}, "2001:db8::200:5efe:a9fe:a9fe": {always: true}, "2001:db8::5efe:808:808": {}, "2001:db8::5eff:a9fe:a9fe": {},
		"fd00:ec2::253": {private: true}, "169.253.0.1": {}, "2001:db8::1": {}, "100.128.0.1": {},
	} {
		at := netip.AddrPortFrom(netip.MustParseAddr(address), 80)
		if err := (Policy{}).check(t.Context(), at); (err != nil) != want.always {
			t.Errorf("%s: %v", address, err)
		}
		if err := (Policy{NoPrivate: true}).check(t.Context(), at); (err != nil) != (want.always || want.private) {
			t.Errorf("%s without private addresses: %v", address, err)
		}
	}
}

// A name may stand for any address: it is the dialer that looks.
func TestDialerLooksAtWhatIsDialed(t *testing.T) {
	t.Parallel()
	err := Policy{}.Dialer().ControlContext(t.Context(), "tcp", "169.254.169.254:80", nil)
	err = &url.Error{Op: "Get", URL: "http://name/?secret", Err: &net.OpError{Op: "dial", Err: err}}
	code, text, ok := Explain(t.Context(), err)
	if !ok || code != Forbidden || code.Kind() != gitops.Invalid || !strings.HasPrefix(text, "connections to 169.254.169.254 are refused") {
		t.Errorf("%q, %q, %v", code, text, ok)
	}
	if _, err := (Policy{NoPrivate: true}).Dialer().DialContext(t.Context(), "tcp", "127.0.0.1:1"); !isRefused(err) {
		t.Errorf("a loopback address is dialed: %v", err)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for host, refused := range map[string]bool{
		"metadata.google.internal": true, "METADATA.Google.Internal.": true, "metadata": true, "metadata.goog": true, "metadata.tencentyun.com": true,
		"instance-data": true, "instance-data.ec2.internal": true, "instance-data.eu-central-1.compute.internal": true,
		"metadata.google.internal.example.com": false, "metadata.example.com": false, "instance-data.example.com": false, "my-metadata": false,
		"ip-10-0-0-1.eu-central-1.compute.internal": false, "git.example.com": false, "git.exa_mple.com": false, "metadata-git": false,
		// Other forms of the same, and names that have them by right.
		"metadata。google。internal": true, "ｍetadata.google.internal": true, "１６９.254.169.254": true, "bücher.example": false, "metadata\u200b.goog": true, "\u202ea.example": true,
	} {
		if err := (Policy{}).CheckServer(t.Context(), host, "80"); isRefused(err) != refused {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func isRefused(err error) bool {
	var refused *Refused
	return errors.As(err, &refused)
}

// get sends a request with a credential.
func get(t *testing.T, o Options, target string) (*http.Response, error) {
	t.Helper()
	transport, err := NewTransport(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("ann", "canary")
	request.Header.Set("Private-Token", "canary")
	response, err := transport.Client().Do(request)
	if err == nil {
		t.Cleanup(func() { _ = response.Body.Close() })
	}
	return response, err
}

func TestLiteralAddressesAreRefusedThroughProxies(t *testing.T) {
	t.Parallel()
	// Nothing of this leaves the machine, even where nobody refuses it: the proxies
	// are not there.
	for _, target := range []string{"http://169.254.169.254/x", "https://[fe80::1]/x", "http://[fd00:ec2::254]/x", "ftp://host/x", "http://2852039166/", "http://0xa9fea9fe/", "http://169.254.0xa9fe/", "http://0251.0376.0251.0376/", "http://metadata.google.internal/x", "http://metadata。google。internal./x", "http://[2002:a9fe:a9fe::1]/x"} {
		for _, proxy := range []string{"", "http://127.0.0.1:1", "socks5://127.0.0.1:1"} {
			if _, err := get(t, Options{Proxy: Proxy{Address: proxy}}, target); !isRefused(err) {
				t.Errorf("%s through %q: %v", target, proxy, err)
			}
		}
	}
}

// seen remembers the credentials that a server is sent.
type seen struct {
	*httptest.Server
	headers     []string
	certificate bool
}

func newSeen(t *testing.T, start func(http.Handler) *httptest.Server, then http.HandlerFunc) *seen {
	t.Helper()
	s := &seen{}
	s.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.headers = append(s.headers, r.Header.Get("Authorization")+r.Header.Get("Private-Token")+r.Header.Get("Referer"))
		s.certificate = r.TLS != nil && len(r.TLS.PeerCertificates) > 0
		then(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func fine(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func redirectTo(target string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target+r.URL.Path, http.StatusTemporaryRedirect)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	other := newSeen(t, httptest.NewServer, fine)
	first := newSeen(t, httptest.NewServer, redirectTo(other.URL))
	if response, err := get(t, Options{}, first.URL); err != nil || response.StatusCode != http.StatusNoContent {
		t.Fatal(err)
	}
	if first.headers[0] == "" || other.headers[0] != "" {
		t.Errorf("the first server is sent %q, that on another port %q", first.headers, other.headers)
	}
	// Back at the first one the credential is sent again, as it is its own.
	var back *seen
	between := newSeen(t, httptest.NewServer, func(w http.ResponseWriter, r *http.Request) { redirectTo(back.URL+"/end")(w, r) })
	back = newSeen(t, httptest.NewServer, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/end") {
			fine(w, r)
			return
		}
		redirectTo(between.URL)(w, r)
	})
	if _, err := get(t, Options{Origin: "https://elsewhere"}, back.URL); err != nil {
		t.Fatal(err)
	}
	if strings.Join(back.headers, "")+strings.Join(between.headers, "") != "" {
		t.Error("a credential is sent to another server than the origin")
	}

	secure := newSeen(t, httptest.NewTLSServer, redirectTo(other.URL))
	if _, err := get(t, Options{TLS: TLS{Insecure: true}}, secure.URL); !isRefused(err) {
		t.Errorf("a redirect from https to http: %v", err)
	}
	var endless *seen
	endless = newSeen(t, httptest.NewServer, func(w http.ResponseWriter, r *http.Request) { redirectTo(endless.URL)(w, r) })
	if _, err := get(t, Options{}, endless.URL); !isRefused(err) || len(endless.headers) != longestRedirect+1 {
		t.Errorf("%d requests, %v", len(endless.headers), err)
	}
}

func TestClientCertificatesAndInsecureAreForTheOrigin(t *testing.T) {
	t.Parallel()
	tlsServer := func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
		return s
	}
	other := newSeen(t, tlsServer, fine)
	first := newSeen(t, tlsServer, redirectTo(other.URL))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: first.Certificate().Raw})
	certificate, key := clientCertificate(t)
	if _, err := get(t, Options{TLS: TLS{CA: ca, Certificate: certificate, Key: key}}, first.URL); err != nil {
		t.Fatal(err)
	}
	if !first.certificate || other.certificate {
		t.Errorf("certificate: origin %v, other %v", first.certificate, other.certificate)
	}
	_, err := get(t, Options{TLS: TLS{Insecure: true}}, first.URL)
	if code, text, _ := Explain(t.Context(), err); code != Certificate || code.Kind() != gitops.Denied {
		t.Errorf("another server is trusted with any certificate: %q %q, %v", code, text, err)
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	server := newSeen(t, httptest.NewServer, fine)
	if _, err := get(t, Options{Policy: Policy{NoPlainCredentials: true}}, server.URL); !isRefused(err) || len(server.headers) > 0 {
		t.Errorf("a credential over http: %v", err)
	}
	if _, err := get(t, Options{Policy: Policy{NoPrivate: true}}, server.URL); !isRefused(err) || len(server.headers) > 0 {
		t.Errorf("a loopback address: %v", err)
	}
	if _, err := get(t, Options{Policy: Policy{NoPrivate: true}}, strings.Replace(server.URL, "127.0.0.1", "localhost", 1)); !isRefused(err) {
		t.Errorf("a name for one: %v", err)
	}
	// The proxy that an object names is its author's choice, too.
	proxy := newSeen(t, httptest.NewServer, fine)
	if _, err := get(t, Options{Policy: Policy{NoPrivate: true}, Proxy: Proxy{Address: proxy.URL}}, "http://plumb.invalid/"); !isRefused(err) || len(proxy.headers) > 0 {
		t.Errorf("a proxy on a loopback address: %v", err)
	}
	if tunnel, err := Tunnel(Proxy{Address: proxy.URL}, Policy{NoPrivate: true}); err != nil {
		t.Error(err)
	} else if _, err := tunnel.DialContext(t.Context(), "tcp", "plumb.invalid:22"); !isRefused(err) {
		t.Errorf("a tunnel through one: %v", err)
	}
}

func TestUnusableOptions(t *testing.T) {
	t.Parallel()
	certificate, key := clientCertificate(t)
	for name, o := range map[string]Options{
		"CA":                          {TLS: TLS{CA: []byte("canary")}},
		"certificate":                 {TLS: TLS{Certificate: []byte("canary"), Key: key}},
		"a certificate without a key": {TLS: TLS{Certificate: certificate}},
		"proxy":                       {Proxy: Proxy{Address: "canary"}},
		"proxy of another scheme":     {Proxy: Proxy{Address: "gopher://canary"}},
	} {
		_, err := NewTransport(o)
		code, text, _ := Explain(t.Context(), err)
		if code != Unusable || code.Kind() != gitops.Stalled || strings.Contains(text, "canary") {
			t.Errorf("%s: %q, %q", name, code, text)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	plain := newSeen(t, httptest.NewServer, fine)
	secure := newSeen(t, httptest.NewTLSServer, fine)
	for name, row := range map[string]struct {
		target string
		want   Code
	}{
		"nobody listens":       {"http://127.0.0.1:1/", Network},
		"no TLS":               {strings.Replace(plain.URL, "http:", "https:", 1), Certificate},
		"an unknown authority": {secure.URL, Certificate},
	} {
		_, first := get(t, Options{}, row.target)
		_, second := get(t, Options{}, row.target)
		code, text, ok := Explain(t.Context(), first)
		_, again, _ := Explain(t.Context(), second)
		if !ok || code != row.want || text == "" || text != again {
			t.Errorf("%s: %q: %q, then %q", name, code, text, again)
		}
	}
	none := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "git.example.org", IsNotFound: true}}
	if code, text, ok := Explain(t.Context(), &url.Error{Op: "Get", URL: "https://git.example.org/", Err: none}); !ok || code != Network || !strings.Contains(text, "cannot be resolved") {
		t.Errorf("no such host: %q: %q", code, text)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if code, _, _ := Explain(late, errors.New("x")); code != Timeout {
		t.Errorf("a deadline is %q", code)
	}
	cancel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if code, _, _ := Explain(gone, errors.New("x")); code != Canceled {
		t.Errorf("a canceled request is %q", code)
	}
	words := errors.New("malformed HTTP response \"\x1b[2J" + strings.Repeat("x", 5000) + "\"")
	code, text, _ := Explain(t.Context(), &url.Error{Op: "Get", URL: "https://host/app?token=canary", Err: words})
	if code != Network || strings.Contains(text, "canary") || strings.Contains(text, "\x1b") || len(text) > 400 {
		t.Errorf("%q: %q", code, text)
	}
	if _, _, ok := Explain(t.Context(), fmt.Errorf("no tag")); ok {
		t.Error("an error of no connection is explained")
	}
}

// TestExplainsTheEndOfAConnection in the same words, however it is noticed.
func TestExplainsTheEndOfAConnection(t *testing.T) {
	t.Parallel()
	of := func(op string, err error) error {
		return &net.OpError{Op: op, Net: "tcp", Addr: &net.TCPAddr{Port: 1}, Err: os.NewSyscallError(op, err)}
	}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"an end":                     {io.EOF, "the server hung up"},
		"an end within":              {io.ErrUnexpectedEOF, "the server hung up"},
		"a reset while it is read":   {of("read", syscall.ECONNRESET), "the server hung up"},
		"a reset while it is sent":   {of("write", syscall.ECONNRESET), "the server hung up"},
		"nobody there any more":      {of("write", syscall.EPIPE), "the server hung up"},
		"closed":                     {&net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}, "the server hung up"},
		"a reset before it is there": {of("dial", syscall.ECONNRESET), "connect to :1: connection reset by peer"},
		"a route that is gone":       {of("read", syscall.EHOSTUNREACH), "connection lost: no route to host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if code, text, ok := Explain(t.Context(), &url.Error{Op: "Get", URL: "https://git.example.org/", Err: test.err}); !ok || code != Network || text != test.want {
				t.Errorf("%s, %q, %v; want %q", code, text, ok, test.want)
			}
		})
	}
}

func TestBound(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 1000)
	server := newSeen(t, httptest.NewServer, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/streamed" {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, body)
	})
	transport, err := NewTransport(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	for name, row := range map[string]struct {
		path  string
		bytes int64
		fits  bool
	}{
		"an answer of just the bound":            {"/", 1000, true},
		"an answer that says it is larger":       {"/", 999, false},
		"a stream of just the bound":             {"/streamed", 1000, true},
		"a stream that is larger by one":         {"/streamed", 999, false},
		"a stream where nothing may be answered": {"/streamed", 0, false},
	} {
		request, err := http.NewRequestWithContext(Bound(t.Context(), row.bytes), http.MethodGet, server.URL+row.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		response, err := transport.Client().Do(request)
		if err == nil {
			got, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		var large *TooLarge
		if tooLarge := errors.As(err, &large); tooLarge == row.fits || int64(len(got)) > row.bytes || row.fits && string(got) != body {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if !row.fits && large.Bytes != row.bytes {
			t.Errorf("%s: %v", name, err)
		}
	}
}
