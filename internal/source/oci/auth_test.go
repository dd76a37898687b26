package oci_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func tlsOf(ca []byte) egress.TLS { return egress.TLS{CA: ca} }

func encoded(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func TestDockerConfigs(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word"})
	registry.Push(t, "team/app", "latest", testenv.Files{"a": "1"})
	host, right, wrong := registry.Host(), encoded("ann", "word"), encoded("ann", "old")
	_, port, _ := net.SplitHostPort(host)
	config := func(entries ...string) []byte { return []byte(`{"auths":{` + strings.Join(entries, ",") + `}}`) }
	entry := func(place, auth string) string { return fmt.Sprintf(`%q:{"auth":%q}`, place, auth) }
	for name, test := range map[string]struct {
		configs [][]byte
		want    bool
	}{
		"of the host":                        {[][]byte{config(entry(host, right))}, true},
		"with a scheme and a version":        {[][]byte{config(entry("http://"+host+"/v2/", right))}, true},
		"of the path":                        {[][]byte{config(entry(host+"/team", right))}, true},
		"with a user name and a password":    {[][]byte{[]byte(fmt.Sprintf(`{"auths":{%q:{"username":"ann","password":"word"}}}`, host))}, true},
		"in the older form":                  {[][]byte{[]byte(fmt.Sprintf(`{%q:{"username":"ann","password":"word","email":"x"}}`, host))}, true},
		"with a pattern":                     {[][]byte{config(entry("*.0.*.1:"+port, right))}, true},
		"a pattern stands for no dot":        {[][]byte{config(entry("*:"+port, right))}, false},
		"of another port":                    {[][]byte{config(entry("127.0.0.1:1", right))}, false},
		"of another host":                    {[][]byte{config(entry("example.com", right))}, false},
		"of another path":                    {[][]byte{config(entry(host+"/other", right))}, false},
		"of a path with the same beginning":  {[][]byte{config(entry(host+"/te", right))}, false},
		"the most particular first":          {[][]byte{config(entry(host, wrong), entry(host+"/team/app", right))}, true},
		"the next where one is refused":      {[][]byte{config(entry(host+"/team/app", wrong)), config(entry(host, right))}, true},
		"the second of several configs":      {[][]byte{config(), config(entry(host, wrong)), config(entry(host, right))}, true},
		"a broken entry of another registry": {[][]byte{config(`"example.com":{"auth":"%%%"}`, entry(host, right))}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, oci.Options{})
			request := oci.Request{URL: registry.URL("team/app"), Auth: oci.Auth{DockerConfigs: test.configs}}
			if test.want {
				fetch(t, s, request, "")
				return
			}
			refuse(t, s, request, gitops.Denied, "AuthenticationFailed", "401", "UNAUTHORIZED", "check that the credential")
		})
	}
	s := openStore(t, oci.Options{})
	for name, broken := range map[string][]byte{
		"no JSON":              []byte(`c4nary`),
		"a list":               []byte(`["c4nary"]`),
		"a credential of none": config(fmt.Sprintf(`%q:{"auth":"c4nary%%"}`, host)),
		"a huge one":           make([]byte, 2<<20),
	} {
		request := oci.Request{URL: registry.URL("team/app"), Auth: oci.Auth{DockerConfigs: [][]byte{broken}}}
		if text := refuse(t, s, request, gitops.Denied, "AuthenticationFailed", "docker config 1 of 1"); strings.Contains(text, "c4nary") {
			t.Errorf("%s: %q quotes it", name, text)
		}
	}
	refuse(t, s, oci.Request{URL: registry.URL("team/app")}, gitops.Denied, "AuthenticationFailed", "name its secret in secretRef")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word", Bearer: true})
	var now atomic.Int64
	s := openStore(t, oci.Options{Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	request := func(repository string) oci.Request {
		return oci.Request{URL: registry.URL(repository), Auth: oci.Auth{Username: "ann", Password: "word"}}
	}
	for _, repository := range []string{"one", "two"} {
		registry.Push(t, repository, "latest", testenv.Files{"a": "1"})
		for range 3 {
			fetch(t, s, request(repository), "")
		}
	}
	if got := registry.Tokens(); got != 2 {
		t.Errorf("%d tokens for two repositories", got)
	}
	now.Add(299)
	fetch(t, s, request("one"), "")
	if got := registry.Tokens(); got != 3 {
		t.Errorf("%d tokens after one has expired", got)
	}
	// A token that the registry does not take any more is replaced.
	var refused atomic.Bool
	registry.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if refused.CompareAndSwap(false, true) {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	fetch(t, s, request("two"), "")
	if got := registry.Tokens(); got != 5 {
		t.Errorf("%d tokens after one more has expired and was refused", got)
	}
	stranger := request("one")
	stranger.Auth.Password = "0ther"
	refuse(t, s, stranger, gitops.Denied, "AuthenticationFailed", "the token server", "401")
}

func TestLogins(t *testing.T) {
	t.Parallel()
	for name, bearer := range map[string]bool{"basic": false, "tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word", Bearer: bearer})
			open := testenv.NewRegistry(t, testenv.RegistryOptions{})
			var asked atomic.Int64
			password := "word"
			login := func(context.Context) (string, string, error) {
				asked.Add(1)
				return "ann", password, nil
			}
			s := openStore(t, oci.Options{})
			var requests []oci.Request
			for _, repository := range []string{"one", "two"} {
				registry.Push(t, repository, "latest", testenv.Files{"a": "1"})
				open.Push(t, repository, "latest", testenv.Files{"a": "1"})
				requests = append(requests, oci.Request{URL: registry.URL(repository), Login: login, LoginKey: "cloud"})
				fetch(t, s, oci.Request{URL: open.URL(repository), Login: login, LoginKey: "cloud"}, "")
			}
			if asked.Load() != 0 {
				t.Errorf("asked %d times for a registry that lets everybody in", asked.Load())
			}
			for _, request := range requests {
				fetch(t, s, request, "")
			}
			if asked.Load() != 1 {
				t.Errorf("asked %d times for two repositories", asked.Load())
			}
			password = "0ld-word"
			fetch(t, s, requests[0], "")
			other := requests[0]
			other.LoginKey = "another"
			if text := refuse(t, s, other, gitops.Denied, "AuthenticationFailed", "401"); strings.Contains(text, password) {
				t.Errorf("%q names the password", text)
			}
			other.LoginKey = "third"
			other.Login = func(context.Context) (string, string, error) { return "", "", errors.New("no identity") }
			refuse(t, s, other, gitops.Denied, "AuthenticationFailed", "log in: no identity")
			other.LoginKey = ""
			refuse(t, s, other, gitops.Internal, "AuthenticationFailed")
		})
	}
}

