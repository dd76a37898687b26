package bucket_test

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestCertificates: what the suite for all sources does not ask for.
func TestCertificates(t *testing.T) {
	t.Parallel()
	t.Run("one that nobody is to look at", func(t *testing.T) {
		t.Parallel()
		server := testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: "s3cret-word", TLS: true})
		server.Fill(name, map[string]string{"a": "1"})
		r := bucket.Request{Bucket: name, Endpoint: server.Address(), Auth: bucket.Auth{AccessKey: "ann", SecretKey: "s3cret-word"}}
		s := openStore(t, bucket.Options{})
		refuse(t, s, r, gitops.Denied)
		r.TLS.Insecure = true
		fetch(t, s, r, "")
	})
	t.Run("a client certificate", func(t *testing.T) {
		t.Parallel()
		made, text := certificate(t)
		server := testenv.NewBucketServer(t, testenv.BucketOptions{
			AccessKey: "ann", SecretKey: "s3cret-word", TLS: true, ClientCA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Raw}),
		})
		server.Fill(name, map[string]string{"a": "1"})
		r := bucket.Request{Bucket: name, Endpoint: server.Address(), Auth: bucket.Auth{AccessKey: "ann", SecretKey: "s3cret-word"}}
		r.TLS.CA = server.CA
		s := openStore(t, bucket.Options{})
		if err := refuse(t, s, r, gitops.Denied); !strings.Contains(err.Error(), "refuses the client certificate") {
			t.Error(err)
		}
		r.TLS.Certificate, r.TLS.Key = text, text
		fetch(t, s, r, "")
	})
}

func TestPlainHTTPNeedsInsecure(t *testing.T) {
	t.Parallel()
	for title, start := range worlds() {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			w.server.Fill(name, map[string]string{"a": "1"})
			w.request.Insecure = false
			_, err := openStore(t, bucket.Options{}).Fetch(within(t), w.request, "")
			if err == nil {
				t.Fatal("no error")
			}
			if kind := gitops.KindOf(err); kind != gitops.Stalled && kind != gitops.Denied {
				t.Errorf("kind %q of %q", kind, err)
			}
			if w.server.Requests("list") != 0 {
				t.Error("a request was sent without TLS")
			}
		})
	}
}

// proxy is an HTTP proxy that answers what it is asked for by a store itself.
type proxy struct {
	*httptest.Server
	mu    sync.Mutex // guards hosts
	hosts []string
}

func newProxy(t testing.TB, store http.Handler) *proxy {
	t.Helper()
	p := &proxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.hosts = append(p.hosts, r.URL.Host)
		p.mu.Unlock()
		store.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hosts
}

// TestHostStyle reaches a bucket of Amazon, which has a host of its own, through a proxy.
func TestHostStyle(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a/b": "1"})
	p := newProxy(t, w.server)
	w.request.Provider, w.request.Endpoint, w.request.Region = bucket.AWS, "s3.amazonaws.com", "us-east-1"
	w.request.Proxy.Address = p.URL
	s := openStore(t, bucket.Options{})
	sourcetest.CheckTree(t, fetch(t, s, w.request, "").Files, map[string]string{"a/b": "1"})
	for _, host := range p.asked() {
		if !strings.HasPrefix(host, name+".s3.") || !strings.Contains(host, "us-east-1.amazonaws.com") {
			t.Errorf("host %q", host)
		}
	}
	w.stranger = w.request
	w.stranger.Auth.SecretKey = "wr0ng-word"
	refuse(t, s, w.stranger, gitops.Denied)
}

func TestRegions(t *testing.T) {
	t.Parallel()
	server := testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: "s3cret-word", Region: "eu-west-1"})
	server.Fill(name, map[string]string{"a": "1"})
	r := bucket.Request{Bucket: name, Endpoint: server.Address(), Insecure: true, Auth: bucket.Auth{AccessKey: "ann", SecretKey: "s3cret-word"}}
	s := openStore(t, bucket.Options{})
	first := fetch(t, s, r, "")
	fetch(t, s, r, first.Revision)
	if asked := server.Requests("location"); asked != 1 {
		t.Errorf("the region was asked for %d times, want once", asked)
	}
	r.Region = "eu-west-1"
	fetch(t, s, r, "")
	if asked := server.Requests("location"); asked != 0 {
		t.Errorf("a region that is known was asked for %d times", asked)
	}
	r.Region = "us-west-2"
	if err := refuse(t, s, r, gitops.Stalled); !strings.Contains(err.Error(), `the bucket is in region "eu-west-1"; set region`) {
		t.Error(err)
	}
}

