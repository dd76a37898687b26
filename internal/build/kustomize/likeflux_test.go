package kustomize_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
)

// TestLikeFlux holds single features against Flux's own package: the same
// objects to the byte, or a failure on both sides.
func TestLikeFlux(t *testing.T) {
	t.Parallel()
	base := map[string]string{
		"app/kustomization.yaml":       "resources: [d.yaml, s.yaml]\nimages:\n- {name: nginx, newName: mirror/nginx, newTag: \"1.2\"}\n",
		"app/d.yaml":                   deployment,
		"app/s.yaml":                   service,
		"app/quota/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [q.yaml]\n",
		"app/quota/q.yaml":             named("quota"),
	}
	with := func(more ...string) map[string]string {
		files := map[string]string{}
		for k, v := range base {
			files[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	tests := map[string]struct {
		files map[string]string
		spec  func(*build.Spec)
		fails bool
	}{
		"as it is":                  {files: with()},
		"a path with dots":          {files: with(), spec: func(s *build.Spec) { s.Path = "./x/../app/" }},
		"a path from outside":       {files: with(), spec: func(s *build.Spec) { s.Path = "../../app" }},
		"a missing path":            {files: with(), spec: func(s *build.Spec) { s.Path = "gone" }, fails: true},
		"the root":                  {files: map[string]string{"a.yaml": named("a"), "b/c.yaml": named("c")}, spec: func(s *build.Spec) { s.Path = "" }},
		"namespace, prefix, suffix": {files: with(), spec: func(s *build.Spec) { s.TargetNamespace, s.NamePrefix, s.NameSuffix = "n", "p-", "-s" }},
		"a new tag keeps the name":  {files: with(), spec: func(s *build.Spec) { s.Images = []build.Image{{Name: "nginx", NewTag: "9"}} }},
		"a digest replaces the tag": {files: with(), spec: func(s *build.Spec) {
			s.Images = []build.Image{{Name: "nginx", Digest: "sha256:24a0c4b4a4c0eb97a1aabb8e29f18e917d05abfe1b7a7c07857230879ce7d3d3"}}
		}},
		"an image that is not named yet": {files: with(), spec: func(s *build.Spec) { s.Images = []build.Image{{Name: "other", NewTag: "9"}} }},
		"a component":                    {files: with(), spec: func(s *build.Spec) { s.Components = []string{"quota"} }},
		"a missing component":            {files: with(), spec: func(s *build.Spec) { s.Components = []string{"gone"} }, fails: true},
		"a missing component that may be missing": {files: with(), spec: func(s *build.Spec) {
			s.Components, s.IgnoreMissingComponents = []string{"gone", "quota"}, true
		}},
		"an absolute component": {files: with(), spec: func(s *build.Spec) { s.Components = []string{"/app/quota"} }, fails: true},
		"a strategic merge patch": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 7}\n"}}
		}},
		"a patch with a selector": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: replace, path: /spec/replicas, value: 5}\n", Target: &build.Selector{Group: "apps", Version: "v1", Kind: "Deploy.*", Name: "w.*"}}}
		}},
		"a patch that selects nothing": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: remove, path: /spec}\n", Target: &build.Selector{LabelSelector: "a=b"}}}
		}},
		"a patch that deletes": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "$patch: delete\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n"}}
		}},
		"a JSON patch into annotations that are not there": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: add, path: /metadata/annotations/a, value: b}\n", Target: &build.Selector{Kind: "Service"}}}
		}},
		"a JSON patch that removes annotations that are not there": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: remove, path: /metadata/annotations}\n", Target: &build.Selector{Kind: "Service"}}}
		}},
		"a JSON patch that replaces annotations that are not there": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: replace, path: /metadata/annotations, value: {a: b}}\n", Target: &build.Selector{Kind: "Service"}}}
		}},
		"a JSON patch that copies annotations": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: add, path: /metadata/annotations, value: {a: b}}\n- {op: copy, from: /metadata/annotations, path: /spec/template/metadata/annotations}\n", Target: &build.Selector{Kind: "Deployment"}}}
		}},
		"a JSON patch that copies annotations that kustomize made": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: copy, from: /metadata/annotations, path: /spec/template/metadata/annotations}\n", Target: &build.Selector{Kind: "Deployment"}}}
		}},
		"a replacement of all annotations": {files: with("app/kustomization.yaml", "resources: [s.yaml, d.yaml]\nnamePrefix: p-\nreplacements:\n- source: {kind: Deployment, fieldPath: metadata.annotations}\n  targets:\n  - select: {kind: Service}\n    fieldPaths: [spec.x]\n    options: {create: true}\n")},
		"a JSON patch that adds annotations": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "- {op: add, path: /metadata/annotations, value: {a: b}}\n", Target: &build.Selector{Kind: "Service"}}}
		}},
		"a merge patch that empties annotations": {files: with(), spec: func(s *build.Spec) {
			s.Patches = []build.Patch{{Patch: "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations: null\n"}}
		}},
		"common metadata": {files: with(), spec: func(s *build.Spec) {
			s.CommonLabels, s.CommonAnnotations = map[string]string{"a": "b"}, map[string]string{"c": "d"}
		}},
		"an unknown field at the top, which Flux drops": {files: with("app/kustomization.yaml", "resources: [s.yaml]\nnonsense: true\n")},
		"an unknown field of a base":                    {files: with("app/kustomization.yaml", "resources: [../b]\n", "b/kustomization.yaml", "nonsense: true\nresources: []\n"), fails: true},
		"an empty kustomization file":                   {files: with("app/kustomization.yaml", "")},
		"generators only, which Flux annotates":         {files: with("app/kustomization.yaml", "configMapGenerator:\n- name: x\n  literals: [a=b]\nsecretGenerator:\n- name: z\n  literals: [a=b]\n  type: Opaque\n")},
		"generator options":                             {files: with("app/kustomization.yaml", "resources: [s.yaml]\ngeneratorOptions: {disableNameSuffixHash: true, labels: {x: y}}\nconfigMapGenerator:\n- name: x\n  files: [d.yaml, k=s.yaml]\n  envs: [e.env]\n", "app/e.env", "A=1\n# c\nB=2\n")},
		"a folder of nothing":                           {files: with("app/kustomization.yaml", "", "docs/a.md", "x"), spec: func(s *build.Spec) { s.Path = "docs" }},
		"a folder of nothing with a namespace":          {files: with("docs/a.md", "x"), spec: func(s *build.Spec) { s.Path, s.TargetNamespace = "docs", "n" }},
		"a plain folder with a broken file":             {files: map[string]string{"app/a.yaml": named("a"), "app/b.yaml": "a: [\n"}, fails: true},
		"a plain folder with a file that is no object":  {files: map[string]string{"app/a.yaml": named("a"), "app/values.yaml": "replicas: 1\n"}, fails: true},
		"a plain folder with empty files":               {files: map[string]string{"app/a.yaml": named("a"), "app/b.yaml": "", "app/c.yml": "# c\n---\n"}},
		"a plain folder with a list":                    {files: map[string]string{"app/a.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n"}},
		"a plain folder with a kustomization object":    {files: map[string]string{"app/a.yaml": named("a"), "app/k.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nmetadata: {name: k}\n"}},
		"a file with upper-case extension":              {files: map[string]string{"app/a.yaml": named("a"), "app/b.YAML": named("b")}},
		"a kustomization.yml in a sub-folder":           {files: map[string]string{"app/a.yaml": named("a"), "app/s/kustomization.yml": "resources: [x.yaml]\n", "app/s/x.yaml": named("x"), "app/s/y.yaml": named("y")}},
		"a Kustomization in a sub-sub-folder":           {files: map[string]string{"app/a.yaml": named("a"), "app/s/t/Kustomization": "resources: [x.yaml]\n", "app/s/t/x.yaml": named("x"), "app/s/y.yaml": named("y")}},
		"a component in a sub-folder of a plain one":    {files: map[string]string{"app/a.yaml": named("a"), "app/s/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"}, fails: true},
		"anchors and merges":                            {files: map[string]string{"app/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: &m\n  name: a\n  labels: {x: y}\ndata: &d\n  a: b\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n  labels: &l {q: r}\n  annotations: {<<: *l, s: t}\n"}},
		"numbers and odd values":                        {files: map[string]string{"app/a.yaml": "apiVersion: example.com/v1\nkind: X\nmetadata: {name: x}\nspec: {i: 9007199254740993, f: 1.50, e: 1e3, o: 0o17, h: 0x1F, s: \"1\", y: yes, n: ~, t: 2024-01-01, u: 1_000, oct: 017, m: -0, big: 1e400}\n"}},
		"numbers":                                       {files: map[string]string{"app/a.yaml": "apiVersion: example.com/v1\nkind: X\nmetadata: {name: x}\nspec: {i: 9007199254740993, f: 1.50, s: \"1\", y: yes, n: ~, t: 2024-01-01, oct: 017, neg: -5, m: 100000000000000000000}\n"}},
		"empty annotations and labels":                  {files: map[string]string{"app/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  annotations: {}\n  labels: {}\n"}},
		"null annotations":                              {files: map[string]string{"app/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  annotations:\n  labels:\n"}},
		"local configuration":                           {files: map[string]string{"app/a.yaml": named("a"), "app/b.yaml": strings.ReplaceAll(named("b"), "name: b", "name: b\n  annotations: {config.kubernetes.io/local-config: \"true\"}")}},
		"build metadata of the author":                  {files: with("app/kustomization.yaml", "resources: [s.yaml, d.yaml]\nnamePrefix: x-\nbuildMetadata: [originAnnotations, transformerAnnotations, managedByLabel]\n")},
		"transformer annotations of the author":         {files: with("app/kustomization.yaml", "resources: [s.yaml]\nnamePrefix: x-\nbuildMetadata: [transformerAnnotations]\n")},
		"build metadata of the spec": {files: with(), spec: func(s *build.Spec) {
			s.NamePrefix, s.Metadata = "x-", []string{"originAnnotations", "transformerAnnotations"}
		}},
		"origins for the spec and transformers for the author": {
			files: with("app/kustomization.yaml", "resources: [s.yaml, d.yaml]\nnamePrefix: x-\nbuildMetadata: [transformerAnnotations]\n"),
			spec:  func(s *build.Spec) { s.Metadata = []string{"originAnnotations"} },
		},
		"build metadata of the spec beside managedByLabel of the author": {
			files: with("app/kustomization.yaml", "resources: [s.yaml]\nbuildMetadata: [managedByLabel, originAnnotations]\n"),
			spec:  func(s *build.Spec) { s.Metadata = []string{"originAnnotations"} },
		},
		"transformers of the spec for a folder without kustomization": {
			files: map[string]string{"app/a.yaml": named("a")},
			spec: func(s *build.Spec) {
				s.TargetNamespace, s.Metadata = "n", []string{"transformerAnnotations"}
			},
		},
		"build metadata of the spec for generators only": {
			files: with("app/kustomization.yaml", "configMapGenerator:\n- name: x\n  literals: [a=b]\n"),
			spec:  func(s *build.Spec) { s.Metadata = []string{"transformerAnnotations"} },
		},
		"build metadata of the spec beside a JSON patch of annotations": {files: with(), spec: func(s *build.Spec) {
			s.Metadata = []string{"originAnnotations"}
			s.Patches = []build.Patch{{Patch: "- {op: add, path: /metadata/annotations/a, value: b}\n", Target: &build.Selector{Kind: "Service"}}}
		}},
		"deprecated fields":                       {files: with("app/kustomization.yaml", "bases: [../b]\ncommonLabels: {a: b}\nimageTags: [{name: nginx, newTag: x}]\npatchesStrategicMerge:\n- p.yaml\n- |\n  apiVersion: v1\n  kind: Service\n  metadata: {name: web}\n  spec: {type: NodePort}\npatchesJson6902:\n- target: {version: v1, kind: Service, name: web}\n  patch: '[{\"op\": \"add\", \"path\": \"/metadata/labels/q\", \"value\": \"r\"}]'\nvars:\n- name: V\n  objref: {kind: Service, name: web, apiVersion: v1}\n", "b/kustomization.yaml", "resources: [d.yaml, s.yaml]\n", "b/d.yaml", deployment, "b/s.yaml", service, "app/p.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {paused: true}\n")},
		"configurations, crds and replacements":   {files: with("app/kustomization.yaml", "resources: [s.yaml, d.yaml, x.yaml]\nnamePrefix: p-\nconfigurations: [c.yaml]\nreplacements: [{path: r.yaml}]\n", "app/c.yaml", "nameReference:\n- kind: Service\n  fieldSpecs: [{path: spec/service, kind: X}]\n", "app/x.yaml", "apiVersion: example.com/v1\nkind: X\nmetadata: {name: x}\nspec: {service: web, replicas: 0}\n", "app/r.yaml", "source: {kind: Deployment, fieldPath: spec.replicas}\ntargets:\n- select: {kind: X}\n  fieldPaths: [spec.replicas]\n")},
		"a replacement into annotations":          {files: with("app/kustomization.yaml", "resources: [s.yaml, d.yaml]\nreplacements:\n- source: {kind: Deployment, fieldPath: metadata.annotations}\n  targets:\n  - select: {kind: Service}\n    fieldPaths: [metadata.annotations]\n    options: {create: true}\n"), fails: true},
		"generators as files":                     {files: with("app/kustomization.yaml", "resources: [s.yaml]\ngenerators: [g.yaml]\ntransformers:\n- |-\n  apiVersion: builtin\n  kind: LabelTransformer\n  metadata: {name: l}\n  labels: {url: https://example.com}\n  fieldSpecs: [{path: metadata/annotations, create: true}]\n", "app/g.yaml", "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: g}\nliterals: [a=b]\n")},
		"sort options":                            {files: with("app/kustomization.yaml", "resources: [s.yaml, d.yaml]\nsortOptions: {order: fifo}\n")},
		"nested bases":                            {files: with("o/kustomization.yaml", "resources: [../app]\nnamespace: o\nnameSuffix: -o\n"), spec: func(s *build.Spec) { s.Path, s.NamePrefix = "o", "q-" }},
		"a cycle of bases":                        {files: with("app/kustomization.yaml", "resources: [../b]\n", "b/kustomization.yaml", "resources: [../app]\n"), fails: true},
		"an absolute base":                        {files: with("app/kustomization.yaml", "resources: [/b]\n", "b/kustomization.yaml", "resources: []\n"), fails: true},
		"substitution":                            {files: map[string]string{"app/a.yaml": substitutable}, spec: substituting(map[string]string{"a": "text", "n": "3", "empty": "", "lines": "x\ny", "path": "/usr/local/bin/x.tar.gz", "yes": "true"}, true, false)},
		"substitution without variables":          {files: map[string]string{"app/a.yaml": substitutable}, spec: substituting(nil, true, false)},
		"substitution of all defaults":            {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "value", "${x:=${y:-z}}")}, spec: substituting(nil, true, true)},
		"a variable that is missing":              {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "value", "${x}")}, spec: substituting(map[string]string{"y": "z"}, true, false), fails: true},
		"a variable that is missing and may be":   {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "value", "${x}")}, spec: substituting(map[string]string{"y": "z"}, false, false)},
		"a missing variable in an unused default": {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "value", "${y:-${x}}")}, spec: substituting(map[string]string{"y": "z"}, true, false), fails: true},
		"a name of a variable that cannot be":     {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "value", "${y}")}, spec: substituting(map[string]string{"y": "z", "a-b": "c"}, true, false), fails: true},
		"an expression that cannot be read":       {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "value", "${y")}, spec: substituting(map[string]string{"y": "z"}, true, false), fails: true},
		"a value that is YAML":                    {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "key: value", "key: ${y}")}, spec: substituting(map[string]string{"y": "{a: [1, 2]}"}, true, false)},
		"a value that breaks YAML":                {files: map[string]string{"app/a.yaml": strings.ReplaceAll(named("a"), "key: value", "key: ${y}")}, spec: substituting(map[string]string{"y": "\"a: ["}, true, false), fails: true},
		"a variable in a name":                    {files: map[string]string{"app/a.yaml": named("${y}")}, spec: substituting(map[string]string{"y": "z"}, true, false)},
		"names that become the same":              {files: map[string]string{"app/a.yaml": named("${y}") + "---\n" + named("z")}, spec: substituting(map[string]string{"y": "z"}, true, false), fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := specFor("app")
			if test.spec != nil {
				test.spec(&spec)
			}
			dir, err := os.MkdirTemp(t.TempDir(), "checkout")
			if err != nil {
				t.Fatal(err)
			}
			tree := newTree(test.files)
			checkout(t, tree, dir)
			want, wantErr := oracle(context.Background(), dir, spec)
			b, _, err := newComparable().Build(context.Background(), snapshotOf(tree), spec, nil)
			if (wantErr != nil) != test.fails || (err != nil) != test.fails {
				t.Fatalf("to fail: %v; Flux: %v; this build: %v", test.fails, wantErr, err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(want, printed(b)); diff != "" {
				t.Errorf("(-flux +this):\n%s", diff)
			}
		})
	}
}

func substituting(variables map[string]string, strict, always bool) func(*build.Spec) {
	return func(s *build.Spec) {
		s.Substitute = &build.Substitution{Variables: variables, Strict: strict, Always: always}
	}
}

// substitutable uses every form of an expression.
const substitutable = `apiVersion: example.com/v1
kind: X
metadata:
  name: x
spec:
  plain: ${a}
  quoted: "${a}"
  number: ${n}
  quotedNumber: "${n}"
  flag: ${yes}
  block: |
    one ${a}
    two ${lines}
  length: ${#a}
  upper: ${a^^}
  upperFirst: ${a^}
  lower: ${a,,}
  lowerFirst: ${a,}
  from: ${a:1}
  part: ${a:1:2}
  back: "${a: -2}"
  head: ${path#*/}
  heads: ${path##*/}
  tail: ${path%.*}
  tails: ${path%%.*}
  colonDash: ${gone:-d}
  equals: ${gone=d}
  colonEquals: ${empty:=d}
  first: ${path/l/L}
  all: ${path//l/L}
  prefix: ${path/#x/X}
  suffix: ${path/%gz/X}
  literal: $${a}
  dollar: $a and $1
  nested: ${gone:-${a}}
`
