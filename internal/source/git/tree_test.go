package git_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestTreeShowsRegularFilesOnly(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	hash := repo.Commit(t, "main", testenv.Files{
		"a": "A", "d/run.sh": testenv.Executable("#!/bin/sh\n"), "d/empty": "",
		"link": testenv.Symlink("a"), "out": testenv.Symlink("/etc/passwd"), "up": testenv.Symlink("../../x"),
		"only/links/l": testenv.Symlink("../../a"),
		"mod":          testenv.Submodule("0123456789012345678901234567890123456789"),
	})
	s := openStore(t, git.Options{})
	result := fetch(t, s, git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}})
	want := map[string]string{"a": "A", "d/run.sh": "#!/bin/sh\n", "d/empty": ""}
	sourcetest.CheckTree(t, result.Files, want)
	for name, mode := range map[string]fs.FileMode{"a": 0o644, "d/run.sh": 0o755, "d": fs.ModeDir | 0o755} {
		if info, err := result.Files.Stat(name); err != nil || info.Mode() != mode {
			t.Errorf("mode of %q: %v, %v; want %v", name, info, err, mode)
		}
	}
	// The executable bit is part of what a sum tells.
	repo.Commit(t, "main", testenv.Files{"d/run.sh": "#!/bin/sh\n"})
	next := fetch(t, s, git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}})
	before, _ := result.Files.Sum("d/run.sh")
	after, _ := next.Files.Sum("d/run.sh")
	if before == after {
		t.Errorf("sum %q with and without the executable bit, commit %s", before, hash)
	}
	sourcetest.CheckSums(t, result.Files, next.Files, "a", "d/empty")
}

func TestTreeRefusesHostileNames(t *testing.T) {
	t.Parallel()
	blob := func(repo *testenv.GitRepository) string {
		return strings.TrimSpace(repo.Commit(t, "blob", testenv.Files{"f": "x"}))
	}
	for _, name := range []string{"..", ".", ".git", ".GIT", ".git ", ".Git...", "git~1", "GIT~1", ".g\u200cit", "\ufeff.git", ".git::$INDEX_ALLOCATION", ".git\\hooks"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			repo := server.Repository(t, "app")
			blob(repo)
			inner := repo.TreeOf(t, "100644 blob "+strings.TrimSpace(repo.Git(t, "rev-parse", "blob:f"))+"\t"+name)
			root := repo.TreeOf(t, "040000 tree "+inner+"\tbad\n100644 blob "+strings.TrimSpace(repo.Git(t, "rev-parse", "blob:f"))+"\tgood")
			repo.Ref(t, "refs/heads/main", repo.CommitOf(t, root))
			result := fetch(t, openStore(t, git.Options{}), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}})
			if data, err := result.Files.ReadFile("good"); err != nil || string(data) != "x" {
				t.Errorf("a file beside it: %q, %v", data, err)
			}
			_, err := result.Files.ReadDir("bad")
			if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("%q is not a valid file name", name)) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTreeLimits(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	noise := make([]byte, 3<<20)
	_, _ = rand.Read(noise)
	deep := strings.Repeat("d/", 200) + "f"
	repo.Commit(t, "main", testenv.Files{"small": "s", "huge": string(noise), "zeros": strings.Repeat("\x00", 40<<20)})
	repo.Commit(t, "deep", testenv.Files{deep: "x", "small": "s"})

	s := openStore(t, git.Options{FileBytes: 1 << 20})
	result := fetch(t, s, git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}})
	if data, err := result.Files.ReadFile("small"); err != nil || string(data) != "s" {
		t.Errorf("a small file beside a huge one: %q, %v", data, err)
	}
	for _, name := range []string{"huge", "zeros"} {
		_, err := result.Files.ReadFile(name)
		if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("a huge file: error %v", err)
		}
	}
	// A file that is too large for memory can still be packed.
	file, err := result.Files.Open("huge")
	must(t, err)
	defer file.Close()
	if n, err := io.Copy(io.Discard, file); err != nil || n != 3<<20 {
		t.Errorf("stream of a huge file: %d bytes, %v", n, err)
	}
	nested := fetch(t, s, git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "deep"}})
	if _, err := nested.Files.ReadFile("small"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{second(nested.Files.ReadDir(".")), second(nested.Files.ReadFile(deep))} {
		if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), "nested deeper") {
			t.Errorf("a deep tree: error %v", err)
		}
	}

	small := openStore(t, git.Options{PackBytes: 1 << 20})
	if _, err := small.Fetch(within(t), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}); gitops.KindOf(err) != gitops.Invalid {
		t.Errorf("a huge repository: error %v of kind %q", err, gitops.KindOf(err))
	}
	few := openStore(t, git.Options{PackObjects: 2})
	if _, err := few.Fetch(within(t), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}); gitops.KindOf(err) != gitops.Invalid {
		t.Errorf("many objects: error %v of kind %q", err, gitops.KindOf(err))
	}
}

