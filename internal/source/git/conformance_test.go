package git_test

import (
	"net/url"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// limits are those of a store for each limit that the suite knows.
func limits() map[string]git.Options {
	return map[string]git.Options{
		"bytes of a pack":        {PackBytes: 64 << 10},
		"objects of a pack":      {PackObjects: 3},
		"files of a revision":    {TreeEntries: 1},
		"bytes of all the files": {TreeBytes: 64 << 10},
	}
}

// limitNames are the names of limits; that of packs stands first, as it bounds what is
// read of the network.
func limitNames() []string {
	return []string{"bytes of a pack", "objects of a pack", "files of a revision", "bytes of all the files"}
}

// reach makes a fetcher of a store of its own, of a URL that a way changes.
func reach(t testing.TB, request git.Request, way sourcetest.Way) source.Fetcher {
	t.Helper()
	request.URL = at(t, request.URL, way)
	request.Proxy = way.Proxy
	request.Auth.CA = way.CA
	return openStore(t, limits()[way.Limit]).Fetcher(request)
}

// at is a URL at the address of a way.
func at(t testing.TB, address string, way sourcetest.Way) string {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	if way.Address != "" {
		u.Host = way.Address
	}
	if way.TLS {
		u.Scheme = "https"
	}
	return u.String()
}

// put makes a branch hold exactly these files.
func put(repo *testenv.GitRepository) func(testing.TB, map[string]string) {
	last := map[string]string{}
	return func(t testing.TB, files map[string]string) {
		t.Helper()
		changes := testenv.Files{}
		for name := range last {
			changes[name] = testenv.Delete
		}
		for name, content := range files {
			changes[name] = content
		}
		last = files
		repo.Commit(t, "main", changes)
	}
}

func TestFetcherConforms(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]bool{"protocol 2": false, "protocol 0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.CheckFetcher(t, nil, func(t *testing.T) sourcetest.Remote {
				server := testenv.NewGitServer(t, testenv.GitServerOptions{Username: "ann", Password: "s3cret-word", OldProtocol: old})
				repo := server.Repository(t, "app")
				repo.Commit(t, "other", testenv.Files{"x": "y"})
				s := openStore(t, git.Options{})
				request := git.Request{
					URL: server.URL("app"), Ref: git.Ref{Branch: "main"},
					Auth: git.Auth{Username: "ann", Password: "s3cret-word"},
				}
				stranger := request
				stranger.Auth.Password = "wr0ng-word"
				address, err := url.Parse(request.URL)
				must(t, err)
				return sourcetest.Remote{
					Fetcher: s.Fetcher(request), Stranger: s.Fetcher(stranger),
					Reach:   func(t testing.TB, way sourcetest.Way) source.Fetcher { return reach(t, request, way) },
					Address: address.Host, Secrets: []string{"s3cret-word", "wr0ng-word"}, Limits: limitNames(),
					Put:    put(repo),
					Gone:   func(t testing.TB) { repo.Ref(t, "refs/heads/main", "") },
					Around: server.Around,
				}
			})
		})
	}
}
