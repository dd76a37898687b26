package oci_test

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func openStore(t testing.TB, o oci.Options) *oci.Store {
	t.Helper()
	return openIn(t, t.TempDir(), o)
}

// openIn opens a store, and the cache below it, in a folder.
func openIn(t testing.TB, folder string, o oci.Options) *oci.Store {
	t.Helper()
	cache, err := artifact.OpenCache(folder + "/cache")
	if err != nil {
		t.Fatal(err)
	}
	s, err := oci.Open(cache, folder+"/oci", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fetch fetches and expects it to work.
func fetch(t testing.TB, s *oci.Store, request oci.Request, known string) source.Result {
	t.Helper()
	result, err := s.Fetch(t.Context(), request, known)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(result.Release)
	return result
}

// limits are those of a store for each limit that the suite knows.
func limits() map[string]oci.Options {
	return map[string]oci.Options{"bytes of a layer": {LayerBytes: 64 << 10}}
}

func TestFetcherConforms(t *testing.T) {
	t.Parallel()
	for name, bearer := range map[string]bool{"basic authentication": false, "tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.CheckFetcher(t, nil, func(t *testing.T) sourcetest.Remote {
				registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "s3cret-word", Bearer: bearer})
				s := openStore(t, oci.Options{})
				request := oci.Request{
					URL: registry.URL("team/app"), Ref: oci.Ref{Tag: "main"},
					Auth: oci.Auth{Username: "ann", Password: "s3cret-word"},
				}
				registry.Push(t, "team/app", "other", testenv.Files{"x": "y"})
				stranger := request
				stranger.Auth.Password = "wr0ng-word"
				return sourcetest.Remote{
					Fetcher: s.Fetcher(request), Stranger: s.Fetcher(stranger),
					Reach: func(t testing.TB, way sourcetest.Way) source.Fetcher {
						there := request
						if way.Address != "" {
							there.URL = "oci://" + way.Address + "/team/app"
							// A registry names its token server as it is named itself.
							registry.SetRealm(map[bool]string{false: "http://", true: "https://"}[way.TLS] + way.Address + "/token")
						}
						// The name behind a proxy is none of this machine.
						there.Insecure = way.Proxy.Address != "" && !way.TLS
						there.Proxy, there.TLS.CA = way.Proxy, way.CA
						return openStore(t, limits()[way.Limit]).Fetcher(there)
					},
					Address: registry.Host(), Secrets: []string{"s3cret-word", "wr0ng-word"},
					Limits: []string{"bytes of a layer"}, Retries: true,
					Put: func(t testing.TB, files map[string]string) {
						registry.Push(t, "team/app", "main", files)
					},
					Gone:   func(t testing.TB) { registry.Delete(t, "team/app", "main") },
					Around: registry.Around,
				}
			})
		})
	}
}
