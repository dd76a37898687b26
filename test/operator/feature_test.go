package operator_test

import (
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// atOnce is how long a reaction may take that nobody waits out a timer for; on
// an idle machine it takes milliseconds.
const atOnce = 20 * time.Second

func TestDependencyCycle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"a/a.yaml": configMap("a", "1"), "b/b.yaml": configMap("b", "1"), "other/other.yaml": configMap("other", "1")})
	w.source()
	on := func(name string) func(*kustomizev1.Kustomization) {
		return func(k *kustomizev1.Kustomization) { k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: name}} }
	}
	w.kustomization("a", on("b"))
	w.kustomization("b", on("a"))
	w.kustomization("other")
	a, b := w.namespace+"/a", w.namespace+"/b"
	w.notReady("a", "DependencyNotReady", "dependency cycle: "+a+" -> "+b+" -> "+a+"|remove one of these dependsOn")
	w.notReady("b", "DependencyNotReady", "dependency cycle: "+b+" -> "+a+" -> "+b)
	w.ready("other", first)
	second := w.push(testenv.Files{"other/other.yaml": configMap("other", "2")})
	w.ready("other", second)

	w.patch(w.named("a"), `{"spec":{"dependsOn":null}}`)
	w.ready("a", second)
	w.ready("b", second)
}

func TestDependsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"a/a.yaml": configMap("a", "1"), "b/b.yaml": configMap("b", "1"), "c/c.yaml": configMap("c", "1")})
	w.source()
	w.kustomization("a", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: "gate"}}
	})
	w.kustomization("b", func(k *kustomizev1.Kustomization) {
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "a"}}
	})
	w.kustomization("c", func(k *kustomizev1.Kustomization) {
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{
			Name: "b", ReadyExpr: "has(dep.metadata.annotations) && dep.metadata.annotations['go'] == self.metadata.name",
		}}
	})
	waitFor(w, w.named("b"), "waiting for a", func(k *kustomizev1.Kustomization) bool {
		ready := conditionOf(k.Status.Conditions, "Ready")
		return ready.Reason == "DependencyNotReady" && says(ready.Message, w.namespace+"/a|not ready")
	})
	waitFor(w, w.named("c"), "waiting for b", func(k *kustomizev1.Kustomization) bool {
		ready := conditionOf(k.Status.Conditions, "Ready")
		return ready.Reason == "DependencyNotReady" && says(ready.Message, w.namespace+"/b|readyExpr")
	})
	w.check(w.client.Create(w.context(), w.namedConfig("gate")))
	w.ready("a", first)
	ready := time.Now()
	w.ready("b", first)
	w.annotate(w.named("b"), "go", "c")
	w.ready("c", first)
	if took := time.Since(ready); took > atOnce {
		t.Errorf("b and c took %v", took)
	}

	// One commit goes through all of them.
	second := w.push(testenv.Files{"a/a.yaml": configMap("a", "2"), "b/b.yaml": configMap("b", "2"), "c/c.yaml": configMap("c", "2")})
	for _, name := range []string{"a", "b", "c"} {
		w.ready(name, second)
		w.data(name, "2")
	}
	w.patch(w.named("c"), `{"spec":{"dependsOn":[{"name":"nobody"}]}}`)
	waitFor(w, w.named("c"), "waiting for nobody", func(k *kustomizev1.Kustomization) bool {
		ready := conditionOf(k.Status.Conditions, "Ready")
		return ready.Reason == "DependencyNotReady" && says(ready.Message, w.namespace+"/nobody|not found")
	})
	w.patch(w.named("c"), `{"spec":{"dependsOn":[{"name":"b","readyExpr":"dep.metadata.name +"}]}}`)
	waitFor(w, w.named("c"), "stalled for its expression", func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Stalled").Reason == "InvalidCELExpression"
	})
	w.patch(w.namedConfig("c"), `{"data":{"key":"drift"}}`)
	w.data("c", "2")
}

// refusals are fields that are not switched on.
func refusals() map[string]func(*kustomizev1.Kustomization) {
	return map[string]func(*kustomizev1.Kustomization){
		"spec.decryption.serviceAccountName": func(k *kustomizev1.Kustomization) {
			k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops", ServiceAccountName: "x"}
		},
	}
}

func TestRefusedFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	i := 0
	for field, set := range refusals() {
		i++
		name := "app" + string(rune('0'+i))
		k := w.kustomization(name, set, func(k *kustomizev1.Kustomization) { k.Spec.Path = "./app" })
		refused := w.notReady(name, "FeatureGateDisabled", field+"|the object is left as it is until|the field is removed")
		stalled := conditionOf(refused.Status.Conditions, "Stalled")
		if stalled.Status != "True" || stalled.Reason != "FeatureGateDisabled" || refused.Status.ObservedGeneration != refused.Generation {
			t.Errorf("%s: %+v", field, refused.Status)
		}
		// It manages nothing, so nothing keeps it.
		w.check(w.client.Delete(w.context(), k))
		w.gone(k)
	}
	if writes := w.writes("configmaps", w.namespace, ""); len(writes) > 0 {
		t.Errorf("something was written: %v", writes)
	}
}

func TestRefusedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/gone.yaml": configMap("gone", "1"), "other/other.yaml": configMap("other", "1")})
	w.source()
	app := w.kustomization("app")
	w.kustomization("other")
	w.ready("app", first)
	a, gone := w.data("a", "1"), w.data("gone", "1")

	w.patch(w.named("app"), `{"spec":{"decryption":{"provider":"sops","serviceAccountName":"x"}}}`)
	w.notReady("app", "FeatureGateDisabled", "spec.decryption.serviceAccountName")
	before := len(w.writes("configmaps", w.namespace, ""))
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2"), "app/gone.yaml": testenv.Delete, "other/other.yaml": configMap("other", "2")})
	w.ready("other", second)
	w.data("other", "2")
	w.same(gone)
	w.data("a", "drift")
	// The other one's object is the only one that was written.
	if writes := w.writes("configmaps", w.namespace, ""); len(writes) != before+1 {
		t.Errorf("written: %v", writes[before:])
	}

	// Nothing of it is needed for deleting.
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.gone(a)
	w.gone(gone)
}

// TestDeletedWithoutAnIdentity deletes an owner of which nobody knows with whose rights
// its objects are to be deleted.
func TestDeletedWithoutAnIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	w.source()
	app := w.kustomization("app")
	w.ready("app", first)
	a, b := w.data("a", "1"), w.data("b", "1")
	w.patch(w.named("app"), `{"spec":{"serviceAccountName":"no/name"}}`)
	w.notReady("app", "AccessDenied", "spec.serviceAccountName")
	w.check(w.client.Delete(w.context(), app))
	w.notReady("app", "AccessDenied", `spec.serviceAccountName|2 objects are kept|plumb.dev/orphan: "true"`)
	w.same(a)
	w.same(b)
	w.annotate(w.named("app"), "plumb.dev/orphan", "true")
	w.gone(app)
	w.same(a)
	w.same(b)
}

func TestRefusedAndMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kustomization("app")
	w.ready("app", first)
	w.patch(w.named("app"), `{"spec":{"decryption":{"provider":"sops","serviceAccountName":"x"}}}`)
	w.notReady("app", "FeatureGateDisabled", "spec.decryption.serviceAccountName")
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.patch(w.named("app"), `{"spec":{"decryption":null}}`)
	w.ready("app", first)
	w.data("a", "1")

	// A source is refused in the same way, and keeps what it has.
	w.patchSource(`{"spec":{"provider":"azure","serviceAccountName":"x"}}`)
	waitFor(w, w.namedSource("repo"), "stalled", func(s *sourcev1.GitRepository) bool {
		stalled := conditionOf(s.Status.Conditions, "Stalled")
		return stalled.Reason == "FeatureGateDisabled" && says(stalled.Message, "spec.serviceAccountName|ObjectLevelWorkloadIdentity") && s.Status.Artifact != nil
	})
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.data("a", "1")
	w.patchSource(`{"spec":{"provider":null,"serviceAccountName":null}}`)
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2")})
	w.ready("app", second)
}

func TestSuspend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "other/other.yaml": configMap("other", "1")})
	w.source()
	app := w.kustomization("app")
	w.kustomization("other")
	w.ready("app", first)
	a := w.data("a", "1")

	w.patch(w.named("app"), `{"spec":{"suspend":true}}`)
	w.request(w.named("app"))
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2"), "other/other.yaml": configMap("other", "2")})
	w.ready("other", second)
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	third := w.push(testenv.Files{"other/other.yaml": configMap("other", "3")})
	w.ready("other", third)
	w.data("a", "drift")
	w.patch(w.named("app"), `{"spec":{"suspend":false}}`)
	w.ready("app", third)
	w.data("a", "2")
	w.same(a)

	// A suspended source hands out nothing new, and what follows it is kept in order.
	w.patchSource(`{"spec":{"suspend":true}}`)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "4")})
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.data("a", "2")
	w.patchSource(`{"spec":{"suspend":false}}`)
	w.data("a", "4")

	// Whoever is suspended leaves its objects behind.
	w.patch(w.named("app"), `{"spec":{"suspend":true}}`)
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.same(a)
}

