package crash_test

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// trouble makes a share of the requests go wrong, in a fixed order of fortunes:
// writes that are refused, never arrive, or are made without an answer, and reads
// and watches that fail. It counts them.
func trouble(l *lab.Lab, seed uint64) (count func() int) {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(seed, seed))
	faults := 0
	l.Proxy.Inject(func(c testenv.Call) testenv.Fault {
		mu.Lock()
		defer mu.Unlock()
		n := chance.IntN(100)
		var f testenv.Fault
		switch {
		case c.Write > 0 && n < 8, n < 3:
			f.Status = http.StatusInternalServerError
		case c.Write > 0 && n < 14:
			f.Status = http.StatusTooManyRequests
		case c.Write > 0 && n < 22, n < 6:
			f.Drop = true
		case c.Write > 0 && n < 30:
			f.Lose = true
		default:
			return f
		}
		faults++
		return f
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return faults
	}
}

// deletions are what the operator deleted so far, without those that the API
// server did not find.
func deletions(l *lab.Lab) map[string]int {
	l.Helper()
	out := map[string]int{}
	for _, w := range l.Writes() {
		if w.Verb == "delete" && w.ResponseStatus.Code < 300 {
			out[w.ObjectRef.Resource+" "+w.ObjectRef.Name]++
		}
	}
	return out
}

// Requests fail at random. The end state is that without, and nothing is deleted
// that nobody asked to be deleted.
func TestFaults(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	kinds := []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"}, {Group: "apps", Version: "v1", Kind: "Deployment"},
	}
	both := testenv.Files{"README.md": "nothing yet\n"}
	l.Push(both)
	l.Source()
	l.Start()
	create := func() {
		l.Kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace, k.Spec.Wait = l.Namespace, true })
	}
	l.Push(updated("a"))
	create()
	want := map[string]map[string]string{}
	for _, to := range []string{"b", "a"} {
		l.Ready("app", l.Push(updated(to)))
		want[to] = state(l, "app", kinds)
	}
	l.Check(l.Client.Delete(l.Context(), l.Named("app")))
	l.Vanished(l.Named("app"))

	for seed := range uint64(3) {
		faults := trouble(l, seed)
		revision := l.Push(updated("a"))
		create()
		l.Ready("app", revision)
		same(l, want["a"], state(l, "app", kinds), "install among faults")
		first := uids(l, "app", kinds)
		before := deletions(l)
		for _, to := range []string{"b", "a", "b"} {
			l.Ready("app", l.Push(updated(to)))
			same(l, want[to], state(l, "app", kinds), "update among faults")
		}
		for what, n := range deletions(l) {
			name := what[strings.LastIndexByte(what, ' ')+1:]
			if n > before[what] && name != "one" && name != "two" && name != "fixed" {
				t.Errorf("seed %d: %s was deleted", seed, what)
			}
		}
		now := uids(l, "app", kinds)
		for _, id := range []string{"_kept__ConfigMap", "_changed__ConfigMap", "_web_apps_Deployment"} {
			if now[l.Namespace+id] != first[l.Namespace+id] {
				t.Errorf("seed %d: %s is another object now", seed, id)
			}
		}
		if missing := l.Unlisted("app", kinds); len(missing) > 0 {
			t.Errorf("seed %d: not in the inventory: %s", seed, strings.Join(missing, ", "))
		}
		l.Check(l.Client.Delete(l.Context(), l.Named("app")))
		l.Vanished(l.Named("app"))
		for _, left := range l.Owned("app", kinds) {
			t.Errorf("seed %d: left over: %s", seed, lab.InventoryID(&left))
		}
		t.Logf("seed %d: %d faults", seed, faults())
		if faults() < 10 {
			t.Errorf("seed %d: %d faults only", seed, faults())
		}
	}
}
