package observe

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/ownership"
)

// change is what somebody does to an applied object.
type change struct {
	manifest string
	do       func(f *fixture, live *unstructured.Unstructured)
	// want tells whether what is told is what it should be.
	want func(o Observation) bool
}

func fieldsChanged(o Observation) bool {
	return o.After.Exists() && o.Before.Fields != o.After.Fields && o.Before.UID == o.After.UID
}

func gone(o Observation) bool { return o.Before.Exists() && !o.After.Exists() }

func patched(kind types.PatchType, patch, manager string, subresources ...string) func(*fixture, *unstructured.Unstructured) {
	return func(f *fixture, live *unstructured.Unstructured) {
		f.patch(live, kind, patch, manager, subresources...)
	}
}

func edited(manager string, edit func(object map[string]any)) func(*fixture, *unstructured.Unstructured) {
	return func(f *fixture, live *unstructured.Unstructured) {
		edit(live.Object)
		if _, err := f.resource(live).Update(f.t.Context(), live, metav1.UpdateOptions{FieldManager: manager}); err != nil {
			f.t.Fatal(err)
		}
	}
}

func TestDriftIsTold(t *testing.T) {
	t.Parallel()
	const merge, strategic, apply, jsonPatch = types.MergePatchType, types.StrategicMergePatchType, types.ApplyPatchType, types.JSONPatchType
	for name, row := range map[string]change{
		"a field changed by an update": {config, edited("somebody", func(o map[string]any) { o["data"].(map[string]any)["a"] = "x" }), fieldsChanged},
		"a field changed by a patch":   {config, patched(merge, `{"data":{"a":"x"}}`, "somebody"), fieldsChanged},
		"a field changed by an apply of another manager": {config,
			patched(apply, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"x"}}`, "somebody"), fieldsChanged},
		"a field changed by /scale": {deployment,
			patched(merge, `{"spec":{"replicas":1}}`, "somebody", "scale"), fieldsChanged},
		"a field of a spec":      {deployment, patched(merge, `{"spec":{"replicas":1}}`, "somebody"), fieldsChanged},
		"a field removed":        {config, patched(merge, `{"data":{"a":null}}`, "somebody"), fieldsChanged},
		"a list item changed":    {deployment, patched(strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"x"}]}}}}`, "somebody"), fieldsChanged},
		"a list item removed":    {deployment, patched(jsonPatch, `[{"op":"remove","path":"/spec/template/spec/containers/0/env/1"}]`, "somebody"), fieldsChanged},
		"an atomic list changed": {deployment, patched(jsonPatch, `[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"y"}]`, "somebody"), fieldsChanged},
		"a label that we own":    {config, patched(merge, `{"metadata":{"labels":{"app":"x"}}}`, "somebody"), fieldsChanged},
		"the label removed":      {config, patched(merge, `{"metadata":{"labels":{"example.test/name":null}}}`, "somebody"), gone},
		"another owner's label":  {config, patched(merge, `{"metadata":{"labels":{"example.test/name":"p"}}}`, "somebody"), func(o Observation) bool { return fieldsChanged(o) && o.After.Owner.Name == "p" }},
		"managedFields cleared":  {config, patched(merge, `{"metadata":{"managedFields":[{}]}}`, "somebody"), func(o Observation) bool { return fieldsChanged(o) && o.After.AppliedAt == 0 }},
		"the object deleted": {config, func(f *fixture, live *unstructured.Unstructured) {
			if err := f.resource(live).Delete(f.t.Context(), live.GetName(), metav1.DeleteOptions{}); err != nil {
				f.t.Fatal(err)
			}
		}, gone},
		"the object being deleted, kept by a finalizer": {config, func(f *fixture, live *unstructured.Unstructured) {
			f.patch(live, merge, `{"metadata":{"finalizers":["example.test/keep"]}}`, "somebody")
			if err := f.resource(live).Delete(f.t.Context(), live.GetName(), metav1.DeleteOptions{}); err != nil {
				f.t.Fatal(err)
			}
			f.t.Cleanup(func() { f.release(live) })
		}, func(o Observation) bool { return o.After.Deleting && !o.Before.Deleting }},
		"a field added by kubectl edit": {config, patched(merge, `{"data":{"z":"1"}}`, "kubectl-edit"),
			func(o Observation) bool {
				return slices.Equal(o.After.TakeOver, []string{"kubectl-edit"}) && o.Before.Fields == o.After.Fields
			}},
		"a field added by kubectl apply --server-side": {config,
			patched(apply, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"z":"1"}}`, "kubectl"),
			func(o Observation) bool { return slices.Equal(o.After.TakeOver, []string{"kubectl"}) }},
		"a field of our own manager's update": {config, patched(merge, `{"data":{"z":"1"}}`, "applier"),
			func(o Observation) bool { return slices.Equal(o.After.TakeOver, []string{"applier"}) }},
		"a wish in an annotation": {config, patched(merge, `{"metadata":{"annotations":{"example.test/apply":"Ignore"}}}`, "somebody"),
			func(o Observation) bool { return o.Before.Policy != o.After.Policy }},
	} {
		for _, health := range []bool{false, true} {
			kind := map[bool]string{false: "metadata", true: "whole"}[health]
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, nil)
				live := f.apply(row.manifest)
				f.sync(f.need(live, health))
				row.do(f, live)
				o := f.observation()
				for o.Before.Health != o.After.Health && !row.want(o) {
					o = f.observation()
				}
				if o.Ref != refOf(live) || !row.want(o) {
					t.Errorf("told:\nbefore %+v\nafter  %+v", o.Before, o.After)
				}
				current, err := f.resource(live).Get(t.Context(), live.GetName(), metav1.GetOptions{})
				if err == nil && o.Before.Fields != o.After.Fields && ownership.NamesExactly(current.GetManagedFields(), testKeys(), f.owned(row.manifest)) {
					t.Errorf("our entry is said to name exactly what we applied:\n%v", current.GetManagedFields())
				}
				if now, known := f.Live(o.Ref); !known || (now.Fields != o.After.Fields && now.Health == o.After.Health) {
					t.Errorf("Live = %+v, %v, want what was told", now, known)
				}
			})
		}
	}
}

func TestWhatIsNoDriftIsNotTold(t *testing.T) {
	t.Parallel()
	const merge, strategic, apply = types.MergePatchType, types.StrategicMergePatchType, types.ApplyPatchType
	restart, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
		"annotations": map[string]any{"kubectl.kubernetes.io/restartedAt": time.Unix(1700000000, 0).Format(time.RFC3339)}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]change{
		"a field added by another manager": {config, patched(merge, `{"data":{"z":"1"}}`, "flux-client-side-apply"), nil},
		"a field added by another manager's apply": {config,
			patched(apply, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"z":"1"}}`, "somebody"), nil},
		"a field shared by another manager's apply": {config,
			patched(apply, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"1"}}`, "somebody"), nil},
		"a label and an annotation": {config, patched(merge, `{"metadata":{"labels":{"x":"y"},"annotations":{"x":"y"}}}`, "somebody"), nil},
		"a field in an owned item":  {deployment, patched(strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"c","imagePullPolicy":"Never"}]}}}}`, "somebody"), nil},
		"another list item":         {deployment, patched(strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"s"}]}}}}`, "somebody"), nil},
		"a field that we leave out": {deployment, patched(merge, `{"spec":{"minReadySeconds":5}}`, "somebody"), nil},
		"status":                    {deployment, patched(merge, `{"status":{"observedGeneration":1}}`, "somebody", "status"), nil},
		"status by kubectl":         {deployment, patched(merge, `{"status":{"collisionCount":7}}`, "kubectl-patch", "status"), nil},
		"a rollout restart":         {deployment, patched(strategic, string(restart), "kubectl-rollout"), nil},
		"an apply that changes nothing": {config, func(f *fixture, _ *unstructured.Unstructured) {
			f.apply(config)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			live := f.apply(row.manifest)
			f.sync(f.need(live, false))
			row.do(f, live)
			for _, o := range f.settle(live) {
				t.Errorf("told:\nbefore %+v\nafter  %+v", o.Before, o.After)
			}
			current, err := f.resource(live).Get(t.Context(), live.GetName(), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !ownership.NamesExactly(current.GetManagedFields(), testKeys(), f.owned(row.manifest)) {
				t.Error("our entry is said to name something else than what we applied")
			}
			if name != "an apply that changes nothing" && current.GetResourceVersion() == live.GetResourceVersion() {
				t.Error("the change has changed nothing")
			}
		})
	}
}

// release lets an object go that a finalizer keeps, also after the test's context
// has ended.
func (f *fixture) release(live *unstructured.Unstructured) {
	_, err := f.resource(live).Patch(context.WithoutCancel(f.t.Context()), live.GetName(), types.MergePatchType,
		[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if err != nil {
		f.t.Error(err)
	}
}
