package crash_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/google/go-cmp/cmp"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// discovery is how the API server's account of its kinds is wrong.
type discovery struct {
	// silent are requests that are answered 503.
	silent func(path string) bool
	// group changes what is said of the group of the widgets; nil leaves it out.
	group func(group map[string]any)
	whole bool // the group is told of as it is
}

// inject has discovery be wrong about a group.
func (d discovery) inject(l *lab.Lab, group string) {
	l.Proxy.Inject(func(c testenv.Call) testenv.Fault {
		path := c.URL.Path
		switch {
		case !strings.Contains(c.UserAgent(), "(apply)"):
			// Without its own kinds the operator does not start at all.
		case d.silent != nil && d.silent(path):
			return testenv.Fault{Status: http.StatusServiceUnavailable}
		case path == "/apis" && !d.whole:
			return testenv.Fault{Edit: func(body []byte) []byte { return d.edit(l, group, body) }}
		}
		return testenv.Fault{}
	})
}

// edit changes an aggregated answer. The group being in it is what the test is about.
func (d discovery) edit(l *lab.Lab, group string, body []byte) []byte {
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil || answer["kind"] != "APIGroupDiscoveryList" {
		l.Errorf("the answer is no aggregated discovery: %v, %.200s", err, body)
		return body
	}
	items, found := answer["items"].([]any), false
	answer["items"] = slices.DeleteFunc(items, func(item any) bool {
		is := item.(map[string]any)
		name, _, _ := unstructured.NestedString(is, "metadata", "name")
		if name != group {
			return false
		}
		found = true
		if d.group != nil {
			d.group(is)
		}
		return d.group == nil
	})
	if !found {
		l.Errorf("the group %s is not in the answer", group)
	}
	out, err := json.Marshal(answer)
	if err != nil {
		l.Error(err)
	}
	return out
}

// stale says that what serves the group's versions has not been heard of lately.
func stale(group map[string]any) {
	for _, v := range group["versions"].([]any) {
		v.(map[string]any)["freshness"], v.(map[string]any)["resources"] = "Stale", []any{}
	}
}

// only tells whether a path asks which kinds of a group there are.
func only(group string) func(path string) bool {
	return func(path string) bool { return path == "/apis/"+group || path == "/apis/"+group+"/v1" }
}

// TestDiscoveryFails pushes a commit that changes objects and removes some while the
// API server cannot say, or says wrongly, which kinds it serves. What is not known to
// be undeclared is not deleted, what is not known to be gone stays in the inventory,
// and once discovery works the commit is live.
func TestDiscoveryFails(t *testing.T) {
	t.Parallel()
	exactly := func(silent string) func(string) bool {
		return func(path string) bool { return path == silent }
	}
	all := func(path string) bool {
		parts := strings.Split(strings.Trim(path, "/"), "/")
		return parts[0] == "api" && len(parts) <= 2 || parts[0] == "apis" && len(parts) <= 3
	}
	const nothing, widgets = "discover the kinds of the cluster", "discover the kinds of GROUP/v1"
	for name, tt := range map[string]struct {
		wrong func(group string) discovery
		// running and restarted say why what has widgets is not Ready, with GROUP for
		// the group; empty where the commit goes live. everybody is set where, after a
		// restart, that is so for what has none as well.
		running, restarted string
		everybody          bool
	}{
		"the list of the core kinds is not served": {
			wrong:     func(string) discovery { return discovery{silent: exactly("/api"), whole: true} },
			restarted: nothing, everybody: true,
		},
		"the list of the groups is not served": {
			wrong:     func(string) discovery { return discovery{silent: exactly("/apis"), whole: true} },
			restarted: nothing, everybody: true,
		},
		"nothing of it is served": {
			wrong:     func(string) discovery { return discovery{silent: all, whole: true} },
			restarted: nothing, everybody: true,
		},
		"a group is left out of the list": {
			wrong: func(string) discovery { return discovery{} },
		},
		"a group is left out of the list and does not answer": {
			wrong:   func(group string) discovery { return discovery{silent: only(group)} },
			running: widgets, restarted: widgets,
		},
		"a group is stale and does not answer": {
			wrong:     func(group string) discovery { return discovery{silent: only(group), group: stale} },
			restarted: widgets,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("after a definition changed", func(t *testing.T) {
				t.Parallel()
				discoveryFails(t, tt.wrong, false, tt.running, false)
			})
			t.Run("after a restart", func(t *testing.T) {
				t.Parallel()
				discoveryFails(t, tt.wrong, true, tt.restarted, tt.everybody)
			})
		})
	}
}

