package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// leaseName is that of the lease of the operator's leader election.
const leaseName = "plumb-leader-election"

// Uninstall removes what installations in a namespace have made: the operator
// first. Its namespace, definitions and custom resources stay: RemoveNamespace and
// RemoveDefinitions are for them.
func (i *Installer) Uninstall(ctx context.Context, namespace string) ([]Change, error) {
	if err := (Options{Namespace: namespace, Profile: Single, Image: "any"}).Validate(); err != nil {
		return nil, err
	}
	objects, err := everything(namespace)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, object := range objects {
		if object.GetKind() == definitionKind || object.GetKind() == "Namespace" {
			continue
		}
		change, err := i.remove(ctx, object, namespace)
		if err == nil && object.GetKind() == "Deployment" && change.Action == Deleted {
			// What it still does it does with the rights that go next.
			err = i.gone(ctx, object)
		}
		if err != nil {
			return changes, fmt.Errorf("%s: %w", nameOf(object), err)
		}
		if change.Action != "" {
			changes = append(changes, change)
			i.tell(change)
		}
	}
	// The operator made this, and it has no label.
	lease := &unstructured.Unstructured{}
	lease.SetGroupVersionKind(schema.GroupVersionKind{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"})
	lease.SetNamespace(namespace)
	if err := i.of(lease).Delete(ctx, leaseName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return changes, fmt.Errorf("%s: %w", nameOf(lease), err)
	}
	return changes, nil
}

// remove deletes an object that an installation in the namespace has made. The
// action is empty where there is none.
func (i *Installer) remove(ctx context.Context, object *unstructured.Unstructured, namespace string) (Change, error) {
	change := Change{Object: nameOf(object)}
	live, err := i.of(object).Get(ctx, object.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return change, nil
	}
	if err != nil {
		return change, err
	}
	if labels := live.GetLabels(); labels[managedByLabel] != ownName || labels[instanceLabel] != namespace {
		change.Action, change.Message = Kept, "plumb install has not made it"
		return change, nil
	}
	uid, propagation := live.GetUID(), metav1.DeletePropagationBackground
	if object.GetKind() == "Deployment" {
		propagation = metav1.DeletePropagationForeground // it is gone once its pods are
	}
	err = i.of(object).Delete(ctx, object.GetName(), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &propagation,
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return change, err
	}
	change.Action = Deleted
	return change, nil
}

// gone waits until an object is, with all that belongs to it.
func (i *Installer) gone(ctx context.Context, object *unstructured.Unstructured) error {
	err := until(ctx, func() (bool, error) {
		_, err := i.of(object).Get(ctx, object.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("it was deleted and is still there: %w", ctx.Err())
	}
	return err
}

// RemoveNamespace deletes a namespace that plumb install has made, where nothing is
// left in it but what Kubernetes puts there. Otherwise the change says what is.
func (i *Installer) RemoveNamespace(ctx context.Context, name string) (Change, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
	object.SetName(name)
	live, err := i.of(object).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Change{Object: nameOf(object)}, nil
	}
	if err != nil {
		return Change{}, fmt.Errorf("%s: %w", nameOf(object), err)
	}
	if live.GetLabels()[managedByLabel] == ownName && live.GetLabels()[instanceLabel] == name {
		inside, err := i.inside(ctx, name)
		if err != nil {
			return Change{}, fmt.Errorf("%s: look what is in it: %w", nameOf(object), err)
		}
		if len(inside) > 0 {
			change := Change{Object: nameOf(object), Action: Kept, Message: "it holds " + some(inside)}
			i.tell(change)
			return change, nil
		}
	}
	change, err := i.remove(ctx, object, name)
	if err != nil {
		return change, fmt.Errorf("%s: %w", nameOf(object), err)
	}
	i.tell(change)
	return change, nil
}

// insideLimit bounds how many objects of a kind are asked for.
const insideLimit = 20

// inside are the objects in a namespace that somebody has put there.
func (i *Installer) inside(ctx context.Context, namespace string) ([]string, error) {
	lists, err := i.discovery.ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			if !resource.Namespaced || passing(resource.Kind) {
				continue
			}
			objects, err := i.client.Resource(version.WithResource(resource.Name)).Namespace(namespace).List(ctx, metav1.ListOptions{Limit: insideLimit})
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", resource.Name, err)
			}
			for n := range objects.Items {
				o := &objects.Items[n]
				if o.GetDeletionTimestamp() == nil && len(o.GetOwnerReferences()) == 0 && !byKubernetes(resource.Kind, o.GetName()) {
					found = append(found, resource.Kind+"/"+o.GetName())
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// passing are kinds of which objects come and go with others.
func passing(kind string) bool {
	return slices.Contains([]string{"Endpoints", "EndpointSlice", "Event"}, kind)
}

// byKubernetes tells an object that every namespace has.
func byKubernetes(kind, name string) bool {
	return kind == "ConfigMap" && name == "kube-root-ca.crt" || kind == "ServiceAccount" && name == "default"
}

// some names the first few.
func some(names []string) string {
	const few = 3
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}
