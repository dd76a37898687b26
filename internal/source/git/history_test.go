package git

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// atHistory puts something before a server's answers with the commits between two.
func atHistory(server *testenv.GitServer, answer func(w http.ResponseWriter, body []byte)) {
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(asked))
			if !bytes.Contains(asked, []byte("filter tree:0")) {
				next.ServeHTTP(w, r)
				return
			}
			recorded := httptest.NewRecorder()
			next.ServeHTTP(recorded, r)
			w.Header().Set("Content-Type", recorded.Header().Get("Content-Type"))
			answer(w, recorded.Body.Bytes())
		})
	})
}

// packs are the names of what looks like a pack below a folder.
func packs(t *testing.T, folder string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*", "pack-*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range found {
		found[i] = filepath.Base(name)
	}
	return found
}

// TestHistoryLeavesNothing: the commits between two are looked at and are gone then, however
// the answer ends that they came with.
func TestHistoryLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, body []byte)
		failed bool
	}{
		"an answer as it has to be": {answer: func(w http.ResponseWriter, body []byte) { _, _ = w.Write(body) }},
		"a failure that the server tells behind the pack": {failed: true, answer: func(w http.ResponseWriter, body []byte) {
			text := "\x03out of memory"
			_, _ = fmt.Fprintf(w, "%s%04x%s0000", bytes.TrimSuffix(body, []byte("0000")), len(text)+4, text)
		}},
		"a connection that is cut behind the pack": {failed: true, answer: func(w http.ResponseWriter, body []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(bytes.TrimSuffix(body, []byte("0000")))
		}},
		"a pack that is cut": {failed: true, answer: func(w http.ResponseWriter, body []byte) { _, _ = w.Write(body[:len(body)-20]) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			repo := server.Repository(t, "app")
			repo.Commit(t, "main", testenv.Files{"f": "1"})
			folder := t.TempDir()
			s, err := Open(folder, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			look := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				result, err := s.Fetch(ctx, Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
				if err == nil {
					result.Release()
				}
				return err
			}
			if err := look(); err != nil {
				t.Fatal(err)
			}
			before := packs(t, folder)
			asked := 0
			atHistory(server, func(w http.ResponseWriter, body []byte) {
				asked++
				test.answer(w, body)
			})
			repo.Commit(t, "main", testenv.Files{"f": "2"})
			repo.Commit(t, "main", testenv.Files{"f": "3"})
			err = look()
			if (err != nil) != test.failed || asked != 1 {
				t.Fatalf("error %v, failed %v wanted; history was asked for %d times", err, test.failed, asked)
			}
			want := len(before)
			if !test.failed {
				want *= 2 // the new commit
			}
			if left := packs(t, folder); len(left) != want {
				t.Errorf("there are %v, and were %v", left, before)
			}
			// The folder of the process's open files is not everywhere.
			for _, name := range openFiles(folder) {
				if strings.HasSuffix(name, "(deleted)") {
					t.Errorf("%s is still open", name)
				}
			}
		})
	}
}

// openFiles are the files below a folder that the process has open, as far as the system
// says.
func openFiles(folder string) (names []string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil && strings.HasPrefix(name, folder) {
			names = append(names, name)
		}
	}
	return names
}

// TestHistoryHasRoom: the commits between two count for the namespace like all that is
// written for it.
func TestHistoryHasRoom(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	repo.Commit(t, "main", testenv.Files{"f": "1"})
	folder := t.TempDir()
	s, err := Open(folder, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rooms := artifact.NewRooms(10_000, time.Now)
	rooms.Add(s)
	look := func() (full error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx = rooms.In(ctx, "apps")
		result, err := s.Fetch(ctx, Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
		if err == nil {
			result.Release()
		}
		if full = artifact.Full(ctx); (full == nil) != (err == nil) {
			t.Errorf("error %v, and %v of the room", err, full)
		}
		return full
	}
	if err := look(); err != nil {
		t.Fatal(err)
	}
	// Text that does not compress: the history is larger than the room, a commit is not.
	chance := rand.New(rand.NewPCG(1, 2))
	for i := range 3 {
		text := "the last"
		for range 10_000 * (2 - i) {
			text += string(rune('!' + chance.IntN(90)))
		}
		repo.Branch(t, "main", strings.TrimSpace(repo.Feed(t, text, "-c", "user.name=Ann", "-c", "user.email=ann@example.com", "commit-tree", "-p", "main", "main^{tree}")))
	}
	if err := look(); err == nil {
		t.Error("commits of 30,000 bytes have room in 10,000")
	}
	if left := packs(t, folder); len(left) != 2 {
		t.Errorf("there are %v, and was one pack with its index", left)
	}
}
