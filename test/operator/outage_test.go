package operator_test

import (
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// asked are the requests to a remote cluster so far that the operator made.
func (w *world) asked() []testenv.Request {
	w.t.Helper()
	return w.cluster.Requests(w.t, userAgent)
}

// away waits until a Kustomization says that its cluster cannot be reached, and has
// found so once more since.
func (w *world) away(name string, link *testenv.Link) *kustomizev1.Kustomization {
	w.t.Helper()
	words := "cluster " + link.Host + " cannot be reached: "
	w.notReady(name, "ReconciliationFailed", words)
	value := w.request(w.named(name))
	return waitFor(w, w.named(name), "not Ready after one more try", func(k *kustomizev1.Kustomization) bool {
		ready := conditionOf(k.Status.Conditions, "Ready")
		return k.Status.LastHandledReconcileAt == value && ready.Status == "False" && says(ready.Message, words)
	})
}

// TestRemoteOutage lets a remote cluster be idle, and then cuts the way to it for a
// while in which commits are pushed and its objects are changed by others.
func TestRemoteOutage(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"the operator goes on": false, "the operator is started anew meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cluster := testenv.Start(t)
			link := testenv.NewLink(t, cluster)
			far := w.elsewhere(cluster)
			dir := t.TempDir()
			stop := w.runOwn(dir, func(*config.Operator) {})
			first := w.push(testenv.Files{
				"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "app/goes.yaml": configMap("goes", "1"),
				"calm/c.yaml": configMap("c", "1"), "calm/d.yaml": configMap("d", "1"), "calm/run.yaml": deployment("run"),
				"here/here.yaml": configMap("here", "1"), "here/near.yaml": configMap("near", "1"),
			})
			w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
			w.kubeconfigSecret("far", &testenv.Cluster{Kubeconfig: link.Kubeconfig})
			w.kustomization("app", to("far"), func(k *kustomizev1.Kustomization) { w.owned(k) })
			w.kustomization("calm", to("far"), func(k *kustomizev1.Kustomization) {
				w.owned(k)
				k.Spec.Wait = true
			})
			w.kustomization("here", func(k *kustomizev1.Kustomization) { w.owned(k) })
			for _, name := range []string{"app", "calm", "here"} {
				w.ready(name, first)
			}
			a, b, goes, c, d := far.data("a", "1"), far.data("b", "1"), far.data("goes", "1"), far.data("c", "1"), far.data("d", "1")

			// A commit that is not about its objects asks it for nothing. Idleness can only
			// be seen by letting time go by.
			before := len(far.asked())
			if before == 0 {
				t.Fatal("the audit log knows of no request of the operator")
			}
			second := w.push(testenv.Files{"here/here.yaml": configMap("here", "2")})
			for _, name := range []string{"app", "calm", "here"} {
				w.ready(name, second)
			}
			time.Sleep(3 * time.Second)
			for _, r := range far.asked()[before:] {
				t.Errorf("idle, the remote cluster was asked %s %s", r.Verb, r.RequestURI)
			}

			link.Cut()
			third := w.push(testenv.Files{"app/a.yaml": configMap("a", "3"), "app/goes.yaml": testenv.Delete, "here/here.yaml": configMap("here", "3")})
			if restart {
				stop()
				w.runOwn(dir, func(*config.Operator) {})
			}
			// It has changed behind the operator's back.
			far.patch(far.namedConfig("a"), `{"data":{"key":"drift"}}`)
			far.patch(far.namedConfig("c"), `{"data":{"key":"drift"}}`)
			for _, name := range []string{"b", "d"} {
				w.check(far.client.Delete(w.context(), far.namedConfig(name)))
			}
			w.ready("here", third)
			w.data("here", "3")
			for _, name := range []string{"app", "calm"} {
				want := map[string]int{"app": 3, "calm": 3}[name]
				if k := w.away(name, link); k.Status.Inventory == nil || len(k.Status.Inventory.Entries) != want {
					t.Errorf("the inventory of %s is %+v, want %d entries", name, k.Status.Inventory, want)
				}
			}
			// Whatever else there is goes on.
			fourth := w.push(testenv.Files{"here/here.yaml": configMap("here", "4")})
			w.ready("here", fourth)
			w.patch(w.namedConfig("near"), `{"data":{"key":"drift"}}`)
			w.data("near", "1")
			w.away("calm", link)
			far.same(goes)

			link.Restore()
			for _, name := range []string{"app", "calm"} {
				w.ready(name, fourth)
			}
			far.data("a", "3")
			far.data("c", "1")
			for _, was := range []*corev1.ConfigMap{b, d} {
				waitFor(far, far.namedConfig(was.Name), "made again", func(c *corev1.ConfigMap) bool { return c.UID != was.UID && c.Data["key"] == "1" })
			}
			far.gone(goes)
			far.same(a)
			far.same(c)
			if deleted := strings.Join(far.deletions(), " "); deleted != "goes" {
				t.Errorf("deleted %q, want goes alone", deleted)
			}
			// It is watched again.
			far.patch(far.namedConfig("c"), `{"data":{"key":"more drift"}}`)
			far.data("c", "1")
		})
	}
}