// TestALoginThatExpires has the registry change its password: what was learned is asked
// for again.
func TestALoginThatExpires(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	var word atomic.Pointer[string]
	set := func(text string) { word.Store(&text) }
	set("first")
	registry.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != *word.Load() {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	s := openStore(t, oci.Options{})
	request := oci.Request{URL: registry.URL("app"), LoginKey: "x", Login: func(context.Context) (string, string, error) { return "ann", *word.Load(), nil }}
	known := fetch(t, s, request, "").Revision
	set("second")
	if result := fetch(t, s, request, known); !result.Unchanged {
		t.Error("not unchanged")
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{TLS: true, Username: "ann", Password: "word"})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	s := openStore(t, oci.Options{})
	request := oci.Request{URL: registry.URL("app"), Auth: oci.Auth{Username: "ann", Password: "word"}}
	refuse(t, s, request, gitops.Denied, "OCIArtifactPullFailed", "unknown authority", "ca.crt")
	withCA := request
	withCA.TLS = tlsOf(registry.CA)
	fetch(t, s, withCA, "")
	insecure := request
	insecure.Insecure, insecure.TLS.Insecure = true, true
	fetch(t, s, insecure, "")
	// It is insecure for that object only.
	refuse(t, s, request, gitops.Denied, "OCIArtifactPullFailed", "unknown authority")
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	certificate, key := clientCertificate(t)
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{TLS: true, ClientCA: certificate})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	s := openStore(t, oci.Options{})
	request := oci.Request{URL: registry.URL("app"), TLS: tlsOf(registry.CA)}
	refuse(t, s, request, gitops.Denied, "AuthenticationFailed", "certificate")
	request.TLS.Certificate, request.TLS.Key = certificate, key
	fetch(t, s, request, "")
}

