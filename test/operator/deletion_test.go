package operator_test

import (
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestDeletionPolicy(t *testing.T) {
	t.Parallel()
	set := func(prune bool, policy string) func(*kustomizev1.Kustomization) {
		return func(k *kustomizev1.Kustomization) { k.Spec.Prune, k.Spec.DeletionPolicy = prune, policy }
	}
	tests := map[string]struct {
		spec    func(*kustomizev1.Kustomization)
		suspend bool
		stays   bool
		why     string
	}{
		"MirrorPrune deletes with prune":            {spec: set(true, "MirrorPrune")},
		"MirrorPrune leaves everything without":     {spec: set(false, "MirrorPrune"), stays: true, why: "prune is off"},
		"none is MirrorPrune":                       {spec: set(false, ""), stays: true, why: "prune is off"},
		"Delete deletes without prune":              {spec: set(false, "Delete")},
		"WaitForTermination deletes without prune":  {spec: set(false, "WaitForTermination")},
		"Orphan leaves everything with prune":       {spec: set(true, "Orphan"), stays: true, why: "deletionPolicy is Orphan"},
		"one that is suspended leaves everything":   {spec: set(true, "Delete"), suspend: true, stays: true, why: "suspended"},
		"an annotation leaves everything, as asked": {spec: func(k *kustomizev1.Kustomization) { k.Annotations = map[string]string{"plumb.dev/orphan": "true"} }, stays: true, why: "plumb.dev/orphan"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "app/c.yaml": annotated("c", "1", "prune", "disabled")})
			w.source()
			app := w.kustomization("app", tt.spec)
			w.ready("app", first)
			a, b, c := w.data("a", "1"), w.data("b", "1"), w.data("c", "1")
			if tt.suspend {
				w.patch(w.named("app"), `{"spec":{"suspend":true}}`)
			}
			w.check(w.client.Delete(w.context(), app))
			w.gone(app)
			w.same(c)
			in := func(name string) string { return "ConfigMap/" + w.namespace + "/" + name }
			if tt.stays {
				w.same(a)
				w.same(b)
				w.event("Kustomization", "app", "Orphaned", "3 objects are left behind, because|"+tt.why+"|"+in("a")+"\n"+in("b")+"\n"+in("c"))
				return
			}
			w.gone(a)
			w.gone(b)
			w.event("Kustomization", "app", "Orphaned", "1 object is left in the cluster|"+in("c")+": pruning is disabled for it")
			if events := w.events("Kustomization", "app", "left behind"); len(events) > 0 {
				t.Errorf("something was left behind: %s", events[0].Message)
			}
		})
	}
}

// hold is a finalizer of somebody else, with which a test keeps an object.
const hold = "test.example.org/hold"

func (w *world) hold(name string) {
	w.patch(w.namedConfig(name), `{"metadata":{"finalizers":["`+hold+`"]}}`)
}

func (w *world) release(name string) {
	w.patch(w.namedConfig(name), `{"metadata":{"finalizers":null}}`)
}

// terminating waits until an object is being deleted.
func (w *world) terminating(name string) *corev1.ConfigMap {
	w.t.Helper()
	return waitFor(w, w.namedConfig(name), "being deleted", func(c *corev1.ConfigMap) bool { return !c.DeletionTimestamp.IsZero() })
}

func TestWaitForTermination(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	w.source()
	app := w.kustomization("app", func(k *kustomizev1.Kustomization) {
		// As in Flux, no timeout is shorter than half a minute.
		k.Spec.DeletionPolicy, k.Spec.Timeout = "WaitForTermination", &metav1.Duration{Duration: time.Second}
	})
	w.ready("app", first)
	a, b := w.data("a", "1"), w.data("b", "1")
	w.hold("a")
	w.check(w.client.Delete(w.context(), app))
	w.terminating("a")
	w.gone(b)
	waitFor(w, w.named("app"), "waiting", func(k *kustomizev1.Kustomization) bool {
		return says(conditionOf(k.Status.Conditions, "Reconciling").Message, "until the deleted objects are gone") &&
			len(k.Status.Inventory.Entries) == 1
	})
	refused := w.notReady("app", "PruneFailed", "timeout waiting for termination|ConfigMap/"+w.namespace+"/a|Terminating|kept by finalizers "+hold)
	if n := len(refused.Status.Inventory.Entries); n != 1 {
		t.Errorf("the inventory has %d entries, want the one that is not gone", n)
	}
	released := time.Now()
	w.release("a")
	w.gone(a)
	w.gone(app)
	if took := time.Since(released); took > atOnce {
		t.Errorf("the end was noticed after %v", took)
	}
}

