package operator_test

import (
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

const isolation = "plumb.dev/failure-isolation"

// widgets is a definition of a kind Widget of a group; one that the API server refuses
// where plural is not as its name says.
func widgets(group, plural string) string {
	return fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.%s}
spec:
  group: %s
  names: {kind: Widget, plural: %s, singular: widget, listKind: WidgetList}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, group, group, plural)
}

// TestFailureIsolation has the cluster refuse a Service, a definition and a namespace:
// what needs them is not applied, and the rest is.
func TestFailureIsolation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	group, other := w.namespace+".example", w.namespace+"-other"
	in := func(manifest string) string {
		return strings.Replace(manifest, "metadata: {", "metadata: {namespace: "+w.namespace+", ", 1)
	}
	service := func(port int) string {
		return in(fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: %d}]}\n", port))
	}
	namespace := func(label string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {a: %q}}\n", other, label)
	}
	first := w.push(testenv.Files{"app/old.yaml": placed("old", "1", w.namespace), "app/a.yaml": placed("a", "1", w.namespace)})
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" })
	w.ready("app", first)
	old := w.data("old", "1")
	w.push(testenv.Files{
		"app/old.yaml": testenv.Delete, "app/a.yaml": placed("a", "2", w.namespace), "app/web.yaml": service(99999),
		"app/crd.yaml": widgets(group, "gadgets"), "app/w.yaml": in("apiVersion: " + group + "/v1\nkind: Widget\nmetadata: {name: w}\n"),
		"app/ns.yaml": namespace("no label at all"), "app/in.yaml": placed("in", "1", other),
	})

	// As long as nobody asks for it, a refusal is one of the whole set.
	w.notReady("app", "ReconciliationFailed", "Namespace/"+other)
	w.same(w.data("a", "1"))

	w.annotate(w.named("app"), isolation, "enabled")
	k := w.notReady("app", "ReconciliationFailed", "5 objects were refused|Service/"+w.namespace+"/web|CustomResourceDefinition/widgets."+group+
		"|Namespace/"+other+"|ConfigMap/"+other+"/in|it needs Namespace/"+other+"|Widget/"+w.namespace+"/w|it needs CustomResourceDefinition/widgets."+group)
	w.data("a", "2")
	w.same(old) // Nothing is pruned for a set that is not whole.
	for _, name := range []string{w.namespace + "_old__ConfigMap", w.namespace + "_a__ConfigMap"} {
		if !strings.Contains(fmt.Sprint(k.Status.Inventory.Entries), name) {
			t.Errorf("%s is not in the inventory: %v", name, k.Status.Inventory.Entries)
		}
	}
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.data("a", "2")

	last := w.push(testenv.Files{"app/web.yaml": service(80), "app/crd.yaml": widgets(group, "widgets"), "app/ns.yaml": namespace("b")})
	w.ready("app", last)
	w.gone(old)
	waitFor(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "in"}}, "applied", func(c *corev1.ConfigMap) bool { return c.Data["key"] == "1" })
}
