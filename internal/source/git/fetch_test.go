package git_test

import (
	"context"
	"io/fs"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func openStore(t testing.TB, o git.Options) *git.Store {
	t.Helper()
	s, err := git.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func fetch(t testing.TB, s *git.Store, r git.Request) git.Result {
	t.Helper()
	result, err := s.Fetch(within(t), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(result.Release)
	return result
}

// contents reads all files of a tree.
func contents(t testing.TB, tree gitops.Tree) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := tree.ReadFile(name)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestFetchFollowsABranch(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]testenv.GitServerOptions{
		"over protocol version 2": {},
		"over protocol version 0": {OldProtocol: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, o)
			repo := server.Repository(t, "org/app")
			first := repo.Commit(t, "main", testenv.Files{"a.yaml": "a", "b/c.yaml": "c"})
			s := openStore(t, git.Options{})
			request := git.Request{URL: server.URL("org/app"), Ref: git.Ref{Branch: "main"}}

			one := fetch(t, s, request)
			if want := "main@sha1:" + first; one.Revision != want || one.Unchanged || one.Rewritten {
				t.Errorf("first fetch: got %q, unchanged %v, rewritten %v; want %q", one.Revision, one.Unchanged, one.Rewritten, want)
			}
			if diff := cmp.Diff(map[string]string{"a.yaml": "a", "b/c.yaml": "c"}, contents(t, one.Files)); diff != "" {
				t.Error(diff)
			}
			request.Known = one.Revision
			if same := fetch(t, s, request); !same.Unchanged {
				t.Error("unchanged branch: not said so")
			}

			repo.Commit(t, "main", testenv.Files{"b/c.yaml": "c2"})
			second := repo.Commit(t, "main", testenv.Files{"d.yaml": "d"})
			two := fetch(t, s, request)
			if two.Commit.Hash != second || two.Unchanged || two.Rewritten {
				t.Errorf("second fetch: got %s, unchanged %v, rewritten %v", two.Commit.Hash, two.Unchanged, two.Rewritten)
			}
			if diff := cmp.Diff(map[string]string{"a.yaml": "a", "b/c.yaml": "c2", "d.yaml": "d"}, contents(t, two.Files)); diff != "" {
				t.Error(diff)
			}

			request.Known = two.Revision
			third := repo.Amend(t, "main", testenv.Files{"d.yaml": "other"})
			three := fetch(t, s, request)
			if three.Commit.Hash != third || !three.Rewritten {
				t.Errorf("amended commit: got %s, rewritten %v", three.Commit.Hash, three.Rewritten)
			}
			request.Known = three.Revision
			repo.Orphan(t, "main", testenv.Files{"x": "new history"})
			four := fetch(t, s, request)
			if diff := cmp.Diff(map[string]string{"x": "new history"}, contents(t, four.Files)); diff != "" || !four.Rewritten {
				t.Errorf("other history: rewritten %v, %s", four.Rewritten, diff)
			}
			if diff := cmp.Diff(map[string]string{"a.yaml": "a", "b/c.yaml": "c"}, contents(t, one.Files)); diff != "" {
				t.Errorf("the first result cannot be read any more: %s", diff)
			}
		})
	}
}
