package flux

import (
	"context"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// Preview is what a Kustomization asks for, read once: for commands that show what
// the operator would do.
type Preview struct {
	Owner gitops.OwnerRef
	// Remote is the cluster that it is applied to; nil for that of the object.
	Remote    *engine.Remote
	Source    gitops.OwnerRef
	Build     build.Spec
	Inventory gitops.Inventory
	Prune     bool
	Force     bool
	// Approved is the revision whose held deletions were confirmed; empty for none.
	Approved string
}

// NewPreview translates a Kustomization as its reconciler does, and reads what its
// substitutions and its decryption refer to. It fails for what the operator would refuse.
func NewPreview(ctx context.Context, client kubernetes.Interface, obj *kustomizev1.Kustomization, options KustomizationOptions) (Preview, error) {
	if b := refuseKustomization(obj, options); b != nil {
		return Preview{}, b
	}
	owner := kustomizationRef(obj)
	inventory, err := fromInventory(obj.Status.Inventory)
	if err != nil {
		return Preview{}, err
	}
	language, err := health.NewLanguage()
	if err != nil {
		return Preview{}, err
	}
	if _, err := HealthRules(language, obj.Spec.HealthCheckExprs); err != nil {
		return Preview{}, err
	}
	table := newReferences(client, nil, func(gitops.OwnerRef) {})
	defer table.release(owner)
	if err := table.readOnce(ctx, owner, referred(obj, options)); err != nil {
		return Preview{}, err
	}
	k := &kustomizations{references: table, options: options}
	spec, err := k.buildSpec(obj)
	if err != nil {
		return Preview{}, err
	}
	spec.Keys = Keys()
	remote, err := k.remote(obj)
	if err != nil {
		return Preview{}, err
	}
	return Preview{
		Owner: owner, Remote: remote, Source: sourceRef(obj), Build: spec, Inventory: inventory, Prune: obj.Spec.Prune, Force: obj.Spec.Force,
		Approved: obj.Annotations[ApproveAnnotation],
	}, nil
}

// readOnce fills a table that is not started with what an owner refers to.
func (r *references) readOnce(ctx context.Context, owner gitops.OwnerRef, refs []reference) error {
	if err := r.want(owner, refs); err != nil {
		return err
	}
	for _, ref := range refs {
		r.mu.Lock()
		store := &referenceStore{table: r, ref: ref, of: r.watched[ref]}
		r.mu.Unlock()
		object, err := r.get(ctx, ref)
		switch {
		case apierrors.IsNotFound(err):
			err = store.Delete(nil)
		case err == nil:
			err = store.Add(object)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *references) get(ctx context.Context, ref reference) (any, error) {
	if ref.kind == secretKind {
		return r.client.CoreV1().Secrets(ref.namespace).Get(ctx, ref.name, metav1.GetOptions{})
	}
	return r.client.CoreV1().ConfigMaps(ref.namespace).Get(ctx, ref.name, metav1.GetOptions{})
}
