package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
)

// manager is the field manager of what is installed: not that of managed objects,
// so that a Kustomization that declares them takes them over.
const manager = "plumb"

// lookEvery is how often a cluster is looked at while something is waited for.
const lookEvery = 250 * time.Millisecond

// Action is what became of an object.
type Action string

// The actions.
const (
	Created    Action = "created"
	Configured Action = "configured"
	Unchanged  Action = "unchanged"
	Deleted    Action = "deleted"
	// Kept is for an object that is somebody else's, or that holds what is.
	Kept Action = "kept"
)

// Change is one object and what became of it.
type Change struct {
	// Object is Kind/name or Kind/namespace/name.
	Object string `json:"object"`
	Action Action `json:"action"`
	// Message says why, where that is not plain.
	Message string `json:"message,omitempty"`
}

// Installer installs into one cluster.
type Installer struct {
	client    dynamic.Interface
	discovery discovery.DiscoveryInterface
	// say takes a line for the person who waits.
	say func(format string, args ...any)
}

// New makes an Installer. It sends nothing. say takes lines that tell what happens.
func New(config *rest.Config, say func(format string, args ...any)) (*Installer, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	known, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &Installer{client: client, discovery: known, say: say}, nil
}

// Install applies what the options ask for, removes what an earlier installation
// with other options left, and waits until the operator is available or the context
// ends. To do it again changes nothing.
func (i *Installer) Install(ctx context.Context, o Options) ([]Change, error) {
	objects, err := Objects(o)
	if err != nil {
		return nil, err
	}
	if err := i.checkOthers(ctx, o); err != nil {
		return nil, err
	}
	var changes []Change
	for n, object := range objects {
		change, err := i.apply(ctx, object)
		if err != nil {
			return changes, fmt.Errorf("%s: %w", nameOf(object), err)
		}
		changes = append(changes, change)
		i.tell(change)
		if last := n+1 == len(objects) || objects[n+1].GetKind() != object.GetKind(); last && object.GetKind() == definitionKind {
			if err := i.established(ctx, objects); err != nil {
				return changes, err
			}
		}
	}
	left, err := i.leftovers(o)
	if err != nil {
		return changes, err
	}
	for _, object := range left {
		change, err := i.remove(ctx, object, o.Namespace)
		if err != nil {
			return changes, fmt.Errorf("%s: %w", nameOf(object), err)
		}
		if change.Action == Deleted {
			changes = append(changes, change)
			i.tell(change)
		}
	}
	return changes, i.available(ctx, o.Namespace)
}

// tell says what became of an object, unless nothing did.
func (i *Installer) tell(c Change) {
	if c.Action == Unchanged {
		return
	}
	if c.Message != "" {
		i.say("%s %s: %s", c.Object, c.Action, c.Message)
		return
	}
	i.say("%s %s", c.Object, c.Action)
}

const definitionKind = "CustomResourceDefinition"

// of gives the client for an object.
func (i *Installer) of(object *unstructured.Unstructured) dynamic.ResourceInterface {
	resource, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
	if object.GetNamespace() == "" {
		return i.client.Resource(resource)
	}
	return i.client.Resource(resource).Namespace(object.GetNamespace())
}

// apply applies one object, unless it is to be left as it is.
func (i *Installer) apply(ctx context.Context, object *unstructured.Unstructured) (Change, error) {
	change := Change{Object: nameOf(object)}
	live, err := i.of(object).Get(ctx, object.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		live, err = nil, nil
	}
	if err != nil {
		return change, err
	}
	if live != nil {
		if why := keep(live, object); why != "" {
			change.Action, change.Message = Kept, why
			return change, nil
		}
	}
	after, err := i.of(object).Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: manager, Force: true})
	switch {
	case err != nil && strings.Contains(err.Error(), "storedVersions"):
		return change, fmt.Errorf("%w; objects of a version that Flux has given up are still stored: run `flux migrate` first", err)
	case err != nil:
		return change, err
	case live == nil:
		change.Action = Created
	case live.GetResourceVersion() == after.GetResourceVersion():
		change.Action = Unchanged
	default:
		change.Action = Configured
	}
	return change, nil
}

// keep says why a live object is left as it is: it is not ours and may hold or serve
// what is not ours either. "" where it is to be applied.
func keep(live, wanted *unstructured.Unstructured) string {
	ours := live.GetLabels()[managedByLabel] == ownName
	switch live.GetKind() {
	case "Namespace":
		if !ours {
			return "it was there; its labels for pod security are not set"
		}
	case "Service":
		if ours {
			return ""
		}
		selector, _, _ := unstructured.NestedStringMap(live.Object, "spec", "selector")
		pods, _, _ := unstructured.NestedStringMap(wanted.Object, "spec", "selector")
		for key, value := range pods {
			if len(selector) != len(pods) || selector[key] != value {
				return fmt.Sprintf("it was there and selects other pods: artifacts are not served under its name until its spec.selector is %s: %s", key, value)
			}
		}
		return "it was there, and selects the operator's pod"
	case definitionKind:
		there, err := semver.NewVersion(live.GetLabels()[versionLabel])
		if err != nil || live.GetLabels()[partOfLabel] != "flux" {
			return ""
		}
		if there.GreaterThan(semver.MustParse(crds.FluxVersion)) {
			return fmt.Sprintf("it is that of Flux %s, which is newer than %s", live.GetLabels()[versionLabel], crds.FluxVersion)
		}
	}
	return ""
}

// established waits until the definitions among the objects are served.
func (i *Installer) established(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if object.GetKind() != definitionKind {
			continue
		}
		err := until(ctx, func() (bool, error) {
			live, err := i.of(object).Get(ctx, object.GetName(), metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			return condition(live, "Established").Status == metav1.ConditionTrue, nil
		})
		if err != nil {
			return fmt.Errorf("%s is not served: %w", nameOf(object), err)
		}
	}
	return nil
}

// leftovers are the objects of installations with other options that these options
// do not have.
func (i *Installer) leftovers(o Options) ([]*unstructured.Unstructured, error) {
	wanted, err := Objects(o)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, object := range wanted {
		have[nameOf(object)] = true
	}
	all, err := everything(o.Namespace)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(object *unstructured.Unstructured) bool { return have[nameOf(object)] }), nil
}

// everything is what any installation in a namespace may consist of, the last to be
// applied first, each object once.
func everything(namespace string) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	seen := map[string]bool{}
	for _, profile := range Profiles() {
		for _, beside := range []bool{false, true} {
			objects, err := Objects(Options{Namespace: namespace, Profile: profile, Image: "any", BesideFlux: beside})
			if err != nil {
				return nil, err
			}
			for _, object := range objects {
				if !seen[nameOf(object)] {
					seen[nameOf(object)] = true
					all = append(all, object)
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *unstructured.Unstructured) int { return rank(b.GetKind()) - rank(a.GetKind()) })
	return all, nil
}

// until calls done until it says so, fails, or the context ends.
func until(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if ok, err := done(); err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// condition is the condition of a type; its status is empty where there is none.
func condition(object *unstructured.Unstructured, kind string) metav1.Condition {
	list, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, entry := range list {
		fields, _ := entry.(map[string]any)
		if fields["type"] != kind {
			continue
		}
		text := func(key string) string { s, _ := fields[key].(string); return s }
		return metav1.Condition{Type: kind, Status: metav1.ConditionStatus(text("status")), Reason: text("reason"), Message: text("message")}
	}
	return metav1.Condition{}
}
