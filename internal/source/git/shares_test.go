package git_test

import (
	"context"
	"crypto/rand"
	"errors"
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
	charged("with the large one for both", 0.2, 0.6)

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
