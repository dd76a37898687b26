package apply_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestAdmissionThatChangesOurFieldsIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env.Apply(t, strings.ReplaceAll(`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: $NS}
spec:
  reinvocationPolicy: Never
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [configmaps], operations: [CREATE, UPDATE]}]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{data: {'fought': 'theirs'}}"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: $NS}
spec: {policyName: $NS}
`, "$NS", w.namespace))
	w.awaitMutation()
	out := w.mustApply(`
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: $NS}
data: {fought: ours, quiet: ours}
`)
	if diff := cmp.Diff([]string{".data.fought"}, out.done[0].Changed); diff != "" {
		t.Error(diff)
	}
}

// awaitMutation waits until the policy of the test changes a ConfigMap.
func (w *world) awaitMutation() {
	w.t.Helper()
	client := w.observer()
	res, err := client.Resource(w.t.Context(), gitops.GroupKind{Kind: "ConfigMap"}, "v1")
	if err != nil {
		w.t.Fatal(err)
	}
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"probe","namespace":%q}}`, w.namespace)
	tick, give := time.NewTicker(20*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		obj, _, err := client.Apply(w.t.Context(), res, w.namespace, "probe", []byte(body), cluster.ApplyOptions{DryRun: true, FieldManager: "observer"})
		if err == nil && field(obj, "data", "fought") != nil {
			return
		}
		select {
		case <-give:
			w.t.Fatalf("the policy never came into force: %v", err)
		case <-tick.C:
		}
	}
}

func TestForceDeletesNothingThatIsWrongBeside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(job)
	uid := w.must(w.ref("batch", "Job", "once")).GetUID()
	w.options.Force = true
	for name, docs := range map[string]string{
		"beside another change": strings.NewReplacer("once:1", "once:2", "suspend: true", "suspend: true\n  parallelism: -1", `a: "1"`, `a: "3"`).Replace(job),
		"alone":                 strings.NewReplacer("once:1", "once:2", "suspend: true", "suspend: true\n  parallelism: -1").Replace(job),
	} {
		out := w.apply(docs)
		if gitops.KindOf(out.err) != gitops.Invalid || len(out.done) > 0 {
			t.Errorf("%s: %v, %v", name, out.actions(), out.err)
		}
		if w.must(w.ref("batch", "Job", "once")).GetUID() != uid {
			t.Fatalf("%s: the object was deleted for a manifest that cannot be created", name)
		}
	}
}

func TestRecreateWaitsForFinalizers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(job)
	w.env.Kubectl(t, "-n", w.namespace, "patch", "job/once", "--field-manager=other", "--type=merge", `-p={"metadata":{"finalizers":["example.test/stay"]}}`)
	w.options.Force = true
	w.applier.Patience = 300 * time.Millisecond
	changed := strings.Replace(job, "once:1", "once:2", 1)
	out := w.apply(changed)
	e := failure(t, out.err)
	if e.Kind != gitops.Waiting || !strings.Contains(e.Error(), "example.test/stay") {
		t.Errorf("got %q %v", e.Kind, e)
	}
	if !w.inventory.Has(w.ref("batch", "Job", "once")) {
		t.Error("the object left the inventory")
	}
	w.env.Kubectl(t, "-n", w.namespace, "patch", "job/once", "--type=merge", `-p={"metadata":{"finalizers":null}}`)
	w.applier.Patience = 20 * time.Second
	w.mustApply(changed)
	if got := fmt.Sprint(field(w.must(w.ref("batch", "Job", "once")), "spec", "template")); !strings.Contains(got, "once:2") {
		t.Errorf("not created again: %s", got)
	}
}

func TestALaterStageIsValidatedBeforeTheFirstWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out := w.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: $NS-new}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: wrong, namespace: $NS}
data: {a: [1]}
`)
	if gitops.KindOf(out.err) != gitops.Invalid || len(out.done) > 0 || w.find(gitops.ObjectRef{Kind: "Namespace", Name: w.namespace + "-new"}) != nil {
		t.Errorf("%v, %v", out.actions(), out.err)
	}
}

func TestRightsThatComeWithAnEarlierStage(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	limited := rest.CopyConfig(env.REST)
	limited.Impersonate = rest.ImpersonationConfig{UserName: "limited-" + strings.ToLower(t.Name())}
	w := newWorldAt(t, env, limited)
	env.Apply(t, strings.NewReplacer("$NS", w.namespace, "$USER", limited.Impersonate.UserName).Replace(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: $NS-limited}
rules:
- {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles, rolebindings], verbs: [get, create, patch]}
- {apiGroups: [""], resources: [configmaps], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: $NS-limited}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: $NS-limited}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: $USER}]
`))
	out := w.mustApply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: $NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: $NS-reader}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: somebody}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: $NS-reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
`)
	if len(out.done) != 2 {
		t.Errorf("got %v", out.actions())
	}
	// What the identity may not do is a denial that names the object.
	denied := w.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: $NS}\n")
	if e := failure(t, denied.err); e.Kind != gitops.Denied || e.Ref.Kind != "Secret" {
		t.Errorf("got %q %v", e.Kind, e)
	}
}

func TestAVersionThatIsGoneStillPrunes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	group := strings.ReplaceAll(w.namespace, "-", "") + ".example.test"
	definition := strings.ReplaceAll(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.$GROUP}
spec:
  group: $GROUP
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - {name: v1alpha1, served: true, storage: false, schema: {openAPIV3Schema: {type: object}}}
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`, "$GROUP", group)
	widget := strings.ReplaceAll("\n---\napiVersion: $GROUP/v1alpha1\nkind: Widget\nmetadata: {name: a, namespace: $NS}\n", "$GROUP", group)
	w.mustApply(definition + widget)
	later := strings.Replace(definition, "v1alpha1, served: true", "v1alpha1, served: false", 1)
	ref := w.ref(group, "Widget", "a")
	if w.find(ref) == nil {
		t.Fatal("not created")
	}
	w.mustApply(later)
	if w.find(ref) != nil {
		t.Error("the object was taken for gone, because its version is")
	}
	if w.inventory.Has(ref) {
		t.Error("still in the inventory")
	}
}
