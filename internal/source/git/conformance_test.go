package git_test

import (
	"net/url"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestFetcherConforms(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]bool{"protocol 2": false, "protocol 0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.CheckFetcher(t, func(t *testing.T) sourcetest.Remote {
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
				if err != nil {
					t.Fatal(err)
				}
				last := map[string]string{}
				return sourcetest.Remote{
					Fetcher: s.Fetcher(request), Stranger: s.Fetcher(stranger),
					Address: address.Host, Secrets: []string{"s3cret-word", "wr0ng-word"},
					Put: func(t testing.TB, files map[string]string) {
						changes := testenv.Files{}
						for name := range last {
							changes[name] = testenv.Delete
						}
						for name, content := range files {
							changes[name] = content
						}
						last = files
						repo.Commit(t, "main", changes)
					},
					Gone:   func(t testing.TB) { repo.Ref(t, "refs/heads/main", "") },
					Around: server.Around,
				}
			})
		})
	}
}
