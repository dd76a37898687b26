package git_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// size is the length of all files below a folder.
func size(t testing.TB, dir string) (bytes int64, files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		// Packs are joined in the background: what is gone by then does not count.
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err == nil:
			bytes += info.Size()
			files++
		}
		return err
	})
	must(t, err)
	return bytes, files
}

func open(t testing.TB, dir string) *git.Store {
	t.Helper()
	s, err := git.Open(dir, git.Options{})
	must(t, err)
	return s
}

func TestRestartFetchesNothingAgain(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	repo.Commit(t, "main", testenv.Files{"f": "1"})
	dir := t.TempDir()
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
	first := open(t, dir)
	request.Known = fetch(t, first, request).Revision
	must(t, first.Close())

	before := server.Requests()
	again := open(t, dir)
	result := fetch(t, again, request)
	if !result.Unchanged || contents(t, result.Files)["f"] != "1" {
		t.Errorf("unchanged %v", result.Unchanged)
	}
	if got := server.Requests() - before; got > 2 {
		t.Errorf("%d requests after a restart, want the greeting and the refs", got)
	}
	before = server.Requests()
	fetch(t, again, request)
	if got := server.Requests() - before; got != 1 {
		t.Errorf("%d requests for an unchanged branch, want 1", got)
	}
	repo.Amend(t, "main", testenv.Files{"f": "2"})
	if result := fetch(t, again, request); !result.Rewritten {
		t.Error("a force-push during a restart is not recognised")
	}
	must(t, again.Close())
}

// damage changes the file of a store that a pattern finds.
func damage(t testing.TB, dir, pattern string, change func([]byte) []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", pattern))
	must(t, err)
	if len(files) == 0 {
		t.Fatalf("no file %q", pattern)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, change(data), 0o600))
	}
}

func TestDamageIsRepairedByFetchingAgain(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t testing.TB, dir string){
		"the pack is cut off": func(t testing.TB, dir string) {
			damage(t, dir, "*.pack", func(b []byte) []byte { return b[:len(b)/2] })
		},
		"the index is cut off": func(t testing.TB, dir string) { damage(t, dir, "*.idx", func(b []byte) []byte { return b[:len(b)/2] }) },
		"the index is empty":   func(t testing.TB, dir string) { damage(t, dir, "*.idx", func([]byte) []byte { return nil }) },
		"the state is no JSON": func(t testing.TB, dir string) {
			damage(t, dir, "state.json", func([]byte) []byte { return []byte("{") })
		},
		"the state is gone": func(t testing.TB, dir string) {
			damage(t, dir, "state.json", func(b []byte) []byte { return b })
			remove(t, dir, "state.json")
		},
		"the pack is gone":      func(t testing.TB, dir string) { remove(t, dir, "*.pack") },
		"the key is gone":       func(t testing.TB, dir string) { must(t, os.Remove(filepath.Join(dir, "key"))) },
		"a pack is half there":  func(t testing.TB, dir string) { half(t, dir) },
		"everything is gone":    func(t testing.TB, dir string) { must(t, os.RemoveAll(dir)) },
		"bits in the pack flip": func(t testing.TB, dir string) { damage(t, dir, "*.pack", flip) },
	}
	for name, hurt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			files := testenv.Files{}
			for i := range 50 {
				files[fmt.Sprintf("d%d/f", i)] = fmt.Sprintf("content of file %d", i)
			}
			server.Repository(t, "app").Commit(t, "main", files)
			dir := filepath.Join(t.TempDir(), "git")
			request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
			s := open(t, dir)
			request.Known = fetch(t, s, request).Revision
			must(t, s.Close())
			hurt(t, dir)
			s = open(t, dir)
			defer func() { must(t, s.Close()) }()
			// A flipped bit is found when it is read; then the next fetch repairs.
			for attempt := 0; ; attempt++ {
				result, err := s.Fetch(within(t), request)
				if err == nil {
					err = readAll(result)
					result.Release()
				}
				if err == nil {
					return
				}
				t.Log(err)
				if attempt == 2 {
					t.Fatal("not repaired")
				}
			}
		})
	}
}

func readAll(result git.Result) error {
	return fs.WalkDir(result.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := result.Files.ReadFile(name)
		if err == nil && !strings.HasPrefix(string(data), "content of file ") {
			err = fmt.Errorf("%s holds %q", name, data)
		}
		return err
	})
}

func remove(t testing.TB, dir, pattern string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", pattern))
	must(t, err)
	for _, file := range files {
		must(t, os.Remove(file))
	}
}

// half leaves what a process that was killed while it received a pack leaves.
func half(t testing.TB, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "pack-*.pack"))
	must(t, err)
	for _, file := range files {
		must(t, os.WriteFile(strings.Replace(file, "pack-0", "pack-9", 1), []byte("PACK"), 0o600))
	}
}

// flip changes a bit in each part of a pack but its ends.
func flip(b []byte) []byte {
	for i := 20; i < len(b)-20; i += 97 {
		b[i] ^= 4
	}
	return b
}