func discoveryFails(t *testing.T, wrong func(group string) discovery, restart bool, words string, everybody bool) {
	t.Helper()
	l := lab.New(t)
	group := l.Namespace + ".example.com"
	kinds := []schema.GroupVersionKind{{Version: "v1", Kind: "ConfigMap"}, {Group: group, Version: "v1", Kind: "Widget"}}
	widget := func(name, size string) string {
		return fmt.Sprintf("apiVersion: %s/v1\nkind: Widget\nmetadata: {name: %s}\nspec: {size: %s}\n", group, name, size)
	}
	l.Push(testenv.Files{
		"kinds/crd.yaml": widgetsOf(group),
		// Of three objects one of each kind goes.
		"app/kept-w.yaml": widget("kept-w", "1"), "app/goes-w.yaml": widget("goes-w", "1"),
		"app/changed.yaml": configMap("changed", "1"), "app/goes.yaml": configMap("goes", "1"),
		// The only widget goes.
		"last/last-w.yaml": widget("last-w", "1"), "last/rest.yaml": configMap("rest", "1"),
		"plain/plain.yaml": configMap("plain", "1"),
	})
	l.Source()
	l.Kustomization("kinds", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	l.Start()
	first := l.Push(testenv.Files{"README.md": "something\n"})
	l.Ready("kinds", first)
	owners := []string{"app", "last", "plain"}
	before, listed := map[string]string{}, map[string][]kustomizev1.ResourceRef{}
	for _, name := range owners {
		l.Kustomization(name, func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = l.Namespace })
	}
	for _, name := range owners {
		listed[name] = l.Ready(name, first).Status.Inventory.Entries
		maps.Copy(before, uids(l, name, kinds))
	}
	if len(before) != 7 {
		t.Fatalf("there are %d objects, want 7: %v", len(before), before)
	}
	deleted := deletions(l)

	if restart {
		l.Kill()
		wrong(group).inject(l, group)
		l.Start()
	} else {
		wrong(group).inject(l, group)
		// Drift of the definition has the kinds asked for again.
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		crd.SetName("widgets." + group)
		l.Merge(crd, `{"metadata":{"labels":{"drift":"yes"}}}`)
		lab.Wait(l, crd, "repaired", func(u *unstructured.Unstructured) bool { return u.GetLabels()["drift"] == "no" })
	}
	second := l.Push(testenv.Files{
		"app/kept-w.yaml": widget("kept-w", "2"), "app/goes-w.yaml": testenv.Delete,
		"app/changed.yaml": configMap("changed", "2"), "app/goes.yaml": testenv.Delete,
		"last/last-w.yaml": testenv.Delete, "last/rest.yaml": configMap("rest", "2"),
		"plain/plain.yaml": configMap("plain", "2"),
	})
	words = strings.ReplaceAll(words, "GROUP", group)
	held := map[string]bool{"app": words != "", "last": words != "", "plain": everybody}
	for _, name := range owners {
		if !held[name] {
			l.Ready(name, second)
			continue
		}
		k := lab.Wait(l, l.Named(name), "not Ready for want of discovery", func(k *kustomizev1.Kustomization) bool {
			ready := apimeta.FindStatusCondition(k.Status.Conditions, meta.ReadyCondition)
			return ready != nil && ready.Status == metav1.ConditionFalse && k.Status.LastAttemptedRevision == second && strings.Contains(ready.Message, words)
		})
		t.Logf("%s: %s", name, apimeta.FindStatusCondition(k.Status.Conditions, meta.ReadyCondition).Message)
		// It is tried again, to no other end.
		asked := l.Request(k)
		k = lab.Wait(l, l.Named(name), "with the request answered", func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == asked })
		if diff := cmp.Diff(listed[name], k.Status.Inventory.Entries); diff != "" {
			t.Errorf("%s: the inventory has changed:\n%s", name, diff)
		}
		now := uids(l, name, kinds)
		for id, uid := range before {
			if of := strings.HasPrefix; of(id, l.Namespace) && now[id] != uid && slices.ContainsFunc(listed[name], func(e kustomizev1.ResourceRef) bool { return e.ID == id }) {
				t.Errorf("%s: %s was deleted", name, id)
			}
		}
	}

	l.Proxy.Inject(nil)
	for _, name := range owners {
		l.Ready(name, second)
	}
	for _, name := range []string{"goes", "goes-w", "last-w"} {
		obj := client.Object(config(l, name))
		if strings.HasSuffix(name, "-w") {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(kinds[1])
			u.SetNamespace(l.Namespace)
			u.SetName(name)
			obj = u
		}
		l.Vanished(obj)
	}
	want := maps.Clone(deleted)
	want["configmaps goes"], want["widgets goes-w"], want["widgets last-w"] = 1, 1, 1
	if diff := cmp.Diff(want, deletions(l)); diff != "" {
		t.Errorf("deleted:\n%s", diff)
	}
	for _, name := range owners {
		for id, uid := range uids(l, name, kinds) {
			if before[id] != uid {
				t.Errorf("%s is another object now", id)
			}
		}
		if missing := l.Unlisted(name, kinds); len(missing) > 0 {
			t.Errorf("not in the inventory of %s: %v", name, missing)
		}
	}
}

// widgetsOf is a definition of widgets in a group.
func widgetsOf(group string) string {
	return fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.%[1]s, labels: {drift: "no"}}
spec:
  group: %[1]s
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, group)
}
