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
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
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

// TestManyDirectoriesOfHollowOnes: what leads to no file is looked at once in a revision, not
// for each directory that leads to it, and as long as the context lasts.
func TestManyDirectoriesOfHollowOnes(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	blob := gitOutput(t, repo.Dir, "x", "hash-object", "-w", "--stdin")
	batch := func(count int, tree func(int) string) []string {
		var all strings.Builder
		for i := range count {
			fmt.Fprintf(&all, "%s\n", tree(i))
		}
		return strings.Fields(gitOutput(t, repo.Dir, all.String(), "mktree", "--batch"))
	}
	// Together they are more than is kept in memory.
	const inner, links = 400, 300
	var below strings.Builder
	for i, id := range batch(inner, func(i int) string {
		var lines strings.Builder
		for j := range links {
			fmt.Fprintf(&lines, "120000 blob %s\tl%d-%d\n", blob, i, j)
		}
		return lines.String()
	}) {
		fmt.Fprintf(&below, "040000 tree %s\td%d\n", id, i)
	}
	bomb := gitOutput(t, repo.Dir, below.String(), "mktree")
	file := gitOutput(t, repo.Dir, "100644 blob "+blob+"\tf\n", "mktree")
	var lines strings.Builder
	var dirs []string
	for i, id := range batch(mostSparse, func(i int) string {
		return fmt.Sprintf("040000 tree %s\ta\n040000 tree %s\tz%d\n", bomb, file, i)
	}) {
		dirs = append(dirs, fmt.Sprintf("d%04d", i))
		fmt.Fprintf(&lines, "040000 tree %s\t%s\n", id, dirs[i])
	}
	root := gitOutput(t, repo.Dir, lines.String(), "mktree")
	repo.Branch(t, "main", gitOutput(t, repo.Dir, "", "commit-tree", "-m", "bomb", root))
	s := store(t, Options{CacheBytes: 1 << 20, TreeEntries: 1 << 40, TreeBytes: 1 << 40})
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}, Sparse: dirs}
	soon(t, "a fetch of many directories", func(ctx context.Context) {
		result, err := s.Fetch(ctx, request)
		if err != nil {
			t.Error(err)
			return
		}
		defer result.Release()
		for _, dir := range dirs {
			if entries, err := result.Files.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name()[0] != 'z' {
				t.Errorf("%s: %v, error %v", dir, entries, err)
				return
			}
		}
	})
	request.Sparse = append(dirs, "one-too-many")
	if _, err := s.Fetch(t.Context(), request); gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), "at most 1000 are allowed") {
		t.Errorf("got error %v of kind %q", err, gitops.KindOf(err))
	}
	request.Sparse = nil
	result, err := s.Fetch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	defer result.Release()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	shown := result.Files.(*tree)
	again := newTree(shown.objects, shown.root)
	if _, err := measured(ended, again.within(ended), dirs); wire.CodeOf(err) != wire.CodeCanceled {
		t.Errorf("looking up directories ends with %v when its context has ended", err)
	}
	if err := shown.objects.filesBelow(ended, shown.root, dirs, func(pack.ID) {}); wire.CodeOf(err) != wire.CodeCanceled {
		t.Errorf("looking for files ends with %v when its context has ended", err)
	}
	again.over()
	if _, err := again.Stat(dirs[0]); err != nil {
		t.Errorf("a tree that outlives its fetch: %v", err)
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
	for left, want := range map[int]gitops.ErrorKind{50*(1+hollowCost) - 1: gitops.Invalid, 50 * (1 + hollowCost): ""} {
		shown := result.Files.(*tree)
		objects := *shown.objects
		objects.dirs = nil // which remembers
		d, err := objects.dir(shown.root)
		if err != nil {
			t.Fatal(err)
		}
		s := newTree(&objects, shown.root).search(t.Context())
		s.hollow.left = left
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

// TestLargeDirectoriesAreReadOnce: not once for each file in them; and they are not kept
// for long.
func TestLargeDirectoriesAreReadOnce(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	blob := gitOutput(t, repo.Dir, "x", "hash-object", "-w", "--stdin")
	const count = 60_000
	var lines strings.Builder
	for i := range count {
		fmt.Fprintf(&lines, "100644 blob %s\tf%d\n", blob, i)
	}
	flat := gitOutput(t, repo.Dir, lines.String(), "mktree")
	root := gitOutput(t, repo.Dir, fmt.Sprintf("040000 tree %s\ta\n", flat), "mktree")
	repo.Branch(t, "main", gitOutput(t, repo.Dir, "", "commit-tree", "-m", "flat", root))
	s := store(t, Options{})
	soon(t, "reading all files", func(ctx context.Context) {
		result, err := s.Fetch(ctx, Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer result.Release()
		files := 0
		err = fs.WalkDir(result.Files, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			files++
			_, err = result.Files.ReadFile(name)
			return err
		})
		if err != nil || files != count {
			t.Errorf("%d files, error %v", files, err)
		}
	})
	if kept := s.dirs.large.Cost(); kept < entryCost*count {
		t.Errorf("%d bytes of large directories are kept while they are read", kept)
	}
	s.dirs.expire() // it has just been used
	if s.dirs.large.Cost() == 0 {
		t.Error("a large directory that is read is dropped")
	}
	s.dirs.expire()
	if kept := s.dirs.large.Cost(); kept != 0 {
		t.Errorf("%d bytes of large directories are kept that nobody reads", kept)
	}
}
