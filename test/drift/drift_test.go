// Package drift_test changes managed objects in every way that somebody can, and
// looks at what the operator does about it, and what it leaves alone.
package drift_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// config and deployment are the manifests that rows change.
func config(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  labels:\n    ours: \"yes\"\ndata:\n  key: value\n  other: value\n"
}

func deployment(name string) string {
	return strings.ReplaceAll(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      containers:
      - name: web
        image: example.com/web:1
        args: [serve, --fast]
        env:
        - {name: A, value: "1"}
        - {name: B, value: "2"}
`, "NAME", name)
}

// subject is an object that is to drift.
type subject struct {
	*lab.Lab
	*unstructured.Unstructured
}

// merge changes the object as a field manager.
func (s subject) merge(manager, patch string) {
	s.Helper()
	s.Check(s.Client.Patch(s.Context(), s.Unstructured, client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner(manager)))
}

// json changes the object by a JSON patch.
func (s subject) json(patch string) {
	s.Helper()
	s.Check(s.Client.Patch(s.Context(), s.Unstructured, client.RawPatch(types.JSONPatchType, []byte(patch)), client.FieldOwner("test")))
}

// apply applies a few fields of the object as a field manager, by force.
func (s subject) apply(manager, fields string) {
	s.Helper()
	body := fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"namespace":%q},%s}`,
		s.GetAPIVersion(), s.GetKind(), s.GetName(), s.GetNamespace(), fields)
	s.Check(s.Client.Patch(s.Context(), s.Unstructured, client.RawPatch(types.ApplyPatchType, []byte(body)),
		client.FieldOwner(manager), client.ForceOwnership))
}

// named is an object of the same name, to be read or waited for.
func (s subject) named() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(s.GroupVersionKind())
	u.SetNamespace(s.GetNamespace())
	u.SetName(s.GetName())
	return u
}

// writes are the operator's writes to the object so far.
func (s subject) writes() (all []testenv.Request) {
	s.Helper()
	for _, w := range s.Writes() {
		if w.ObjectRef.Name == s.GetName() && w.ObjectRef.Resource == strings.ToLower(s.GetKind())+"s" {
			all = append(all, w)
		}
	}
	return all
}

// content is what an object says, without what the API server keeps of it.
func content(u *unstructured.Unstructured) string {
	copied := maps.Clone(u.Object)
	delete(copied, "status")
	annotations := u.GetAnnotations()
	delete(annotations, "deployment.kubernetes.io/revision") // it counts
	copied["metadata"] = map[string]any{"labels": u.GetLabels(), "annotations": annotations, "finalizers": u.GetFinalizers()}
	text, err := json.MarshalIndent(copied, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// owned tells whether an object has our Apply entry.
func owned(u *unstructured.Unstructured) bool {
	for _, e := range u.GetManagedFields() {
		if e.Manager == "kustomize-controller" && e.Operation == metav1.ManagedFieldsOperationApply {
			return true
		}
	}
	return false
}

// repaired waits until the object is as it was, and ours.
func (s subject) repaired(was string) *unstructured.Unstructured {
	s.Helper()
	return lab.Wait(s.Lab, s.named(), "as it was:\n"+was, func(u *unstructured.Unstructured) bool {
		return content(u) == was && owned(u) && u.GetDeletionTimestamp() == nil
	})
}

// applied installs one object a row, each of its own name, and gives them.
func applied(t *testing.T, rows []string, kindOf func(string) string) (l *lab.Lab, of map[string]subject) {
	t.Helper()
	l = lab.New(t)
	files, names := testenv.Files{}, map[string]string{}
	for i, row := range rows {
		kind := kindOf(row)
		names[row] = fmt.Sprintf("%s-%d", strings.ToLower(kind), i)
		text := config(names[row])
		if kind == "Deployment" {
			text = deployment(names[row])
		}
		files["app/"+names[row]+".yaml"] = text
	}
	revision := l.Push(files)
	l.Source()
	l.Kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace, k.Spec.Wait = l.Namespace, true })
	l.Start()
	l.Ready("app", revision)
	of = map[string]subject{}
	for _, row := range rows {
		u := &unstructured.Unstructured{}
		u.SetAPIVersion("v1")
		if u.SetKind(kindOf(row)); u.GetKind() == "Deployment" {
			u.SetAPIVersion("apps/v1")
		}
		l.Check(l.Client.Get(l.Context(), l.Key(names[row]), u))
		of[row] = subject{l, u}
	}
	return l, of
}

// on makes a subject belong to a subtest.
func (s subject) on(t *testing.T) subject {
	s.Lab = s.Lab.On(t)
	return s
}

