package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/terminal"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// resource is what commands read of a custom resource, whatever its kind.
type resource struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Kind     string            `json:"kind"`
	Spec     struct {
		Suspend   bool   `json:"suspend"`
		Type      string `json:"type"`
		SourceRef struct {
			Kind      string `json:"kind"`
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"sourceRef"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration     int64              `json:"observedGeneration"`
		Conditions             []metav1.Condition `json:"conditions"`
		LastAppliedRevision    string             `json:"lastAppliedRevision"`
		LastHandledReconcileAt string             `json:"lastHandledReconcileAt"`
		Artifact               struct {
			Revision string `json:"revision"`
		} `json:"artifact"`
		// Inventory is a map in a Kustomization, and a list in an ArtifactGenerator.
		Inventory any `json:"inventory"`
	} `json:"status"`
}

func read(object *unstructured.Unstructured) (resource, error) {
	var r resource
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &r); err != nil {
		return resource{}, fmt.Errorf("read %s %q: %w", object.GetKind(), object.GetName(), err)
	}
	return r, nil
}

// inventoryEntry is one of what a Kustomization manages, as it is stored.
type inventoryEntry struct{ ID, V string }

// entries are those of the inventory of a Kustomization.
func (r resource) entries() []inventoryEntry {
	inventory, _ := r.Status.Inventory.(map[string]any)
	list, _ := inventory["entries"].([]any)
	var entries []inventoryEntry
	for _, one := range list {
		fields, _ := one.(map[string]any)
		id, _ := fields["id"].(string)
		version, _ := fields["v"].(string)
		entries = append(entries, inventoryEntry{id, version})
	}
	return entries
}

// String is kind namespace/name, as commands print it.
func (r resource) String() string {
	return strings.ToLower(r.Kind) + " " + r.Metadata.Namespace + "/" + r.Metadata.Name
}

// condition is the condition of a type; Status is empty where there is none.
func (r resource) condition(kind string) metav1.Condition {
	for _, c := range r.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}

// message is what Ready says, what deletions wait for a confirmation, and what is left
// to other owners.
func (r resource) message() string {
	message := terminal.OneLine(r.condition("Ready").Message)
	if held := r.held(); held != "" {
		message += "; " + terminal.OneLine(flux.Summary(held))
	}
	if foreign := r.condition(flux.OwnedByOtherCondition); foreign.Status == metav1.ConditionTrue {
		message += "; " + terminal.OneLine(flux.Summary(foreign.Message))
	}
	return message
}

// held is what the object says of deletions that are held; empty where none are.
func (r resource) held() string {
	if held := r.condition(flux.HeldCondition); held.Status == metav1.ConditionTrue {
		return held.Message
	}
	return ""
}

// revision is what the object holds or has applied.
func (r resource) revision() string {
	if r.Status.LastAppliedRevision != "" {
		return r.Status.LastAppliedRevision
	}
	return r.Status.Artifact.Revision
}

// decided tells whether Ready says yes or no of the current generation.
func (r resource) decided() bool {
	ready := r.condition("Ready")
	return ready.Status != "" && ready.Status != metav1.ConditionUnknown &&
		ready.ObservedGeneration == r.Metadata.Generation &&
		r.condition("Reconciling").Status != metav1.ConditionTrue
}

// age is the time since creation in its largest unit, as kubectl prints it.
func (r resource) age(now time.Time) string {
	age := now.Sub(r.Metadata.CreationTimestamp.Time)
	switch {
	case age < 2*time.Minute:
		return fmt.Sprintf("%ds", int(age.Seconds()))
	case age < 2*time.Hour:
		return fmt.Sprintf("%dm", int(age.Minutes()))
	case age < 48*time.Hour:
		return fmt.Sprintf("%dh", int(age.Hours()))
	default:
		return fmt.Sprintf("%dd", int(age.Hours()/24))
	}
}

// get reads one custom resource.
func (c *clients) get(ctx context.Context, kind crds.Definition, namespace, name string) (resource, error) {
	object, err := c.dynamic.Resource(kind.Resource()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return resource{}, explain(err, kind, namespace, name)
	}
	return read(object)
}

// explain says what a person can do about an error of the API server.
func explain(err error, kind crds.Definition, namespace, name string) error {
	switch {
	case apierrors.IsNotFound(err) && unknownKind(err):
		return fmt.Errorf("the cluster does not know %s: install the definitions with plumb crds | kubectl apply --server-side -f -", kind.Name())
	case apierrors.IsNotFound(err):
		return fmt.Errorf("no %s %q in namespace %q", strings.ToLower(kind.Kind.Kind), name, namespace)
	case name == "":
		return fmt.Errorf("list %s: %w", kind.Plural, err)
	default:
		return fmt.Errorf("%s %s/%s: %w", strings.ToLower(kind.Kind.Kind), namespace, name, err)
	}
}

// unknownKind tells a path that the API server does not serve, which it answers
// without naming a reason, from an object that is not there.
func unknownKind(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return true
	}
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeUnexpectedServerResponse {
			return true
		}
	}
	return false
}
