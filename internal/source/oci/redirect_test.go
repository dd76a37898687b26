package oci_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestRedirects(t *testing.T) {
	t.Parallel()
	var seen atomic.Pointer[http.Header]
	blobs := testenv.NewRegistry(t, testenv.RegistryOptions{})
	blobs.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			header := r.Header.Clone()
			seen.Store(&header)
			next.ServeHTTP(w, r)
		})
	})
	for name, o := range map[string]testenv.RegistryOptions{
		"basic":   {Username: "ann", Password: "word"},
		"a token": {Username: "ann", Password: "word", Bearer: true},
	} {
		registry := testenv.NewRegistry(t, o)
		registry.Push(t, "app", "latest", testenv.Files{"a": name})
		blobs.Push(t, "app", "latest", testenv.Files{"a": name})
		instead(registry, "/blobs/", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+blobs.Host()+r.URL.Path, http.StatusTemporaryRedirect)
		})
		s := openStore(t, oci.Options{})
		request := oci.Request{URL: registry.URL("app"), Auth: oci.Auth{Username: "ann", Password: "word"}}
		sourcetest.CheckTree(t, fetch(t, s, request, "").Files, map[string]string{"a": name})
		if header := seen.Load(); header == nil || header.Get("Authorization") != "" {
			t.Errorf("%s: the other host saw %v", name, header)
		}
	}
	secure := testenv.NewRegistry(t, testenv.RegistryOptions{TLS: true})
	secure.Push(t, "app", "latest", testenv.Files{"a": "1"})
	instead(secure, "/blobs/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+blobs.Host()+r.URL.Path, http.StatusTemporaryRedirect)
	})
	refuse(t, openStore(t, oci.Options{}), oci.Request{URL: secure.URL("app"), TLS: tlsOf(secure.CA)}, gitops.Invalid, "OCIArtifactPullFailed", "from https to http")
}

// TestRedirectsWithinTheRegistry are relative, also where HTTPS was not known before.
func TestRedirectsWithinTheRegistry(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]testenv.RegistryOptions{
		"http":  {Username: "ann", Password: "word"},
		"https": {Username: "ann", Password: "word", TLS: true},
	} {
		registry := testenv.NewRegistry(t, o)
		registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
		registry.Around(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if path, ok := strings.CutPrefix(r.URL.Path, "/moved"); ok {
					r.URL.Path = path
					next.ServeHTTP(w, r)
					return
				}
				http.Redirect(w, r, "/moved"+r.URL.Path, http.StatusTemporaryRedirect)
			})
		})
		s := openStore(t, oci.Options{})
		request := oci.Request{URL: registry.URL("app"), Insecure: true, Auth: oci.Auth{Username: "ann", Password: "word"}, TLS: tlsOf(registry.CA)}
		t.Log(name)
		fetch(t, s, request, "")
	}
}

func TestForeignRealms(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, `{"token":"x"}`)
	}))
	defer elsewhere.Close()
	for name, test := range map[string]struct {
		realm string
		tls   bool
		words string
	}{
		"http for a registry with https":   {elsewhere.URL, true, "must be https"},
		"a link-local address":             {"http://169.254.169.254/token", false, "may not be used"},
		"a link-local address in its name": {"http://[::ffff:169.254.169.254]/token", false, "may not be used"},
		"a private address":                {"http://10.0.0.1/token", false, "may not be used"},
		"another scheme":                   {"file:///etc/passwd", false, "may not be used"},
		"no URL":                           {"://", false, "may not be used"},
	} {
		registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word", Bearer: true, Realm: test.realm, TLS: test.tls})
		registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
		request := oci.Request{URL: registry.URL("app"), Auth: oci.Auth{Username: "ann", Password: "word"}, TLS: tlsOf(registry.CA)}
		_, err := openStore(t, oci.Options{}).Fetch(t.Context(), request, "")
		if err == nil || !strings.Contains(err.Error(), test.words) || strings.Contains(err.Error(), "word@") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("a credential was sent without encryption %d times", asked.Load())
	}
}

func TestTokenServersThatGiveNone(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"nothing":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"refresh_token":"c4nary"}`) },
		"no JSON":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `c4nary`) },
		"without end": func(w http.ResponseWriter, _ *http.Request) { endless(w, "c4nary") },
		"an error":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "c4nary", http.StatusTeapot) },
	} {
		var host string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				answer(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, host))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		host = server.Listener.Addr().String()
		request := oci.Request{URL: "oci://" + host + "/app", Auth: oci.Auth{Username: "ann", Password: "word"}}
		text := refuse(t, openStore(t, oci.Options{}), request, gitops.Transient, "AuthenticationFailed", "http://"+host)
		if strings.Contains(text, "c4nary") {
			t.Errorf("%s: %q quotes it", name, text)
		}
		server.Close()
	}
}
