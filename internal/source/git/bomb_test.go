package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// hollow makes directories that are nested so many levels deep, of so many entries
// each, all of which are the same directory of the level below; at the bottom is what
// is no file. It gives the name of the outermost one.
func hollow(t *testing.T, repo *testenv.GitRepository, width, levels int, bottom string) string {
	t.Helper()
	below := bottom
	for range levels {
		var lines strings.Builder
		for i := range width {
			fmt.Fprintf(&lines, "%s\td%d\n", below, i)
		}
		below = "040000 tree " + gitOutput(t, repo.Dir, lines.String(), "mktree")
	}
	return strings.Fields(below)[2]
}

// soon fails where something takes far longer than looking at each object once.
func soon(t *testing.T, what string, do func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(ctx)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatalf("%s does not end", what)
	}
}

// TestHollowTrees: directories that stand for any number of others and lead to no file
// are looked at once, whether they are kept in memory or too large for that.
func TestHollowTrees(t *testing.T) {
	t.Parallel()
	for name, width := range map[string]int{"small directories": 30, "directories too large to be kept": 30_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			repo := server.Repository(t, "app")
			link := "120000 blob " + gitOutput(t, repo.Dir, "nowhere", "hash-object", "-w", "--stdin")
			file := gitOutput(t, repo.Dir, "100644 blob "+gitOutput(t, repo.Dir, "x", "hash-object", "-w", "--stdin")+"\tf\n", "mktree")
			full := hollow(t, repo, width, 4, "040000 tree "+file)
			root := gitOutput(t, repo.Dir, fmt.Sprintf("040000 tree %s\tapps\n040000 tree %s\tfull\n040000 tree %s\tbomb\n", file, full, hollow(t, repo, width, 5, link)), "mktree")
			repo.Branch(t, "main", gitOutput(t, repo.Dir, "", "commit-tree", "-m", "bomb", root))
			s := store(t, Options{})
			request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}}
			soon(t, "a fetch of other directories", func(ctx context.Context) {
				request := request
				request.Sparse = []string{"apps"}
				result, err := s.Fetch(ctx, request)
				if err != nil {
					t.Error(err)
					return
				}
				defer result.Release()
				if entries, err := result.Files.ReadDir("."); err != nil || len(entries) != 1 || entries[0].Name() != "apps" {
					t.Errorf("%v, error %v", entries, err)
				}
			})
			soon(t, "a fetch of them", func(ctx context.Context) {
				request := request
				request.Sparse = []string{"bomb"}
				if _, err := s.Fetch(ctx, request); gitops.KindOf(err) != gitops.Invalid || !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("got error %v of kind %q", err, gitops.KindOf(err))
				}
			})
			soon(t, "a fetch of all", func(ctx context.Context) {
				if _, err := s.Fetch(ctx, request); gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), "1000000 files and directories") {
					t.Errorf("got error %v of kind %q", err, gitops.KindOf(err))
				}
			})
		})
	}
}

// TestSearchIsBounded: directories of which each is another one are looked at up to a
// bound, of which those that lead to files use nothing.
func TestSearchIsBounded(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	blob := gitOutput(t, repo.Dir, "x", "hash-object", "-w", "--stdin")
	var lines strings.Builder
	for i := range 50 {
		for kind, mode := range map[string]string{"file": "100644", "link": "120000"} {
			below := gitOutput(t, repo.Dir, fmt.Sprintf("%s blob %s\t%d\n", mode, blob, i), "mktree")
			fmt.Fprintf(&lines, "040000 tree %s\t%s%d\n", below, kind, i)
		}
	}
	root := gitOutput(t, repo.Dir, lines.String(), "mktree")
	repo.Branch(t, "main", gitOutput(t, repo.Dir, "", "commit-tree", "-m", "many", root))
	result, err := store(t, Options{}).Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Release()
	for left, want := range map[int]gitops.ErrorKind{49: gitops.Invalid, 50: ""} {
		shown := result.Files.(*tree)
		objects := *shown.objects
		objects.dirs = nil // which remembers
		d, err := objects.dir(shown.root)
		if err != nil {
			t.Fatal(err)
		}
		s := objects.search()
		s.left = left
		for _, e := range d.entries {
			var leads bool
			if leads, err = s.leads(e.id, 1); err != nil {
				break
			}
			if leads != strings.HasPrefix(e.name, "file") {
				t.Errorf("%s leads to a file: %v", e.name, leads)
			}
		}
		if gitops.KindOf(err) != want {
			t.Errorf("with a bound of %d: error %v of kind %q, want %q", left, err, gitops.KindOf(err), want)
		}
	}
}

// TestBrokenTreesAreReadOnce: what cannot be shown is not read for each link to it.
func TestBrokenTreesAreReadOnce(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	blob := gitOutput(t, repo.Dir, "x", "hash-object", "-w", "--stdin")
	var lines strings.Builder
	for i := range 45_000 {
		fmt.Fprintf(&lines, "100644 blob %s\t%0200d\n", blob, i)
	}
	large := gitOutput(t, repo.Dir, lines.String(), "mktree")
	root := hollow(t, repo, 20_000, 1, "040000 tree "+large)
	repo.Branch(t, "main", gitOutput(t, repo.Dir, "", "commit-tree", "-m", "broken", root))
	soon(t, "measuring", func(ctx context.Context) {
		result, err := store(t, Options{}).Fetch(ctx, Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
		if err == nil {
			result.Release()
		}
		if err := context.Cause(ctx); err != nil {
			t.Error(err)
		}
	})
}
