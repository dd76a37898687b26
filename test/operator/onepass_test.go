package operator_test

import (
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestForcePush(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	w.source()
	w.kustomization("app")
	w.data("a", "1")
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2")})
	w.ready("app", second)
	a, b := w.data("a", "2"), w.data("b", "1")
	if found := w.events("GitRepository", "repo", "rewritten"); len(found) > 0 {
		t.Errorf("a commit on top is called a rewritten history: %v", found)
	}

	third := "main@sha1:" + w.repo.Orphan(t, "main", testenv.Files{"app/a.yaml": configMap("a", "3")})
	w.fetch()
	w.ready("app", third)
	w.event("GitRepository", "repo", "NewArtifact", "history was rewritten")
	w.same(a)
	w.data("a", "3")
	w.gone(b)
}

// definition is a CustomResourceDefinition of the kind Widget, whose group is
// the test's own.
const definition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.NAMESPACE.example.com
spec:
  group: NAMESPACE.example.com
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
            default: {observedGeneration: -1}
            properties: {observedGeneration: {type: integer}}
`

const widget = "apiVersion: NAMESPACE.example.com/v1\nkind: Widget\nmetadata:\n  name: widget\nspec: {size: 1}\n"

func (w *world) namedWidget() *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetAPIVersion(w.namespace + ".example.com/v1")
	obj.SetKind("Widget")
	obj.SetNamespace(w.namespace)
	obj.SetName("widget")
	return obj
}

// filled puts the test's namespace into files.
func (w *world) filled(files testenv.Files) testenv.Files { return badInput{}.fill(w, files) }

// quiet fails where a warning was written about a Kustomization.
func (w *world) quiet(name string) {
	w.t.Helper()
	for _, e := range w.events("Kustomization", name, "") {
		if e.Type == corev1.EventTypeWarning {
			w.t.Errorf("Kustomization %s has a warning: %s %s", name, e.Reason, e.Message)
		}
	}
}

func TestDefinitionsBesideTheirObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(w.filled(testenv.Files{
		"app/a-widget.yaml":    widget,
		"app/b-object.yaml":    strings.Replace(away, "\n  name: away", "\n  name: inside", 1),
		"app/y-namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: NAMESPACE-away\n",
		"app/z-crd.yaml":       definition,
	}))
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" })
	// A widget says no namespace.
	w.notReady("app", "ReconciliationFailed", "Widget/widget (app/a-widget.yaml:1)|set metadata.namespace")

	second := w.push(w.filled(testenv.Files{"app/a-widget.yaml": strings.Replace(widget, "  name: widget", "  namespace: NAMESPACE\n  name: widget", 1)}))
	w.ready("app", second)
	waitFor(w, w.namedWidget(), "made", func(*unstructured.Unstructured) bool { return true })
	if first == second {
		t.Fatal("there was one commit only")
	}
}

func TestDefinitionsInOnePass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" })
	first := w.push(w.filled(testenv.Files{
		"app/a-widget.yaml":    strings.Replace(widget, "  name: widget", "  namespace: NAMESPACE-away\n  name: widget", 1),
		"app/b-object.yaml":    away,
		"app/y-namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: NAMESPACE-away\n",
		"app/z-crd.yaml":       definition,
	}))
	w.ready("app", first)
	w.quiet("app")
	made := w.namedWidget()
	made.SetNamespace(w.namespace + "-away")
	w.same(waitFor(w, made, "made", func(*unstructured.Unstructured) bool { return true }))
}

func TestImmutableFieldWithForce(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spec     bool
		manifest string
	}{
		"spec.force":     {true, fixed},
		"the annotation": {false, strings.Replace(fixed, "  name: fixed\n", "  name: fixed\n  annotations: {kustomize.toolkit.fluxcd.io/force: enabled}\n", 1)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.push(testenv.Files{"app/fixed.yaml": fmt.Sprintf(tt.manifest, "1"), "app/other.yaml": configMap("other", "1")})
			w.source()
			w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.Force = tt.spec })
			before, other := w.data("fixed", "1"), w.data("other", "1")
			second := w.push(testenv.Files{"app/fixed.yaml": fmt.Sprintf(tt.manifest, "2")})
			w.ready("app", second)
			w.quiet("app")
			if after := w.data("fixed", "2"); after.UID == before.UID {
				t.Error("the object was not made again")
			}
			w.same(other)
			w.event("Kustomization", "app", "ReconciliationSucceeded", "ConfigMap/"+w.namespace+"/fixed recreated")
		})
	}
}

func TestMissingOptionalSubstitution(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "${word:=default}")})
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) {
		// As in Flux, nothing is substituted where there is no variable at all.
		k.Spec.PostBuild = &kustomizev1.PostBuild{
			Substitute:     map[string]string{"other": "1"},
			SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "ConfigMap", Name: "words", Optional: true}},
		}
	})
	w.ready("app", first)
	w.data("a", "default")
	w.quiet("app")

	// When it comes, and whenever it changes, that shows at once.
	words := w.namedConfig("words")
	words.Data = map[string]string{"word": "hello"}
	w.check(w.client.Create(w.context(), words))
	w.data("a", "hello")
	w.patch(words, `{"data":{"word":"world"}}`)
	w.data("a", "world")
	w.check(w.client.Delete(w.context(), words))
	w.data("a", "default")
}

func TestMissingSubstitution(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "${word}"), "other/b.yaml": configMap("b", "1")})
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) {
		k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "Secret", Name: "words"}}}
	})
	w.kustomization("other")
	w.notReady("app", "BuildFailed", "Secret/words|"+w.namespace+"|create it, or set optional: true")
	w.data("b", "1")
	w.secret("words", map[string]string{"word": "hello"})
	a := w.data("a", "hello")

	// Gone again: nothing of what was applied changes.
	w.check(w.client.Delete(w.context(), w.namedSecret("words")))
	w.notReady("app", "BuildFailed", "Secret/words")
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.data("a", "hello")
	w.same(a)
	w.secret("words", map[string]string{"word": "world"})
	w.data("a", "world")
	w.same(a)
}

// TestSharedNamespace has three owners declare one Namespace.
func TestSharedNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shared := "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: NAMESPACE-shared\n"
	inside := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  namespace: NAMESPACE-shared\n  name: %s\ndata:\n  key: %q\n"
	names := []string{"one", "two", "three"}
	files := func(value string) testenv.Files {
		f := testenv.Files{}
		for _, name := range names {
			f[name+"/namespace.yaml"] = shared
			f[name+"/object.yaml"] = fmt.Sprintf(inside, name, value)
		}
		return w.filled(f)
	}
	first := w.push(files("1"))
	w.source()
	for _, name := range names {
		w.kustomization(name, func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" })
	}
	for _, name := range names {
		w.ready(name, first)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-shared"}}
	namespace = waitFor(w, namespace, "made", func(*corev1.Namespace) bool { return true })
	holder := namespace.Labels["kustomize.toolkit.fluxcd.io/name"]

	var last string
	for i := range 3 {
		last = w.push(files(fmt.Sprint(2 + i)))
		for _, name := range names {
			w.ready(name, last)
		}
	}
	w.same(namespace)
	for _, name := range names {
		if name != holder {
			w.event("Kustomization", name, "OwnedByOther", "Namespace/"+namespace.Name+" is left alone")
			w.leaves(name, metav1.ConditionTrue, "1 object is left alone|Namespace/"+namespace.Name+" (Kustomization/"+w.namespace+"/"+holder+")")
		}
		told := w.events("Kustomization", name, "Namespace/"+namespace.Name+" is left alone")
		switch {
		case name == holder && len(told) > 0:
			t.Errorf("%s holds the Namespace and is told to leave it alone", name)
		case name != holder && (len(told) != 1 || told[0].Count > 1 || !says(told[0].Message, w.namespace+"/"+holder+"|remove it from one")):
			t.Errorf("%s is told: %v", name, told)
		}
	}
	// One creation; three owners may try at the same moment.
	if writes := w.writes("namespaces", namespace.Name, namespace.Name); len(writes) == 0 || len(writes) > len(names) {
		t.Errorf("the Namespace was written %d times: %v", len(writes), writes)
	}

	// When its holder gives it up, another one has it.
	last = w.push(testenv.Files{holder + "/namespace.yaml": testenv.Delete})
	for _, name := range names {
		w.ready(name, last)
	}
	waitFor(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace.Name}}, "of another owner", func(n *corev1.Namespace) bool {
		owner := n.Labels["kustomize.toolkit.fluxcd.io/name"]
		return owner != holder && owner != "" && n.UID == namespace.UID && n.DeletionTimestamp.IsZero()
	})

	// Nobody is told to share it once there is one owner left.
	w.push(testenv.Files{"two/namespace.yaml": testenv.Delete, "three/namespace.yaml": testenv.Delete, "one/namespace.yaml": w.filled(files("1"))["one/namespace.yaml"]})
	for _, name := range names {
		w.leaves(name, "", "")
	}
}

// leaves waits for what a Kustomization says of objects that it leaves to others.
func (w *world) leaves(name string, status metav1.ConditionStatus, words string) {
	w.t.Helper()
	waitFor(w, w.named(name), "about objects of others: "+words, func(k *kustomizev1.Kustomization) bool {
		c := conditionOf(k.Status.Conditions, "OwnedByOther")
		return c.Status == status && says(c.Message, words) && conditionOf(k.Status.Conditions, "Ready").Status == metav1.ConditionTrue
	})
}

// TestHolderDeleted deletes the owner that holds what another one declares too.
func TestHolderDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"one/a.yaml": configMap("a", "1"), "two/a.yaml": configMap("a", "1"), "two/b.yaml": configMap("b", "1")})
	w.source()
	one := w.kustomization("one")
	w.ready("one", first)
	a := w.data("a", "1")
	w.kustomization("two")
	w.ready("two", first)
	w.check(w.client.Delete(w.context(), one))
	w.gone(one)
	waitFor(w, w.namedConfig("a"), "of the other owner", func(c *corev1.ConfigMap) bool {
		return c.Labels["kustomize.toolkit.fluxcd.io/name"] == "two" && c.UID == a.UID
	})
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.data("a", "1")
}
