package oci_test

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestPagesOfTags follows links from page to page, relative and absolute ones.
func TestPagesOfTags(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]testenv.RegistryOptions{"http": {}, "https": {TLS: true}} {
		for _, absolute := range []bool{false, true} {
			registry := testenv.NewRegistry(t, o)
			want := registry.Push(t, "app", "1.0.9", testenv.Files{"a": "1"})
			var asked []string
			instead(registry, "/tags/list", func(w http.ResponseWriter, r *http.Request) {
				page, _ := strconv.Atoi(r.URL.Query().Get("last"))
				asked = append(asked, r.URL.Query().Get("last"))
				if page < 9 {
					next := fmt.Sprintf("/v2/app/tags/list?n=1000&last=%d", page+1)
					if absolute {
						next = name + "://" + registry.Host() + next
					}
					w.Header().Set("Link", "<"+next+`>; rel="next"`)
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"name": "app", "tags": []string{fmt.Sprintf("1.0.%d", page)}})
			})
			result := fetch(t, openStore(t, oci.Options{}), oci.Request{URL: registry.URL("app"), TLS: tlsOf(registry.CA), Ref: oci.Ref{SemVer: "1.x"}}, "")
			if result.Revision != "1.0.9@"+want || len(asked) != 10 || !slices.Contains(asked, "9") {
				t.Errorf("%s, absolute %v: %s after %q", name, absolute, result.Revision, asked)
			}
		}
	}
}

// TestRegistriesThatSayLess do not tell the digest of a manifest, or not to HEAD.
func TestRegistriesThatSayLess(t *testing.T) {
	t.Parallel()
	for name, less := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"no digest": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header()["Docker-Content-Digest"] = nil
			return false
		},
		"no HEAD": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return r.Method == http.MethodHead
		},
	} {
		registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
		want := "latest@" + registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
		registry.Around(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !less(w, r) {
					next.ServeHTTP(&mute{w, name == "no digest"}, r)
				}
			})
		})
		s := openStore(t, oci.Options{})
		request := oci.Request{URL: registry.URL("app")}
		for i, known := range []string{"", want} {
			result := fetch(t, s, request, known)
			if result.Revision != want || result.Unchanged != (i == 1) {
				t.Errorf("%s: %s after %q, unchanged %v", name, result.Revision, known, result.Unchanged)
			}
		}
	}
}

// mute leaves the digest of an answer out.
type mute struct {
	http.ResponseWriter
	digest bool
}

// WriteHeader writes the others.
func (m *mute) WriteHeader(code int) {
	if m.digest {
		m.Header().Del("Docker-Content-Digest")
	}
	m.ResponseWriter.WriteHeader(code)
}

// TestLongerDigests has a registry name manifest and layer by sha512.
func TestLongerDigests(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	long := func(content []byte) string {
		sum := sha512.Sum512(content)
		return "sha512:" + hex.EncodeToString(sum[:])
	}
	layer := testenv.TarGzip(t, testenv.Files{"a": "1"})
	manifest, err := json.Marshal(testenv.OCIManifest{
		SchemaVersion: 2, MediaType: testenv.MediaTypeManifest,
		Layers: []testenv.OCIDescriptor{{MediaType: testenv.MediaTypeFluxContent, Digest: long(layer), Size: int64(len(layer))}},
		Config: testenv.OCIDescriptor{MediaType: testenv.MediaTypeFluxConfig, Digest: long([]byte("{}")), Size: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	registry.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v2/app/manifests/latest", "/v2/app/manifests/" + long(manifest):
				w.Header().Set("Docker-Content-Digest", long(manifest))
				w.Header().Set("Content-Type", testenv.MediaTypeManifest)
				_, _ = w.Write(manifest)
			case "/v2/app/blobs/" + long(layer):
				_, _ = w.Write(layer)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	s := openStore(t, oci.Options{})
	for _, ref := range []oci.Ref{{}, {Digest: long(manifest)}} {
		result := fetch(t, s, oci.Request{URL: registry.URL("app"), Ref: ref}, "")
		sourcetest.CheckTree(t, result.Files, map[string]string{"a": "1"})
		want := long(manifest)
		if ref.Digest == "" {
			want = "latest@" + want
		}
		if again := fetch(t, s, oci.Request{URL: registry.URL("app"), Ref: ref}, result.Revision); result.Revision != want || !again.Unchanged {
			t.Errorf("revision %q, want %q; unchanged %v", result.Revision, want, again.Unchanged)
		}
	}
}

func TestPrivateAddresses(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	request := oci.Request{URL: registry.URL("app")}
	s := openStore(t, oci.Options{})
	fetch(t, s, request, "")
	request.Policy.NoPrivate = true
	refuse(t, s, request, gitops.Invalid, "OCIArtifactPullFailed", "--no-private-sources")
}

// TestUserAgent looks at what registries are told that we are.
func TestUserAgent(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "word", Bearer: true})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	registry.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("User-Agent"); got != "plumb/test" {
				t.Errorf("user agent %q", got)
			}
			next.ServeHTTP(w, r)
		})
	})
	fetch(t, openStore(t, oci.Options{UserAgent: "plumb/test"}), oci.Request{URL: registry.URL("app"), Auth: oci.Auth{Username: "ann", Password: "word"}}, "")
}
