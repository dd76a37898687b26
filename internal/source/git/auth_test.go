package git_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// clientCertificate makes an authority and a certificate that it signed.
func clientCertificate(t testing.TB) (ca, certificate, key []byte) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, template, template, caKey.Public(), caKey)
	must(t, err)
	clientKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	client := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	clientDER, err := x509.CreateCertificate(rand.Reader, client, template, clientKey.Public(), caKey)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(clientKey)
	must(t, err)
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return encode("CERTIFICATE", caDER), encode("CERTIFICATE", clientDER), encode("PRIVATE KEY", keyDER)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// expect fetches and compares kind and reason of the error.
func expect(t *testing.T, request git.Request, kind gitops.ErrorKind, reason string, words ...string) {
	t.Helper()
	s := openStore(t, git.Options{})
	result, err := s.Fetch(within(t), request)
	if err == nil {
		defer result.Release()
	}
	if got := gitops.KindOf(err); got != kind {
		t.Fatalf("error %v of kind %q, want %q", err, got, kind)
	}
	if err == nil {
		return
	}
	t.Log(err)
	var e *gitops.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Errorf("reason of %v is not %q", err, reason)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

func TestFetchOverHTTPAuthenticates(t *testing.T) {
	t.Parallel()
	ca, certificate, key := clientCertificate(t)
	_, foreign, foreignKey := clientCertificate(t)
	tests := map[string]struct {
		server testenv.GitServerOptions
		auth   git.Auth
		trust  bool
		kind   gitops.ErrorKind
		reason string
	}{
		"a password":             {server: testenv.GitServerOptions{Username: "a", Password: "b"}, auth: git.Auth{Username: "a", Password: "b"}},
		"a wrong password":       {server: testenv.GitServerOptions{Username: "a", Password: "b"}, auth: git.Auth{Username: "a", Password: "c"}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"no password":            {server: testenv.GitServerOptions{Username: "a", Password: "b"}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"a bearer token":         {server: testenv.GitServerOptions{BearerToken: "t"}, auth: git.Auth{BearerToken: "t"}},
		"a wrong bearer token":   {server: testenv.GitServerOptions{BearerToken: "t"}, auth: git.Auth{BearerToken: "u"}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"a trusted authority":    {server: testenv.GitServerOptions{TLS: true}, trust: true},
		"an unknown authority":   {server: testenv.GitServerOptions{TLS: true}, kind: gitops.Denied, reason: git.ReasonFailed},
		"a broken authority":     {server: testenv.GitServerOptions{TLS: true}, auth: git.Auth{CA: []byte("x")}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"a client certificate":   {server: testenv.GitServerOptions{TLS: true, ClientCA: ca}, trust: true, auth: git.Auth{Certificate: certificate, Key: key}},
		"no client certificate":  {server: testenv.GitServerOptions{TLS: true, ClientCA: ca}, trust: true, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"a foreign certificate":  {server: testenv.GitServerOptions{TLS: true, ClientCA: ca}, trust: true, auth: git.Auth{Certificate: foreign, Key: foreignKey}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"a key of another one":   {server: testenv.GitServerOptions{TLS: true, ClientCA: ca}, trust: true, auth: git.Auth{Certificate: certificate, Key: foreignKey}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"a password and its TLS": {server: testenv.GitServerOptions{TLS: true, Username: "a", Password: "b"}, trust: true, auth: git.Auth{Username: "a", Password: "b"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, test.server)
			server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
			if test.trust {
				test.auth.CA = server.CA
			}
			expect(t, git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Auth: test.auth}, test.kind, test.reason)
		})
	}
}

func TestFetchOverSSH(t *testing.T) {
	t.Parallel()
	server := testenv.NewSSHServer(t, "")
	locked := testenv.NewSSHServer(t, "open sesame")
	for _, s := range []*testenv.SSHServer{server, locked} {
		s.Repository(t, "org/app").Commit(t, "main", testenv.Files{"f": "1"})
	}
	known := git.Auth{Identity: server.Identity, KnownHosts: server.KnownHosts}
	url := server.URL("org/app")
	tests := map[string]struct {
		url    string
		auth   git.Auth
		kind   gitops.ErrorKind
		reason string
		word   string
	}{
		"a key":                        {url: url, auth: known},
		"a key with a passphrase":      {url: locked.URL("org/app"), auth: git.Auth{Identity: locked.Identity, Passphrase: "open sesame", KnownHosts: locked.KnownHosts}},
		"a wrong passphrase":           {url: locked.URL("org/app"), auth: git.Auth{Identity: locked.Identity, Passphrase: "x", KnownHosts: locked.KnownHosts}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"no passphrase":                {url: locked.URL("org/app"), auth: git.Auth{Identity: locked.Identity, KnownHosts: locked.KnownHosts}, kind: gitops.Denied, reason: git.ReasonAuthentication, word: "passphrase"},
		"an unknown host key":          {url: url, auth: git.Auth{Identity: server.Identity, KnownHosts: locked.KnownHosts}, kind: gitops.Denied, reason: git.ReasonFailed, word: "known_hosts"},
		"another host key":             {url: url, auth: git.Auth{Identity: server.Identity, KnownHosts: swapKey(server.KnownHosts, locked.KnownHosts)}, kind: gitops.Denied, reason: git.ReasonFailed, word: "another key"},
		"no known hosts":               {url: url, auth: git.Auth{Identity: server.Identity}, kind: gitops.Denied, reason: git.ReasonAuthentication, word: "known_hosts"},
		"another key":                  {url: url, auth: git.Auth{Identity: func() []byte { return testenv.NewSSHServer(t, "").Identity }(), KnownHosts: server.KnownHosts}, kind: gitops.Denied, reason: git.ReasonAuthentication},
		"no key":                       {url: url, auth: git.Auth{KnownHosts: server.KnownHosts}, kind: gitops.Denied, reason: git.ReasonAuthentication, word: "identity"},
		"a missing repository":         {url: server.URL("nope"), auth: known, kind: gitops.Transient, reason: git.ReasonFailed, word: "not found"},
		"a path that would be a shell": {url: server.URL("x';touch%20y;'"), auth: known, kind: gitops.Transient, reason: git.ReasonFailed, word: "not found"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, git.Request{URL: test.url, Ref: git.Ref{Branch: "main"}, Auth: test.auth}, test.kind, test.reason, test.word)
		})
	}
}

// swapKey gives the host of one known_hosts line the key of another one.
func swapKey(host, key []byte) []byte {
	name, _, _ := strings.Cut(string(host), " ")
	_, text, _ := strings.Cut(string(key), " ")
	return []byte(name + " " + text)
}

func TestFetchOverSSHFollows(t *testing.T) {
	t.Parallel()
	server := testenv.NewSSHServer(t, "")
	repo := server.Repository(t, "app")
	repo.Commit(t, "main", testenv.Files{"f": "1"})
	s := openStore(t, git.Options{})
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Auth: git.Auth{Identity: server.Identity, KnownHosts: server.KnownHosts}}
	request.Known = fetch(t, s, request).Revision
	if !fetch(t, s, request).Unchanged {
		t.Error("unchanged branch: not said so")
	}
	repo.Commit(t, "main", testenv.Files{"f": "2"})
	repo.Commit(t, "main", testenv.Files{"f": "3"})
	result := fetch(t, s, request)
	if got := contents(t, result.Files)["f"]; got != "3" || result.Rewritten {
		t.Errorf("got %q, rewritten %v", got, result.Rewritten)
	}
}

func TestFetchSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "empty")
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	tests := map[string]struct {
		url    string
		ref    git.Ref
		kind   gitops.ErrorKind
		reason string
		word   string
	}{
		"nobody listens":          {url: "http://127.0.0.1:1/x", kind: gitops.Transient, reason: git.ReasonFailed, word: "connection refused"},
		"a host without a name":   {url: "http:///x", kind: gitops.Stalled, reason: git.ReasonURL},
		"a local file":            {url: "file:///etc", kind: gitops.Stalled, reason: git.ReasonURL, word: "http, https or ssh"},
		"a remote helper":         {url: "ext::sh -c x", kind: gitops.Stalled, reason: git.ReasonURL},
		"a local path":            {url: "/etc", kind: gitops.Stalled, reason: git.ReasonURL},
		"an option of ssh":        {url: "ssh://-oProxyCommand=x/y", kind: gitops.Stalled, reason: git.ReasonURL},
		"an option of git":        {url: "--upload-pack=x", kind: gitops.Stalled, reason: git.ReasonURL},
		"an empty repository":     {url: server.URL("empty"), kind: gitops.Invalid, reason: git.ReasonEmpty, word: "empty"},
		"a missing repository":    {url: server.URL("nope"), kind: gitops.Transient, reason: git.ReasonFailed, word: "404"},
		"a missing branch":        {url: server.URL("app"), ref: git.Ref{Branch: "dev"}, kind: gitops.Invalid, reason: git.ReasonFailed, word: `its branches are "main"`},
		"a password in the URL":   {url: strings.Replace(server.URL("nope"), "://", "://u:hunter2@", 1), kind: gitops.Transient, reason: git.ReasonFailed, word: "404"},
		"the root of the server":  {url: server.URL(""), kind: gitops.Transient, reason: git.ReasonFailed},
		"a way out of the server": {url: server.URL("../../../etc"), kind: gitops.Transient, reason: git.ReasonFailed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, git.Request{URL: test.url, Ref: test.ref}, test.kind, test.reason, test.word)
		})
	}
	_, err := openStore(t, git.Options{}).Fetch(within(t), git.Request{URL: strings.Replace(server.URL("nope"), "://", "://u:hunter2@", 1)})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}
