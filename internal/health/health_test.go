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
		"a claim that waits":       {`{"apiVersion":"v1","kind":"PersistentVolumeClaim","status":{"phase":"Pending"}}`, h("InProgress", "PVC is not Bound. phase: Pending")},
		"a claim that is bound":    {`{"apiVersion":"v1","kind":"PersistentVolumeClaim","status":{"phase":"Bound"}}`, h("Current", "PVC is Bound")},
		"a claim nobody looked at": {`{"apiVersion":"v1","kind":"PersistentVolumeClaim"}`, h("InProgress", "PVC is not Bound. phase: unknown")},
		"a claim that was lost":    {`{"apiVersion":"v1","kind":"PersistentVolumeClaim","status":{"phase":"Lost"}}`, h("InProgress", "PVC is not Bound. phase: Lost")},

		"a job that is suspended": {`{"apiVersion":"batch/v1","kind":"Job","spec":{"suspend":true},"status":{"conditions":[{"type":"Suspended","status":"True"}]}}`, h("Current", "Job is suspended")},
		"a job that was resumed":  {`{"apiVersion":"batch/v1","kind":"Job","spec":{"suspend":false},"status":{"startTime":"2026-01-01T00:00:00Z"}}`, h("InProgress", "Job in progress")},
		"a suspended job that is being deleted": {`{"apiVersion":"batch/v1","kind":"Job","metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"},"spec":{"suspend":true}}`,
			h("Terminating", "Resource scheduled for deletion")},
		"a job some of whose pods failed": {`{"apiVersion":"batch/v1","kind":"Job","spec":{"completions":3},"status":{"startTime":"2026-01-01T00:00:00Z","failed":1,"conditions":[{"type":"Failed","status":"False"}]}}`,
			h("InProgress", "Job in progress")},
		"a job of another group": {`{"apiVersion":"x.test/v1","kind":"Job","spec":{"suspend":true}}`, h("Current", "Resource is current")},
		"a cron job":             {`{"apiVersion":"batch/v1","kind":"CronJob"}`, h("Current", "Resource is always ready")},

		"a deployment that nobody looked at": {`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":2}}`, h("InProgress", "Replicas: 0/2")},
		"a deployment with old pods": {`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":2},"status":{"replicas":2,"updatedReplicas":1}}`,
			h("InProgress", "Updated: 1/2")},
		"a deployment with a pod too many": {`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":2},"status":{"replicas":3,"updatedReplicas":2,"availableReplicas":2,"readyReplicas":2}}`,
			h("InProgress", "Pending termination: 1")},
		"a deployment with pods that are not available": {`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":2},"status":{"replicas":2,"updatedReplicas":2,"availableReplicas":1}}`,
			h("InProgress", "Available: 1/2")},
		"a deployment that is not available": {`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1,"progressDeadlineSeconds":1},
			"status":{"replicas":1,"updatedReplicas":1,"availableReplicas":1,"readyReplicas":1,"conditions":[{"type":"Progressing","status":"True","reason":"NewReplicaSetAvailable"},{"type":"Available","status":"False"}]}}`,
			h("InProgress", "Deployment not Available")},
		"a deployment without replica set": {`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1,"progressDeadlineSeconds":1},
			"status":{"replicas":1,"updatedReplicas":1,"availableReplicas":1,"readyReplicas":1,"conditions":[{"type":"Progressing","status":"True","reason":"ReplicaSetUpdated"}]}}`,
			h("InProgress", "ReplicaSet not Available")},
		"a deployment whose change was not seen": {`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"generation":3},"status":{"observedGeneration":2,"conditions":[{"type":"Progressing","status":"False","reason":"ProgressDeadlineExceeded"}]}}`,
			h("InProgress", "Deployment generation is 3, but latest observed generation is 2")},

		"a stateful set that scales up": {`{"apiVersion":"apps/v1","kind":"StatefulSet","spec":{"replicas":3},"status":{"replicas":2}}`, h("InProgress", "Replicas: 2/3")},
		"a stateful set that is not ready": {`{"apiVersion":"apps/v1","kind":"StatefulSet","spec":{"replicas":1},"status":{"replicas":1}}`,
			h("InProgress", "Ready: 0/1")},
		"a stateful set between revisions": {`{"apiVersion":"apps/v1","kind":"StatefulSet","spec":{"replicas":1},"status":{"replicas":1,"readyReplicas":1,"currentReplicas":1,"currentRevision":"a","updateRevision":"b"}}`,
			h("InProgress", "Waiting for updated revision to match current")},
		"a stateful set that is there": {`{"apiVersion":"apps/v1","kind":"StatefulSet","spec":{"replicas":1},"status":{"replicas":1,"readyReplicas":1,"currentReplicas":1,"currentRevision":"a","updateRevision":"a"}}`,
			h("Current", "All replicas scheduled as expected. Replicas: 1")},
		"a stateful set that is changed by hand": {`{"apiVersion":"apps/v1","kind":"StatefulSet","spec":{"updateStrategy":{"type":"OnDelete"}}}`,
			h("Current", "StatefulSet is using the ondelete update strategy")},
		"a stateful set that is changed in part": {`{"apiVersion":"apps/v1","kind":"StatefulSet","spec":{"replicas":2,"updateStrategy":{"rollingUpdate":{"partition":1}}},"status":{"replicas":2,"readyReplicas":2,"updatedReplicas":0}}`,
			h("InProgress", "updated: 0/1")},

		"a daemon set that nobody looked at": {`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"generation":1}}`, h("InProgress", "DaemonSet status.observedGeneration not found")},
		"a daemon set that is not ready": {`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"generation":1},"status":{"observedGeneration":1,"desiredNumberScheduled":2,"currentNumberScheduled":2,"updatedNumberScheduled":2,"numberAvailable":2,"numberReady":1}}`,
			h("InProgress", "Ready: 1/2")},
		"a daemon set of no node": {`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"generation":1},"status":{"observedGeneration":1,"desiredNumberScheduled":0}}`,
			h("Current", "All replicas scheduled as expected. Replicas: 0")},

		"a replica set whose pods are refused": {`{"apiVersion":"apps/v1","kind":"ReplicaSet","status":{"conditions":[{"type":"ReplicaFailure","status":"True"}]}}`,
			h("InProgress", "Replica Failure condition. Check Pods")},
		"a replica set that is there": {`{"apiVersion":"apps/v1","kind":"ReplicaSet","spec":{"replicas":1},"status":{"replicas":1,"fullyLabeledReplicas":1,"availableReplicas":1,"readyReplicas":1}}`,
			h("Current", "ReplicaSet is available. Replicas: 1")},

		"a pod that is ready":       {`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, h("Current", "Pod is Ready")},
		"a pod that is not ready":   {`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Running","conditions":[{"type":"Ready","status":"False"}]}}`, h("InProgress", "Pod is running but is not Ready")},
		"a pod that is done":        {`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Succeeded"}}`, h("Current", "Pod has completed successfully")},
		"a pod that ended badly":    {`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Failed"}}`, h("Current", "Pod has completed, but not successfully")},
		"a pod that nobody has":     {`{"apiVersion":"v1","kind":"Pod"}`, h("InProgress", "Pod phase not available")},
		"a pod of a phase to come":  {`{"apiVersion":"v1","kind":"Pod","status":{"phase":"Dreaming"}}`, h("Unknown", "status is not readable: unknown phase Dreaming")},
		"a load balancer":           {`{"apiVersion":"v1","kind":"Service","spec":{"type":"LoadBalancer"}}`, h("InProgress", "ClusterIP not set. Service type: LoadBalancer")},
		"a load balancer with IP":   {`{"apiVersion":"v1","kind":"Service","spec":{"type":"LoadBalancer","clusterIP":"10.0.0.1"}}`, h("Current", "Service is ready")},
		"a service":                 {`{"apiVersion":"v1","kind":"Service"}`, h("Current", "Service is ready")},
		"a disruption budget":       {`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"generation":1},"status":{"observedGeneration":1}}`, h("Current", "AllowedDisruptions has been computed.")},
		"a budget that is not seen": {`{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"generation":2},"status":{"observedGeneration":1}}`, h("InProgress", "PodDisruptionBudget generation is 2, but latest observed generation is 1")},
		"a definition that cannot be": {`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","status":{"conditions":[{"type":"Established","status":"False","reason":"NotAccepted","message":"no"}]}}`,
			h("Failed", "no")},
		"a namespace that goes": {`{"apiVersion":"v1","kind":"Namespace","metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"},"status":{"phase":"Terminating"}}`,
			h("Terminating", "Resource scheduled for deletion")},
		"a custom resource that reconciles": {`{"apiVersion":"x.test/v1","kind":"X","status":{"conditions":[{"type":"Ready","status":"True"},{"type":"Reconciling","status":"True","message":"m"}]}}`,
			h("InProgress", "m")},
		"a custom resource that does not know": {`{"apiVersion":"x.test/v1","kind":"X","status":{"conditions":[{"type":"Ready","status":"Unknown","message":"m"}]}}`,
			h("InProgress", "m")},
		"a source of Flux that is ready": {`{"apiVersion":"source.toolkit.fluxcd.io/v1","kind":"GitRepository","metadata":{"generation":1},"status":{"observedGeneration":1,"conditions":[{"type":"Ready","status":"True"}]}}`,
			h("Current", "Resource is Ready")},
		"a release of Flux that stalls": {`{"apiVersion":"helm.toolkit.fluxcd.io/v2","kind":"HelmRelease","metadata":{"generation":1},"status":{"observedGeneration":1,"conditions":[{"type":"Stalled","status":"True","message":"m"},{"type":"Ready","status":"False"}]}}`,
			h("Failed", "m")},
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

func TestVanishes(t *testing.T) {
	t.Parallel()
	job := gitops.GroupKind{Group: "batch", Kind: "Job"}
	for name, row := range map[string]struct {
		kind     gitops.GroupKind
		manifest string
		want     bool
	}{
		"a job with a time to live":       {job, `{"spec":{"ttlSecondsAfterFinished":60}}`, true},
		"a job with no time to live":      {job, `{"spec":{"ttlSecondsAfterFinished":0}}`, true},
		"a job that stays":                {job, `{"spec":{}}`, false},
		"a job that says null":            {job, `{"spec":{"ttlSecondsAfterFinished":null}}`, false},
		"a cron job":                      {gitops.GroupKind{Group: "batch", Kind: "CronJob"}, `{"spec":{"ttlSecondsAfterFinished":60}}`, false},
		"something that is not an object": {job, `[]`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Vanishes(row.kind, []byte(row.manifest)); got != row.want {
				t.Errorf("Vanishes = %v, want %v", got, row.want)
			}
		})
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
