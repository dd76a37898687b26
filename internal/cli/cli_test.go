package cli

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/terminal"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// plumb runs a command line and gives its exit code and what it printed.
func plumb(t *testing.T, args ...string) (code int, out, progress string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(t.Context(), "v0.0.0-test", args, Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestCommandsWithoutCluster(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	tests := map[string]struct {
		args     string
		code     int
		out, err string // parts
	}{
		"no command shows the commands":       {"", ExitDone, "reconcile", ""},
		"an unknown command":                  {"frobnicate", ExitUsage, "", `plumb: no command "frobnicate"`},
		"an unknown flag":                     {"get --frobnicate", ExitUsage, "", "unknown flag: --frobnicate; see plumb get --help"},
		"too many words":                      {"get a b", ExitUsage, "", "usage: plumb get [KIND]"},
		"an unknown kind":                     {"get widgets", ExitUsage, "", `no kind "widgets"; there are all, sources, buckets`},
		"an unknown output":                   {"version -o xml", ExitUsage, "", "must be json or yaml"},
		"the version":                         {"version", ExitDone, "plumb v0.0.0-test, kinds of Flux v2.", ""},
		"the version as JSON":                 {"version -o json", ExitDone, `"version": "v0.0.0-test"`, ""},
		"the definitions":                     {"crds", ExitDone, "name: helmreleases.helm.toolkit.fluxcd.io", ""},
		"the definitions that are served":     {"crds --served", ExitDone, "name: gitrepositories.source.toolkit.fluxcd.io", ""},
		"a kind that is not served":           {"reconcile helmrelease x", ExitNotServed, "", "HelmRelease is not served by this version of Plumb"},
		"several kinds where one is needed":   {"reconcile sources x", ExitUsage, "", `"sources" names several kinds, one is needed`},
		"a source of a source":                {"reconcile gitrepo x --with-source", ExitUsage, "", "GitRepository has no source"},
		"suspend without a name":              {"suspend ks", ExitUsage, "", "a name or --all is needed"},
		"suspend with a name and all":         {"suspend ks x --all", ExitUsage, "", "--all takes no name"},
		"suspend what has no such field":      {"suspend externalartifact x", ExitUsage, "", "ExternalArtifact has no spec.suspend"},
		"approve what deletes nothing":        {"approve gitrepo x", ExitUsage, "", "GitRepository deletes nothing by itself"},
		"an install without an image":         {"install --export", ExitUsage, "", "version v0.0.0-test of this program was not released and has no image: name one with --image"},
		"an install of no profile":            {"install --export --image x --profile many", ExitUsage, "", `no profile "many"; there are single and tenants`},
		"an install with a wrong argument":    {"install --export --image x --arg=--frobnicate", ExitUsage, "", "unknown flag: --frobnicate"},
		"an install without time":             {"install --image x --timeout 0s", ExitUsage, "", "--timeout must be above 0"},
		"the manifests":                       {"install --export --image example.org/x:1", ExitDone, "image: example.org/x:1", ""},
		"the manifests for tenants as JSON":   {"install --export --image x --profile tenants -o json", ExitDone, `"--default-service-account=default"`, ""},
		"an uninstall without time":           {"uninstall --timeout 0s", ExitUsage, "", "--timeout must be above 0"},
		"a tree of a source":                  {"tree gitrepo x", ExitUsage, "", "GitRepository has no inventory to show"},
		"a kubeconfig that is not there":      {"get --kubeconfig " + missing, ExitFailed, "", "kubeconfig: "},
		"a context that is not there":         {"get --context nowhere --kubeconfig " + os.DevNull, ExitFailed, "", `context "nowhere" does not exist`},
		"a cluster that cannot be reached":    {"get --kubeconfig " + unreachable(t), ExitFailed, "", "connection refused"},
		"a tree of one that cannot be, too":   {"tree ks x --kubeconfig " + unreachable(t), ExitFailed, "", "connection refused"},
		"an install that cannot be":           {"install --image x --kubeconfig " + unreachable(t), ExitFailed, "", "look for Flux's controllers: "},
		"an uninstall that cannot be":         {"uninstall --kubeconfig " + unreachable(t), ExitFailed, "", "connection refused"},
		"reconcile where nothing can be done": {"reconcile ks x --kubeconfig " + unreachable(t), ExitFailed, "", "connection refused"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, progress := plumb(t, strings.Fields(tt.args)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(out, tt.out) || !strings.Contains(progress, tt.err) {
				t.Errorf("printed\n%s\nand\n%s\nwant %q and %q", out, progress, tt.out, tt.err)
			}
			if tt.code == ExitDone && progress != "" {
				t.Errorf("a success says %q", progress)
			}
		})
	}
}

// An API server answers a path that it does not serve in plain text.
func TestClusterWithoutDefinitions(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	config := kubeconfig(t, server.URL)
	for _, args := range []string{"get ks", "reconcile ks x", "suspend ks --all", "suspend ks x", "tree ks x"} {
		code, _, progress := plumb(t, append(strings.Fields(args), "--kubeconfig", config)...)
		if code != ExitFailed || !strings.Contains(progress, "does not know kustomizations.kustomize.toolkit.fluxcd.io: install the definitions") {
			t.Errorf("%s gives %d and %q", args, code, progress)
		}
	}
}

// unreachable is a kubeconfig of a cluster where nothing listens.
func unreachable(t *testing.T) string {
	t.Helper()
	return kubeconfig(t, "http://127.0.0.1:1")
}

func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	err := os.WriteFile(file, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"`+server+`"}}],"contexts":[{"name":"c","context":{"cluster":"c"}}]}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestServedDefinitionsOnly(t *testing.T) {
	t.Parallel()
	if _, out, _ := plumb(t, "crds", "--served"); strings.Contains(out, "helmreleases") {
		t.Error("a kind that is not served is printed")
	}
}

