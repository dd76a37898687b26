package helmrepo_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestChartOfTheIndex: what the index says about a chart, and does not keep.
func TestChartOfTheIndex(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("a", 64)
	for name, test := range map[string]struct {
		change func(*testenv.HelmEntry)
		kind   gitops.ErrorKind
		want   string
	}{
		"another digest":        {func(e *testenv.HelmEntry) { e.Digest = sum }, gitops.Transient, "instead of " + sum},
		"a digest with a name":  {func(e *testenv.HelmEntry) { e.Digest = "sha256:" + sum }, gitops.Transient, "instead of " + sum},
		"no digest":             {func(e *testenv.HelmEntry) { e.Digest = "" }, "", ""},
		"an older digest":       {func(e *testenv.HelmEntry) { e.Digest = "abc" }, "", ""},
		"no URL":                {func(e *testenv.HelmEntry) { e.URL = "" }, gitops.Invalid, "the index has no URL for it"},
		"no such file":          {func(e *testenv.HelmEntry) { e.URL = "none.tgz" }, gitops.Transient, `none.tgz": the server answers 404 Not Found`},
		"a file on the machine": {func(e *testenv.HelmEntry) { e.URL = "file:///etc/passwd" }, gitops.Invalid, `scheme "file", which is not supported`},
		"a registry":            {func(e *testenv.HelmEntry) { e.URL = "oci://example.com/x" }, gitops.Invalid, `scheme "oci", which is not supported`},
		"metadata of the cloud": {func(e *testenv.HelmEntry) { e.URL = "http://169.254.169.254/latest/x?secret=1" }, gitops.Invalid, `"http://169.254.169.254/latest/x": connections to 169.254.169.254 are refused`},
		"no URL at all":         {func(e *testenv.HelmEntry) { e.URL = "http://[::1" }, gitops.Invalid, "a URL for it that cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			entry := server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
			test.change(&entry)
			server.Add(entry)
			s := openStore(t, helmrepo.Options{})
			request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
			if test.want == "" {
				getChart(t, s, request, "")
				return
			}
			if e := refuseChart(t, s, request); e.Kind != test.kind || e.Reason != helmrepo.ReasonPull || !strings.Contains(e.Error(), test.want) || strings.Contains(e.Error(), "secret") {
				t.Errorf("got %s, %s: %s", e.Kind, e.Reason, e)
			}
		})
	}
}

// TestChartCredentials: who gets the credential of a repository.
func TestChartCredentials(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tls, pass bool
		want      bool
	}{
		"another host gets none":                        {},
		"another host gets it where that is asked for":  {pass: true, want: true},
		"another scheme gets none":                      {tls: true},
		"another scheme gets none, also when asked for": {tls: true, pass: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packed := testenv.HelmChart(t, "app", "1.0.0", nil)
			var mu sync.Mutex
			var seen []string
			elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				seen = append(seen, r.Header.Get("Authorization"))
				mu.Unlock()
				_, _ = w.Write(packed)
			}))
			t.Cleanup(elsewhere.Close)
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: "s3cret-word", TLS: test.tls})
			entry := server.Put(t, "app", "1.0.0", packed)
			entry.URL = elsewhere.URL + "/app.tgz"
			server.Add(entry)
			getChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Name: "app", Repository: helmrepo.Repository{
				URL: server.URL(), Auth: helmrepo.Auth{Username: "ann", Password: "s3cret-word"}, PassCredentials: test.pass,
				TLS: egress.TLS{CA: server.CA},
			}}, "")
			if len(seen) != 1 || (seen[0] != "") != test.want {
				t.Errorf("the other host got %q", seen)
			}
		})
	}
}

// TestChartRelativeURLs: URLs in an index are below the repository, whose query they have.
func TestChartRelativeURLs(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		"app.tgz": "/charts/app.tgz?token=x", "sub/app.tgz": "/charts/sub/app.tgz?token=x", "../app.tgz": "/app.tgz?token=x",
		"/app.tgz": "/app.tgz?token=x", "app.tgz?other=y": "/charts/app.tgz?token=x",
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			server.Add(testenv.HelmEntry{Name: "app", Version: "1.0.0", URL: at})
			packed := testenv.HelmChart(t, "app", "1.0.0", nil)
			asked := make(chan string, 1)
			server.Around(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "index.yaml") {
						next.ServeHTTP(w, r)
						return
					}
					asked <- r.URL.RequestURI()
					_, _ = w.Write(packed)
				})
			})
			getChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Name: "app", Repository: helmrepo.Repository{URL: server.URL() + "?token=x"}}, "")
			if got := <-asked; got != want {
				t.Errorf("asked for %q, want %q", got, want)
			}
		})
	}
}

