package kustomize_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
	"github.com/plumb-gitops/plumb/internal/build/substitute"
	"github.com/plumb-gitops/plumb/internal/build/typed"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// keys are made up: nothing in the build may know the real ones.
var keys = gitops.Keys{
	OwnerGroup: "gitops.example.com", OwnerKind: "Kustomization",
	OwnerNameLabel: "gitops.example.com/name", OwnerNamespaceLabel: "gitops.example.com/namespace",
	Apply: "gitops.example.com/ssa", Force: "gitops.example.com/force", Prune: "gitops.example.com/prune",
	Reconcile: "gitops.example.com/reconcile", Substitute: "gitops.example.com/substitute",
}

func newBuilder(options kustomize.Options) *build.Builder {
	return build.New(build.Steps{Renderer: kustomize.New(options), Substituter: substitute.New(0), Normaliser: typed.New()})
}

func specFor(path string) build.Spec {
	return build.Spec{
		Owner: gitops.OwnerRef{Group: "gitops.example.com", Kind: "Kustomization", Namespace: "flux-system", Name: "app"},
		Path:  path,
		Keys:  keys,
	}
}

func snapshotOf(tree gitops.Tree) gitops.Snapshot {
	return gitops.Snapshot{Artifact: gitops.Artifact{Revision: "main@sha1:0"}, Files: tree}
}

const configMap = `apiVersion: v1
kind: ConfigMap
metadata:
  name: NAME
data:
  key: value
`

func named(name string) string { return strings.ReplaceAll(configMap, "NAME", name) }

func TestBuildPlainDirectory(t *testing.T) {
	t.Parallel()
	tree := newTree(map[string]string{
		"apps/a.yaml":                      "# first\n---\n" + named("a") + "---\n" + named("b"),
		"apps/notes.txt":                   "not yaml",
		"apps/deep/er/c.yml":               named("c"),
		"apps/overlay/kustomization.yaml":  "namePrefix: x-\nresources: [d.yaml]\npatches: [{path: patch.yaml}]\n",
		"apps/overlay/d.yaml":              named("d"),
		"apps/overlay/patch.yaml":          named("d"),
		"apps/overlay/not-a-resource.yaml": named("e"),
	})
	b, reused, err := newBuilder(kustomize.Options{}).Build(context.Background(), snapshotOf(tree), specFor("./apps"), nil)
	if err != nil || reused {
		t.Fatalf("Build: reused %v, %v", reused, err)
	}
	got := map[string]string{}
	for _, m := range b.Manifests {
		got[m.Ref.String()] = m.Origin.String()
	}
	want := map[string]string{
		"ConfigMap/a":   "apps/a.yaml:3",
		"ConfigMap/b":   "apps/a.yaml:10",
		"ConfigMap/c":   "apps/deep/er/c.yml:1",
		"ConfigMap/x-d": "apps/overlay/d.yaml:1 (patched by apps/overlay/patch.yaml)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects and origins (-want +got):\n%s", diff)
	}
	wantJSON := `{"apiVersion":"v1","data":{"key":"value"},"kind":"ConfigMap","metadata":{"labels":{"gitops.example.com/name":"app","gitops.example.com/namespace":"flux-system"},"name":"a"}}`
	if diff := cmp.Diff(wantJSON, string(b.Manifests[0].JSON)); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
}

// A component that may be missing is looked for: when it comes, the build is not
// current any more.
func TestComponentThatComes(t *testing.T) {
	t.Parallel()
	files := map[string]string{"app/a.yaml": named("a"), "other/b.yaml": named("b")}
	spec := specFor("app")
	spec.Components, spec.IgnoreMissingComponents = []string{"../parts/quota", "../other/deep/part"}, true
	builder := newComparable()
	names := func(previous *gitops.Build, reused bool) (*gitops.Build, string) {
		t.Helper()
		b, same, err := builder.Build(context.Background(), snapshotOf(newTree(files)), spec, previous)
		if err != nil {
			t.Fatal(err)
		}
		if same != reused {
			t.Errorf("reused is %t, want %t", same, reused)
		}
		return b, strings.Join(sortedKeys(printed(b)), " ")
	}
	first, got := names(nil, false)
	if want := "_a__ConfigMap"; got != want {
		t.Errorf("built %s, want %s", got, want)
	}
	files["other/b.yaml"] = named("c")
	_, _ = names(first, true)
	for _, folder := range []string{"parts/quota", "other/deep/part"} {
		name := strings.ReplaceAll(folder, "/", "-")
		files[folder+"/kustomization.yaml"] = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [q.yaml]\n"
		files[folder+"/q.yaml"] = named(name)
		if first, got = names(first, false); !strings.Contains(got, "_"+name+"__ConfigMap") {
			t.Errorf("built %s without %s", got, name)
		}
	}
}
