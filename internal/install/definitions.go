package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
)

const (
	// orphanAnnotation has the operator let go of a Kustomization without deleting
	// what it manages.
	orphanAnnotation = "plumb.dev/orphan"
	// handManager is the field manager of what a person has this program do.
	handManager = "plumb-cli"
)

// fluxFinalizers are those by which Flux's controllers and the operator hold custom
// resources; whatever else holds one is not ours to drop.
func fluxFinalizers() []string {
	return []string{"finalizers.fluxcd.io", "source.extensions.fluxcd.io/finalizer"}
}

// Holding is a kind whose definition is in the cluster.
type Holding struct {
	Kind string `json:"kind"`
	// Objects is the number of its custom resources in all namespaces.
	Objects int `json:"objects"`
	// Managed is the number of objects in their inventories.
	Managed int `json:"managed"`

	definition crds.Definition
	live       *unstructured.Unstructured
}

// Holdings tells what goes with the definitions. It refuses while controllers run
// that would take the deletion of a custom resource for the wish to have deleted
// what it manages; the operator in the given namespace is not one of them, because
// it is removed first.
func (i *Installer) Holdings(ctx context.Context, namespace string) ([]Holding, error) {
	others, err := i.running(ctx, namespace)
	if err != nil {
		return nil, err
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("controllers run that would delete what the custom resources manage: %s. Scale them down first:\n%s", join(others), stopping(others))
	}
	definitions, err := crds.All()
	if err != nil {
		return nil, err
	}
	var holdings []Holding
	for _, d := range definitions {
		live, err := i.of(d.Object).Get(ctx, d.Name(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(d.Object), err)
		}
		h := Holding{Kind: d.Kind.Kind, definition: d, live: live}
		objects, err := i.objects(ctx, h)
		if err != nil {
			return nil, err
		}
		h.Objects = len(objects)
		for n := range objects {
			entries, _, _ := unstructured.NestedSlice(objects[n].Object, "status", "inventory", "entries")
			h.Managed += len(entries)
		}
		holdings = append(holdings, h)
	}
	return holdings, nil
}

// resource is the kind in the version that the cluster stores: it may have
// definitions of another release than ours.
func (h Holding) resource() schema.GroupVersionResource {
	resource := h.definition.Resource()
	versions, _, _ := unstructured.NestedSlice(h.live.Object, "spec", "versions")
	for _, entry := range versions {
		version, _ := entry.(map[string]any)
		if name, _ := version["name"].(string); version["storage"] == true && name != "" {
			resource.Version = name
		}
	}
	return resource
}

func (i *Installer) objects(ctx context.Context, h Holding) ([]unstructured.Unstructured, error) {
	list, err := i.client.Resource(h.resource()).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil // the definition is going, and its last object has gone
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", h.definition.Name(), err)
	}
	return list.Items, nil
}

// RemoveDefinitions deletes the definitions and with them all custom resources, and
// leaves what these have applied. Before the first one goes, every custom resource is
// suspended, marked as to be let go, and relieved of its finalizer: an operator that
// nobody knows of deletes nothing either, and none is needed to let go.
func (i *Installer) RemoveDefinitions(ctx context.Context, holdings []Holding) ([]Change, error) {
	if err := i.suspendAll(ctx, holdings); err != nil {
		return nil, err
	}
	for _, h := range holdings {
		objects, err := i.objects(ctx, h)
		if err != nil {
			return nil, err
		}
		for n := range objects {
			if err := i.letGo(ctx, h, &objects[n]); err != nil {
				return nil, err
			}
		}
	}
	var changes []Change
	for _, h := range holdings {
		uid := h.live.GetUID()
		err := i.of(h.live).Delete(ctx, h.live.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			return changes, fmt.Errorf("%s: %w", nameOf(h.live), err)
		}
		change := Change{Object: nameOf(h.live), Action: Deleted}
		changes = append(changes, change)
		i.tell(change)
	}
	for _, h := range holdings {
		if err := i.gone(ctx, h.live); err != nil {
			return changes, fmt.Errorf("%s: %w%s", nameOf(h.live), err, i.holders(h))
		}
	}
	return changes, nil
}

// suspendRounds bounds how often custom resources are looked at again: another one,
// or somebody else, may have set one of them back in the meantime.
const suspendRounds = 5

// suspendAll suspends all custom resources, and ends once they are found so.
func (i *Installer) suspendAll(ctx context.Context, holdings []Holding) error {
	for range suspendRounds {
		clean := true
		for _, h := range holdings {
			if !h.definition.HasSuspend() {
				continue
			}
			objects, err := i.objects(ctx, h)
			if err != nil {
				return err
			}
			for n := range objects {
				if suspended(&objects[n]) {
					continue
				}
				clean = false
				if err := i.suspend(ctx, h, &objects[n]); err != nil {
					return err
				}
			}
		}
		if clean {
			return nil
		}
	}
	return errors.New("custom resources are set back as soon as they are suspended: somebody works on them; nothing was deleted")
}

func suspended(object *unstructured.Unstructured) bool {
	suspend, _, _ := unstructured.NestedBool(object.Object, "spec", "suspend")
	return suspend && (object.GetKind() != "Kustomization" || object.GetAnnotations()[orphanAnnotation] == "true")
}

func (i *Installer) suspend(ctx context.Context, h Holding, object *unstructured.Unstructured) error {
	patch := map[string]any{"spec": map[string]any{"suspend": true}}
	if object.GetKind() == "Kustomization" {
		patch["metadata"] = map[string]any{"annotations": map[string]any{orphanAnnotation: "true"}}
	}
	return i.patch(ctx, h, object, patch)
}

// letGo drops the finalizers of Flux's controllers from an object.
func (i *Installer) letGo(ctx context.Context, h Holding, object *unstructured.Unstructured) error {
	const tries = 5
	var err error
	for range tries {
		finalizers := slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return slices.Contains(fluxFinalizers(), f) })
		if len(finalizers) == len(object.GetFinalizers()) {
			return nil
		}
		// The list is replaced as a whole: only as it was seen.
		err = i.patch(ctx, h, object, map[string]any{"metadata": map[string]any{
			"resourceVersion": object.GetResourceVersion(), "finalizers": finalizers,
		}})
		if !apierrors.IsConflict(err) {
			return err
		}
		now, getErr := i.client.Resource(h.resource()).Namespace(object.GetNamespace()).Get(ctx, object.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(getErr) {
			return nil
		}
		if getErr != nil {
			return getErr
		}
		object = now
	}
	return err
}

// patch merges fields into a custom resource; one that is gone needs none.
func (i *Installer) patch(ctx context.Context, h Holding, object *unstructured.Unstructured, fields map[string]any) error {
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	_, err = i.client.Resource(h.resource()).Namespace(object.GetNamespace()).
		Patch(ctx, object.GetName(), types.MergePatchType, data, metav1.PatchOptions{FieldManager: handManager})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %w", nameOf(object), err)
	}
	return nil
}

// holders names the objects that keep a definition from going.
func (i *Installer) holders(h Holding) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*lookEvery)
	defer cancel()
	objects, err := i.objects(ctx, h)
	if err != nil || len(objects) == 0 {
		return ""
	}
	var names []string
	for n := range objects {
		names = append(names, fmt.Sprintf("%s (finalizers %q)", nameOf(&objects[n]), objects[n].GetFinalizers()))
	}
	return ": it waits for " + some(names)
}
