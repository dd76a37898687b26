package kustomize_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// commitsPerRepository is how many random commits each repository gets; 600
// together.
const commitsPerRepository = 200

// TestSoundness makes random commits and holds three builds against each other
// after each: the memoised one, a fresh one, and Flux's own on a checkout.
func TestSoundness(t *testing.T) {
	t.Parallel()
	repositories := map[string]func(t *testing.T) (map[string]string, []build.Spec){
		"podinfo":            podinfo,
		"microservices-demo": microservices,
		"generated monorepo": func(*testing.T) (map[string]string, []build.Spec) { return monorepo() },
	}
	for name, make := range repositories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, specs := make(t)
			h := newHistory(t, files, specs)
			commits := commitsPerRepository
			if testing.Short() {
				commits /= 10
				t.Logf("short: %d of %d commits", commits, commitsPerRepository)
			}
			for i := range commits {
				h.commit(fmt.Sprintf("commit %d", i))
				if t.Failed() {
					return
				}
			}
			t.Logf("%d commits, %d owners: %d builds looked at, %d needed, %d done, %d failures held; %d compared with Flux, %d of them failures",
				commits, len(specs), h.looked, h.needed, h.done, h.heldFailures, h.compared, h.comparedFailures)
			if h.done < h.needed {
				t.Errorf("fewer builds done (%d) than needed (%d)", h.done, h.needed)
			}
			if h.done >= h.looked {
				t.Errorf("nothing was memoised: %d of %d builds done", h.done, h.looked)
			}
		})
	}
}

// outcome is what is known of one owner.
type outcome struct {
	build *gitops.Build
	err   error
	trace gitops.Trace
	// result tells outcomes apart.
	result string
}

type history struct {
	t        *testing.T
	random   *rand.Rand
	files    map[string]string
	first    map[string]string
	specs    []build.Spec
	builder  *build.Builder
	previous []outcome

	looked, needed, done, heldFailures, compared, comparedFailures int
}

func newHistory(t *testing.T, files map[string]string, specs []build.Spec) *history {
	return &history{t: t, random: rand.New(rand.NewSource(1)), files: files, first: files, specs: specs,
		builder: newComparable(), previous: make([]outcome, len(specs))}
}

// commit changes something and checks every owner.
func (h *history) commit(name string) {
	what := h.mutate()
	tree := newTree(h.files)
	// Flux's build takes long: it is asked where a result changed, and about a
	// random owner in some of the commits.
	always := h.random.Intn(5 * len(h.specs))
	for i, spec := range h.specs {
		h.looked++
		last := h.previous[i]
		now := h.memoised(last, tree, spec)
		fresh := run(newComparable(), tree, spec, nil)
		if diff := cmp.Diff(fresh.result, now.result); diff != "" {
			h.t.Fatalf("%s (%s), owner %d %q: memoised build differs from a fresh one (-fresh +memoised):\n%s", name, what, i, spec.Path, diff)
		}
		changed := fresh.result != last.result
		if changed {
			h.needed++
		}
		if changed || i == always {
			h.compare(name+" ("+what+")", tree, spec, fresh)
		}
		h.previous[i] = now
	}
}

// memoised builds only where the last outcome does not hold any more.
func (h *history) memoised(last outcome, tree *memoryTree, spec build.Spec) outcome {
	if last.err != nil && h.builder.Current(last.trace, tree, spec) {
		h.heldFailures++
		return last
	}
	now := run(h.builder, tree, spec, last.build)
	if now.build == nil || now.build != last.build {
		h.done++
	}
	return now
}

func run(builder *build.Builder, tree *memoryTree, spec build.Spec, previous *gitops.Build) outcome {
	b, _, err := builder.Build(context.Background(), snapshotOf(tree), spec, previous)
	if err != nil {
		var failure *build.Failure
		if !errors.As(err, &failure) {
			return outcome{err: err, result: "unexpected: " + err.Error()}
		}
		return outcome{err: err, trace: failure.Trace, result: "error: " + err.Error()}
	}
	var text strings.Builder
	for _, m := range b.Manifests {
		fmt.Fprintf(&text, "%s\n", m.JSON)
	}
	return outcome{build: b, trace: b.Trace, result: b.Digest.String() + "\n" + text.String()}
}

// compare holds a build against Flux's.
func (h *history) compare(name string, tree *memoryTree, spec build.Spec, fresh outcome) {
	h.t.Helper()
	h.compared++
	dir, err := os.MkdirTemp(h.t.TempDir(), "checkout")
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	checkout(h.t, tree, dir)
	want, err := oracle(context.Background(), dir, spec)
	switch {
	case (err != nil) != (fresh.err != nil):
		h.t.Fatalf("%s, %q: Flux says %v, this build %v", name, spec.Path, err, fresh.err)
	case err != nil:
		h.comparedFailures++
	default:
		if diff := cmp.Diff(want, printed(fresh.build)); diff != "" {
			h.t.Fatalf("%s, %q: differs from Flux (-flux +this):\n%s", name, spec.Path, diff)
		}
	}
}

func podinfo(t *testing.T) (map[string]string, []build.Spec) {
	files := map[string]string{}
	for name, content := range readFolder(t, dataFolder(t, "podinfo/kustomize")) {
		files["kustomize/"+name] = content
	}
	files["plain/deployment.yaml"] = files["kustomize/deployment.yaml"]
	files["plain/service.yaml"] = files["kustomize/service.yaml"]
	overlay := specFor("kustomize")
	overlay.TargetNamespace, overlay.NamePrefix = "prod", "eu-"
	overlay.Images = []build.Image{{Name: "ghcr.io/stefanprodan/podinfo", NewTag: "9.9.9"}}
	overlay.Patches = []build.Patch{{Patch: "- op: add\n  path: /metadata/annotations/team\n  value: a\n", Target: &build.Selector{Kind: "Deployment"}}}
	overlay.CommonLabels = map[string]string{"env": "prod"}
	substituted := specFor("plain")
	substituted.Substitute = &build.Substitution{Variables: map[string]string{"one": "1", "color": "blue"}, Strict: true}
	return files, []build.Spec{specFor("./kustomize"), overlay, substituted}
}

