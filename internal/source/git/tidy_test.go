package git

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestJoinRemovesWhatItCan: an old pack that cannot be removed keeps no other one.
func TestJoinRemovesWhatItCan(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	folder := t.TempDir()
	s, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
	for i := range 3 {
		repo.Commit(t, "main", testenv.Files{"f": fmt.Sprint(i)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		result, err := s.Fetch(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		result.Release()
	}
	r, err := s.remote(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	// A folder with something in it stands where the first index was.
	first := filepath.Join(folder, r.key, r.state.Packs[0]+".idx")
	for _, do := range []func() error{func() error { return os.Remove(first) }, func() error { return os.MkdirAll(filepath.Join(first, "x"), 0o700) }} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.join(t.Context()); err == nil {
		t.Error("it is not said that something cannot be removed")
	}
	if got, want := packs(t, folder), []string{filepath.Base(first), r.state.Packs[0] + ".idx", r.state.Packs[0] + ".pack"}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
}
