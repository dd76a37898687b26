package operator_test

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// ignoring leaves fields of a kind of object to others.
func ignoring(kind string, paths ...string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.Ignore = append(k.Spec.Ignore, kustomizev1.IgnoreRule{Paths: paths, Target: &kustomize.Selector{Kind: kind}})
	}
}

// scaled is a Deployment with replicas and an image.
func scaled(replicas, image string) string {
	return strings.Replace(strings.Replace(deployment("run"), "spec:\n  selector", "spec:\n  replicas: "+replicas+"\n  selector", 1), "main:1", image, 1)
}

func (w *world) namedDeployment(name string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

// runs waits for a Deployment with an image, and fails where its replicas differ.
func (w *world) runs(image string, replicas int32) {
	w.t.Helper()
	d := waitFor(w, w.namedDeployment("run"), "with image "+image, func(d *appsv1.Deployment) bool {
		return strings.HasSuffix(d.Spec.Template.Spec.Containers[0].Image, image)
	})
	if *d.Spec.Replicas != replicas {
		w.t.Errorf("it has %d replicas, want %d", *d.Spec.Replicas, replicas)
	}
}

// TestIgnoredFields lets others have the replicas of a Deployment: whatever else is
// changed is undone, and whatever else is declared comes.
func TestIgnoredFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/run.yaml": scaled("1", "main:1")})
	w.source()
	w.kustomization("app", ignoring("Deployment", "/spec/replicas", "/metadata/annotations/tool.example~1hint"))
	w.ready("app", first)
	w.runs("main:1", 1)
	before := len(w.writes("deployments", w.namespace, "run"))

	// An autoscaler.
	w.check(w.client.SubResource("scale").Patch(w.context(), w.namedDeployment("run"),
		client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":3}}`)), client.FieldOwner("autoscaler")))
	// Somebody who changes another field is undone, and what is left alone stays.
	w.patch(w.namedDeployment("run"), `{"metadata":{"annotations":{"tool.example/hint":"x"}},"spec":{"template":{"spec":{"containers":[{"name":"main","image":"example.com/main:9"}]}}}}`)
	w.runs("main:1", 3)
	if n := len(w.writes("deployments", w.namespace, "run")) - before; n != 1 {
		t.Errorf("%d writes, want the repair of the image alone", n)
	}

	// A commit that changes the image, and one that changes the replicas too.
	second := w.push(testenv.Files{"app/run.yaml": scaled("1", "main:2")})
	w.ready("app", second)
	w.runs("main:2", 3)
	third := w.push(testenv.Files{"app/run.yaml": scaled("7", "main:3")})
	w.ready("app", third)
	w.runs("main:3", 3)

	// kubectl, whose fields are taken over.
	w.check(w.client.Patch(w.context(), w.namedDeployment("run"), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":4,"minReadySeconds":5}}`)), client.FieldOwner("kubectl-edit")))
	waitFor(w, w.namedDeployment("run"), "without what kubectl added", func(d *appsv1.Deployment) bool { return d.Spec.MinReadySeconds == 0 })
	w.runs("main:3", 4)

	// Asked to compare everything it finds nothing to write.
	w.request(w.named("app"))
	before = len(w.writes("deployments", w.namespace, "run"))
	fourth := w.push(testenv.Files{"app/other.yaml": configMap("other", "1")})
	w.ready("app", fourth)
	w.runs("main:3", 4)
	if n := len(w.writes("deployments", w.namespace, "run")) - before; n != 0 {
		t.Errorf("%d writes of a Deployment that is as it should be", n)
	}

	// Made anew it is as declared, and without the rule it becomes so.
	w.check(w.client.Delete(w.context(), w.namedDeployment("run")))
	w.runs("main:3", 7)
	w.check(w.client.SubResource("scale").Patch(w.context(), w.namedDeployment("run"),
		client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":2}}`)), client.FieldOwner("autoscaler")))
	w.patch(w.named("app"), `{"spec":{"ignore":null}}`)
	waitFor(w, w.namedDeployment("run"), "as declared", func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 7 })
}

// TestIgnoredFieldOfAnotherApplier has two who apply one object.
func TestIgnoredFieldOfAnotherApplier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kustomization("app", ignoring("ConfigMap", "/data/key"))
	w.ready("app", first)
	theirs := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": w.namespace, "name": "a"}, "data": map[string]any{"key": "theirs"},
	}}
	w.check(w.client.Apply(w.context(), client.ApplyConfigurationFromUnstructured(theirs), client.FieldOwner("tool"), client.ForceOwnership))
	w.patch(w.namedConfig("a"), `{"metadata":{"labels":{"kustomize.toolkit.fluxcd.io/name":"mine"}}}`)
	waitFor(w, w.namedConfig("a"), "with its label again", func(c *corev1.ConfigMap) bool {
		return c.Labels["kustomize.toolkit.fluxcd.io/name"] == "app"
	})
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2") + "  more: x\n"})
	w.ready("app", second)
	got := waitFor(w, w.namedConfig("a"), "with more", func(c *corev1.ConfigMap) bool { return c.Data["more"] == "x" })
	if got.Data["key"] != "theirs" {
		t.Errorf("the field of the other one is %q", got.Data["key"])
	}
}

func TestBadIgnoreRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kustomization("app")
	w.ready("app", first)
	for rule, words := range map[string]string{
		`{"paths":["spec.replicas"]}`:                                       "spec.ignore[0]|spec.replicas|no JSON pointer",
		`{"paths":["/metadata/name"]}`:                                      "spec.ignore[0]|tells the object from others",
		`{"paths":["/data"],"target":{"kind":"("}}`:                         "spec.ignore[0]|no regular expression",
		`{"paths":["/data"],"target":{"labelSelector":"a in (","kind":""}}`: "spec.ignore[0]|labelSelector",
	} {
		w.patch(w.named("app"), `{"spec":{"ignore":[`+rule+`]}}`)
		k := w.notReady("app", "ReconciliationFailed", words)
		if conditionOf(k.Status.Conditions, "Stalled").Status != "True" {
			t.Errorf("%s is tried again and again: %+v", rule, k.Status.Conditions)
		}
		w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
		w.data("a", "1") // What was applied is kept in order.
	}
}
