package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// modules links to a commit of each of some repositories.
func modules(commits map[string]string) testenv.Files {
	files, text := testenv.Files{}, ""
	for name, commit := range commits {
		text += fmt.Sprintf("[submodule %q]\n\tpath = %s\n\turl = ../%s\n", name, name, name)
		files[name] = testenv.Submodule(commit)
	}
	files[".gitmodules"] = text
	return files
}

// folders counts the stores below a folder, and tips those in memory.
func (s *Store) counted(t *testing.T, folder string) (folders, remotes, tips int) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			folders++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.remotes {
		r.mu.Lock()
		tips += len(r.state.Tips)
		r.mu.Unlock()
	}
	if len(s.held) > 0 {
		t.Errorf("%d tips are held after all fetches", len(s.held))
	}
	return folders, len(s.remotes), tips
}

// TestSubmodulesAreGivenBack: what a commit no longer links to goes, without anybody
// saying so.
func TestSubmodulesAreGivenBack(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	leaf := server.Repository(t, "leaf")
	folder := t.TempDir()
	s, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, RecurseSubmodules: true}
	expect := func(what string, folders, tips int) {
		t.Helper()
		if f, r, n := s.counted(t, folder); f != folders || r != folders || n != tips {
			t.Errorf("%s: %d folders, %d stores, %d tips; want %d, %d tips", what, f, r, n, folders, tips)
		}
	}
	get := func(request Request) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		result, err := s.Fetch(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		result.Release()
	}
	for i := range 4 {
		name := fmt.Sprintf("other-%d", i)
		repo.Commit(t, "main", modules(map[string]string{
			"leaf": leaf.Commit(t, "main", testenv.Files{"l": fmt.Sprint(i)}),
			name:   server.Repository(t, name).Commit(t, "main", testenv.Files{"o": fmt.Sprint(i)}),
		}))
		get(request)
		if i == 0 {
			if err := s.Retain([]Request{request}); err != nil {
				t.Fatal(err)
			}
		}
		expect(fmt.Sprintf("commit %d", i), 3, 3)
	}
	// Another one follows what is a submodule here.
	other := Request{URL: server.URL("leaf"), Ref: Ref{Branch: "main"}}
	get(other)
	expect("with a submodule that is followed for its own sake too", 3, 4)
	repo.Commit(t, "main", testenv.Files{".gitmodules": testenv.Delete})
	get(request)
	expect("without submodules", 2, 2)

	// Who stops to look at submodules gives them back, at the same commit.
	repo.Commit(t, "main", modules(map[string]string{"leaf": leaf.Commit(t, "main", testenv.Files{"l": "new"})}))
	get(request)
	get(other)
	expect("with one again", 2, 3)
	plain := request
	plain.RecurseSubmodules = false
	if err := s.Retain([]Request{plain}); err != nil {
		t.Fatal(err)
	}
	get(plain)
	expect("when nobody looks at submodules", 1, 1)
}

// TestSubmodulesOfAFailure: what came before a fetch failed is kept for the next one, and
// is not more with each.
func TestSubmodulesOfAFailure(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	good, bad := server.Repository(t, "a-good"), server.Repository(t, "z-bad")
	folder := t.TempDir()
	s, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, RecurseSubmodules: true}
	if err := s.Retain([]Request{request}); err != nil {
		t.Fatal(err)
	}
	commit := good.Commit(t, "main", testenv.Files{"g": "1"})
	files := modules(map[string]string{"z-bad": bad.Commit(t, "main", testenv.Files{"b": "1"})})
	files["a-good"] = testenv.Submodule(commit)
	files[".gitmodules"] = "[submodule \"a\"]\n\tpath = a-good\n\turl = ../a-good\n" + files[".gitmodules"]
	repo.Commit(t, "main", files)
	var fetched atomic.Int64
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasPrefix(r.URL.Path, "/z-bad"):
				w.WriteHeader(http.StatusBadGateway)
				return
			case strings.HasPrefix(r.URL.Path, "/a-good"):
				fetched.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	for range 3 {
		if _, err := s.Fetch(t.Context(), request); err == nil {
			t.Fatal("a submodule that is not there is shown")
		}
	}
	if n := fetched.Load(); n != 2 { // the greeting and the commit
		t.Errorf("%d requests for a submodule that came with the first fetch", n)
	}
	if folders, _, tips := s.counted(t, folder); folders != 3 || tips != 2 {
		t.Errorf("%d folders and %d tips", folders, tips)
	}
	if err := s.Retain(nil); err != nil {
		t.Fatal(err)
	}
	if folders, remotes, _ := s.counted(t, folder); folders != 0 || remotes != 0 {
		t.Errorf("%d folders and %d stores are left", folders, remotes)
	}
}

// TestSubmodulesUnderWay: cleaning removes nothing that a fetch has brought but not named
// yet, and what it kept for that goes when the fetch has ended.
func TestSubmodulesUnderWay(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	leaf := server.Repository(t, "leaf").Commit(t, "main", testenv.Files{"l": "1"})
	repo.Commit(t, "main", modules(map[string]string{"leaf": leaf}))
	folder := t.TempDir()
	s, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, RecurseSubmodules: true}
	for name, test := range map[string]struct {
		followed []Request
		want     int
	}{
		"followed": {[]Request{request}, 2},
		"no more":  {nil, 0},
	} {
		asked, enough := make(chan struct{}, 10), make(chan struct{})
		server.Around(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/leaf") {
					asked <- struct{}{}
					<-enough
				}
				next.ServeHTTP(w, r)
			})
		})
		done := make(chan error, 1)
		go func() {
			result, err := s.Fetch(t.Context(), request)
			if err == nil {
				err = errors.Join(readAll(result.Files.Open("leaf/l")))
				result.Release()
			}
			done <- err
		}()
		select {
		case <-asked:
		case err := <-done:
			t.Fatalf("%s: the fetch ended before the submodule was asked for: %v", name, err)
		}
		if err := s.Retain(test.followed); err != nil {
			t.Fatal(err)
		}
		close(enough)
		if err := <-done; err != nil && test.want > 0 {
			t.Errorf("%s: %v", name, err)
		}
		server.Around(nil)
		if folders, remotes, _ := s.counted(t, folder); folders != test.want || remotes != test.want {
			t.Errorf("%s: %d folders and %d stores are left, want %d", name, folders, remotes, test.want)
		}
		if err := s.Retain(nil); err != nil {
			t.Fatal(err)
		}
	}
}

func readAll(in io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return errors.Join(err, in.Close())
}

// TestSubmodulesAfterARestart are still those of their parent before that was looked at.
func TestSubmodulesAfterARestart(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	leaf := server.Repository(t, "leaf").Commit(t, "main", testenv.Files{"l": "1"})
	server.Repository(t, "app").Commit(t, "main", modules(map[string]string{"leaf": leaf}))
	folder := t.TempDir()
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, RecurseSubmodules: true}
	for again := range 2 {
		s, err := Open(folder, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Retain([]Request{request}); err != nil {
			t.Fatal(err)
		}
		before := server.Requests()
		result, err := s.Fetch(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		result.Release()
		if folders, _, _ := s.counted(t, folder); folders != 2 {
			t.Errorf("%d folders", folders)
		}
		if n := server.Requests() - before; n > 2 && again == 1 {
			t.Errorf("%d requests after a restart, want the greeting and the refs", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