func TestPublicBucketsNeedNoCredential(t *testing.T) {
	t.Parallel()
	for protocol, r := range map[testenv.BucketProtocol]bucket.Request{
		testenv.S3: {}, testenv.GoogleStorage: {Provider: bucket.GCP}, testenv.AzureBlob: {Provider: bucket.Azure},
	} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			for _, public := range []bool{true, false} {
				server := testenv.NewBucketServer(t, testenv.BucketOptions{Protocol: protocol, Public: public, AccessKey: "acct", SecretKey: accountKey("x")})
				server.Fill(name, map[string]string{"a": "1"})
				r.Bucket, r.Endpoint, r.Insecure = name, server.Address(), true
				if protocol == testenv.AzureBlob {
					r.Endpoint = server.URL() + "/acct"
				}
				s := openStore(t, bucket.Options{})
				if public {
					fetch(t, s, r, "")
					continue
				}
				if err := refuse(t, s, r, gitops.Denied); !strings.Contains(err.Error(), "the bucket needs a credential; name its secret in secretRef") {
					t.Error(err)
				}
			}
		})
	}
}

func TestAddressesAndPolicies(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		title  string
		change func(*bucket.Request)
		want   string
	}{
		"a metadata address":          {"S3 with keys", func(r *bucket.Request) { r.Endpoint = "169.254.169.254" }, "connections to 169.254.169.254 are refused"},
		"for Google":                  {"Google with a login of the operator", func(r *bucket.Request) { r.Endpoint = "http://169.254.169.254" }, "connections to 169.254.169.254 are refused"},
		"for Azure":                   {"Azure with an account key", func(r *bucket.Request) { r.Endpoint = "http://169.254.169.254/acct" }, "connections to 169.254.169.254 are refused"},
		"for a login at Google":       {"Google with a service account", withToken("http://169.254.169.254/token"), "log in at Google: connections to 169.254.169.254 are refused"},
		"for tokens of LDAP":          {"S3 with LDAP", func(r *bucket.Request) { r.STS.Endpoint = "http://169.254.169.254/" }, "log in at the security token service: connections to 169.254.169.254 are refused"},
		"a private address":           {"S3 with keys", func(r *bucket.Request) { r.Policy.NoPrivate = true }, "it is a private address"},
		"keys without TLS":            {"S3 with keys", func(r *bucket.Request) { r.Policy.NoPlainCredentials = true }, "a credential would be sent over http"},
		"a signature without TLS":     {"Azure with a shared access signature", func(r *bucket.Request) { r.Policy.NoPlainCredentials = true }, "a credential would be sent over http"},
		"a token without TLS":         {"Google with a login of the operator", func(r *bucket.Request) { r.Policy.NoPlainCredentials = true }, "a credential would be sent over http"},
		"an assertion without TLS":    {"Google with a service account", func(r *bucket.Request) { r.Policy.NoPlainCredentials = true; r.Endpoint = "" }, "a credential would be sent over http"},
		"a name's word without TLS":   {"S3 with LDAP", func(r *bucket.Request) { r.Policy.NoPlainCredentials, r.Insecure = true, false }, "a credential would be sent over http"},
		"a proxy of another scheme":   {"S3 with keys", func(r *bucket.Request) { r.Proxy.Address = "gopher://s3cret-word" }, "of the proxy is not supported"},
		"an authority that is no PEM": {"S3 with keys", func(r *bucket.Request) { r.TLS.CA = []byte("s3cret-word") }, "the CA is not a certificate in PEM"},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[tt.title](t)
			w.server.Fill(name, nil)
			tt.change(&w.request)
			_, err := openStore(t, bucket.Options{}).Fetch(within(t), w.request, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret-word") {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			if kind := gitops.KindOf(err); kind == gitops.Transient {
				t.Errorf("kind %q of %q", kind, err)
			}
			if w.server.Requests("list") != 0 {
				t.Error("a request was sent")
			}
		})
	}
}

func withToken(uri string) func(*bucket.Request) {
	return func(r *bucket.Request) {
		text := string(r.Auth.ServiceAccountJSON)
		from := strings.Index(text, `"token_uri":"`) + len(`"token_uri":"`)
		r.Auth.ServiceAccountJSON = []byte(text[:from] + uri + text[from+strings.Index(text[from:], `"`):])
	}
}

// TestAnotherHostGetsNoSignature redirects a request whose credential is in its query.
func TestAnotherHostGetsNoSignature(t *testing.T) {
	t.Parallel()
	w := sharedAccessWorld(t)
	w.server.Fill(name, map[string]string{"a": "1"})
	seen := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var text strings.Builder
		_ = r.Write(&text)
		seen <- text.String()
		http.NotFound(rw, r)
	}))
	defer elsewhere.Close()
	w.server.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, elsewhere.URL+"/there", http.StatusTemporaryRedirect)
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := openStore(t, bucket.Options{}).Fetch(ctx, w.request, ""); err == nil {
		t.Fatal("no error")
	}
	if text := <-seen; !strings.HasPrefix(text, "GET /there") || strings.Contains(text, "sig=") || strings.Contains(text, w.secrets[2]) {
		t.Errorf("another host was sent\n%s", text)
	}
}
