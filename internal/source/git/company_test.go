package git_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestRefsOfOneHarmNoOther: objects that follow the same repository share the answers
// of its server, and none of them can spoil an answer for the others.
func TestRefsOfOneHarmNoOther(t *testing.T) {
	t.Parallel()
	// A firewall that knows attacks, and bodies that are too large.
	wall := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			switch {
			case strings.Contains(string(body), "${jndi"):
				w.WriteHeader(http.StatusForbidden)
				return
			case strings.Contains(string(body), "UNION SELECT"), strings.Contains(string(body), "union-select"):
				panic(http.ErrAbortHandler)
			case strings.Contains(string(body), "command=ls-refs") && len(body) > 100<<10:
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			next.ServeHTTP(w, r)
		})
	}
	many := func(format string, n int) []git.Ref {
		refs := make([]git.Ref, n)
		for i := range refs {
			refs[i] = git.Ref{Name: fmt.Sprintf(format, i)}
		}
		return refs
	}
	for name, test := range map[string]struct {
		refs []git.Ref
		kind gitops.ErrorKind // of their errors
	}{
		"a name longer than a packet":                {[]git.Ref{{Name: "refs/heads/" + strings.Repeat("x", 70_000)}}, gitops.Stalled},
		"a branch longer than a packet":              {[]git.Ref{{Branch: strings.Repeat("x", 1<<20)}}, gitops.Stalled},
		"a tag longer than a packet":                 {[]git.Ref{{Tag: strings.Repeat("x", 65_510)}}, gitops.Stalled},
		"the branch of a commit longer than allowed": {[]git.Ref{{Commit: someCommit, Branch: strings.Repeat("x", 2000)}}, gitops.Stalled},
		"a range without an end":                     {[]git.Ref{{SemVer: strings.Repeat("*||", 100_000) + "*"}}, gitops.Stalled},
		"a name that a firewall refuses":             {[]git.Ref{{Name: "refs/heads/${jndi"}}, gitops.Denied},
		"a name at which the server hangs up":        {[]git.Ref{{Name: "refs/heads/union-select"}}, gitops.Transient},
		"a name that is the beginning of too many":   {[]git.Ref{{Name: "refs/pu"}}, gitops.Invalid},
		"several of these": {[]git.Ref{
			{Name: "refs/heads/${jndi"}, {Name: "refs/pull"}, {Name: "refs/heads/union-select"}, {Tag: "${jndi}"}, {Name: "refs"},
		}, ""},
		"long names of many": {many("refs/heads/%03d-"+strings.Repeat("x", 1000), 120), gitops.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			repo := server.Repository(t, "app")
			commit := repo.Commit(t, "main", testenv.Files{"f": "1"})
			repo.Commit(t, "dev", testenv.Files{"f": "1"})
			for i := range 60 {
				repo.Ref(t, fmt.Sprintf("refs/pull/%d/head", i), commit)
			}
			server.Around(wall)
			s := openStore(t, git.Options{Refs: 50})
			good := []git.Request{
				{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}, {URL: server.URL("app"), Ref: git.Ref{Branch: "dev"}},
			}
			for round := range 3 {
				for _, ref := range test.refs {
					_, err := s.Fetch(within(t), git.Request{URL: server.URL("app"), Ref: ref})
					if kind := gitops.KindOf(err); err == nil || test.kind != "" && kind != test.kind {
						t.Fatalf("round %d: error %.200v of kind %q, want %q", round, err, kind, test.kind)
					}
					if text := err.Error(); len(text) > 4<<10 {
						t.Errorf("round %d: an error of %d bytes", round, len(text))
					}
				}
				for _, request := range good {
					fetch(t, s, request)
				}
			}
		})
	}
}

// TestCompanyIsSharedAgain: a server that failed for a while, or in its own way, does
// not end the sharing.
func TestCompanyIsSharedAgain(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	const branches = 20
	for b := range branches {
		repo.Commit(t, fmt.Sprintf("b%d", b), testenv.Files{"f": fmt.Sprint(b)})
	}
	var clock atomic.Int64 // seconds
	start := time.Unix(1_700_000_000, 0)
	now := func() time.Time { return start.Add(time.Duration(clock.Load()) * time.Second) }
	s := openStore(t, git.Options{Now: now})
	round := func() (requests, failed int64) {
		clock.Add(60)
		before, due := server.Requests(), now()
		for b := range branches {
			result, err := s.Fetch(within(t), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: fmt.Sprintf("b%d", b)}, NotBefore: due})
			if err != nil {
				failed++
				continue
			}
			result.Release()
		}
		return server.Requests() - before, failed
	}
	round()
	round()
	if requests, failed := round(); requests != 1 || failed != 0 {
		t.Fatalf("%d requests, %d polls failed before anything went wrong", requests, failed)
	}
	// It refuses what asks for several refs, as if one of them were wrong.
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if strings.Count(string(body), "ref-prefix") > 1 {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			next.ServeHTTP(w, r)
		})
	})
	for range 2 {
		if _, failed := round(); failed != 0 {
			t.Errorf("%d polls failed where each ref can be listed alone", failed)
		}
	}
	server.Around(nil)
	round()
	if requests, failed := round(); requests != 1 || failed != 0 {
		t.Errorf("%d requests, %d polls failed after all is well again", requests, failed)
	}
}
