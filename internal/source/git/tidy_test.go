package git

import (
	"context"
	"crypto/rand"
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

// TestWhatIsForgottenGoes without anybody fetching anything, also where the process ends before
// packs are joined, and nothing is joined where another tip needs the same.
func TestWhatIsForgottenGoes(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	repo.Branch(t, "other", repo.Commit(t, "main", testenv.Files{"f": "small"}))
	repo.Commit(t, "large", testenv.Files{"f": string(noise)})
	main := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
	large, other := main, main
	large.Ref.Branch, other.Ref.Branch = "large", "other"
	for name, test := range map[string]struct {
		first, then []Request
		restart     bool
		joined      bool
	}{
		"at once":               {first: []Request{main, large}, then: []Request{main}, joined: true},
		"after a restart":       {first: []Request{main, large}, then: []Request{main}, restart: true, joined: true},
		"of one pack":           {first: []Request{large, main}, then: []Request{main}, joined: true},
		"not what others need":  {first: []Request{main, large, other}, then: []Request{main, large}},
		"not what is all there": {first: []Request{large}, then: []Request{main}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			s, err := Open(folder, Options{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			follow := func(ask func(context.Context, Request) (Result, error), requests ...Request) {
				t.Helper()
				for _, request := range requests {
					result, err := ask(ctx, request)
					if err != nil {
						t.Fatal(err)
					}
					result.Release()
				}
			}
			retain := func() {
				t.Helper()
				if err := s.Retain(test.then); err != nil {
					t.Fatal(err)
				}
			}
			follow(s.Fetch, test.first...)
			r, err := s.remote(ctx, main)
			if err != nil {
				t.Fatal(err)
			}
			if name == "of one pack" {
				if err := r.join(ctx); err != nil {
					t.Fatal(err)
				}
			}
			before := packs(t, folder)
			if test.restart {
				if err := r.whole.lock(ctx); err != nil { // so that they are not joined
					t.Fatal(err)
				}
				retain()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = Open(folder, Options{}); err != nil {
					t.Fatal(err)
				}
				follow(s.Last, test.then...)
			}
			retain()
			s.work.Wait()
			if same := slices.Equal(packs(t, folder), before); same == test.joined {
				t.Errorf("there were %v, and are %v", before, packs(t, folder))
			}
			if bytes := int64(0); test.joined {
				for _, name := range packs(t, folder) {
					info, err := os.Stat(filepath.Join(folder, r.key, name))
					if err != nil {
						t.Fatal(err)
					}
					bytes += info.Size()
				}
				if bytes > 10<<10 {
					t.Errorf("%d bytes are left", bytes)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
