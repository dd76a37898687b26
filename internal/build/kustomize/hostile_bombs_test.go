package kustomize_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
)

// flowBomb is an alias bomb on the line of a document separator.
func flowBomb() string {
	var b strings.Builder
	b.WriteString("--- {apiVersion: v1, kind: ConfigMap, metadata: {name: bomb}, l0: &l0 [x,x,x,x,x,x,x,x,x,x]")
	for i := 1; i < 7; i++ {
		fmt.Fprintf(&b, ", l%d: &l%d [%s]", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*l%d,", i-1), 10), ","))
	}
	return b.String() + "}\n"
}

// copies is a JSON patch whose every operation doubles its object.
func copies(n int, indent string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s- {op: copy, from: /data, path: /data/k%d}\n", indent, i)
	}
	return b.String()
}

// pods are so many documents.
func pods(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p%d\n", i)
	}
	return b.String()
}

func TestHostileTrees(t *testing.T) {
	t.Parallel()
	shared := map[string]string{"l0/kustomization.yaml": "resources: [a.yaml]\n", "l0/a.yaml": "# " + strings.Repeat("x", 2<<20) + "\n" + named("a")}
	for l := 1; l <= 8; l++ {
		for _, side := range []string{"a", "b"} {
			below := fmt.Sprintf("resources: [../l%da, ../l%db]\n", l-1, l-1)
			if l == 1 {
				below = "resources: [../l0]\n"
			}
			shared[fmt.Sprintf("l%d%s/kustomization.yaml", l, side)] = below + fmt.Sprintf("namePrefix: %s%d-\n", side, l)
		}
	}
	shared["app/kustomization.yaml"] = "resources: [../l8a, ../l8b]\n"
	tests := map[string]struct {
		files  map[string]string
		limits kustomize.Limits
		want   string
	}{
		"an alias bomb on the line of a second separator": {
			files: map[string]string{"app/a.yaml": named("a") + "---\n" + flowBomb()},
			want:  "app/a.yaml:8: aliases expand 94 YAML nodes to more than 100000",
		},
		"an alias bomb after Windows separators": {
			files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a")+"---\n"+flowBomb(), "\n", "\r\n")},
			want:  "app/a.yaml:8: aliases expand 94 YAML nodes to more than 100000",
		},
		"what could hide a bomb and cannot be decoded": {
			files: map[string]string{"app/a.yaml": named("a") + "---\na: &x [b]\nc: *x\n d: [\n"},
			want:  "app/a.yaml:9: malformed YAML",
		},
		"a YAML file over its limit": {
			files: map[string]string{"app/a.yaml": "# " + strings.Repeat("x", 7<<20) + "\n" + named("a")},
			want:  "app/a.yaml: the file has 7340105 bytes, the limit for YAML is 6291456: split it",
		},
		"a data file over the limit of YAML": {
			files:  map[string]string{"app/kustomization.yaml": "configMapGenerator:\n- name: x\n  files: [k=data.yaml]\n", "app/data.yaml": "&a *b {{ " + strings.Repeat("x", 4000)},
			limits: kustomize.Limits{YAMLBytes: 1000},
		},
		"a data file that is parsed after all": {
			files: map[string]string{"app/kustomization.yaml": "resources: [../base]\nconfigMapGenerator:\n- name: x\n  files: [data.yaml]\n", "app/data.yaml": "{{ &a *b",
				"base/kustomization.yaml": "configMapGenerator:\n- name: other\n  files: [../app/data.yaml]\nresources: [../app/data.yaml]\n"},
			want: "app/data.yaml:1: malformed YAML",
		},
		"more nodes than a build may have": {
			files:  map[string]string{"app/a.yaml": named("a") + "x: [" + strings.Repeat("1,", 2000) + "]\n"},
			limits: kustomize.Limits{TotalNodes: 1000},
			want:   "app/a.yaml: the files of the build have more than 1000 YAML nodes together",
		},
		"text that looks like more nodes than it has": {
			files:  map[string]string{"app/a.yaml": named("a") + "x: '" + strings.Repeat("1,", 2000) + "'\n"},
			limits: kustomize.Limits{TotalNodes: 1000},
		},
		"a file that is read again and again": {
			files:  shared,
			limits: kustomize.Limits{RereadBytes: 16 << 20},
			want:   "bytes are read again: bases include each other too often",
		},
		"a JSON patch that copies what it copied": {
			files: map[string]string{"app/a.yaml": named("a"), "app/kustomization.yaml": "resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |-\n" + copies(30, "    ")},
			want:  "app/kustomization.yaml:5: the JSON patches of the build have more than 16 copy and move operations",
		},
		"a JSON patch in a file that copies what it copied": {
			files: map[string]string{"app/a.yaml": named("a"), "app/p.yaml": copies(30, ""), "app/kustomization.yaml": "resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  path: p.yaml\n"},
			want:  "app/p.yaml: the JSON patches of the build have more than 16 copy and move operations",
		},
		"a JSON patch of a plugin that copies what it copied": {
			files: map[string]string{"app/a.yaml": named("a"), "app/kustomization.yaml": "resources: [a.yaml]\ntransformers:\n- |-\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: p}\n  target: {kind: ConfigMap}\n  patch: |-\n" + copies(30, "    ")},
			want:  "the JSON patches of the build have more than 16 copy and move operations",
		},
		"JSON patches that copy what others copied": {
			files: map[string]string{"app/a.yaml": named("a"), "app/kustomization.yaml": "resources: [a.yaml]\npatches:\n" + strings.Repeat("- target: {kind: ConfigMap}\n  patch: |-\n"+copies(9, "    "), 2)},
			want:  "app/kustomization.yaml:5: the JSON patches of the build have more than 16 copy and move operations",
		},
		"a JSON patch that copies much": {
			files: map[string]string{"app/a.yaml": named("a") + "  big: " + strings.Repeat("x", 100_000) + "\n", "app/kustomization.yaml": "resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |-\n" + copies(10, "    ")},
			want:  "the accumulated size increase of copy is",
		},
		"a JSON patch that copies a little": {
			files: map[string]string{"app/a.yaml": named("a"), "app/kustomization.yaml": "resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |-\n    - {op: copy, from: /data/key, path: /data/other}\n"},
		},
		"a long variable in many places": {
			files: map[string]string{"app/kustomization.yaml": "resources: [a.yaml]\nvars:\n- name: A\n  objref: {apiVersion: v1, kind: ConfigMap, name: a}\n  fieldref: {fieldpath: data.k}\n",
				"app/a.yaml": named("a") + "  k: " + strings.Repeat("a", 100_000) + "\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    image: i\n    args: ['" + strings.Repeat("$(A)", 1000) + "']\n"},
			want: "vars and replacements could add 100076000 bytes to the build",
		},
		"a long replacement in many places": {
			files: map[string]string{"app/kustomization.yaml": "resources: [a.yaml]\nreplacements:\n- source: {kind: ConfigMap, name: a, fieldPath: data.k}\n  targets:\n  - select: {kind: Pod}\n    fieldPaths: [metadata.annotations.a]\n    options: {create: true}\n",
				"app/a.yaml": named("a") + "  k: " + strings.Repeat("a", 100_000) + "\n" + pods(1000)},
			want: "vars and replacements could add 100",
		},
		"replacements that append to themselves": {
			files: map[string]string{"app/kustomization.yaml": "resources: [a.yaml]\nreplacements:\n" + strings.Repeat("- source: {kind: ConfigMap, name: a, fieldPath: data.key}\n  targets:\n  - select: {kind: ConfigMap}\n    fieldPaths: [data.key]\n    options: {delimiter: '-', index: -1}\n", 20),
				"app/a.yaml": named("a")},
			want: "20 replacements with a delimiter change objects that are sources",
		},
		"a variable and a replacement as they are used": {
			files: map[string]string{"app/kustomization.yaml": "resources: [a.yaml]\nreplacements:\n- source: {kind: ConfigMap, name: a, fieldPath: data.key}\n  targets:\n  - select: {kind: Pod}\n    fieldPaths: [metadata.annotations.a]\n    options: {create: true}\n",
				"app/a.yaml": named("a") + pods(100)},
		},
		"a base of documents that is included again": {
			files: map[string]string{"app/kustomization.yaml": "resources: [../x, ../y]\n", "x/kustomization.yaml": "namePrefix: x-\nresources: [../base]\n", "y/kustomization.yaml": "namePrefix: y-\nresources: [../base]\n",
				"base/kustomization.yaml": "resources: [a.yaml]\n", "base/a.yaml": named("a") + pods(100)},
			limits: kustomize.Limits{RereadDocuments: 50},
			want:   "base/a.yaml: more than 50 YAML documents are read again",
		},
		"documents that are read again and again": {
			files:  map[string]string{"app/a.yaml": named("a") + strings.Repeat("---\n# x\n", 200)},
			limits: kustomize.Limits{Documents: 100},
			want:   "app/a.yaml: more than 100 YAML documents are read",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := newBuilder(kustomize.Options{Limits: test.limits}).Build(context.Background(), snapshotOf(newTree(test.files)), specFor("app"), nil)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %.300v, want %q", err, test.want)
			}
		})
	}
}

