package operator_test

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

func rawMerge(text string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(text)) }

func TestPruneOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	w.source()
	app := w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.Prune = false })
	w.ready("app", first)
	a, b := w.data("a", "1"), w.data("b", "1")
	second := w.push(testenv.Files{"app/b.yaml": testenv.Delete})
	done := w.ready("app", second)
	if n := len(done.Status.Inventory.Entries); n != 1 {
		t.Errorf("the inventory has %d entries, want 1", n)
	}
	w.same(b)
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.same(a)
	w.same(b)
}

func TestPruneAndDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{
		"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "app/c.yaml": annotated("c", "1", "prune", "disabled"),
		"app/d.yaml": annotated("d", "1", "prune", "disabled"),
	})
	w.source()
	app := w.kustomization("app")
	w.ready("app", first)
	a, b, c, d := w.data("a", "1"), w.data("b", "1"), w.data("c", "1"), w.data("d", "1")
	second := w.push(testenv.Files{"app/b.yaml": testenv.Delete, "app/c.yaml": testenv.Delete})
	w.ready("app", second)
	w.gone(b)
	w.event("Kustomization", "app", "ReconciliationSucceeded", "ConfigMap/"+w.namespace+"/b deleted")
	w.same(a)
	w.same(c)
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.gone(a)
	w.same(c)
	w.same(d)
}

// annotated is a ConfigMap with one of Flux's annotations.
func annotated(name, value, key, setting string) string {
	return strings.Replace(configMap(name, value), "\ndata:\n",
		"\n  annotations:\n    kustomize.toolkit.fluxcd.io/"+key+": "+setting+"\ndata:\n", 1)
}

func TestObjectAnnotations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := func(value string) testenv.Files {
		return testenv.Files{
			"app/plain.yaml":      configMap("plain", value),
			"app/paused.yaml":     annotated("paused", value, "reconcile", "disabled"),
			"app/later.yaml":      configMap("later", value),
			"app/once.yaml":       annotated("once", value, "ssa", "IfNotPresent"),
			"app/merged.yaml":     annotated("merged", value, "ssa", "Merge"),
			"app/ignored.yaml":    annotated("ignored", value, "ssa", "Ignore"),
			"app/literal.yaml":    annotated("literal", "${word}", "substitute", "disabled"),
			"app/substitute.yaml": configMap("substituted", "${word}"),
		}
	}
	first := w.push(files("1"))
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) {
		k.Spec.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"word": "hello"}}
	})
	w.ready("app", first)
	w.data("plain", "1")
	w.data("once", "1")
	w.data("merged", "1")
	w.data("literal", "${word}")
	w.data("substituted", "hello")
	for _, name := range []string{"ignored", "paused"} {
		if err := w.client.Get(w.context(), w.key(name), w.namedConfig(name)); client.IgnoreNotFound(err) != nil || err == nil {
			t.Errorf("%s was made (%v)", name, err)
		}
	}
	// Somebody asks in the cluster for one object to be left alone.
	w.annotate(w.namedConfig("later"), "kustomize.toolkit.fluxcd.io/reconcile", "disabled")
	w.patch(w.namedConfig("later"), `{"data":{"key":"mine"}}`)
	w.patch(w.namedConfig("once"), `{"data":{"key":"mine"}}`)
	w.check(w.client.Patch(w.context(), w.namedConfig("merged"), rawMerge(`{"data":{"added":"1"}}`), client.FieldOwner("kubectl-edit")))
	w.check(w.client.Patch(w.context(), w.namedConfig("plain"), rawMerge(`{"data":{"added":"1"}}`), client.FieldOwner("kubectl-edit")))

	second := w.push(files("2"))
	w.ready("app", second)
	w.data("plain", "2")
	w.data("later", "mine")
	w.data("once", "mine")
	if c := w.data("merged", "2"); c.Data["added"] != "1" {
		t.Errorf("what somebody added to an object that is to be merged is gone: %v", c.Data)
	}
	if c := w.data("plain", "2"); c.Data["added"] != "" {
		t.Errorf("what kubectl added is still there: %v", c.Data)
	}
	w.annotate(w.namedConfig("later"), "kustomize.toolkit.fluxcd.io/reconcile", "")
	w.request(w.named("app"))
	w.data("later", "2")
}