// TestRequest is what `flux reconcile` waits for: the request is recorded as
// handled, and the object is Ready then.
func TestRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kustomization("app")
	w.kustomization("broken", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./nothing" })
	w.kustomization("waiting", func(k *kustomizev1.Kustomization) {
		k.Spec.Path, k.Spec.DependsOn = "./app", []kustomizev1.DependencyReference{{Name: "broken"}}
	})
	w.kustomization("lost", func(k *kustomizev1.Kustomization) { k.Spec.SourceRef.Name = "nothing" })
	w.ready("app", first)
	for range 2 {
		value := w.request(w.namedSource("repo"))
		waitFor(w, w.namedSource("repo"), "handled", func(s *sourcev1.GitRepository) bool {
			return s.Status.LastHandledReconcileAt == value && conditionOf(s.Status.Conditions, "Ready").Status == "True"
		})
		value = w.request(w.named("app"))
		waitFor(w, w.named("app"), "handled", func(k *kustomizev1.Kustomization) bool {
			return k.Status.LastHandledReconcileAt == value && conditionOf(k.Status.Conditions, "Ready").Status == "True"
		})
	}
	for name, reason := range map[string]string{"broken": "ArtifactFailed", "waiting": "DependencyNotReady", "lost": "ArtifactFailed"} {
		value := w.request(w.named(name))
		waitFor(w, w.named(name), "handled", func(k *kustomizev1.Kustomization) bool {
			ready := conditionOf(k.Status.Conditions, "Ready")
			return k.Status.LastHandledReconcileAt == value && ready.Status == "False" && ready.Reason == reason
		})
	}
	w.server.Hang()
	w.patchSource(`{"spec":{"timeout":"1s"}}`)
	value := w.request(w.namedSource("repo"))
	waitFor(w, w.namedSource("repo"), "handled", func(s *sourcev1.GitRepository) bool {
		return s.Status.LastHandledReconcileAt == value && conditionOf(s.Status.Conditions, "Ready").Status == "False"
	})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// A new definition first: the widget's health is in the test's hand.
	first := w.push(w.filled(testenv.Files{"kind/crd.yaml": definition, "app/widget.yaml": widget, "next/a.yaml": configMap("a", "1")}))
	w.source()
	w.kustomization("kind", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace, k.Spec.Wait = "", true })
	w.kustomization("app", func(k *kustomizev1.Kustomization) {
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "kind"}}
		// As in Flux, no timeout is shorter than half a minute.
		k.Spec.Wait, k.Spec.Timeout = true, &metav1.Duration{Duration: 3 * time.Second}
	})
	health := func(status string) {
		w.t.Helper()
		obj := w.namedWidget()
		patch := `{"status":{"observedGeneration":1,"conditions":[{"type":"Ready","status":"` + status + `","reason":"Test","message":"as the test says"}]}}`
		w.check(w.client.Status().Patch(w.context(), obj, rawMerge(patch)))
	}
	w.ready("kind", first)
	waitFor(w, w.namedWidget(), "made", func(*unstructured.Unstructured) bool { return true })
	health("False")
	// In progress until the timeout.
	waitFor(w, w.named("app"), "in progress", func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Ready").Status == "Unknown" && conditionOf(k.Status.Conditions, "Reconciling").Status == "True"
	})
	w.notReady("app", "HealthCheckFailed", "timeout waiting for|Widget/"+w.namespace+"/widget|InProgress")
	waitFor(w, w.named("app"), "not Healthy", func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Healthy").Reason == "HealthCheckFailed"
	})
	healthy := func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Ready").Status == "True" && conditionOf(k.Status.Conditions, "Healthy").Status == "True"
	}
	health("True")
	waitFor(w, w.named("app"), "Ready and Healthy", healthy)
	// What turns bad later has the timeout to recover.
	health("False")
	w.notReady("app", "HealthCheckFailed", "not healthy any more|Widget/"+w.namespace+"/widget")
	health("True")
	waitFor(w, w.named("app"), "Ready and Healthy again", healthy)
	// A newer revision ends a wait.
	health("False")
	second := w.push(w.filled(testenv.Files{"app/widget.yaml": strings.Replace(widget, "size: 1", "size: 2", 1)}))
	waitFor(w, w.named("app"), "at work on the second revision", func(k *kustomizev1.Kustomization) bool {
		return k.Status.LastAttemptedRevision == second
	})
	third := w.push(w.filled(testenv.Files{"app/widget.yaml": testenv.Delete, "app/a.yaml": configMap("a", "3")}))
	w.ready("app", third)
	w.gone(w.namedWidget())
}
