package kustomize_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
)

func TestOrigins(t *testing.T) {
	t.Parallel()
	patched := named("one")
	tests := map[string]struct {
		files map[string]string
		spec  func(*build.Spec)
		want  map[string]string
	}{
		"generators": {
			files: map[string]string{"app/kustomization.yaml": "resources: [../base]\nconfigMapGenerator:\n- {name: c, literals: [a=b]}\nsecretGenerator:\n- {name: s, literals: [a=b]}\n",
				"base/kustomization.yaml": "configMapGenerator:\n- {name: b, literals: [a=b]}\n"},
			want: map[string]string{"ConfigMap/c-": "configMapGenerator in app/kustomization.yaml", "Secret/s-": "secretGenerator in app/kustomization.yaml",
				"ConfigMap/b-": "configMapGenerator in base/kustomization.yaml"},
		},
		"patches of a file, of a kustomization and of a base, as far as they fit": {
			files: map[string]string{
				"app/kustomization.yaml":  "resources: [../base, two.yaml]\npatches:\n- path: file.yaml\n- target: {kind: ConfigMap, name: t.*}\n  patch: '[{\"op\": \"add\", \"path\": \"/data/x\", \"value\": \"y\"}]'\n",
				"app/two.yaml":            "# a comment\n" + named("two"),
				"app/file.yaml":           patched,
				"base/kustomization.yaml": "resources: [one.yaml]\npatchesStrategicMerge: [merge.yaml]\nnamePrefix: p-\n",
				"base/one.yaml":           "---\n" + named("zero") + "---\n" + named("one"),
				"base/merge.yaml":         patched,
			},
			spec: func(s *build.Spec) { s.NameSuffix = "-s" },
			want: map[string]string{"ConfigMap/p-one-s": "base/one.yaml:9 (patched by base/merge.yaml, app/file.yaml)", "ConfigMap/p-zero-s": "base/one.yaml:2",
				"ConfigMap/two-s": "app/two.yaml:2 (patched by app/kustomization.yaml)"},
		},
		"a patch of the spec is in the kustomization file": {
			files: map[string]string{"app/a.yaml": named("a")},
			spec: func(s *build.Spec) {
				s.Patches = []build.Patch{{Patch: `[{"op": "add", "path": "/data/x", "value": "y"}]`, Target: &build.Selector{Kind: "ConfigMap"}}}
			},
			want: map[string]string{"ConfigMap/a": "app/a.yaml:1 (patched by app/kustomization.yaml)"},
		},
		"items of a list": {
			files: map[string]string{"app/l.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n"},
			want:  map[string]string{"ConfigMap/a": "app/l.yaml:4", "ConfigMap/b": "app/l.yaml:5"},
		},
		"a build that has to run without origins still has them": {
			files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "value", "metadata.annotations")},
			want:  map[string]string{"ConfigMap/a": "app/a.yaml:1"},
		},
		"an object whose annotations are emptied is searched for": {
			files: map[string]string{"app/a.yaml": named("a"), "app/kustomization.yaml": "resources: [a.yaml]\npatches:\n- patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: a, annotations: null}\n"},
			want:  map[string]string{"ConfigMap/a": "app/a.yaml:1"},
		},
		"an object whose annotations are emptied and that two files may declare": {
			files: map[string]string{"app/a.yaml": named("a"), "app/kustomization.yaml": "resources: [a.yaml]\npatches: [{path: p.yaml}]\n",
				"app/p.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: null}\n"},
			want: map[string]string{"ConfigMap/a": "unknown origin"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := specFor("app")
			if test.spec != nil {
				test.spec(&spec)
			}
			b, _, err := newBuilder(kustomize.Options{}).Build(context.Background(), snapshotOf(newTree(test.files)), spec, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, m := range b.Manifests {
				name := m.Ref.String()
				if m.Origin.Generator != "" { // Its name ends in a hash.
					name = name[:strings.LastIndex(name, "-")+1]
				}
				got[name] = m.Origin.String()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	tree := newTree(map[string]string{"app/a.yaml": named("a"), "app/kustomization.yaml": "bases: []\nresources: [a.yaml]\ncommonLabels: {a: b}\n"})
	b, _, err := newBuilder(kustomize.Options{}).Build(context.Background(), snapshotOf(tree), specFor("app"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Warnings) != 2 || !strings.HasPrefix(b.Warnings[1], "app/kustomization.yaml: 'commonLabels' is deprecated.") {
		t.Errorf("warnings: %q", b.Warnings)
	}
}
