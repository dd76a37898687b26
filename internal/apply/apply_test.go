package apply_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

const app = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: app, namespace: $NS}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: $NS}
spec:
  selector: {app: app}
  ports: [{name: http, port: 80, protocol: TCP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: $NS}
spec:
  replicas: 0
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      serviceAccountName: app
      containers: [{name: app, image: "registry.test/app:1"}]
`

func TestInstallsAndThenHasNothingToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out := w.mustApply(app)
	want := map[string]gitops.Action{
		"ServiceAccount/" + w.namespace + "/app": gitops.ActionCreate,
		"Service/" + w.namespace + "/app":        gitops.ActionCreate,
		"Deployment/" + w.namespace + "/app":     gitops.ActionCreate,
	}
	if diff := cmp.Diff(want, out.actions()); diff != "" {
		t.Error(diff)
	}
	for _, d := range out.done {
		if len(d.Changed) > 0 {
			t.Errorf("%s: the answer differs in %v", d.Ref, d.Changed)
		}
	}
	var again outcome
	sent := w.requests(func() { again = w.mustApply(app) })
	if !again.plan.Empty() || len(sent) > 0 {
		t.Errorf("a second run plans %v and sends %v", again.plan.Stages, sent)
	}
}

func TestRequestsPerObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.client.Invalidate()
	w.mustApply(app) // warms the mapper and the memory of namespaces
	scaled := strings.Replace(app, "replicas: 0", "replicas: 1", 1)
	got := w.requests(func() { w.mustApply(scaled) })
	if diff := cmp.Diff([]string{"patch deployments"}, got); diff != "" {
		t.Errorf("one changed object: %s", diff)
	}
	two := strings.Replace(strings.Replace(app, "replicas: 0", "replicas: 2", 1), "port: 80", "port: 81", 1)
	got = w.requests(func() { w.mustApply(two) })
	slices.Sort(got)
	if diff := cmp.Diff([]string{"dry-run patch deployments", "dry-run patch services", "patch deployments", "patch services"}, got); diff != "" {
		t.Errorf("two changed objects: %s", diff)
	}
	w.env.Kubectl(t, "-n", w.namespace, "scale", "deployment/app", "--replicas=5")
	got = w.requests(func() { w.mustApply(two) })
	if diff := cmp.Diff([]string{"patch deployments"}, got); diff != "" {
		t.Errorf("repair: %s", diff)
	}
	w.env.Kubectl(t, "-n", w.namespace, "delete", "service/app")
	got = w.requests(func() { w.mustApply(two) })
	if diff := cmp.Diff([]string{"patch services"}, got); diff != "" {
		t.Errorf("repair of a deleted object: %s", diff)
	}
	w.applied = nil
	w.applied = map[gitops.ObjectRef]plan.Applied{}
	got = w.requests(func() { w.mustApply(two) })
	slices.Sort(got)
	if diff := cmp.Diff([]string{
		"dry-run patch deployments", "dry-run patch serviceaccounts", "dry-run patch services",
		"get deployments", "get serviceaccounts", "get services",
	}, got); diff != "" {
		t.Errorf("compare: %s", diff)
	}
}

func TestDefinitionNamespaceAndTheirObjectsInOneSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	group := strings.ReplaceAll(w.namespace, "-", "") + ".example.test"
	docs := strings.ReplaceAll(`
apiVersion: $GROUP/v1
kind: Widget
metadata: {name: first, namespace: $NS-inner}
spec: {size: 3}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: $NS-inner}
data: {a: b}
---
apiVersion: v1
kind: Namespace
metadata: {name: $NS-inner}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.$GROUP}
spec:
  group: $GROUP
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}}}
`, "$GROUP", group)
	out := w.mustApply(docs)
	if len(out.done) != 4 {
		t.Errorf("want 4 changes, got %v", out.actions())
	}
	widget := gitops.ObjectRef{Group: group, Kind: "Widget", Namespace: w.namespace + "-inner", Name: "first"}
	if got := field(w.must(widget), "spec", "size"); got != int64(3) {
		t.Errorf("size is %v", got)
	}

	// The definition gets a field and an object uses it at once.
	docs = strings.Replace(docs, "properties: {size: {type: integer}}", "properties: {size: {type: integer}, colour: {type: string}}", 1)
	docs = strings.Replace(docs, "spec: {size: 3}", "spec: {size: 3, colour: red}", 1)
	w.mustApply(docs)
	if got := field(w.must(widget), "spec", "colour"); got != "red" {
		t.Errorf("colour is %v", got)
	}

	out = w.mustApply("")
	if len(out.done) != 4 || len(w.inventory) != 0 {
		t.Errorf("pruned %v, left %v", out.actions(), w.inventory)
	}
	if last := out.done[3].Ref.Kind; last != "CustomResourceDefinition" {
		t.Errorf("the definition is deleted last, not %s", last)
	}
}

func TestNothingIsWrittenWhenAnObjectIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out := w.apply(app + `
---
apiVersion: v1
kind: ConfigMap
metadata: {name: wrong, namespace: $NS}
data: {a: {b: c}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: wrong, namespace: $NS}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: b}}
    spec: {containers: [{name: app, image: "registry.test/app:1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: typo, namespace: $NS}
spec: {ports: [{port: 80, targetPrt: 90}]}
`)
	if out.err == nil || len(out.done) > 0 {
		t.Fatalf("want a refusal, got %v", out.done)
	}
	if kind := gitops.KindOf(out.err); kind != gitops.Invalid {
		t.Errorf("kind is %q of %v", kind, out.err)
	}
	for _, want := range []string{
		"3 objects were refused", "ConfigMap/" + w.namespace + "/wrong (apps/all.yaml:26)", "data",
		"Deployment/" + w.namespace + "/wrong (apps/all.yaml:31)", "selector", "Service/" + w.namespace + "/typo", "targetPrt",
	} {
		if !strings.Contains(out.err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, out.err)
		}
	}
	if w.find(w.ref("", "ServiceAccount", "app")) != nil {
		t.Error("an object was written")
	}
}

func TestWriteAheadComesBeforeTheFirstWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refuse := errors.New("no room for the inventory")
	w.writeAhead = func(context.Context) error { return refuse }
	if out := w.apply(app); !errors.Is(out.err, refuse) || len(out.done) > 0 {
		t.Errorf("got %v and %v", out.err, out.done)
	}
	if w.find(w.ref("", "ServiceAccount", "app")) != nil {
		t.Error("an object was written")
	}
	calls := 0
	w.writeAhead = func(context.Context) error {
		calls++
		if w.find(w.ref("", "ServiceAccount", "app")) != nil {
			t.Error("an object was written before the inventory")
		}
		return nil
	}
	w.mustApply(app)
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
	w.applied = map[gitops.ObjectRef]plan.Applied{}
	w.mustApply(app)
	if calls != 1 {
		t.Errorf("called for a run that writes nothing")
	}
}

func TestCancellationBetweenWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// One write at a time: what is under way at the cancellation may end well.
	w.applier.Parallel = 1
	ctx, cancel := context.WithCancel(t.Context())
	req := w.request(w.compute(w.manifests(app)))
	record := req.Record
	req.Record = func(d gitops.Done) { record(d); cancel() }
	done, err := w.applier.Run(ctx, req)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(done) != 1 || w.find(w.ref("apps", "Deployment", "app")) != nil {
		t.Errorf("went on after the cancellation: %v", done)
	}
}