func TestRetainRemovesWhatIsNotFollowed(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { must(t, s.Close()) }()
	var requests []git.Request
	for _, name := range []string{"one", "two"} {
		server.Repository(t, name).Commit(t, "main", testenv.Files{"f": name})
		requests = append(requests, git.Request{URL: server.URL(name), Ref: git.Ref{Branch: "main"}})
	}
	kept, gone := fetch(t, s, requests[0]), fetch(t, s, requests[1])
	must(t, s.Retain(requests[:1]))
	folders, err := filepath.Glob(filepath.Join(dir, "*", "state.json"))
	must(t, err)
	if len(folders) != 1 {
		t.Errorf("%d stores are left, want 1", len(folders))
	}
	for want, result := range map[string]git.Result{"one": kept, "two": gone} {
		if got := contents(t, result.Files)["f"]; got != want {
			t.Errorf("a reader sees %q, want %q", got, want)
		}
	}
	if got := contents(t, fetch(t, s, requests[1]).Files)["f"]; got != "two" {
		t.Errorf("fetched again: %q", got)
	}
}

func TestTipsOfOneStoreStandSideBySide(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	s := openStore(t, git.Options{Packs: 6})
	const branches = 5
	for round := range 8 {
		var wait sync.WaitGroup
		for b := range branches {
			branch := fmt.Sprintf("b%d", b)
			repo.Commit(t, branch, testenv.Files{"f": fmt.Sprint(round, b), "same": fmt.Sprint(round)})
			wait.Go(func() {
				result, err := s.Fetch(within(t), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: branch}})
				if err != nil {
					t.Error(err)
					return
				}
				defer result.Release()
				want := map[string]string{"f": fmt.Sprint(round, b), "same": fmt.Sprint(round)}
				if diff := cmp.Diff(want, contents(t, result.Files)); diff != "" {
					t.Error(diff)
				}
			})
		}
		wait.Wait()
	}
}

// TestGrowthIsBounded follows a branch through many commits and force-pushes
// and compares the data folder with a fresh clone.
func TestGrowthIsBounded(t *testing.T) {
	t.Parallel()
	commits, pushes := 1000, 100
	if testing.Short() || raceEnabled {
		commits, pushes = 100, 10
		t.Logf("scaled down to %d commits and %d force-pushes: -short or -race", commits, pushes)
	}
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	repo.Commit(t, "main", apps(200))
	repo.Pack(t)
	dir := t.TempDir()
	s := open(t, dir)
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
	request.Known = fetch(t, s, request).Revision
	initial, _ := size(t, dir)

	var took []time.Duration
	var largest int64
	for i := range commits + pushes {
		change := testenv.Files{fmt.Sprintf("apps/app-%d/deployment.yaml", i%200): fmt.Sprintf("replicas: %d\n", i)}
		push := i%(commits/pushes) == 0 && i > 0
		if push {
			repo.Amend(t, "main", change)
		} else {
			repo.Commit(t, "main", change)
		}
		if i%500 == 499 {
			repo.Pack(t)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		began := time.Now()
		result, err := s.Fetch(ctx, request)
		took = append(took, time.Since(began))
		cancel()
		must(t, err)
		if result.Rewritten != push {
			t.Errorf("step %d: rewritten %v, want %v", i, result.Rewritten, push)
		}
		request.Known = result.Revision
		result.Release()
		now, _ := size(t, dir)
		largest = max(largest, now)
	}
	result := fetch(t, s, request)
	if got := len(contents(t, result.Files)); got != 800 {
		t.Errorf("%d files, want 800", got)
	}
	must(t, s.Close())

	clone, shallow := t.TempDir(), t.TempDir()
	repo.Pack(t)
	repo.Git(t, "clone", "--quiet", "--bare", "--no-local", "file://"+repo.Dir, filepath.Join(clone, "c"))
	repo.Git(t, "clone", "--quiet", "--bare", "--no-local", "--depth", "1", "--branch", "main", "file://"+repo.Dir, filepath.Join(shallow, "c"))
	objects, _ := size(t, filepath.Join(clone, "c", "objects"))
	depthOne, _ := size(t, filepath.Join(shallow, "c", "objects"))
	end, files := size(t, dir)
	tenth := len(took) / 10
	early, late := median(took[:tenth]), median(took[len(took)-tenth:])
	t.Logf("data folder: %d bytes after the first fetch, at most %d, %d in %d files at the end; a fresh clone has %d, one of depth 1 %d; a fetch took %s at first, %s at last",
		initial, largest, end, files, objects, depthOne, early, late)
	if end > 3*depthOne || largest > 3*depthOne {
		t.Errorf("the data folder holds up to %d bytes, more than three times the %d of a fresh clone", largest, depthOne)
	}
	// The times are for people: on a loaded machine they say nothing. What keeps
	// a fetch from becoming slower is that packs do not pile up: each has an
	// index beside it, and twice the number at which they are joined may be there
	// while that is under way.
	if most := 2*2*32 + 8; files > most {
		t.Errorf("the data folder holds %d files, want at most %d", files, most)
	}
}
