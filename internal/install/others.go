package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
)

var (
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// controller is a Deployment that works on custom resources and runs.
type controller struct {
	namespace, name string
	// plumb tells another installation of this program from Flux's controllers.
	plumb bool
	// owner is the Kustomization that declares it, namespace/name; "" for none.
	owner string
}

func (c controller) String() string { return c.namespace + "/" + c.name }

// running lists the Deployments of all namespaces that are part of Flux and are not
// scaled to zero, but for the one of an installation in the given namespace.
func (i *Installer) running(ctx context.Context, namespace string) ([]controller, error) {
	list, err := i.client.Resource(deployments).List(ctx, metav1.ListOptions{LabelSelector: partOfLabel + "=flux"})
	if err != nil {
		return nil, fmt.Errorf("look for Flux's controllers: %w", err)
	}
	var found []controller
	for n := range list.Items {
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[n].Object, &d); err != nil {
			return nil, err
		}
		c := controller{namespace: d.Namespace, name: d.Name, plumb: d.Labels[componentLabel] == ownName}
		if owner := d.Labels["kustomize.toolkit.fluxcd.io/name"]; owner != "" {
			c.owner = d.Labels["kustomize.toolkit.fluxcd.io/namespace"] + "/" + owner
		}
		stopped := d.Spec.Replicas != nil && *d.Spec.Replicas == 0
		if itself := c.plumb && c.name == ownName && c.namespace == namespace; !stopped && !itself {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b controller) int { return strings.Compare(a.String(), b.String()) })
	return found, nil
}

// checkOthers refuses where somebody works on the kinds that the operator serves.
func (i *Installer) checkOthers(ctx context.Context, o Options) error {
	if o.BesideFlux {
		return nil
	}
	all, err := i.running(ctx, o.Namespace)
	if err != nil {
		return err
	}
	served, err := crds.Served()
	if err != nil {
		return err
	}
	same := slices.DeleteFunc(all, func(c controller) bool {
		return !c.plumb && !slices.ContainsFunc(served, func(d crds.Definition) bool {
			return d.Object.GetLabels()[componentLabel] == c.name
		})
	})
	if len(same) == 0 {
		return nil
	}
	return fmt.Errorf(`controllers run that work on the same objects: %s. Scale them down first:
%s--beside-flux installs the operator beside them; see that they share no object`, join(same), stopping(same))
}

// stopping are the commands that stop controllers, a line each, and what would start
// them again.
func stopping(controllers []controller) string {
	var b strings.Builder
	for _, c := range controllers {
		fmt.Fprintf(&b, "  kubectl -n %s scale deployment %s --replicas=0\n", c.namespace, c.name)
	}
	for n, c := range controllers {
		if c.owner == "" || slices.ContainsFunc(controllers[:n], func(before controller) bool { return before.owner == c.owner }) {
			continue
		}
		fmt.Fprintf(&b, "Kustomization %s declares them and would have them started again: suspend it, and take them out of Git\nbefore it is resumed (docs/install.md, Switching from Flux).\n", c.owner)
	}
	return b.String()
}

func join(controllers []controller) string {
	names := make([]string, len(controllers))
	for n, c := range controllers {
		names[n] = c.String()
	}
	return strings.Join(names, ", ")
}
