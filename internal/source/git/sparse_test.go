package git_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// noise is text that does not pack to less than half.
func noise(n int) string {
	raw := make([]byte, n/2)
	_, _ = rand.Read(raw)
	return hex.EncodeToString(raw)
}

// TestSparseFetchesOnlyItsFiles: files outside the directories do not come, and
// nothing is fetched when the others are read.
func TestSparseFetchesOnlyItsFiles(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	leaf := server.Repository(t, "leaf").Commit(t, "main", testenv.Files{"l": "leaf"})
	repo.Commit(t, "main", testenv.Files{
		"apps/a/x": "1", "apps/b": "2", "apps/ab/y": "3", "other/big": noise(2 << 20), "top": noise(1 << 20),
		"mods/leaf":   testenv.Submodule(leaf),
		".gitmodules": "[submodule \"leaf\"]\n\tpath = mods/leaf\n\turl = ../leaf\n",
	})
	dir := t.TempDir()
	s := open(t, dir)
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Sparse: []string{"apps", "./apps/a/"}}
	want := map[string]string{"apps/a/x": "1", "apps/b": "2", "apps/ab/y": "3"}
	result := fetch(t, s, request)
	if bytes, _ := size(t, dir); bytes > 100<<10 {
		t.Errorf("%d bytes were fetched for a few files", bytes)
	}
	inner := request
	inner.RecurseSubmodules, inner.Sparse = true, []string{"mods"}
	if got := sourcetest.Contents(t, fetch(t, s, inner).Files); got["mods/leaf/l"] != "leaf" {
		t.Errorf("with submodules: %v", got)
	}
	// What changes inside and outside later.
	repo.Commit(t, "main", testenv.Files{"apps/a/x": "changed", "other/big": noise(2 << 20), "apps/new/z": noise(1 << 10), "top": "4"})
	later := fetch(t, s, request)
	if bytes, _ := size(t, dir); bytes > 200<<10 {
		t.Errorf("%d bytes were fetched for a few files", bytes)
	}
	server.Hang()
	sourcetest.CheckTree(t, result.Files, want)
	got := sourcetest.Contents(t, later.Files)
	if len(got) != 4 || got["apps/a/x"] != "changed" || len(got["apps/new/z"]) != 1<<10 {
		t.Errorf("after a change: %v", got)
	}
	sourcetest.CheckSums(t, result.Files, later.Files, "apps/b", "apps/ab")
	must(t, s.Close())

	again := open(t, dir)
	t.Cleanup(func() { must(t, again.Close()) })
	last, err := again.Last(t.Context(), request)
	must(t, err)
	defer last.Release()
	if after := sourcetest.Contents(t, last.Files); fmt.Sprint(after) != fmt.Sprint(got) {
		t.Errorf("after a restart: %v", after)
	}
}

// TestSparseBesideWhole: what one request leaves out is there for the others, however
// they follow each other and however packs are joined.
func TestSparseBesideWhole(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	s := openStore(t, git.Options{Packs: 3})
	all := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
	some, others := all, all
	some.Sparse, others.Sparse = []string{"a"}, []string{"b", "c"}
	shared := noise(4 << 10)
	for i := range 12 {
		files := testenv.Files{"top": fmt.Sprint(i), "b/shared": shared + fmt.Sprint(i/2), "a/copy": shared + fmt.Sprint(i/3)}
		for _, dir := range []string{"a", "b", "c"} {
			files[fmt.Sprintf("%s/same/f%d", dir, i/4)] = "same"
			files[dir+"/x"] = fmt.Sprint(dir, i)
		}
		repo.Commit(t, "main", files)
		requests := []git.Request{some, others, all}
		for j := range requests {
			request := requests[(i+j)%len(requests)]
			got := sourcetest.Contents(t, fetch(t, s, request).Files)
			for name, content := range got {
				if want := files[name]; want != "" && want != content {
					t.Errorf("commit %d, %v: %s is %q", i, request.Sparse, name, content)
				}
			}
			for _, dir := range []string{"a", "b", "c"} {
				shown := len(request.Sparse) == 0 || strings.Contains(strings.Join(request.Sparse, " "), dir)
				if _, ok := got[dir+"/x"]; ok != shown {
					t.Errorf("commit %d, %v: %s/x is shown: %v", i, request.Sparse, dir, ok)
				}
			}
		}
	}
	must(t, s.Retain([]git.Request{others}))
	repo.Commit(t, "main", testenv.Files{"b/x": "last"})
	if got := sourcetest.Contents(t, fetch(t, s, others).Files); got["b/x"] != "last" || got["c/x"] != "c11" {
		t.Errorf("after the others are gone: %v", got)
	}
}

// TestSparseWithoutHelp: servers that cannot leave files out, or do not give them out
// by name, send everything.
func TestSparseWithoutHelp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		old    bool
		around func(http.Handler) http.Handler
	}{
		"protocol 0": {old: true},
		"a server that does not send files by name": {around: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				if bytes.Contains(body, []byte("command=fetch")) && !bytes.Contains(body, []byte("deepen")) {
					w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
					_, _ = io.WriteString(w, "0024ERR upload-pack: not our ref abc")
					return
				}
				next.ServeHTTP(w, r)
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{OldProtocol: test.old})
			repo := server.Repository(t, "app")
			repo.Commit(t, "main", testenv.Files{"a/x": "1", "b/y": "2"})
			server.Around(test.around)
			s := openStore(t, git.Options{})
			request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Sparse: []string{"a"}}
			sourcetest.CheckTree(t, fetch(t, s, request).Files, map[string]string{"a/x": "1"})
			repo.Commit(t, "main", testenv.Files{"a/x": "3"})
			sourcetest.CheckTree(t, fetch(t, s, request).Files, map[string]string{"a/x": "3"})
			request.Sparse = nil
			sourcetest.CheckTree(t, fetch(t, s, request).Files, map[string]string{"a/x": "3", "b/y": "2"})
		})
	}
}
