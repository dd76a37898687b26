package kustomize_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/build/kustomize"
)

// TestRemoteBases allows remote bases: a file over HTTP and a clone from a
// repository on disk. What depends on them is never used again.
//
// It is not parallel: clones go to the folder for temporary files, which is
// set for the whole process.
func TestRemoteBases(t *testing.T) {
	repository := gitRepository(t, map[string]string{"base/kustomization.yaml": "resources: [a.yaml]\n", "base/a.yaml": named("cloned")}, "")
	linked := gitRepository(t, map[string]string{"base/kustomization.yaml": "configMapGenerator:\n- name: x\n  files: [link]\n"}, "base/link")
	t.Setenv("TMPDIR", t.TempDir())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(named("over-http")))
	}))
	t.Cleanup(server.Close)
	tests := map[string]struct {
		kustomization string
		want, fails   string
	}{
		"a file over HTTP":                   {"resources: [" + server.URL + "/a.yaml]\n", "ConfigMap/over-http remote base http://127", ""},
		"a clone":                            {"resources: [\"file://" + repository + "//base?ref=main\"]\n", "ConfigMap/cloned remote base", ""},
		"a clone with a link out of it":      {"resources: [\"file://" + linked + "//base?ref=main\"]\n", "", "remote base"},
		"a patch over HTTP of a transformer": {"resources: [a.yaml]\ntransformers:\n- |-\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: p}\n  path: " + server.URL + "/p\n  target: {kind: ConfigMap}\n", "ConfigMap/a app/a.yaml:1", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			builder := newBuilder(kustomize.Options{RemoteBases: true})
			tree := newTree(map[string]string{"app/kustomization.yaml": test.kustomization, "app/a.yaml": named("a")})
			b, _, err := builder.Build(context.Background(), snapshotOf(tree), specFor("app"), nil)
			if test.fails != "" {
				if err == nil {
					t.Fatalf("no error: %s", b.Manifests[0].JSON)
				}
				t.Log(err)
				if strings.Contains(err.Error(), os.TempDir()+"/kustomize-") || strings.Contains(err.Error(), "not-yours") {
					t.Errorf("the error shows something of the machine: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Manifests[0].Ref.String() + " " + b.Manifests[0].Origin.String(); !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q…", got, test.want)
			}
			if builder.Current(b.Trace, tree, specFor("app")) {
				t.Error("a build with a remote base is used again")
			}
		})
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "kustomize-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("clones are left behind: %q, %v", left, err)
	}
}

// gitRepository makes a repository on disk, with a link out of it if asked.
func gitRepository(t *testing.T, files map[string]string, link string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git command, which kustomize clones remote bases with")
	}
	dir := t.TempDir()
	checkout(t, newTree(files), dir)
	if link != "" {
		outside := filepath.Join(t.TempDir(), "outside")
		if err := os.WriteFile(outside, []byte("not-yours"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "first"}} {
		command := exec.Command("git", args...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	return dir
}
