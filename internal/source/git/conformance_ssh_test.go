package git_test

import (
	"net/url"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// keyLines are the lines of private keys that must be nowhere.
func keyLines(keys ...[]byte) []string {
	var lines []string
	for _, key := range keys {
		for line := range strings.Lines(string(key)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

func TestFetcherConformsOverSSH(t *testing.T) {
	t.Parallel()
	without := map[sourcetest.Part]string{
		sourcetest.Redirects:    "SSH has none",
		sourcetest.Certificates: "SSH knows a host by its key, for which TestFetchOverSSH stands",
	}
	sourcetest.CheckFetcher(t, without, func(t *testing.T) sourcetest.Remote {
		server := testenv.NewSSHServer(t, "")
		repo := server.Repository(t, "app")
		repo.Commit(t, "other", testenv.Files{"x": "y"})
		s := openStore(t, git.Options{})
		request := git.Request{
			URL: server.URL("app"), Ref: git.Ref{Branch: "main"},
			Auth: git.Auth{Identity: server.Identity, KnownHosts: server.KnownHosts},
		}
		stranger := request
		stranger.Auth.Identity = testenv.NewSSHServer(t, "").Identity
		address, err := url.Parse(request.URL)
		must(t, err)
		return sourcetest.Remote{
			Fetcher: s.Fetcher(request), Stranger: s.Fetcher(stranger),
			Reach: func(t testing.TB, way sourcetest.Way) source.Fetcher {
				there := request
				if way.Address != "" {
					// It is the same server under another name.
					there.Auth.KnownHosts = swapKey([]byte(knownhosts.Normalize(way.Address)+" "), server.KnownHosts)
				}
				return reach(t, there, way)
			},
			Address: address.Host, Secrets: keyLines(request.Auth.Identity, stranger.Auth.Identity), Limits: limitNames(),
			Put:  put(repo),
			Gone: func(t testing.TB) { repo.Ref(t, "refs/heads/main", "") },
		}
	})
}
