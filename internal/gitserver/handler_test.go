package gitserver_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitserver"
)

func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
	cmd.Env = append(gitserver.Environment(""), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// workingCopy makes a working copy with one commit and a linked worktree.
func workingCopy(t testing.TB) (main, linked, head string) {
	t.Helper()
	dir := t.TempDir()
	main, linked = filepath.Join(dir, "main"), filepath.Join(dir, "linked")
	git(t, dir, "-c", "init.defaultBranch=main", "init", "--quiet", main)
	if err := os.WriteFile(filepath.Join(main, "f"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	git(t, main, "add", "f")
	git(t, main, "commit", "--quiet", "--message", "one")
	git(t, main, "worktree", "add", "--quiet", linked, "-b", "side")
	return main, linked, git(t, main, "rev-parse", "HEAD")
}

func TestGitClonesFromIt(t *testing.T) {
	t.Parallel()
	main, linked, head := workingCopy(t)
	for what, folder := range map[string]string{"a working copy": main, "its .git": filepath.Join(main, ".git"), "a linked worktree": linked} {
		for _, version := range []string{"0", "1", "2"} {
			t.Run(what+" in version "+version, func(t *testing.T) {
				t.Parallel()
				server := httptest.NewServer(&gitserver.Handler{Resolve: gitserver.Single("app", folder)})
				defer server.Close()
				to := filepath.Join(t.TempDir(), "clone")
				git(t, t.TempDir(), "-c", "protocol.version="+version, "clone", "--quiet", "--branch", "side", server.URL+"/app.git", to)
				if got := git(t, to, "rev-parse", "HEAD"); got != head {
					t.Errorf("head %s, want %s", got, head)
				}
				git(t, to, "-c", "protocol.version="+version, "fetch", "--quiet", "--depth", "1", "--filter", "tree:0", "origin", head)
			})
		}
	}
}

func TestRefusesWhatItDoesNotServe(t *testing.T) {
	t.Parallel()
	main, _, _ := workingCopy(t)
	root := filepath.Dir(main)
	if err := os.Symlink("/", filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	handler := &gitserver.Handler{Resolve: gitserver.Folder(root)}
	tests := map[string]struct {
		method, target string
		want           int
	}{
		"its refs":                {"GET", "/main/info/refs?service=git-upload-pack", 200},
		"with an ending":          {"GET", "/main.git/info/refs?service=git-upload-pack", 200},
		"a missing repository":    {"GET", "/nope/info/refs?service=git-upload-pack", 404},
		"a way out":               {"GET", "/../" + filepath.Base(root) + "/main/info/refs?service=git-upload-pack", 404},
		"a symbolic link out":     {"GET", "/out" + main + "/info/refs?service=git-upload-pack", 404},
		"a push":                  {"GET", "/main/info/refs?service=git-receive-pack", 403},
		"a push without greeting": {"POST", "/main/git-receive-pack", 403},
		"the dumb protocol":       {"GET", "/main/info/refs", 403},
		"a file":                  {"GET", "/main/HEAD", 404},
		"no repository at all":    {"GET", "/info/refs?service=git-upload-pack", 404},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(test.method, test.target, nil))
			if w.Code != test.want {
				t.Errorf("status %d, want %d: %s", w.Code, test.want, w.Body)
			}
		})
	}
}

func TestTakesCompressedRequests(t *testing.T) {
	t.Parallel()
	main, _, head := workingCopy(t)
	handler := &gitserver.Handler{Resolve: gitserver.Single("app", main)}
	var body bytes.Buffer
	zipped := gzip.NewWriter(&body)
	_, _ = zipped.Write([]byte("0014command=ls-refs\n00010000"))
	_ = zipped.Close()
	request := httptest.NewRequest(http.MethodPost, "/app/git-upload-pack", &body)
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("Git-Protocol", "version=2")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, request)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), head+" refs/heads/main") {
		t.Errorf("status %d: %q", w.Code, w.Body)
	}
}