func TestKindsOf(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"ks":             {"Kustomization"},
		"Kustomization":  {"Kustomization"},
		"kustomizations": {"Kustomization"},
		"gitrepo":        {"GitRepository"},
		"kustomizations.kustomize.toolkit.fluxcd.io": {"Kustomization"},
		"sources": {"Bucket", "ExternalArtifact", "GitRepository", "HelmChart", "HelmRepository", "OCIRepository"},
	}
	for word, want := range tests {
		kinds, err := kindsOf(word)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range kinds {
			got = append(got, k.Kind.Kind)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", word, diff)
		}
	}
	all, err := kindsOf("all")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 15 || all[6].Kind.Kind != "Kustomization" {
		t.Errorf("all are %d kinds, the one after the sources is %s", len(all), all[6].Kind.Kind)
	}
}

func TestTreeLines(t *testing.T) {
	t.Parallel()
	root := &node{Object: "a", Health: gitops.HealthCurrent, Objects: []*node{
		{Object: "b", Health: gitops.HealthFailed, Message: "m", Objects: []*node{{Object: "c", Health: gitops.HealthCurrent}}},
		{Object: "d", Health: gitops.HealthCurrent, Objects: []*node{{Object: "e", Health: gitops.HealthCurrent}}},
	}}
	var out bytes.Buffer
	if err := root.print(&out, terminal.Terminal{}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"OBJECT     HEALTH   MESSAGE",
		"a          Current",
		"├── b      Failed   m",
		"│   └── c  Current",
		"└── d      Current",
		"    └── e  Current",
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.TrimRight(line, " \n"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tree differs (-want +got):\n%s", diff)
	}
}

func TestSmallWords(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for age, want := range map[time.Duration]string{
		time.Second: "1s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 3 * time.Hour: "3h", 49 * time.Hour: "2d",
	} {
		r := resource{Metadata: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-age))}}
		if got := r.age(now); got != want {
			t.Errorf("age after %s is %q, want %q", age, got, want)
		}
	}
	for revision, want := range map[string]string{
		"main@sha1:0123456789abcdef": "main@sha1:01234567", "sha1:0123456789": "sha1:01234567", "1.2.3": "1.2.3", "": "",
	} {
		if got := shortRevision(revision); got != want {
			t.Errorf("%q becomes %q, want %q", revision, got, want)
		}
	}
	if got := ExitCode(errors.Join(usageError("x"), context.Canceled)); got != ExitUsage {
		t.Errorf("exit code is %d", got)
	}
}
