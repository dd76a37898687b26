package crash_test

import (
	"fmt"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  key: %q\n", name, value)
}

// updated is a folder in one of two states: between them objects are changed,
// added, removed, and deleted to be created again.
func updated(state string) testenv.Files {
	files := testenv.Files{
		"app/kept.yaml":    configMap("kept", "same"),
		"app/changed.yaml": configMap("changed", state),
		"app/fixed.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: fixed\n  annotations:\n" +
			"    kustomize.toolkit.fluxcd.io/force: enabled\nimmutable: true\ndata:\n  key: " + state + "\n",
		"app/web.yaml": `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example.com/web:` + state + "\n",
	}
	here, there := "one", "two"
	if state == "b" {
		here, there = there, here
	}
	files["app/"+here+".yaml"] = configMap(here, "here")
	files["app/"+there+".yaml"] = testenv.Delete
	return files
}

func TestKilledUpdateAndPrune(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	kinds := []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"}, {Group: "apps", Version: "v1", Kind: "Deployment"},
	}
	l.Push(testenv.Files{"app/one.yaml": configMap("one", "here"), "app/two.yaml": configMap("two", "here")})
	l.Source()
	l.Kustomization("app", func(k *kustomizev1.Kustomization) {
		k.Spec.TargetNamespace, k.Spec.Wait = l.Namespace, true
	})
	l.Start()
	want := map[string]map[string]string{}
	for _, to := range []string{"a", "b", "a"} {
		revision := l.Push(updated(to))
		l.Ready("app", revision)
		want[to] = state(l, "app", kinds)
		if len(want[to]) != 5 {
			t.Fatalf("state %s has %d objects, want 5", to, len(want[to]))
		}
	}
	first := uids(l, "app", kinds)
	counts := map[string]int{"update": 0, "revert": 0}
	// step goes from one state to the other; it tells whether the operator was killed.
	step := func(to string, write int, when moment) bool {
		trap := arm(l, write, when)
		revision := l.Push(updated(to))
		was := trap.reach(kinds, readyOr(l, "app", revision), "app")
		l.Ready("app", revision)
		same(l, want[to], state(l, "app", kinds), where("to state "+to, write, when))
		now := uids(l, "app", kinds)
		for _, id := range []string{"_kept__ConfigMap", "_changed__ConfigMap", "_web_apps_Deployment"} {
			if now[l.Namespace+id] != first[l.Namespace+id] {
				t.Errorf("%s: %s is another object now", where("to state "+to, write, when), id)
			}
		}
		return was
	}
	for _, when := range []moment{before, after} {
		for write := 1; !t.Failed(); write++ {
			update, revert := step("b", write, when), step("a", write, when)
			if update {
				counts["update"]++
			}
			if revert {
				counts["revert"]++
			}
			if !update && !revert {
				break
			}
		}
	}
	points(l, counts)
}