func TestRepaired(t *testing.T) {
	t.Parallel()
	type row struct {
		kind   string
		change func(s subject)
		// writes is how many the repair may take, 1 where it is 0. To take fields
		// over takes three, and more where the deployment controller is in the way.
		writes int
		// another is set where the object is another one afterwards.
		another bool
	}
	table := map[string]row{
		"a field changed by update": {kind: "ConfigMap", change: func(s subject) {
			s.Check(unstructured.SetNestedField(s.Object, "drift", "data", "key"))
			s.Check(s.Client.Update(s.Context(), s.Unstructured, client.FieldOwner("test")))
		}},
		"a field changed by patch":           {kind: "ConfigMap", change: func(s subject) { s.merge("test", `{"data":{"key":"drift"}}`) }},
		"a field changed by another's apply": {kind: "ConfigMap", change: func(s subject) { s.apply("test", `"data":{"key":"drift"}`) }},
		"a field changed by an apply of our name": {kind: "ConfigMap", change: func(s subject) {
			// It is seen by the time of our entry, in whole seconds.
			was := owning(s.Unstructured)
			for i := 0; owning(s.Unstructured) == was; i++ {
				s.apply("kustomize-controller", fmt.Sprintf(
					`"metadata":{"labels":{"ours":"yes","kustomize.toolkit.fluxcd.io/name":"app","kustomize.toolkit.fluxcd.io/namespace":%q},"name":%q,"namespace":%q},"data":{"key":"drift %d","other":"value"}`,
					s.GetNamespace(), s.GetName(), s.GetNamespace(), i))
			}
		}},
		"the scale": {kind: "Deployment", change: func(s subject) {
			s.Check(s.Client.SubResource("scale").Patch(s.Context(), s.Unstructured.DeepCopy(),
				client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":3}}`)), client.FieldOwner("test")))
		}},
		"a field removed": {kind: "ConfigMap", change: func(s subject) { s.merge("test", `{"data":{"key":null}}`) }},
		"a list item changed": {kind: "Deployment", change: func(s subject) {
			s.json(`[{"op":"replace","path":"/spec/template/spec/containers/0/env/1/value","value":"3"}]`)
		}},
		"a list item removed": {kind: "Deployment", change: func(s subject) { s.json(`[{"op":"remove","path":"/spec/template/spec/containers/0/env/0"}]`) }},
		"an atomic list": {kind: "Deployment", change: func(s subject) {
			s.json(`[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--slow"}]`)
		}},
		"a label of ours":         {kind: "ConfigMap", change: func(s subject) { s.merge("test", `{"metadata":{"labels":{"ours":"no"}}}`) }},
		"our tracking label gone": {kind: "ConfigMap", change: func(s subject) { s.merge("test", `{"metadata":{"labels":{"kustomize.toolkit.fluxcd.io/name":null}}}`) }},
		"our labels all gone":     {kind: "ConfigMap", change: func(s subject) { s.merge("test", `{"metadata":{"labels":null}}`) }},
		"our tracking label false": {kind: "ConfigMap", change: func(s subject) {
			s.merge("test", `{"metadata":{"labels":{"kustomize.toolkit.fluxcd.io/name":"nobody"}}}`)
		}},
		"the object deleted": {kind: "ConfigMap", another: true, change: func(s subject) {
			s.Check(s.Client.Delete(s.Context(), s.Unstructured))
		}},
		"managedFields cleared": {kind: "ConfigMap", writes: 3, change: func(s subject) {
			s.merge("test", `{"metadata":{"managedFields":[{}]}}`)
		}},
		"managedFields cleared and a field changed": {kind: "ConfigMap", writes: 3, change: func(s subject) {
			s.merge("test", `{"metadata":{"managedFields":[{}]},"data":{"key":"drift"}}`)
		}},
		"a field added by kubectl":       {kind: "ConfigMap", writes: 3, change: func(s subject) { s.merge("kubectl-edit", `{"data":{"added":"drift"}}`) }},
		"an annotation added by kubectl": {kind: "Deployment", writes: 6, change: func(s subject) { s.merge("kubectl-annotate", `{"metadata":{"annotations":{"added":"drift"}}}`) }},
		"a list item added by kubectl": {kind: "Deployment", writes: 6, change: func(s subject) {
			s.Check(s.Client.Patch(s.Context(), s.Unstructured, client.RawPatch(types.StrategicMergePatchType,
				[]byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"C","value":"3"}]}]}}}}`)), client.FieldOwner("kubectl-set")))
		}},
	}
	l, of := applied(t, slices.Sorted(maps.Keys(table)), func(name string) string { return table[name].kind })
	var mu sync.Mutex // guards states
	states := map[string]string{}
	l.Run("rows", func(t *testing.T) {
		for name, r := range table {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := of[name].on(t)
				was, uid := content(s.Unstructured), s.GetUID()
				mu.Lock()
				states[name] = was
				mu.Unlock()
				r.change(s)
				is := s.repaired(was)
				if same := is.GetUID() == uid; same == r.another {
					t.Errorf("uid %s was %s", is.GetUID(), uid)
				}
			})
		}
	})
	compared(l)
	for name, r := range table {
		s := of[name]
		if n := len(s.writes()) - 1; n > max(r.writes, 1) || n == 0 {
			t.Errorf("%s: %d writes: %v", name, n, s.writes()[1:])
		}
		if diff := cmp.Diff(states[name], content(s.read())); diff != "" {
			t.Errorf("%s: it did not stay as it was:\n%s", name, diff)
		}
	}
}

func TestLeftAlone(t *testing.T) {
	t.Parallel()
	type row struct {
		kind   string
		change func(s subject)
	}
	table := map[string]row{
		"a field added by flux-client-side-apply": {"ConfigMap", func(s subject) { s.merge("flux-client-side-apply", `{"data":{"added":"1"}}`) }},
		"a field added by another manager":        {"ConfigMap", func(s subject) { s.merge("other", `{"data":{"added":"1"}}`) }},
		"a field added by another's apply":        {"ConfigMap", func(s subject) { s.apply("other", `"data":{"added":"1"}`) }},
		"a label and an annotation added":         {"ConfigMap", func(s subject) { s.merge("other", `{"metadata":{"labels":{"a":"1"},"annotations":{"a":"1"}}}`) }},
		"a list item added": {"Deployment", func(s subject) {
			s.json(`[{"op":"add","path":"/spec/template/spec/containers/0/env/-","value":{"name":"C","value":"3"}}]`)
		}},
		"our own value applied by another": {"ConfigMap", func(s subject) { s.apply("other", `"data":{"key":"value","added":"1"}`) }},
		"a finalizer added":                {"ConfigMap", func(s subject) { s.merge("other", `{"metadata":{"finalizers":["example.com/keep"]}}`) }},
		"status": {"Deployment", func(s subject) {
			s.Check(s.Client.Status().Patch(s.Context(), s.Unstructured, client.RawPatch(types.MergePatchType,
				[]byte(`{"status":{"conditions":[{"type":"Strange","status":"True"}]}}`)), client.FieldOwner("kubectl-edit")))
		}},
		"kubectl rollout restart": {"Deployment", func(s subject) {
			s.Cluster.Kubectl(s, "--namespace", s.GetNamespace(), "rollout", "restart", "deployment/"+s.GetName())
			s.Check(s.Client.Get(s.Context(), client.ObjectKeyFromObject(s.Unstructured), s.Unstructured))
		}},
	}
	l, of := applied(t, slices.Sorted(maps.Keys(table)), func(name string) string { return table[name].kind })
	var mu sync.Mutex // guards states
	states := map[string]string{}
	l.Run("rows", func(t *testing.T) {
		for name, r := range table {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := of[name].on(t)
				was := content(s.Unstructured)
				r.change(s)
				is := content(s.Unstructured)
				if is == was && name != "status" {
					t.Fatal("nothing was changed")
				}
				// What comes in order is not answered before a deliberate drift is.
				s.merge("test", `{"metadata":{"labels":{"kustomize.toolkit.fluxcd.io/name":"drift"}}}`)
				s.repaired(is)
				mu.Lock()
				states[name] = is
				mu.Unlock()
			})
		}
	})
	compared(l)
	for name := range table {
		s := of[name]
		if n := len(s.writes()); n != 2 {
			t.Errorf("%s: %d writes, want that of the install and that of the deliberate drift: %v", name, n, s.writes())
		}
		if diff := cmp.Diff(states[name], content(s.read())); diff != "" {
			t.Errorf("%s: it did not stay as it was:\n%s", name, diff)
		}
	}
}

// read reads the object.
func (s subject) read() *unstructured.Unstructured {
	s.Helper()
	u := s.named()
	s.Check(s.Client.Get(s.Context(), client.ObjectKeyFromObject(u), u))
	return u
}

// compared waits until the operator has dealt with all that it saw before now: it
// answers a request, which has every object compared and must not find anything.
func compared(l *lab.Lab) {
	l.Helper()
	asked := l.Request(l.Named("app"))
	lab.Wait(l, l.Named("app"), "with a request answered", func(k *kustomizev1.Kustomization) bool {
		return k.Status.LastHandledReconcileAt == asked
	})
}

// owning is the time of our Apply entry.
func owning(u *unstructured.Unstructured) string {
	for _, e := range u.GetManagedFields() {
		if e.Manager == "kustomize-controller" && e.Operation == metav1.ManagedFieldsOperationApply {
			return e.Time.String()
		}
	}
	return ""
}