// TestChartTLS: certificates and credentials that are needed, and those that are wrong.
func TestChartTLS(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{TLS: true, Username: "ann", Password: "word"})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	good := helmrepo.Repository{URL: server.URL(), Auth: helmrepo.Auth{Username: "ann", Password: "word"}, TLS: egress.TLS{CA: server.CA}}
	for name, test := range map[string]struct {
		change func(*helmrepo.Repository)
		reason string
		want   string
	}{
		"the right CA":    {func(*helmrepo.Repository) {}, "", ""},
		"any certificate": {func(r *helmrepo.Repository) { r.TLS = egress.TLS{Insecure: true} }, "", ""},
		"a credential in URL": {func(r *helmrepo.Repository) {
			r.URL = strings.Replace(r.URL, "://", "://ann:word@", 1)
			r.Auth = helmrepo.Auth{}
		}, "", ""},
		"no CA":         {func(r *helmrepo.Repository) { r.TLS.CA = nil }, helmrepo.ReasonFailed, "signed by an unknown authority"},
		"no credential": {func(r *helmrepo.Repository) { r.Auth = helmrepo.Auth{} }, helmrepo.ReasonAuthentication, "the repository needs a credential"},
		"a wrong one":   {func(r *helmrepo.Repository) { r.Auth.Password = "x" }, helmrepo.ReasonAuthentication, "check the credential"},
		"no client key": {func(r *helmrepo.Repository) { r.TLS.Certificate = []byte("x") }, helmrepo.ReasonAuthentication, "the client certificate and its key cannot be used"},
		"plain HTTP refused": {func(r *helmrepo.Repository) {
			r.URL = strings.Replace(r.URL, "https", "http", 1)
			r.Policy.NoPlainCredentials = true
		}, helmrepo.ReasonFailed, "--no-plain-credentials"},
		"private addresses": {func(r *helmrepo.Repository) { r.Policy.NoPrivate = true }, helmrepo.ReasonFailed, "--no-private-sources"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.ChartRequest{Name: "app", Repository: good}
			test.change(&request.Repository)
			s := openStore(t, helmrepo.Options{})
			if test.want == "" {
				getChart(t, s, request, "")
			} else if e := refuseChart(t, s, request); e.Reason != test.reason || !strings.Contains(e.Error(), test.want) {
				t.Errorf("got %s: %s", e.Reason, e)
			}
		})
	}
}

// TestClientCertificate: a server may ask for one.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	certificate, key := clientCertificate(t)
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{TLS: true, ClientCA: certificate})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	request := helmrepo.ChartRequest{Name: "app", Repository: helmrepo.Repository{URL: server.URL(), TLS: egress.TLS{CA: server.CA}}}
	s := openStore(t, helmrepo.Options{})
	if e := refuseChart(t, s, request); e.Kind != gitops.Denied || !strings.Contains(e.Error(), "client certificate") {
		t.Errorf("got %s, %s: %s", e.Kind, e.Reason, e)
	}
	request.Repository.TLS.Certificate, request.Repository.TLS.Key = certificate, key
	getChart(t, s, request, "")
}

// TestProxy: index and chart come through the proxy, which gets its own credential only.
func TestProxy(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: "word"})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	asked := make(chan string, 8)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Proxy-Authorization")
		(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}).ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	getChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Name: "app", Repository: helmrepo.Repository{
		URL: server.URL(), Auth: helmrepo.Auth{Username: "ann", Password: "word"},
		Proxy: egress.Proxy{Address: proxy.URL, Username: "p", Password: "q"},
	}}, "")
	close(asked)
	var all []string
	for a := range asked {
		all = append(all, a)
	}
	if want := []string{"Basic cDpx", "Basic cDpx"}; !slices.Equal(all, want) {
		t.Errorf("the proxy was asked with %q, want %q", all, want)
	}
}

// clientCertificate makes a certificate and its key, in PEM.
func clientCertificate(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: rawKey})
}
