package flux

import (
	"context"
	"fmt"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// finalize lets go of a Kustomization that is being deleted: with prune its
// objects are deleted first, without it, or while suspended, they stay.
func (k *kustomizations) finalize(ctx context.Context, obj *kustomizev1.Kustomization) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(obj, kustomizev1.KustomizationFinalizer) {
		k.forget(client.ObjectKeyFromObject(obj))
		return ctrl.Result{}, nil
	}
	if wait, err := k.removeObjects(ctx, obj); err != nil || wait != nil {
		if wait != nil {
			return *wait, err
		}
		return ctrl.Result{}, err
	}
	if _, err := k.objects.setFinalizer(ctx, obj, kustomizev1.KustomizationFinalizer, false); err != nil {
		return ctrl.Result{}, err
	}
	k.pauses.forget(obj.UID)
	k.told.forget(obj.UID)
	k.forget(client.ObjectKeyFromObject(obj))
	return ctrl.Result{}, nil
}

// removeObjects deletes what the object manages, if that is what it asks for.
// It returns a result where the deletion has to go on later.
func (k *kustomizations) removeObjects(ctx context.Context, obj *kustomizev1.Kustomization) (*ctrl.Result, error) {
	inventory, err := fromInventory(obj.Status.Inventory)
	if !obj.Spec.Prune && obj.Spec.DeletionPolicy == "" || obj.Spec.DeletionPolicy == kustomizev1.DeletionPolicyOrphan {
		return nil, nil
	}
	if strings.EqualFold(obj.Annotations[orphanAnnotation], "true") || obj.Spec.Suspend || (err == nil && len(inventory) == 0) {
		return nil, nil
	}
	if err != nil {
		return k.hold(ctx, obj, fmt.Errorf("%w; repair it, or set the annotation %s: \"true\" to leave the objects behind", err, orphanAnnotation))
	}
	if refusal := refuseKustomization(obj, k.options); refusal != nil {
		return k.hold(ctx, obj, fmt.Errorf("%w; %d objects are kept: set the annotation %s: \"true\" to leave them behind",
			refusal, len(inventory), orphanAnnotation))
	}
	switch lost, err := k.lostIdentity(ctx, obj); {
	case err != nil:
		return nil, err
	case lost:
		k.orphan(obj, inventory, fmt.Sprintf("service account '%s/%s', with whose rights they were applied, does not exist any more", obj.Namespace, k.serviceAccount(obj)))
		return nil, nil
	}
	removal := engine.Removal{
		Owner: kustomizationRef(obj), Access: k.access(obj), Inventory: inventory, Timeout: obj.GetTimeout(),
		Siblings: func() []engine.Sibling { return k.siblings(obj) },
	}
	if snapshot, ok := k.sources.acquire(sourceRef(obj)); ok {
		defer snapshot.Release()
		removal.Snapshot = &snapshot
	}
	report := k.engine.Remove(ctx, removal)
	k.told.add(obj.UID, changeLines(report.Changes))
	k.announceChanges(obj, obj.Status.LastAppliedRevision)
	if report.Err == nil && len(report.Inventory) > 0 && !report.Next.IsZero() {
		// Another owner is about to take the rest over.
		return &ctrl.Result{RequeueAfter: soonest(k.clock.Now(), k.options.RequeueDependency, report.Next)}, nil
	}
	if report.Err == nil {
		return nil, nil
	}
	after := obj.DeepCopy()
	after.Status.Inventory = toInventory(report.Inventory, obj.Status.Inventory)
	c := conditionsOf(after)
	message := "pruning for deleted resource failed: " + report.Err.Error()
	news := c.get(meta.ReadyCondition).Message != clip(message, 20000)
	c.set(meta.ReadyCondition, "False", meta.PruneFailedReason, message)
	if _, err := k.objects.patchStatus(ctx, obj, after); err != nil {
		return nil, err
	}
	if news {
		k.events.failed(after, meta.PruneFailedReason, message, obj.Status.LastAppliedRevision)
	}
	pause := k.pauses.backoff(obj.UID, k.options.MinRetryDelay, k.options.MaxRetryDelay)
	return &ctrl.Result{RequeueAfter: pause}, nil
}

// hold keeps the finalizer and says why.
func (k *kustomizations) hold(ctx context.Context, obj *kustomizev1.Kustomization, err error) (*ctrl.Result, error) {
	result, stallErr := k.stall(ctx, obj, &blocked{reason: meta.FeatureGateDisabledReason, stalled: true, cause: err})
	return &result, stallErr
}

// maxOrphans is how many objects an event of orphaning names.
const maxOrphans = 200

// orphan tells what is left behind, and why.
func (k *kustomizations) orphan(obj *kustomizev1.Kustomization, inventory gitops.Inventory, why string) {
	lines := []string{fmt.Sprintf("%d objects are left behind: %s", len(inventory), why)}
	for i, e := range inventory {
		if i == maxOrphans {
			lines = append(lines, fmt.Sprintf("and %d more", len(inventory)-maxOrphans))
			break
		}
		lines = append(lines, e.Ref.String())
	}
	k.events.failed(obj, meta.PruneFailedReason, strings.Join(lines, "\n"), obj.Status.LastAppliedRevision)
}