// TestStuckSchemaStopsNobody holds the schema and checks that another build ends
// with its own context. It is not parallel: it holds what all builds need.
func TestStuckSchemaStopsNobody(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		kustomize.AloneWithSchema(func() { close(held); <-release })
	}()
	<-held
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	tree := newTree(map[string]string{"app/a.yaml": named("a")})
	if _, _, err := newBuilder(kustomize.Options{}).Build(ctx, snapshotOf(tree), specFor("app"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	close(release)
	<-done
	if _, _, err := newBuilder(kustomize.Options{}).Build(context.Background(), snapshotOf(tree), specFor("app"), nil); err != nil {
		t.Errorf("after it: %v", err)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if _, _, err := newBuilder(kustomize.Options{}).Build(ended, snapshotOf(tree), specFor("app"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestHostilePatchOfTheSpec checks that patches of the spec are bounded too.
func TestHostilePatchOfTheSpec(t *testing.T) {
	t.Parallel()
	spec := specFor("app")
	spec.Patches = []build.Patch{{Patch: copies(30, ""), Target: &build.Selector{Kind: "ConfigMap"}}}
	tree := newTree(map[string]string{"app/a.yaml": named("a")})
	_, _, err := newBuilder(kustomize.Options{}).Build(context.Background(), snapshotOf(tree), spec, nil)
	if err == nil || !strings.Contains(err.Error(), "more than 16 copy and move operations") {
		t.Errorf("got %v", err)
	}
}
