// Package health tells from an object how it is: by the rules of kstatus, with
// Flux's differences, or by expressions in CEL that an owner has of its own for a
// kind. It is pure: the same object has the same health at any time, and nothing is
// asked of a cluster.
//
// Expressions are written by those whom the operator works for. What one of them
// costs is bounded, whatever it says, and what it quotes of an object stays in here.
//
// The observer assesses objects with it as they arrive, so that no object has to be
// kept for its health.
package health

import (
	"encoding/json"
	"fmt"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Assess is the health of a whole object, as decoded by apimachinery: whole
// numbers as int64. An object that does not have the form that its kind's rule
// expects is Unknown. Nothing is changed in the object.
//
// The rules are those of kstatus, but for:
//   - a Job is Current once it is complete, or while it is suspended, and not while
//     it runs, as in Flux. A Job that its time to live has removed is no object any
//     more: see Vanishes;
//   - a Pod that cannot be scheduled is InProgress for as long as that is so. In
//     kstatus it becomes Failed 15 s after its creation, which would make health
//     depend on the time at which it is looked at.
func Assess(object *unstructured.Unstructured) gitops.Health {
	kind := gitops.GroupKind{Group: object.GroupVersionKind().Group, Kind: object.GetKind()}
	switch deleting := object.GetDeletionTimestamp() != nil; {
	case kind == (gitops.GroupKind{Kind: "Pod"}) && !deleting:
		if h, decided := pod(object); decided {
			return h
		}
	case IsJob(kind) && !deleting:
		if suspended, _, _ := unstructured.NestedBool(object.Object, "spec", "suspend"); suspended {
			return gitops.Health{Status: gitops.HealthCurrent, Message: "Job is suspended"}
		}
	}
	result, err := status.Compute(object)
	if err != nil {
		return gitops.Health{Status: gitops.HealthUnknown, Message: fmt.Sprintf("status is not readable: %v", err)}
	}
	h := gitops.Health{Status: gitops.HealthStatus(result.Status), Message: result.Message}
	if IsJob(kind) && h.Status == gitops.HealthCurrent && !complete(object) {
		return gitops.Health{Status: gitops.HealthInProgress, Message: "Job in progress"}
	}
	return h
}

// OfMetadata is the health of an object of a kind for which NeedsStatus is false.
func OfMetadata(deleting bool) gitops.Health {
	if deleting {
		return gitops.Health{Status: gitops.HealthTerminating, Message: "Resource scheduled for deletion"}
	}
	return gitops.Health{Status: gitops.HealthCurrent, Message: "Resource is current"}
}

// Vanishes tells whether a manifest declares an object that is removed from the
// cluster once it is done: a Job with a time to live. As in Flux it counts as done
// when it was applied and is gone.
func Vanishes(kind gitops.GroupKind, manifest []byte) bool {
	if !IsJob(kind) {
		return false
	}
	var job struct {
		Spec struct {
			TimeToLive *json.Number `json:"ttlSecondsAfterFinished"`
		} `json:"spec"`
	}
	return json.Unmarshal(manifest, &job) == nil && job.Spec.TimeToLive != nil
}

// IsJob tells whether a kind is that of Jobs.
func IsJob(kind gitops.GroupKind) bool { return kind == gitops.GroupKind{Group: "batch", Kind: "Job"} }

// complete tells whether a Job has the condition Complete.
func complete(job *unstructured.Unstructured) bool {
	return hasCondition(job, "Complete", "True", "")
}

// pod decides for the phases in which kstatus asks the clock or takes the form of
// the status for granted.
func pod(object *unstructured.Unstructured) (gitops.Health, bool) {
	phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
	switch {
	case phase == "Pending" && hasCondition(object, "PodScheduled", "False", "Unschedulable"):
		return gitops.Health{Status: gitops.HealthInProgress, Message: "Pod could not be scheduled"}, true
	case phase == "Running" && !readable(object):
		return gitops.Health{Status: gitops.HealthUnknown, Message: "container statuses are not readable"}, true
	}
	return gitops.Health{}, false
}

// hasCondition tells whether an object has a condition; of any reason where none
// is given.
func hasCondition(object *unstructured.Unstructured, name, value, reason string) bool {
	conditions, _, _ := unstructured.NestedFieldNoCopy(object.Object, "status", "conditions")
	list, _ := conditions.([]any)
	for _, c := range list {
		condition, _ := c.(map[string]any)
		if condition["type"] == name && condition["status"] == value && (reason == "" || condition["reason"] == reason) {
			return true
		}
	}
	return false
}

// readable tells whether a Pod's container statuses have the form that they have
// in the API.
func readable(object *unstructured.Unstructured) bool {
	statuses, found, err := unstructured.NestedFieldNoCopy(object.Object, "status", "containerStatuses")
	if err != nil || !found {
		return err == nil
	}
	list, ok := statuses.([]any)
	for _, s := range list {
		container, isMap := s.(map[string]any)
		_, named := container["name"].(string)
		ok = ok && isMap && named
		if reason, has, err := unstructured.NestedString(container, "state", "waiting", "reason"); err != nil || (has && reason == "") {
			return false
		}
	}
	return ok
}

// NeedsStatus tells whether the health of a kind's objects depends on more than
// their metadata. It is false only for the kinds of Kubernetes itself whose objects
// are Current as soon as they exist; OfMetadata gives their health.
func NeedsStatus(kind gitops.GroupKind) bool {
	switch kind.Group {
	case "":
		switch kind.Kind {
		case "ConfigMap", "Secret", "ServiceAccount", "Namespace", "LimitRange", "ResourceQuota",
			"Endpoints", "PodTemplate":
			return false
		}
	case "rbac.authorization.k8s.io":
		switch kind.Kind {
		case "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding":
			return false
		}
	case "networking.k8s.io":
		switch kind.Kind {
		case "Ingress", "IngressClass", "NetworkPolicy":
			return false
		}
	case "admissionregistration.k8s.io":
		switch kind.Kind {
		case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
			"ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding":
			return false
		}
	case "batch":
		return kind.Kind != "CronJob"
	case "storage.k8s.io":
		return kind.Kind != "StorageClass" && kind.Kind != "CSIDriver"
	case "scheduling.k8s.io":
		return kind.Kind != "PriorityClass"
	case "node.k8s.io":
		return kind.Kind != "RuntimeClass"
	case "coordination.k8s.io":
		return kind.Kind != "Lease"
	case "discovery.k8s.io":
		return kind.Kind != "EndpointSlice"
	}
	return true
}
