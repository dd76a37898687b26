package crash_test

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// An object moves from one Kustomization to another in one commit. Wherever the
// operator is killed, the object stays the same one and is in the inventory of
// whoever its labels name.
func TestKilledMove(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	kinds := []schema.GroupVersionKind{{Version: "v1", Kind: "ConfigMap"}}
	moved := func(from, to string) testenv.Files {
		return testenv.Files{from + "/moved.yaml": testenv.Delete, to + "/moved.yaml": configMap("moved", "same")}
	}
	l.Push(testenv.Files{
		"one/one.yaml": configMap("one", "here"), "two/two.yaml": configMap("two", "here"), "one/moved.yaml": configMap("moved", "same"),
	})
	l.Source()
	for _, name := range []string{"one", "two"} {
		l.Kustomization(name, func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = l.Namespace })
	}
	l.Start()
	revision := l.Push(testenv.Files{"README.md": "something\n"})
	l.Ready("one", revision)
	l.Ready("two", revision)
	first := config(l, "moved")
	l.Check(l.Client.Get(l.Context(), client.ObjectKeyFromObject(first), first))

	counts := map[string]int{"move": 0}
	from, to := "one", "two"
	for _, when := range []moment{before, after} {
		for write := 1; !t.Failed(); write++ {
			trap := arm(l, write, when)
			revision := l.Push(moved(from, to))
			killed := trap.reach(kinds, func(stop <-chan struct{}) bool {
				return readyOr(l, "one", revision)(stop) && readyOr(l, "two", revision)(stop)
			}, "one", "two")
			l.Ready("one", revision)
			l.Ready("two", revision)
			now := lab.Wait(l, config(l, "moved"), "labelled for "+to, func(c *corev1.ConfigMap) bool {
				return c.Labels["kustomize.toolkit.fluxcd.io/name"] == to
			})
			if now.UID != first.UID {
				t.Errorf("%s: it is another object now", where("move", write, when))
			}
			if missing := l.Unlisted(to, kinds); len(missing) > 0 {
				t.Errorf("%s: not in the inventory of %s: %v", where("move", write, when), to, missing)
			}
			lab.Wait(l, l.Named(from), "without it in its inventory", func(k *kustomizev1.Kustomization) bool {
				return len(k.Status.Inventory.Entries) == 1
			})
			from, to = to, from
			if !killed {
				break
			}
			counts["move"]++
		}
	}
	if !t.Failed() && counts["move"] < 6 {
		t.Errorf("killed at %d points only", counts["move"])
	}
	t.Logf("move: killed at %d points", counts["move"])
}
