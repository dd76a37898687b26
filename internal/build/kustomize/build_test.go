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
