package try

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// git runs git in a folder, and fails t where that fails.
func git(t *testing.T, folder string, args ...string) string {
	t.Helper()
	out, err := in(folder).run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// newRepository makes a repository with a commit.
func newRepository(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	git(t, folder, "init", "--quiet", "--initial-branch=main")
	write(t, folder, "a.yaml", "a: 1\n")
	git(t, folder, "add", "--all")
	git(t, folder, "commit", "--quiet", "--message=one")
	return folder
}

func write(t *testing.T, folder, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, folder, branch string, watch bool) *repository {
	t.Helper()
	r, err := openRepository(t.Context(), folder, branch, watch)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.prepare(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	publish(t, r, true)
	return r
}

func publish(t *testing.T, r *repository, want bool) {
	t.Helper()
	changed, err := r.publish(t.Context())
	if err != nil || changed != want {
		t.Fatalf("published something new: %v (%v), want %v", changed, err, want)
	}
}

func TestCommitsAreServedAsTheyAre(t *testing.T) {
	t.Parallel()
	folder := newRepository(t)
	r := open(t, folder, "", false)
	if want := "main@sha1:" + git(t, folder, "rev-parse", "HEAD"); r.served.String() != want {
		t.Errorf("served is %s, want %s", r.served, want)
	}
	publish(t, r, false)
	write(t, folder, "a.yaml", "a: 2\n")
	publish(t, r, false)
	git(t, folder, "commit", "--quiet", "--all", "--message=two")
	publish(t, r, true)
	git(t, folder, "switch", "--quiet", "--create", "feature/x")
	publish(t, r, true)
	if r.served.branch != "feature/x" {
		t.Errorf("branch is %q", r.served.branch)
	}
	git(t, folder, "switch", "--quiet", "--detach", "HEAD~1")
	publish(t, r, true)
	if r.served.branch != detached {
		t.Errorf("branch of a detached HEAD is %q", r.served.branch)
	}

	other := open(t, folder, "main", false)
	if want := git(t, folder, "rev-parse", "main"); other.served != (commit{"main", want}) {
		t.Errorf("served of a branch that is not checked out is %s", other.served)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	url, err := r.serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	git(t, folder, "clone", "--quiet", url, clone)
	if got := git(t, clone, "rev-parse", "HEAD"); got != r.served.id {
		t.Errorf("a clone is at %s, want %s", got, r.served.id)
	}
}

func TestLinkedWorktreesShallowAndBareRepositories(t *testing.T) {
	t.Parallel()
	folder := newRepository(t)
	write(t, folder, "a.yaml", "a: 2\n")
	git(t, folder, "commit", "--quiet", "--all", "--message=two")
	worktree := filepath.Join(t.TempDir(), "worktree")
	git(t, folder, "worktree", "add", "--quiet", "-b", "side", worktree)
	shallow, bare := filepath.Join(t.TempDir(), "shallow"), filepath.Join(t.TempDir(), "bare")
	git(t, folder, "clone", "--quiet", "--depth=1", "file://"+folder, shallow)
	git(t, folder, "clone", "--quiet", "--bare", folder, bare)
	for name, branch := range map[string]string{worktree: "side", shallow: "main", bare: "main"} {
		r := open(t, name, "", false)
		if r.served.branch != branch || r.served.id != git(t, name, "rev-parse", "HEAD") {
			t.Errorf("served of %s is %s", filepath.Base(name), r.served)
		}
		url, err := r.serve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		git(t, folder, "clone", "--quiet", "--depth=1", url, filepath.Join(t.TempDir(), "clone"))
	}
}

func TestFilesAreServedWithoutTouchingTheRepository(t *testing.T) {
	t.Parallel()
	folder := newRepository(t)
	head := git(t, folder, "rev-parse", "HEAD")
	state := func() string {
		return git(t, folder, "status", "--porcelain") + git(t, folder, "count-objects", "-v") + git(t, folder, "for-each-ref")
	}
	r := open(t, folder, "", true)
	if r.served.id != head {
		t.Errorf("unchanged files are served as %s, want the commit itself", r.served)
	}
	write(t, folder, "b.yaml", "b: 1\n")
	write(t, folder, "ignored.log", "x")
	write(t, folder, ".gitignore", "*.log\n")
	before := state()
	publish(t, r, true)
	publish(t, r, false)
	if after := state(); after != before {
		t.Errorf("the repository changed from\n%s\nto\n%s", before, after)
	}
	files, err := listFiles(t.Context(), r.scratchGit(), r.served.id)
	if err != nil || strings.Join(files, " ") != ".gitignore a.yaml b.yaml" {
		t.Errorf("files are %q (%v)", files, err)
	}
	// A commit of what is served already follows what was served.
	served := r.served.id
	git(t, folder, "add", "--all")
	git(t, folder, "commit", "--quiet", "--message=two")
	publish(t, r, true)
	for _, ancestor := range []string{served, git(t, folder, "rev-parse", "HEAD")} {
		if !r.follows(t.Context(), ancestor, r.served.id) {
			t.Errorf("%s is no ancestor of what is served", ancestor)
		}
	}
}

func TestWhatCannotBeServed(t *testing.T) {
	t.Parallel()
	folder, empty, plain := newRepository(t), t.TempDir(), t.TempDir()
	git(t, empty, "init", "--quiet", "--initial-branch=main")
	write(t, plain, "file", "")
	bare := filepath.Join(t.TempDir(), "bare")
	git(t, folder, "clone", "--quiet", "--bare", folder, bare)
	for name, tt := range map[string]struct {
		path, branch string
		watch        bool
		want         string
	}{
		"a path that is not there":         {path: filepath.Join(folder, "x"), want: "no such file"},
		"a file":                           {path: filepath.Join(plain, "file"), want: "not a folder"},
		"a branch that is not there":       {path: folder, branch: "dev", want: "there are: main"},
		"a branch of a folder outside Git": {path: plain, branch: "dev", want: "not in a Git repository"},
		"files of another branch":          {path: folder, branch: "dev", watch: true, want: `those of "main", not of "dev"`},
		"a repository without a commit":    {path: empty, want: "commit something, or use --watch"},
		"Git's own folder":                 {path: filepath.Join(folder, ".git"), want: "work tree"},
		"the files of a bare repository":   {path: bare, watch: true, want: "no files to watch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := openRepository(t.Context(), tt.path, tt.branch, tt.watch)
			if err == nil {
				if err = r.prepare(t.Context(), t.TempDir()); err == nil {
					_, err = r.publish(t.Context())
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestWatchTellsWhatIsNew(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]bool{"commits": false, "files": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := newRepository(t)
			r := open(t, folder, "", files)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			told := make(chan commit, 10)
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.watch(ctx, func(c commit) { told <- c }, func(err error) { t.Error(err) })
			}()
			write(t, folder, "b.yaml", "b: 1\n")
			if !files {
				git(t, folder, "add", "--all")
				git(t, folder, "commit", "--quiet", "--message=two")
			}
			select {
			case c := <-told:
				if got := git(t, r.scratch, "show", c.id+":b.yaml"); got != "b: 1" {
					t.Errorf("b.yaml is %q", got)
				}
			case <-ctx.Done():
				t.Error("nothing was told")
			}
			cancel()
			<-done
		})
	}
}
