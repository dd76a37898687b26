package health

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAssess(t *testing.T) {
	t.Parallel()
	h := func(status gitops.HealthStatus, message string) gitops.Health {
		return gitops.Health{Status: status, Message: message}
	}
	for name, row := range map[string]struct {
		object string
		want   gitops.Health
	}{
		"a kind without rule": {`{"apiVersion":"x.test/v1","kind":"X"}`, h("Current", "Resource is current")},
		"a custom resource that is ready": {`{"apiVersion":"x.test/v1","kind":"X","status":{"conditions":[{"type":"Ready","status":"True"}]}}`,
			h("Current", "Resource is Ready")},
		"a custom resource that is not ready": {`{"apiVersion":"x.test/v1","kind":"X","status":{"conditions":[{"type":"Ready","status":"False","message":"m"}]}}`,
			h("InProgress", "m")},
		"a custom resource that stalls": {`{"apiVersion":"x.test/v1","kind":"X","status":{"conditions":[{"type":"Stalled","status":"True","message":"m"}]}}`,
			h("Failed", "m")},
		"an old observation": {`{"apiVersion":"x.test/v1","kind":"X","metadata":{"generation":2},"status":{"observedGeneration":1,"conditions":[{"type":"Ready","status":"True"}]}}`,
			h("InProgress", "X generation is 2, but latest observed generation is 1")},
		"an object that is being deleted": {`{"apiVersion":"v1","kind":"Pod","metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}`,
			h("Terminating", "Resource scheduled for deletion")},
		"conditions of another form": {`{"apiVersion":"x.test/v1","kind":"X","status":{"conditions":"none"}}`,
			h("Unknown", "status is not readable: cannot restore slice from string")},
		"a deployment of no replicas that is available": {`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"generation":1},"spec":{"replicas":0,"progressDeadlineSeconds":600},
			"status":{"observedGeneration":1,"conditions":[{"type":"Available","status":"True"},{"type":"Progressing","status":"True","reason":"NewReplicaSetAvailable"}]}}`,
			h("Current", "Deployment is available. Replicas: 0")},
		"a deployment past its deadline": {`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1},
			"status":{"conditions":[{"type":"Progressing","status":"False","reason":"ProgressDeadlineExceeded"}]}}`,
			h("Failed", "Progress deadline exceeded")},
		"a job that has not begun":        {`{"apiVersion":"batch/v1","kind":"Job"}`, h("InProgress", "Job not started")},
		"a job that runs":                 {`{"apiVersion":"batch/v1","kind":"Job","status":{"startTime":"2026-01-01T00:00:00Z","active":1}}`, h("InProgress", "Job in progress")},
		"a job that is complete":          {`{"apiVersion":"batch/v1","kind":"Job","status":{"succeeded":1,"conditions":[{"type":"Complete","status":"True"}]}}`, h("Current", "Job Completed. succeeded: 1/1")},
		"a job that failed":               {`{"apiVersion":"batch/v1","kind":"Job","status":{"failed":2,"conditions":[{"type":"Failed","status":"True"}]}}`, h("Failed", "Job Failed. failed: 2/1")},
		"a definition that is installing": {`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition"}`, h("InProgress", "Install in progress")},
		"a definition whose names are taken": {`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","status":{"conditions":[{"type":"NamesAccepted","status":"False","message":"taken"}]}}`,
			h("Failed", "taken")},
		"a definition that is established": {`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","status":{"conditions":[{"type":"NamesAccepted","status":"True"},{"type":"Established","status":"True"}]}}`,
			h("Current", "CRD is established")},
		"a pod that cannot be scheduled, since long": {`{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":"2020-01-01T00:00:00Z"},"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable"}]}}`,
			h("InProgress", "Pod could not be scheduled")},
		"a pod that crashes": {`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Running","containerStatuses":[{"name":"c","state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}}`,
			h("Failed", "Containers in CrashLoop state: c")},
		"a pod with container statuses of another form": {`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Running","containerStatuses":[1]}}`,
			h("Unknown", "container statuses are not readable")},
		"a claim that waits": {`{"apiVersion":"v1","kind":"PersistentVolumeClaim","status":{"phase":"Pending"}}`, h("InProgress", "PVC is not Bound. phase: Pending")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(row.want, Assess(object(t, row.object))); diff != "" {
				t.Errorf("Assess (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKindsThatNeedNoStatusAreCurrentWithoutOne(t *testing.T) {
	t.Parallel()
	for _, kind := range []gitops.GroupKind{
		{Kind: "ConfigMap"}, {Kind: "Secret"}, {Kind: "ServiceAccount"}, {Kind: "Namespace"}, {Kind: "ResourceQuota"},
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}, {Group: "networking.k8s.io", Kind: "Ingress"},
		{Group: "batch", Kind: "CronJob"}, {Group: "storage.k8s.io", Kind: "StorageClass"},
		{Group: "scheduling.k8s.io", Kind: "PriorityClass"}, {Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration"},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": kind.Group + "/v1", "kind": kind.Kind}}
		if kind.Group == "" {
			u.SetAPIVersion("v1")
		}
		if NeedsStatus(kind) {
			t.Errorf("NeedsStatus(%s) = true, want false", kind)
		}
		if got := Assess(u).Status; got != OfMetadata(false).Status {
			t.Errorf("Assess of a bare %s = %s, want %s", kind, got, OfMetadata(false).Status)
		}
	}
	for _, kind := range []gitops.GroupKind{
		{Kind: "Pod"}, {Kind: "Service"}, {Kind: "PersistentVolumeClaim"}, {Group: "apps", Kind: "Deployment"},
		{Group: "batch", Kind: "Job"}, {Group: "x.test", Kind: "ConfigMap"}, {Group: "policy", Kind: "PodDisruptionBudget"},
		{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}, {Group: "storage.k8s.io", Kind: "VolumeAttachment"},
	} {
		if !NeedsStatus(kind) {
			t.Errorf("NeedsStatus(%s) = false, want true", kind)
		}
	}
}

// FuzzAssess looks for a panic on objects of any form, and for an answer that is
// not the same the second time.
func FuzzAssess(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Running","containerStatuses":[{"name":"c","state":{"waiting":{}}}]}}`))
	f.Add([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":"x"},"status":{"conditions":[{}]}}`))
	f.Add([]byte(`{"apiVersion":"batch/v1","kind":"Job","metadata":{"generation":1.5},"status":{"conditions":[1]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		u := &unstructured.Unstructured{}
		if u.UnmarshalJSON(raw) != nil {
			return
		}
		if a, b := Assess(u), Assess(u); a != b || a.Status == "" {
			t.Errorf("Assess = %+v, then %+v", a, b)
		}
	})
}
