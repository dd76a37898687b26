package try

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/plumb-gitops/plumb/internal/build"
)

const (
	// rootName is the name and the namespace of what flux bootstrap creates.
	rootName = "flux-system"

	sourceGroup    = "source.toolkit.fluxcd.io"
	kustomizeGroup = "kustomize.toolkit.fluxcd.io"
	generatorGroup = "source.extensions.fluxcd.io"
	// requestedAt asks for a reconciliation.
	requestedAt = "reconcile.fluxcd.io/requestedAt"
	// fieldManager writes what this package creates.
	fieldManager = "plumb-try"
)

// resources are those that this package writes and follows.
var (
	namespaces      = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	gitRepositories = schema.GroupVersionResource{Group: sourceGroup, Version: "v1", Resource: "gitrepositories"}
	kustomizations  = schema.GroupVersionResource{Group: kustomizeGroup, Version: "v1", Resource: "kustomizations"}
)

// origin is what is followed.
type origin struct {
	url, branch string
	// path is the folder that is applied, "" for the root.
	path string
}

// bootstrapSource creates the first half of what flux bootstrap would: the
// namespace and the source. It waits for their kinds to be served.
func bootstrapSource(ctx context.Context, client dynamic.Interface, o origin) error {
	namespace := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": rootName}}
	if err := applyObject(ctx, client.Resource(namespaces), rootName, namespace); err != nil {
		return err
	}
	return applySource(ctx, client, o, "")
}

// bootstrapRoot creates the other half, the Kustomization.
func bootstrapRoot(ctx context.Context, client dynamic.Interface, o origin, namespace string) error {
	return applyObject(ctx, client.Resource(kustomizations).Namespace(rootName), rootName, rootKustomization(o, namespace))
}

// applySource writes the GitRepository; requested, if not empty, asks for a fetch
// at once.
func applySource(ctx context.Context, client dynamic.Interface, o origin, requested string) error {
	metadata := map[string]any{"name": rootName, "namespace": rootName}
	if requested != "" {
		metadata["annotations"] = map[string]any{requestedAt: requested}
	}
	return applyObject(ctx, client.Resource(gitRepositories).Namespace(rootName), rootName, map[string]any{
		"apiVersion": gitRepositories.GroupVersion().String(),
		"kind":       "GitRepository",
		"metadata":   metadata,
		"spec": map[string]any{
			"interval": "1m0s",
			"url":      o.url,
			"ref":      map[string]any{"branch": o.branch},
		},
	})
}

// rootKustomization applies the origin's folder. Namespace, if not empty, is that of
// all objects.
func rootKustomization(o origin, namespace string) map[string]any {
	var patches []any
	for _, p := range leftOut() {
		patches = append(patches, map[string]any{
			"patch": p.Patch,
			"target": map[string]any{
				"group": p.Target.Group, "kind": p.Target.Kind, "name": p.Target.Name,
				"namespace": p.Target.Namespace, "labelSelector": p.Target.LabelSelector,
			},
		})
	}
	root := map[string]any{
		"apiVersion": kustomizations.GroupVersion().String(),
		"kind":       "Kustomization",
		"metadata":   map[string]any{"name": rootName, "namespace": rootName},
		"spec": map[string]any{
			"interval":      "10m0s",
			"retryInterval": "1m0s",
			"path":          "./" + o.path,
			"prune":         true,
			"sourceRef":     map[string]any{"kind": "GitRepository", "name": rootName},
			"patches":       patches,
		},
	}
	if namespace != "" {
		root["spec"].(map[string]any)["targetNamespace"] = namespace
	}
	return root
}

// leftOut are patches that drop what flux bootstrap has committed to a repository:
// in gotk-sync.yaml the source and the Kustomization that stand here instead, in
// gotk-components.yaml Flux's controllers and definitions. The files are part of
// a kustomization.yaml, so they have to stay in the build; patches that match
// nothing change nothing.
func leftOut() []build.Patch {
	const drop = "apiVersion: v1\nkind: Left\nmetadata:\n  name: out\n$patch: delete\n"
	return []build.Patch{
		{Patch: drop, Target: &build.Selector{Group: kustomizeGroup, Kind: "Kustomization", Name: rootName, Namespace: rootName}},
		{Patch: drop, Target: &build.Selector{Group: sourceGroup, Kind: "(GitRepository|OCIRepository|Bucket)", Name: rootName, Namespace: rootName}},
		{Patch: drop, Target: &build.Selector{
			Kind: "(Namespace|ResourceQuota|CustomResourceDefinition|ServiceAccount|ClusterRole|ClusterRoleBinding|" +
				"Role|RoleBinding|Service|Deployment|NetworkPolicy)",
			LabelSelector: "app.kubernetes.io/part-of=flux,app.kubernetes.io/instance=" + rootName,
		}},
	}
}

// applyObject applies an object, and waits while its kind is not served yet.
func applyObject(ctx context.Context, resource dynamic.ResourceInterface, name string, object map[string]any) error {
	data, err := json.Marshal(object)
	if err != nil {
		return err
	}
	force := true
	for {
		_, err := resource.Patch(ctx, name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
		if err == nil {
			return nil
		}
		if !apierrors.IsNotFound(err) || ctx.Err() != nil {
			return fmt.Errorf("create %s %q: %w", object["kind"], name, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
