package apply_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

const job = `
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: $NS}
spec:
  suspend: true
  template:
    spec:
      restartPolicy: Never
      containers: [{name: once, image: "registry.test/once:1"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: beside, namespace: $NS}
data: {a: "1"}
`

func TestImmutableField(t *testing.T) {
	t.Parallel()
	changed := strings.NewReplacer("once:1", "once:2", `a: "1"`, `a: "2"`).Replace(job)
	annotated := strings.Replace(changed, "{name: once, namespace: $NS}", `{name: once, namespace: $NS, annotations: {owners.example.test/force: Enabled}}`, 1)
	alone := changed[:strings.Index(changed, "---")]
	for name, tc := range map[string]struct {
		docs  string
		force bool
		want  gitops.Action // of the Job; empty where it is refused
	}{
		"is refused with the remedy, and nothing is written":        {docs: changed},
		"is refused with the remedy when it is the only change":     {docs: alone + "---" + strings.SplitN(job, "---", 2)[1]},
		"recreates the object when the owner asks for force":        {docs: changed, force: true, want: gitops.ActionRecreate},
		"recreates the object when its annotation asks for force":   {docs: annotated, want: gitops.ActionRecreate},
		"recreates the object when it is the only change and force": {docs: alone + "---" + strings.SplitN(job, "---", 2)[1], force: true, want: gitops.ActionRecreate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustApply(job)
			ref := w.ref("batch", "Job", "once")
			was := w.must(ref).GetUID()
			w.options.Force = tc.force
			out := w.apply(tc.docs)
			if got := out.actions()[ref.String()]; got != tc.want {
				t.Fatalf("want %q, got %q and %v", tc.want, got, out.err)
			}
			is := w.must(ref)
			if tc.want == gitops.ActionRecreate {
				if is.GetUID() == was || out.err != nil {
					t.Errorf("not recreated, %v", out.err)
				}
				return
			}
			e := failure(t, out.err)
			if e.Kind != gitops.Invalid || e.Ref != ref || e.Origin.Line == 0 {
				t.Errorf("got kind %q, ref %v, origin %v", e.Kind, e.Ref, e.Origin)
			}
			for _, want := range []string{"spec.template", "immutable", "spec.force of Owner/", "owners.example.test/force: enabled"} {
				if !strings.Contains(out.err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, out.err)
				}
			}
			if strings.Contains(out.err.Error(), "registry.test") {
				t.Errorf("error prints the whole object: %v", out.err)
			}
			if got := field(w.must(w.ref("", "ConfigMap", "beside")), "data", "a"); got != "1" {
				t.Errorf("the object beside it was written: %v", got)
			}
			if len(w.inventory) != 2 {
				t.Errorf("inventory is %v", w.inventory)
			}
		})
	}
}

