package helmrepo_test

import (
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// limits are those of a store for each limit that the suite knows.
func limits() map[string]helmrepo.Options {
	return map[string]helmrepo.Options{
		"bytes of an index": {IndexBytes: 64 << 10},
		"bytes of a chart":  {ChartBytes: 64 << 10},
		"bytes of a file":   {FileBytes: 64 << 10},
	}
}

// by is a repository as a way leads to it.
func by(t testing.TB, r helmrepo.Repository, way sourcetest.Way) helmrepo.Repository {
	t.Helper()
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	if way.Address != "" {
		u.Host = way.Address
	}
	if way.TLS {
		u.Scheme = "https"
	}
	r.URL, r.Proxy, r.TLS.CA = u.String(), way.Proxy, way.CA
	return r
}

// guarded starts a repository that asks for a credential, and gives ways in with the right
// one and with a wrong one.
func guarded(t testing.TB) (server *testenv.HelmRepository, right, wrong helmrepo.Repository) {
	t.Helper()
	server = testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: "s3cret-word"})
	right = helmrepo.Repository{URL: server.URL(), Auth: helmrepo.Auth{Username: "ann", Password: "s3cret-word"}}
	wrong = right
	wrong.Auth.Password = "wr0ng-word"
	return server, right, wrong
}

func hostOf(t testing.TB, server *testenv.HelmRepository) string {
	t.Helper()
	address, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	return address.Host
}

func TestFetcherConforms(t *testing.T) {
	t.Parallel()
	sourcetest.CheckFetcher(t, nil, func(t *testing.T) sourcetest.Remote {
		server, right, wrong := guarded(t)
		server.Put(t, "other", "1.0.0", testenv.HelmChart(t, "other", "1.0.0", nil))
		s := openStore(t, helmrepo.Options{})
		request := func(r helmrepo.Repository) helmrepo.ChartRequest {
			return helmrepo.ChartRequest{Repository: r, Name: "app", Version: "1.x"}
		}
		var puts atomic.Int64
		return sourcetest.Remote{
			Fetcher: s.Fetcher(request(right)), Stranger: s.Fetcher(request(wrong)),
			Reach: func(t testing.TB, way sourcetest.Way) source.Fetcher {
				return openStore(t, limits()[way.Limit]).Fetcher(request(by(t, right, way)))
			},
			Address: hostOf(t, server), Secrets: []string{"s3cret-word", "wr0ng-word"},
			Limits: []string{"bytes of a chart", "bytes of a file"},
			Folder: "app",
			Besides: func(revision string) map[string]string {
				return map[string]string{"app/Chart.yaml": fmt.Sprintf("apiVersion: v2\nname: app\nversion: %s\n", revision)}
			},
			Put: func(t testing.TB, files map[string]string) {
				version := fmt.Sprintf("1.0.%d", puts.Add(1))
				server.Put(t, "app", version, testenv.HelmChart(t, "app", version, files))
			},
			Gone:   func(testing.TB) { server.Remove("app") },
			Around: server.Around,
		}
	})
}