// clientCertificate makes a certificate that signs itself, and its key, in PEM.
func clientCertificate(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
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

// TestNoCredentialWithoutEncryption puts a server that has a certificate nobody knows in
// front of one without encryption, on the same port: the latter must not be asked.
func TestNoCredentialWithoutEncryption(t *testing.T) {
	t.Parallel()
	var plain atomic.Int64
	tlsServer := httptest.NewUnstartedServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = log.New(io.Discard, "", 0)
	tlsServer.StartTLS()
	defer tlsServer.Close()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				first := make([]byte, 1)
				if _, err := io.ReadFull(conn, first); err != nil {
					return
				}
				if first[0] != 0x16 { // no TLS handshake
					plain.Add(1)
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					return
				}
				to, err := net.Dial("tcp", tlsServer.Listener.Addr().String())
				if err != nil {
					return
				}
				defer to.Close()
				// Longer than the library waits before it tries without.
				time.Sleep(500 * time.Millisecond)
				_, _ = to.Write(first)
				go func() { _, _ = io.Copy(to, conn) }()
				_, _ = io.Copy(conn, to)
			}()
		}
	}()
	s := openStore(t, oci.Options{})
	request := oci.Request{URL: "oci://" + listener.Addr().String() + "/app", Auth: oci.Auth{Username: "ann", Password: "word"}}
	refuse(t, s, request, gitops.Denied, "OCIArtifactPullFailed", "unknown authority")
	if plain.Load() != 0 {
		t.Errorf("asked %d times without encryption", plain.Load())
	}
}

func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word"})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	s := openStore(t, oci.Options{})
	// A name that is none of this machine has to be reached through a proxy here.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		r.URL.Host, r.RequestURI = registry.Host(), ""
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		for name, values := range response.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	defer proxy.Close()
	request := oci.Request{
		URL: "oci://registry.example.com/app", Auth: oci.Auth{Username: "ann", Password: "word"},
		Proxy: egress.Proxy{Address: proxy.URL},
	}
	_, err := s.Fetch(t.Context(), request, "")
	if gitops.KindOf(err) != gitops.Transient {
		t.Errorf("HTTP that nobody has allowed: %v", err)
	}
	request.Insecure = true
	fetch(t, s, request, "")
	request.Policy.NoPlainCredentials = true
	refuse(t, s, request, gitops.Invalid, "OCIArtifactPullFailed", "--no-plain-credentials")
}

func TestProxy(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{TLS: true})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	var through atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, word, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); r.Method != http.MethodConnect || user != "pat" || word != "pr0xy-word" {
			http.Error(w, "no", http.StatusProxyAuthRequired)
			return
		}
		to, err := net.Dial("tcp", registry.Host())
		if err != nil {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		defer to.Close()
		through.Add(1)
		w.WriteHeader(http.StatusOK)
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		go func() { _, _ = io.Copy(to, from) }()
		_, _ = io.Copy(from, to)
	}))
	defer proxy.Close()
	s := openStore(t, oci.Options{})
	request := oci.Request{
		URL: registry.URL("app"), TLS: tlsOf(registry.CA),
		Proxy: egress.Proxy{Address: proxy.URL, Username: "pat", Password: "pr0xy-word"},
	}
	fetch(t, s, request, "")
	if through.Load() == 0 {
		t.Error("the proxy was not used")
	}
	request.Proxy.Password = "wr0ng"
	_, err := s.Fetch(t.Context(), request, "")
	if err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("a proxy that refuses us: %v", err)
	}
}