func TestImmutableFieldOfManyKinds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ docs, old, new string }{
		"selector of a Deployment": {app, "app: app}}\n  template:\n    metadata: {labels: {app: app}}", "app: web}}\n  template:\n    metadata: {labels: {app: web}}"},
		"service of a StatefulSet": {`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: app, namespace: $NS}
spec:
  serviceName: one
  replicas: 0
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: app, image: "registry.test/app:1"}]}
`, "serviceName: one", "serviceName: two"},
		"address of a Service": {app, "selector: {app: app}", "clusterIP: None\n  selector: {app: app}"},
		"role of a RoleBinding": {`
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: app, namespace: $NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: app, namespace: $NS}]
`, "name: view", "name: edit"},
		"data of an immutable ConfigMap": {`
apiVersion: v1
kind: ConfigMap
metadata: {name: app, namespace: $NS}
immutable: true
data: {a: "1"}
`, `a: "1"`, `a: "2"`},
		"type of a Secret": {`
apiVersion: v1
kind: Secret
metadata: {name: app, namespace: $NS}
type: one.example.test/a
`, "test/a", "test/b"},
		"size of a claim": {`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: app, namespace: $NS}
spec: {accessModes: [ReadWriteOnce], storageClassName: a, resources: {requests: {storage: 1Gi}}}
`, "storageClassName: a", "storageClassName: b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustApply(tc.docs)
			docs := strings.Replace(tc.docs, tc.old, tc.new, 1)
			if docs == tc.docs {
				t.Fatal("nothing replaced")
			}
			out := w.apply(docs)
			if gitops.KindOf(out.err) != gitops.Invalid || !strings.Contains(out.err.Error(), "force") {
				t.Errorf("want a refusal with the remedy, got %v", out.err)
			}
			w.options.Force = true
			out = w.apply(docs)
			recreated := 0
			for _, action := range out.actions() {
				if action == gitops.ActionRecreate {
					recreated++
				}
			}
			if out.err != nil || recreated != 1 {
				t.Errorf("with force: %v, %v", out.actions(), out.err)
			}
		})
	}
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	const settings = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: $NS}
data: {mine: "1"}
`
	merged := strings.Replace(settings, "namespace: $NS}", "namespace: $NS, annotations: {owners.example.test/ssa: merge}}", 1)
	for name, tc := range map[string]struct {
		docs string
		do   func(w *world)
		want map[string]any
	}{
		"a field that kubectl added is removed": {
			docs: settings,
			do: func(w *world) {
				w.env.Kubectl(w.t, "-n", w.namespace, "patch", "configmap/settings", "--type=merge", `-p={"data":{"extra":"x"}}`)
			},
			want: map[string]any{"mine": "1"},
		},
		"a field that kubectl added stays when the object asks to be merged": {
			docs: merged,
			do: func(w *world) {
				w.env.Kubectl(w.t, "-n", w.namespace, "patch", "configmap/settings", "--type=merge", `-p={"data":{"extra":"x"}}`)
			},
			want: map[string]any{"mine": "1", "extra": "x"},
		},
		"a field that another manager added stays": {
			docs: settings,
			do: func(w *world) {
				w.env.Kubectl(w.t, "-n", w.namespace, "patch", "configmap/settings", "--field-manager=autoscaler", "--type=merge", `-p={"data":{"extra":"x"}}`)
			},
			want: map[string]any{"mine": "1", "extra": "x"},
		},
		"a field of ours that kubectl changed is put back": {
			docs: settings,
			do: func(w *world) {
				w.env.Kubectl(w.t, "-n", w.namespace, "patch", "configmap/settings", "--type=merge", `-p={"data":{"mine":"2"}}`)
			},
			want: map[string]any{"mine": "1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustApply(tc.docs)
			tc.do(w)
			w.mustApply(tc.docs)
			obj := w.must(w.ref("", "ConfigMap", "settings"))
			if diff := cmp.Diff(tc.want, field(obj, "data")); diff != "" {
				t.Error(diff)
			}
			if out := w.mustApply(tc.docs); !out.plan.Empty() {
				t.Errorf("a second repair is planned: %v", out.plan.Stages)
			}
		})
	}
}

func TestAdoptsWhatKubectlApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env.Apply(t, strings.ReplaceAll(`
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: $NS, labels: {old: "yes"}}
data: {a: "1", gone: "1"}
`, "$NS", w.namespace))
	const docs = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: $NS}
data: {a: "2"}
`
	uid := w.must(w.ref("", "ConfigMap", "settings")).GetUID()
	w.env.Kubectl(t, "-n", w.namespace, "label", "configmap/settings", "example.org/mark=1", "--field-manager=somebody")
	w.mustApply(docs)
	obj := w.must(w.ref("", "ConfigMap", "settings"))
	if diff := cmp.Diff(map[string]any{"a": "2"}, field(obj, "data")); diff != "" {
		t.Error(diff)
	}
	if _, kept := obj.GetLabels()["example.org/mark"]; kept {
		t.Error("a label that is to be dropped stayed")
	}
	if _, kept := obj.GetAnnotations()["kubectl.kubernetes.io/last-applied-configuration"]; kept {
		t.Error("kubectl's annotation stayed")
	}
	if obj.GetLabels()["old"] != "" || obj.GetUID() != uid {
		t.Errorf("labels %v, uid %v", obj.GetLabels(), obj.GetUID())
	}
	for _, entry := range obj.GetManagedFields() {
		if entry.Manager != keys().Manager {
			t.Errorf("manager %q still has fields", entry.Manager)
		}
	}
}

