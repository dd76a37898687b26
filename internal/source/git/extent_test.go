package git

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func gitOutput(t *testing.T, dir, in string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "--git-dir", dir}, args...)...)
	c.Stdin = strings.NewReader(in)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// bomb commits directories of ten entries, nested so many levels deep, of which
// all of a level are the same.
func bomb(t *testing.T, repo *testenv.GitRepository, levels int) {
	t.Helper()
	below, kind := gitOutput(t, repo.Dir, "ten bytes.", "hash-object", "-w", "--stdin"), "100644 blob"
	for range levels {
		var tree strings.Builder
		for i := range 10 {
			fmt.Fprintf(&tree, "%s %s\td%d\n", kind, below, i)
		}
		below, kind = gitOutput(t, repo.Dir, tree.String(), "mktree"), "040000 tree"
	}
	repo.Branch(t, "main", gitOutput(t, repo.Dir, "", "commit-tree", "-m", "bomb", below))
}

func store(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), o)
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

// TestTreesThatExpandAreRefused: ten small objects stand for ten thousand million
// files where directories link to the same one again and again.
func TestTreesThatExpandAreRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		levels  int
		options Options
		refused string
	}{
		"by far too many files":              {levels: 10, refused: "1000000 files and directories"},
		"as many files as is allowed":        {levels: 3, options: Options{TreeEntries: 1110}},
		"one file too many":                  {levels: 3, options: Options{TreeEntries: 1109}, refused: "1109 files and directories"},
		"as many bytes as is allowed":        {levels: 3, options: Options{TreeBytes: 10_000}},
		"a byte too many":                    {levels: 3, options: Options{TreeBytes: 9_999}, refused: "9999 bytes"},
		"so many that a counter would break": {levels: 25, refused: "1000000 files and directories"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			bomb(t, server.Repository(t, "app"), test.levels)
			s := store(t, test.options)
			request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
			for range 2 { // the second time from memory
				result, err := s.Fetch(t.Context(), request)
				if test.refused == "" {
					if err != nil {
						t.Fatal(err)
					}
					result.Release()
					continue
				}
				if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), test.refused) {
					t.Fatalf("got error %v of kind %q, want one that says %q", err, gitops.KindOf(err), test.refused)
				}
			}
			if _, err := s.Last(t.Context(), request); (err != nil) != (test.refused != "") {
				t.Errorf("from disk: error %v", err)
			}
		})
	}
}

// TestInflatingIsBounded over all packs of a fetch: here those of the directories and of the
// files.
func TestInflatingIsBounded(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	zeros := func(n int) string { return strings.Repeat("\x00", n*size) }
	for name, test := range map[string]struct {
		sparse  []string
		refused bool
	}{
		"all files":        {nil, true},
		"a directory":      {[]string{"d"}, true},
		"a small one":      {[]string{"e"}, false},
		"a few more zeros": {[]string{"e", "f"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			server.Repository(t, "app").Commit(t, "main", testenv.Files{"d/f": zeros(3), "e/f": "1", "f/f": zeros(1)})
			s := store(t, Options{TreeBytes: size + size/2})
			result, err := s.Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, Sparse: test.sparse})
			if !test.refused {
				if err != nil {
					t.Fatal(err)
				}
				result.Release()
				return
			}
			if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), "bytes when they are inflated") {
				t.Errorf("got error %v of kind %q", err, gitops.KindOf(err))
			}
		})
	}
}

// TestSearchLooksOnceAtATree: the search itself must not write a tree out.
func TestSearchLooksOnceAtATree(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	bomb(t, server.Repository(t, "app"), 12)
	s := store(t, Options{TreeEntries: 1 << 60, TreeBytes: 1 << 60})
	result, err := s.Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Release()
	done := make(chan error, 1)
	go func() {
		_, err := source.Filter(result.Files, "")
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("the search for ignore files does not end")
	}
}

// TestDirectoriesBelongToTheirStore: what one server sent is not shown for another.
func TestDirectoriesBelongToTheirStore(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"a": "a"})
	result, err := store(t, Options{}).Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Release()
	shown := result.Files.(*tree)
	if _, err := shown.ReadDir("."); err != nil {
		t.Fatal(err)
	}
	other := *shown.objects
	other.set, other.owner, other.damaged = pack.NewSet(nil, pack.Limits{}), "another", func() {}
	if _, err := other.dir(shown.root); err == nil {
		t.Error("a store without the object shows the directory of another store")
	}
}

// TestLargeDirectoriesAreRefused: a decoded directory weighs more than its object.
func TestLargeDirectoriesAreRefused(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	blob := gitOutput(t, repo.Dir, "x", "hash-object", "-w", "--stdin")
	var tree strings.Builder
	for i := range 45_000 {
		fmt.Fprintf(&tree, "100644 blob %s\t%0200d\n", blob, i)
	}
	repo.Branch(t, "main", gitOutput(t, repo.Dir, "", "commit-tree", "-m", "large", gitOutput(t, repo.Dir, tree.String(), "mktree")))
	result, err := store(t, Options{}).Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Release()
	if _, err := result.Files.ReadDir("."); gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), "for one directory") {
		t.Errorf("got error %v of kind %q", err, gitops.KindOf(err))
	}
}

// TestSubmodulesAreCountedTogether: each of a few repositories may have a few,
// and still they are very many.
func TestSubmodulesAreCountedTogether(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	leaf := server.Repository(t, "leaf").Commit(t, "main", testenv.Files{"l": "leaf"})
	many := func(commit, url string) testenv.Files {
		files, modules := testenv.Files{}, ""
		for i := range 15 {
			modules += fmt.Sprintf("[submodule \"m%d\"]\n\tpath = m%d\n\turl = ../%s\n", i, i, url)
			files[fmt.Sprintf("m%d", i)] = testenv.Submodule(commit)
		}
		files[".gitmodules"] = modules
		return files
	}
	middle := server.Repository(t, "middle").Commit(t, "main", many(leaf, "leaf"))
	server.Repository(t, "app").Commit(t, "main", many(middle, "middle"))
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, RecurseSubmodules: true}
	_, err := store(t, Options{}).Fetch(t.Context(), request)
	if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), "more than 200 submodules") {
		t.Errorf("got error %v of kind %q", err, gitops.KindOf(err))
	}
}

func TestSubmodulesDoNotLeadBack(t *testing.T) {
	t.Parallel()
	v := &visit{}
	a, b := Request{URL: "https://host/a"}, Request{URL: "https://host/b", Ref: Ref{Commit: "2"}}
	if err := v.descend(a, "1", b); err != nil {
		t.Fatal(err)
	}
	a.Ref.Commit = "1"
	if err := v.descend(b, "2", a); err == nil {
		t.Error("a submodule that is the repository itself is followed")
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	commit := server.Repository(t, "app").Commit(t, "main", testenv.Files{"a": "a"})
	s, request := store(t, Options{}), Request{URL: server.URL("app"), Ref: Ref{Commit: commit}}
	result, err := s.Fetch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	result.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Fetch(ctx, request); err == nil {
		t.Error("a fetch that nobody wants goes on where no server has to be asked")
	}
}