// TestTerminatingNamespace deletes a namespace with everything in it: whatever
// keeps the objects of a Kustomization from going, it does not keep its namespace.
func TestTerminatingNamespace(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spec   func(*kustomizev1.Kustomization)
		before func(w, other *world)
		left   string // what is left behind, and why
	}{
		"that everything is in": {},
		"that the Kustomization itself declares": {spec: func(k *kustomizev1.Kustomization) {
			k.Spec.DeletionPolicy, k.Spec.Path = "WaitForTermination", "./whole"
		}},
		"of one that waits for what does not end": {
			spec:   func(k *kustomizev1.Kustomization) { k.Spec.DeletionPolicy = "WaitForTermination" },
			before: func(_, other *world) { other.hold("far") },
			left:   "1 object is left behind|not all of them are gone|ConfigMap/OTHER/far",
		},
		"of one whose build is refused": {
			before: func(w, _ *world) {
				w.patch(w.named("app"), `{"spec":{"decryption":{"provider":"sops","serviceAccountName":"x"}}}`)
				w.notReady("app", "FeatureGateDisabled", "spec.decryption")
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			other := *w
			other.namespace = w.cluster.Namespace(t)
			far := placed("far", "1", other.namespace)
			first := w.push(testenv.Files{
				"app/near.yaml": placed("near", "1", w.namespace),
				"app/far.yaml":  far, "whole/far.yaml": far,
				"whole/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: " + w.namespace + "\n",
			})
			w.source()
			w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" }, func(k *kustomizev1.Kustomization) {
				if tt.spec != nil {
					tt.spec(k)
				}
			})
			w.ready("app", first)
			other.data("far", "1")
			if tt.before != nil {
				tt.before(w, &other)
			}
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
			w.check(w.client.Delete(w.context(), namespace))
			w.goneWithin(2*time.Minute, namespace)
			if tt.left == "" {
				other.gone(other.namedConfig("far"))
				if lines := linesWith(operator.log.lines(w.namespace), "left behind"); len(lines) > 0 {
					t.Errorf("something was left behind: %v", lines)
				}
				return
			}
			// Events cannot be made in a namespace that is being deleted; the log has them.
			words := strings.ReplaceAll(tt.left, "OTHER", other.namespace)
			if len(linesWith(operator.log.lines(w.namespace), words)) == 0 {
				t.Errorf("nothing in the log says %q", words)
			}
			other.release("far")
		})
	}
}

func linesWith(lines []string, words string) []string {
	var found []string
	for _, line := range lines {
		if says(line, words) {
			found = append(found, line)
		}
	}
	return found
}

// TestWaitForTerminationAfterAnError: an object whose deletion was refused at first does
// not make the operator forget the one that it waits for already.
func TestWaitForTerminationAfterAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	some := may("", "configmaps")
	some.Verbs = []string{"get", "list", "create", "patch"}
	one := may("", "configmaps")
	one.Verbs, one.ResourceNames = []string{"delete"}, []string{"a"}
	w.serviceAccount("deployer", some, one)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	w.source()
	app := w.kustomization("app", as("deployer"), func(k *kustomizev1.Kustomization) { k.Spec.DeletionPolicy = "WaitForTermination" })
	w.ready("app", first)
	a, b := w.data("a", "1"), w.data("b", "1")
	w.hold("a")
	w.check(w.client.Delete(w.context(), app))
	w.notReady("app", "PruneFailed", "ConfigMap/"+w.namespace+"/b|forbidden")
	w.terminating("a")
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "deployer"}}
	w.check(w.client.Get(w.context(), w.key("deployer"), role))
	role.Rules = []rbacv1.PolicyRule{may("", "configmaps")}
	w.check(w.client.Update(w.context(), role))
	w.gone(b)
	waitFor(w, w.named("app"), "waiting for the one object that is left", func(k *kustomizev1.Kustomization) bool {
		return len(k.Status.Inventory.Entries) == 1 && strings.Contains(k.Status.Inventory.Entries[0].ID, "_a__ConfigMap")
	})
	w.release("a")
	w.gone(a)
	w.gone(app)
}

// TestUnreadableInventory has somebody write an inventory that nobody can read: as long as
// it is not known which objects there are, none is applied, pruned or deleted.
func TestUnreadableInventory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	w.source()
	app := w.kustomization("app")
	w.ready("app", first)
	a, b := w.data("a", "1"), w.data("b", "1")
	before := w.named("app")
	w.check(w.client.Get(w.context(), w.key("app"), before))
	after := before.DeepCopy()
	after.Status.Inventory.Entries[0].ID = "what is this"
	w.check(w.client.Status().Patch(w.context(), after, client.MergeFrom(before)))
	w.push(testenv.Files{"app/a.yaml": configMap("a", "2"), "app/b.yaml": testenv.Delete})
	k := w.notReady("app", "ReconciliationFailed", "inventory|what is this")
	if got := k.Status.Inventory.Entries[0].ID; got != "what is this" {
		t.Errorf("the entry that cannot be read is gone, and is %q now", got)
	}
	w.same(w.data("a", "1"))
	w.same(b)
	w.check(w.client.Delete(w.context(), app))
	w.notReady("app", "PruneFailed", "inventory|what is this|plumb.dev/orphan")
	w.same(a)
	w.same(b)
	w.annotate(w.named("app"), "plumb.dev/orphan", "true")
	w.gone(app)
	w.event("Kustomization", "app", "Orphaned", "2 objects are left behind|what is this")
	w.same(a)
	w.same(b)
}