// What the live object asks for counts as what the declaration does.
func TestLiveObjectAsksForForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const docs = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: $NS}
immutable: true
data: {a: %q}
`
	w.mustApply(fmt.Sprintf(docs, "1"))
	before := w.must(w.ref("", "ConfigMap", "settings"))
	if out := w.apply(fmt.Sprintf(docs, "2")); out.err == nil {
		t.Fatal("an immutable field was changed")
	}
	w.env.Kubectl(t, "-n", w.namespace, "annotate", "configmap/settings", keys().Force+"=enabled", "--field-manager=somebody")
	w.mustApply(fmt.Sprintf(docs, "2"))
	after := w.must(w.ref("", "ConfigMap", "settings"))
	if diff := cmp.Diff(map[string]any{"a": "2"}, field(after, "data")); diff != "" || after.GetUID() == before.GetUID() {
		t.Errorf("uid %s after %s; %s", after.GetUID(), before.GetUID(), diff)
	}
}

func TestTakeOverWhileOthersWrite(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		manager string // who annotates the object before each patch of ours
		writes  int64
		patches int64
		fails   bool
	}{
		"a manager that is none of ours is not in the way": {manager: "other", writes: 100, patches: 1},
		"one write between is overcome":                    {manager: "kubectl-patch", writes: 1, patches: 2},
		"a fight is given up":                              {manager: "kubectl-patch", writes: 100, patches: 3, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var patches atomic.Int64
			var w *world
			w = newWorldAt(t, testenv.Get(t), faulty(t, func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Header.Get("Content-Type") == "application/json-patch+json" {
					if n := patches.Add(1); n <= tc.writes {
						w.env.Kubectl(t, "-n", w.namespace, "annotate", "--field-manager="+tc.manager, "configmap/settings", fmt.Sprintf("n%d=x", n))
					}
				}
				next.ServeHTTP(rw, r)
			}))
			const docs = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: $NS}\ndata: {a: \"1\"}\n"
			w.mustApply(docs)
			w.env.Kubectl(t, "-n", w.namespace, "patch", "configmap/settings", "--type=merge", `-p={"data":{"extra":"x"}}`)
			out := w.apply(docs)
			if (out.err != nil) != tc.fails || patches.Load() != tc.patches {
				t.Errorf("%d patches, %v", patches.Load(), out.err)
			}
			if out.err != nil && gitops.KindOf(out.err) != gitops.Transient {
				t.Errorf("kind is %q of %v", gitops.KindOf(out.err), out.err)
			}
			obj := w.must(w.ref("", "ConfigMap", "settings"))
			if _, left := obj.Object["data"].(map[string]any)["extra"]; left != tc.fails {
				t.Errorf("data is %v", obj.Object["data"])
			}
			if kept := obj.GetAnnotations()["n1"] != ""; kept != (tc.manager == "other" || tc.fails) {
				t.Errorf("annotations are %v", obj.GetAnnotations())
			}
		})
	}
}

func TestCompareWritesOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(app)
	version := w.must(w.ref("", "ServiceAccount", "app")).GetResourceVersion()
	w.applied, w.blind = map[gitops.ObjectRef]plan.Applied{}, true // a restart, and no watch yet
	out := w.mustApply(strings.Replace(app, "port: 80", "port: 88", 1))
	want := map[string]gitops.Action{
		"ServiceAccount/" + w.namespace + "/app": gitops.ActionUnchanged,
		"Service/" + w.namespace + "/app":        gitops.ActionConfigure,
		"Deployment/" + w.namespace + "/app":     gitops.ActionUnchanged,
	}
	if diff := cmp.Diff(want, out.actions()); diff != "" {
		t.Error(diff)
	}
	if got := w.must(w.ref("", "ServiceAccount", "app")).GetResourceVersion(); got != version {
		t.Error("an equal object was written")
	}
	w.blind = false
	if out := w.mustApply(strings.Replace(app, "port: 80", "port: 88", 1)); !out.plan.Empty() {
		t.Errorf("what was compared is not remembered: %v", out.plan.Stages)
	}
	w.env.Kubectl(t, "-n", w.namespace, "label", "deployment/app", "--field-manager=other", "x=y")
	w.applied = map[gitops.ObjectRef]plan.Applied{}
	if out := w.mustApply(strings.Replace(app, "port: 80", "port: 88", 1)); out.actions()["Deployment/"+w.namespace+"/app"] != gitops.ActionUnchanged {
		t.Errorf("another manager's label made a write: %v", out.actions())
	}
}

func TestObjectsThatAskToBeLeftAlone(t *testing.T) {
	t.Parallel()
	const docs = `
apiVersion: v1
kind: ConfigMap
metadata: {name: once, namespace: $NS, annotations: {owners.example.test/ssa: IfNotPresent}}
data: {a: declared}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ignored, namespace: $NS, annotations: {owners.example.test/ssa: ignore}}
data: {a: declared}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: paused-live, namespace: $NS}
data: {a: declared}
`
	w := newWorld(t)
	w.env.Apply(t, strings.ReplaceAll(`
apiVersion: v1
kind: ConfigMap
metadata: {name: once, namespace: $NS}
data: {a: live}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: paused-live, namespace: $NS, annotations: {owners.example.test/reconcile: disabled}}
data: {a: live}
`, "$NS", w.namespace))
	for name, blind := range map[string]bool{"when the plan sees them": false, "when the plan knows nothing": true} {
		w.blind = blind
		out := w.mustApply(docs)
		for _, object := range []string{"once", "paused-live"} {
			if got := field(w.must(w.ref("", "ConfigMap", object)), "data", "a"); got != "live" {
				t.Errorf("%s: %s was written", name, object)
			}
		}
		if w.find(w.ref("", "ConfigMap", "ignored")) != nil {
			t.Errorf("%s: the ignored object was created", name)
		}
		if len(w.inventory) != 3 {
			t.Errorf("%s: inventory %v, %v", name, w.inventory, out.actions())
		}
	}
	// In the eyes of a label-filtered watch they do not exist.
	p := w.compute(w.manifests(docs))
	for i := range p.Stages {
		for j := range p.Stages[i].Changes {
			p.Stages[i].Changes[j].Action, p.Stages[i].Changes[j].Basis = gitops.ActionCreate, gitops.BasisChanged
		}
	}
	if done, err := w.applier.Run(t.Context(), w.request(p)); err != nil || field(w.must(w.ref("", "ConfigMap", "once")), "data", "a") != "live" {
		t.Errorf("%v, %v", done, err)
	}
}