func second[T any](_ T, err error) error { return err }

func TestSubmodules(t *testing.T) {
	t.Parallel()
	o := testenv.GitServerOptions{Username: "a", Password: "b"}
	server, elsewhere := testenv.NewGitServer(t, o), testenv.NewGitServer(t, testenv.GitServerOptions{})
	auth := git.Auth{Username: "a", Password: "b"}
	leaf := server.Repository(t, "org/leaf").Commit(t, "main", testenv.Files{"l": "leaf"})
	middle := server.Repository(t, "org/middle").Commit(t, "main", testenv.Files{
		".gitmodules": "[submodule \"leaf\"]\n\tpath = in/leaf\n\turl = ../leaf\n", "in/leaf": testenv.Submodule(leaf), "m": "middle",
	})
	open := elsewhere.Repository(t, "open").Commit(t, "main", testenv.Files{"o": "open"})
	repo := server.Repository(t, "org/app")
	repo.Commit(t, "main", testenv.Files{
		".gitmodules": "[submodule \"m\"]\n\tpath = mods/m\n\turl = ../middle\n[submodule \"o\"]\n\tpath = o\n\turl = " + elsewhere.URL("open") + "\n",
		"mods/m":      testenv.Submodule(middle), "o": testenv.Submodule(open), "unknown": testenv.Submodule(open), "f": "file",
	})
	s := openStore(t, git.Options{})
	request := git.Request{URL: server.URL("org/app"), Ref: git.Ref{Branch: "main"}, Auth: auth}
	plain := fetch(t, s, request)
	modules := plain.Files
	if got := sourcetest.Contents(t, modules); len(got) != 2 {
		t.Errorf("without submodules: %v", got)
	}
	request.RecurseSubmodules = true
	result := fetch(t, s, request)
	got := sourcetest.Contents(t, result.Files)
	for name := range got {
		if strings.HasSuffix(name, ".gitmodules") {
			delete(got, name)
		}
	}
	want := map[string]string{"f": "file", "mods/m/m": "middle", "mods/m/in/leaf/l": "leaf", "o/o": "open"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	sourcetest.CheckSums(t, plain.Files, result.Files, "f")
	must(t, s.Retain([]git.Request{request}))
	again := fetch(t, s, request)
	if data, err := again.Files.ReadFile("mods/m/in/leaf/l"); err != nil || string(data) != "leaf" {
		t.Errorf("after cleaning: %q, %v", data, err)
	}

	for what, url := range map[string]string{
		"a local file": "file:///etc", "a local path": "/etc", "a remote helper": "ext::sh -c x", "an option": "--upload-pack=x",
		"a secret for another host": "http://" + strings.TrimPrefix(elsewhere.URL("nope"), "http://"),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, o)
			server.Repository(t, "app").Commit(t, "main", testenv.Files{
				".gitmodules": "[submodule \"x\"]\n\tpath = x\n\turl = " + url + "\n", "x": testenv.Submodule(open),
			})
			_, err := openStore(t, git.Options{}).Fetch(within(t), git.Request{
				URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Auth: auth, RecurseSubmodules: true,
			})
			if err == nil || !strings.Contains(err.Error(), `submodule "x"`) {
				t.Errorf("error %v", err)
			}
			t.Log(err)
		})
	}
}

func TestSparseRequest(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"a/x": "1", "b/y": "2", "top": "3"})
	s := openStore(t, git.Options{})
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Sparse: []string{"a"}}
	sourcetest.CheckTree(t, fetch(t, s, request).Files, map[string]string{"a/x": "1"})
	request.Sparse = []string{"nope"}
	if _, err := s.Fetch(within(t), request); gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), `"nope"`) {
		t.Errorf("a missing directory: error %v", err)
	}
}
