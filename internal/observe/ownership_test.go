package observe

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/ownership"
)

// The tests in this file hold package ownership against the API server, which that
// package's own tests do without.

func TestTakeOverRemovesWhatWasAdded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	live := f.apply(deployment)
	const merge, strategic = types.MergePatchType, types.StrategicMergePatchType
	f.patch(live, merge, `{"metadata":{"labels":{"added":"by-kubectl"}},"spec":{"minReadySeconds":5}}`, "kubectl-edit")
	f.patch(live, strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"s"}]}}}}`, "applier")
	f.patch(live, merge, `{"metadata":{"labels":{"other":"stays"}}}`, "flux-client-side-apply")
	f.patch(live, strategic, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-01-01T00:00:00Z"}}}}}`, "kubectl-rollout")
	f.patch(live, merge, `{"status":{"collisionCount":7}}`, "kubectl-patch", "status")

	current, err := f.resource(live).Get(t.Context(), "d", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"applier", "kubectl-edit"}, ownership.Observe(current, testKeys()).TakeOver); diff != "" {
		t.Errorf("TakeOver (-want +got):\n%s", diff)
	}
	entries, changed, err := ownership.TakeOver(current.GetManagedFields(), testKeys(), "apps/v1")
	if err != nil || !changed {
		t.Fatalf("TakeOver: changed = %v, err = %v", changed, err)
	}
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"managedFields": entries}})
	if err != nil {
		t.Fatal(err)
	}
	f.patch(live, merge, string(raw), "applier")
	after := f.apply(deployment)

	if got := ownership.Observe(after, testKeys()); len(got.TakeOver) > 0 || got.Fields != ownership.Observe(live, testKeys()).Fields {
		t.Errorf("after the apply: TakeOver = %v, managedFields:\n%v", got.TakeOver, after.GetManagedFields())
	}
	if diff := cmp.Diff(map[string]string{"app": "d", "other": "stays", "example.test/name": "o", "example.test/namespace": f.namespace}, after.GetLabels()); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	containers, _, _ := unstructured.NestedSlice(after.Object, "spec", "template", "spec", "containers")
	_, ready, _ := unstructured.NestedFieldNoCopy(after.Object, "spec", "minReadySeconds")
	restarted, _, _ := unstructured.NestedStringMap(after.Object, "spec", "template", "metadata", "annotations")
	if len(containers) != 1 || ready || len(restarted) != 1 {
		t.Errorf("%d containers, minReadySeconds %v, annotations %v; want what kubectl added gone and the restart kept", len(containers), ready, restarted)
	}
}

func TestAppliesWithoutAdmissionDifferInNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, manifest := range append(manifests(),
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"texts"},"stringData":{"a":"x"},"data":{"b":"eA=="}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":"chosen"},"spec":{"type":"NodePort","clusterIP":"","selector":{},"ports":[{"port":80,"nodePort":0}]}}`,
		`{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"q"},"spec":{"hard":{"limits.cpu":"2000m","pods":"10","requests.memory":"1024Mi"}}}`,
		`{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"l"},"spec":{"limits":[{"type":"Container","default":{"cpu":"0.5"},"max":{"cpu":"1000m","memory":"1024Ki"}}]}}`,
		`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"p"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1024Mi"}}}}`,
		`{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"maxReplicas":2,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"},
			"metrics":[{"type":"Resource","resource":{"name":"memory","target":{"type":"AverageValue","averageValue":"1024Mi"}}},{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]}}`,
		`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"i"},"spec":{"rules":[{"host":"a","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"s","port":{"number":80}}}}]}}]}}`,
		`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"n"},"spec":{"podSelector":{},"ingress":[{"ports":[{"port":80}]}]}}`,
		`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"b"},"spec":{"minAvailable":"50%","selector":{"matchLabels":{"a":"b"}}}}`,
		`{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"j"},"spec":{"schedule":"0 0 * * *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":0.1,"memory":1024}}}]}}}}}}`,
		`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"r","annotations":null},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`,
	) {
		u := f.object(manifest)
		answer := f.applyAny(manifest)
		if diff := cmp.Diff([]string(nil), ownership.Differences(f.owned(manifest), answer.Object)); diff != "" {
			t.Errorf("%s: differences (-want +got):\n%s", refOf(u), diff)
		}
		exact := ownership.NamesExactly(answer.GetManagedFields(), testKeys(), f.owned(manifest))
		if _, texts := u.Object["stringData"]; exact == texts {
			t.Errorf("%s: NamesExactly = %v, managedFields:\n%v", refOf(u), exact, answer.GetManagedFields())
		}
	}
}

// applyAny applies an object of any kind whose plural is regular.
func (f *fixture) applyAny(manifest string) *unstructured.Unstructured {
	f.t.Helper()
	u := f.object(manifest)
	gvk := u.GroupVersionKind()
	plural := strings.ToLower(gvk.Kind)
	switch {
	case strings.HasSuffix(plural, "y"):
		plural = strings.TrimSuffix(plural, "y") + "ies"
	case strings.HasSuffix(plural, "s"):
		plural += "es"
	default:
		plural += "s"
	}
	gvr := schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: plural}
	answer, err := f.client.Resource(gvr).Namespace(f.namespace).
		Patch(f.t.Context(), u.GetName(), types.ApplyPatchType, f.owned(manifest), applyOptions())
	if err != nil {
		f.t.Fatal(err)
	}
	return answer
}

func TestAdmissionThatChangesOurFields(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.admit(`Object{spec: Object.spec{replicas: 3, template: Object.spec.template{spec: Object.spec.template.spec{
		containers: [Object.spec.template.spec.containers{name: "c", image: "changed"}, Object.spec.template.spec.containers{name: "side", image: "s"}]}}}}`)
	ctx := deadline(t)
	want := []string{".spec.replicas", ".spec.template.spec.containers[name=c].image"}
	for {
		// A policy takes a moment to be in force.
		answer := f.apply(deployment)
		got := ownership.Differences(f.owned(deployment), answer.Object)
		if len(got) > 0 {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Differences (-want +got):\n%s", diff)
			}
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("the policy was not in force within 30 s")
		case <-time.After(50 * time.Millisecond):
		}
	}
	live := f.apply(deployment)
	f.sync(f.need(live, false))
	ref := refOf(live)
	hold := f.Hold(ref)
	f.Record(ref, ownership.Observe(f.apply(deployment), testKeys()))
	hold.Release()
	for _, o := range f.settle(live) {
		if o.After.Fields != o.Before.Fields {
			t.Errorf("told:\nbefore %+v\nafter  %+v", o.Before, o.After)
		}
	}
}

// admit has the API server change the deployments of the test's namespace.
func (f *fixture) admit(expression string) {
	f.t.Helper()
	quoted, err := json.Marshal(expression)
	if err != nil {
		f.t.Fatal(err)
	}
	const group = "admissionregistration.k8s.io"
	f.cluster.Apply(f.t, fmt.Sprintf(`
apiVersion: %[1]s/v1
kind: MutatingAdmissionPolicy
metadata: {name: %[2]s}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], resources: [deployments], operations: [CREATE, UPDATE]}]
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: %[3]s}}]
---
apiVersion: %[1]s/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: %[2]s}
spec: {policyName: %[2]s}
`, group, f.namespace, quoted))
}
