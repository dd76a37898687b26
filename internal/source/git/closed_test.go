package git

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestClosedStoresStayClosed: a fetch that was under way while its store was removed does
// not open the folder again, which is another one's by then.
func TestClosedStoresStayClosed(t *testing.T) {
	t.Parallel()
	for name, opened := range map[string]bool{"before it was opened": false, "after it was opened": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
			s := store(t, Options{})
			request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
			old, err := s.remote(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if opened {
				if err := old.open(); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Retain(nil); err != nil {
				t.Fatal(err)
			}
			result, err := s.Fetch(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			defer result.Release()
			closed := func(what string, err error) {
				t.Helper()
				if !strings.Contains(fmt.Sprint(err), "not followed any more") {
					t.Errorf("%s of a closed store: error %v", what, err)
				}
			}
			closed("opening", old.open())
			found, err := old.choose(t.Context(), request, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = old.bring(t.Context(), request, found)
			closed("a fetch", err)
			closed("the rest of a fetch", old.update(t.Context(), request, found))
			closed("the end of a fetch", old.add(&base{}, []*pack.Pack{{Name: "pack-000001"}}, request.tip(), tip{}))
			old.mu.Lock()
			defer old.mu.Unlock()
			if old.set != nil {
				t.Error("a closed store is open")
			}
		})
	}
}

// TestStoresAreClosedInTheMidst of a pack.
func TestStoresAreClosedInTheMidst(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	s := store(t, Options{})
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
	hanging, enough := make(chan struct{}, 10), make(chan struct{})
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w = &hangs{ResponseWriter: w, hanging: hanging, enough: enough}
			}
			next.ServeHTTP(w, r)
		})
	})
	get := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		result, err := s.Fetch(ctx, request)
		if err == nil {
			result.Release()
		}
		return err
	}
	done := make(chan error, 1)
	go func() { done <- get() }()
	select {
	case <-hanging:
	case err := <-done:
		t.Fatalf("the fetch ended before the server hung: %v", err)
	}
	if err := s.Retain(nil); err != nil {
		t.Fatal(err)
	}
	server.Around(nil)
	if err := get(); err != nil {
		t.Errorf("a fetch in the store that is there now: %v", err)
	}
	close(enough)
	if err := <-done; err == nil {
		t.Error("a fetch ends well whose store is gone")
	}
	if err := get(); err != nil {
		t.Errorf("a fetch afterwards: %v", err)
	}
}
