package git_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestNamespacesShareAStore: who follows a large branch of a repository does not fill the room
// of another namespace that follows a small one, not even when it stops to.
func TestNamespacesShareAStore(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	noise := make([]byte, 2<<20)
	_, _ = rand.Read(noise)
	repo.Commit(t, "main", testenv.Files{"f": "small"})
	repo.Commit(t, "large", testenv.Files{"f": string(noise)})
	_, _ = rand.Read(noise)
	repo.Commit(t, "other", testenv.Files{"f": string(noise)})
	small := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
	large := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "large"}}
	folder := t.TempDir()
	s := open(t, folder)
	defer func() { must(t, s.Close()) }()
	rooms := artifact.NewRooms(1<<30, time.Now)
	type get func(context.Context, git.Request) (git.Result, error)
	followed := func(by get, request git.Request, namespace string) {
		t.Helper()
		result, err := by(rooms.In(within(t), namespace), request)
		must(t, err)
		result.Release()
	}
	measured := func() map[string]int64 {
		t.Helper()
		got := map[string]int64{}
		must(t, s.Measure(func(namespace string, bytes int64) { got[namespace] += bytes }))
		return got
	}
	// Packs that are being joined are there twice.
	charged := func(when string, least, most float64) {
		t.Helper()
		got := measured()
		if part := float64(got["small"]) / float64(got["small"]+got["large"]); part < least || part > most {
			t.Errorf("%s: %v", when, got)
		}
	}
	followed(s.Fetch, small, "small")
	followed(s.Fetch, large, "large")
	charged("with a branch for each", 0, 0.1)
	must(t, s.Retain([]git.Request{small}))
	charged("when the large one is left behind", 0, 0.1)
	followed(s.Fetch, large, "large")
	followed(s.Fetch, large, "small")
	charged("with the large one for both", 0.15, 0.6)

	must(t, s.Close())
	s = open(t, folder)
	followed(s.Last, small, "small")
	refused := large
	refused.Ref.Branch = "other"
	refused.Verify = git.Verify{Mode: git.VerifyHEAD, Check: func([]byte) (string, error) { return "", errors.New("nobody's") }}
	if _, err := s.Fetch(rooms.In(within(t), "large"), refused); err == nil {
		t.Fatal("what nobody has signed is taken")
	}
	charged("with what was thrown away", 0.9, 1)
	followed(s.Last, large, "large")
	charged("after a restart", 0, 0.1)
	must(t, s.Retain([]git.Request{small}))
	charged("when the large one is left behind after a restart", 0, 0.1)

	// What was left behind goes, and counts for nobody when it is gone.
	other := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "other"}}
	followed(s.Fetch, other, "small")
	end := time.Now().Add(time.Minute)
	for got := measured(); got["small"]+got["large"] > 3<<20; got = measured() {
		if time.Now().After(end) {
			t.Fatalf("what was left behind stays: %v", got)
		}
		followed(s.Fetch, other, "small")
	}
	charged("when it is gone", 0.9, 1)
}

// TestSharesAfterARestart: who asks for little of a repository pays little, whether or not
// the objects of others ask for theirs again; and they pay as soon as they do, also where
// nothing is shown to them.
func TestSharesAfterARestart(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	noise := make([]byte, 2<<20)
	_, _ = rand.Read(noise)
	repo.Commit(t, "main", testenv.Files{"f": "small"})
	repo.Commit(t, "large", testenv.Files{"f": string(noise)})
	small := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
	large := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "large"}}
	modules := large
	modules.RecurseSubmodules = true
	for name, test := range map[string]struct {
		large  git.Request
		again  func(context.Context, *git.Store, git.Request) (git.Result, error)
		limit  int64
		refuse string
		paid   bool
	}{
		"it asks again":                   {large: large, again: lastOf, paid: true},
		"it does not, and is suspended":   {large: large},
		"it has submodules":               {large: modules, again: lastOf, refuse: "has submodules", paid: true},
		"it is larger than is taken now":  {large: large, again: lastOf, limit: 1 << 20, refuse: "the most that is taken", paid: true},
		"and is refused when it is asked": {large: large, again: fetchOf, limit: 1 << 20, refuse: "the most that is taken", paid: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, rooms := t.TempDir(), artifact.NewRooms(1<<30, time.Now)
			s := open(t, folder)
			for namespace, request := range map[string]git.Request{"small": small, "large": test.large} {
				result, err := s.Fetch(rooms.In(within(t), namespace), request)
				must(t, err)
				result.Release()
			}
			must(t, s.Close())
			s, err := git.Open(folder, git.Options{TreeBytes: test.limit})
			must(t, err)
			defer func() { must(t, s.Close()) }()
			result, err := s.Last(rooms.In(within(t), "small"), small)
			must(t, err)
			result.Release()
			if test.again != nil {
				result, err := test.again(rooms.In(within(t), "large"), s, test.large)
				if (err != nil) != (test.refuse != "") || err != nil && !strings.Contains(err.Error(), test.refuse) {
					t.Fatalf("asked again: %v", err)
				}
				if err == nil {
					result.Release()
				}
			}
			must(t, s.Retain([]git.Request{small, test.large}))
			got := map[string]int64{}
			must(t, s.Measure(func(namespace string, bytes int64) { got[namespace] += bytes }))
			if got["small"] > 10<<10 || (got["large"] > 2<<20) != test.paid {
				t.Errorf("charged: %v", got)
			}
		})
	}
}

func lastOf(ctx context.Context, s *git.Store, request git.Request) (git.Result, error) {
	return s.Last(ctx, request)
}

func fetchOf(ctx context.Context, s *git.Store, request git.Request) (git.Result, error) {
	return s.Fetch(ctx, request)
}