func microservices(t *testing.T) (map[string]string, []build.Spec) {
	files := map[string]string{}
	for name, content := range readFolder(t, dataFolder(t, "microservices-demo/kustomize")) {
		files["kustomize/"+name] = content
	}
	withComponents := specFor("kustomize")
	withComponents.Components = []string{"components/without-loadgenerator", "components/network-policies"}
	withComponents.IgnoreMissingComponents = true
	return files, []build.Spec{specFor("kustomize"), withComponents, specFor("kustomize/base"),
		specFor("kustomize/tests/memorystore-with-all-components")}
}

// monorepo makes a repository with the shapes that matter: plain folders, bases
// with overlays, components, generators, replacements and patches.
func monorepo() (map[string]string, []build.Spec) {
	files := map[string]string{
		"base/kustomization.yaml":               "resources: [deployment.yaml, service.yaml]\nconfigMapGenerator:\n- name: settings\n  files: [app.properties]\n",
		"base/app.properties":                   "mode=plain\n",
		"base/deployment.yaml":                  deployment,
		"base/service.yaml":                     service,
		"components/debug/kustomization.yaml":   "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n- path: patch.yaml\n",
		"components/debug/patch.yaml":           "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n      - name: web\n        env:\n        - name: DEBUG\n          value: \"1\"\n",
		"components/quota/kustomization.yaml":   "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [quota.yaml]\n",
		"components/quota/quota.yaml":           "apiVersion: v1\nkind: ResourceQuota\nmetadata:\n  name: quota\nspec:\n  hard:\n    pods: \"10\"\n",
		"clusters/prod/apps.yaml":               named("cluster-prod"),
		"clusters/prod/more/extra.yaml":         named("extra"),
		"clusters/prod/sub/kustomization.yaml":  "resources: [x.yaml]\nnameSuffix: -sub\n",
		"clusters/prod/sub/x.yaml":              named("x"),
		"generated/kustomization.yaml":          "configMapGenerator:\n- name: only\n  literals: [a=b]\n",
		"replaced/kustomization.yaml":           "resources: [../base, source.yaml]\nreplacements:\n- source: {kind: ConfigMap, name: source, fieldPath: data.key}\n  targets:\n  - select: {kind: Deployment}\n    fieldPaths: [\"metadata.annotations.[example.com/key]\"]\n    options: {create: true}\n",
		"replaced/source.yaml":                  named("source"),
		"transformed/kustomization.yaml":        "resources: [a.yaml]\ntransformers: [prefix.yaml]\n",
		"transformed/a.yaml":                    named("a"),
		"transformed/prefix.yaml":               "apiVersion: builtin\nkind: PrefixTransformer\nmetadata:\n  name: p\nprefix: t-\nfieldSpecs:\n- path: metadata/name\n",
		"overlays/prod/kustomization.yaml":      "namespace: prod\nresources: [../../base]\ncomponents: [../../components/debug]\nreplicas: [{name: web, count: 3}]\nimages: [{name: nginx, newTag: \"2\"}]\n",
		"overlays/staging/kustomization.yaml":   "namespace: staging\nnamePrefix: s-\nresources: [../../base, extra.yaml]\nbuildMetadata: [originAnnotations]\ncommonLabels: {env: staging}\n",
		"overlays/staging/extra.yaml":           named("extra"),
		"overlays/vars/kustomization.yaml":      "resources: [v.yaml]\n",
		"overlays/vars/v.yaml":                  strings.ReplaceAll(named("v"), "key: value", "key: ${one}\n  other: \"${color:-red}\""),
		"overlays/missing/kustomization.yaml":   "resources: [there.yaml, notthere.yaml]\n",
		"overlays/missing/there.yaml":           named("there"),
		"overlays/annotated/kustomization.yaml": "resources: [a.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |\n    - op: add\n      path: /metadata/annotations/x\n      value: y\n",
		"overlays/annotated/a.yaml":             named("a"),
		"overlays/emptymetadata/a.yaml":         strings.ReplaceAll(named("a"), "name: a", "name: a\n  annotations: {}\n  labels: {}"),
		"docs/readme.md":                        "# nothing to build\n",
		"overlays/openapi/kustomization.yaml":   "resources: [../../base]\nopenapi: {version: v1.21.2}\n",
	}
	vars := specFor("overlays/vars")
	vars.Substitute = &build.Substitution{Variables: map[string]string{"one": "1"}, Strict: true}
	components := specFor("overlays/prod")
	components.Components = []string{"../../components/quota"}
	components.IgnoreMissingComponents = true
	marked := specFor("clusters/prod")
	marked.CommonAnnotations, marked.NameSuffix = map[string]string{"note": "n"}, "-z"
	specs := []build.Spec{vars, components, marked, specFor("docs"), specFor("nowhere")}
	for _, path := range []string{"overlays/prod", "overlays/staging", "overlays/missing", "overlays/annotated", "overlays/emptymetadata",
		"overlays/openapi", "clusters/prod", "generated", "replaced", "transformed"} {
		specs = append(specs, specFor(path))
	}
	return files, specs
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: web
        image: nginx:1
        envFrom:
        - configMapRef:
            name: settings
`

const service = `apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector:
    app: web
  ports:
  - port: 80
`
