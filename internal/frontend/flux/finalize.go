package flux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// finalLook is how long a deletion that cannot be finished rests at most: the
	// namespace of the object may be deleted meanwhile, and must not wait for long.
	finalLook = time.Minute
	// finalPatience is how long an object keeps its own namespace from going.
	finalPatience = time.Minute
)

// finalize lets go of a Kustomization that is being deleted: its objects are
// deleted first or stay, as its deletion policy says.
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

// leftBehind says why the objects of a deleted Kustomization stay; "" where they
// are deleted.
func leftBehind(obj *kustomizev1.Kustomization) string {
	policy := obj.GetDeletionPolicy()
	switch {
	case strings.EqualFold(obj.Annotations[orphanAnnotation], "true"):
		return fmt.Sprintf("the annotation %s is set", orphanAnnotation)
	case obj.Spec.Suspend:
		return "it was suspended when it was deleted"
	case policy == kustomizev1.DeletionPolicyOrphan:
		return "its deletionPolicy is Orphan"
	case policy == kustomizev1.DeletionPolicyMirrorPrune && !obj.Spec.Prune:
		return "prune is off"
	}
	return ""
}

// removeObjects deletes what the object manages, if that is what it asks for.
// It returns a result where the deletion has to go on later.
func (k *kustomizations) removeObjects(ctx context.Context, obj *kustomizev1.Kustomization) (*ctrl.Result, error) {
	inventory, err := fromInventory(obj.Status.Inventory)
	if why := leftBehind(obj); why != "" {
		k.announceOrphans(obj, gitops.SeverityInfo, why, storedNames(obj.Status.Inventory))
		return nil, nil
	}
	// What only a build needs is not in the way of deleting, as in Flux.
	switch refusal := refuseIdentity(obj); {
	case err == nil && len(inventory) == 0:
		return nil, nil
	case err != nil:
		return k.hold(ctx, obj, meta.PruneFailedReason, fmt.Errorf("%w; repair it, or set the annotation %s: \"true\" to leave the objects behind", err, orphanAnnotation))
	case refusal != nil:
		return k.hold(ctx, obj, refusal.reason, fmt.Errorf("%w; %d objects are kept: set the annotation %s: \"true\" to leave them behind", refusal, len(inventory), orphanAnnotation))
	}
	if err := k.references.want(kustomizationRef(obj), referred(obj, k.options)); err != nil {
		return nil, err
	}
	switch lost, err := k.lostAccess(ctx, obj); {
	case err != nil:
		terminates, termErr := k.namespaceTerminates(ctx, obj.Namespace)
		if termErr != nil || !terminates {
			return nil, err
		}
		k.announceOrphans(obj, gitops.SeverityError, "its own namespace is being deleted, and "+err.Error(), inventoryNames(inventory))
		return nil, nil
	case lost != "":
		k.announceOrphans(obj, gitops.SeverityError, lost, inventoryNames(inventory))
		return nil, nil
	}
	access, err := k.access(obj)
	if errors.Is(err, errReferenceUnread) {
		return &ctrl.Result{RequeueAfter: k.options.RequeueDependency}, nil
	}
	if err != nil {
		return k.notRemoved(ctx, obj, gitops.Report{Err: err, Inventory: inventory})
	}
	release := k.slots.take(access.Remote)
	if release == nil {
		return &ctrl.Result{RequeueAfter: remotePause}, nil
	}
	defer release()
	report := k.remove(ctx, obj, access, inventory)
	switch {
	case report.Err == nil && report.Waiting:
		return k.awaitTermination(ctx, obj, report)
	case report.Err == nil && len(report.Inventory) > 0 && !report.Next.IsZero():
		// Another owner is about to take the rest over.
		return &ctrl.Result{RequeueAfter: soonest(k.clock.Now(), k.options.RequeueDependency, report.Next)}, nil
	case report.Err != nil:
		return k.notRemoved(ctx, obj, report)
	}
	k.announceOrphans(obj, gitops.SeverityInfo, "another Kustomization declares what this one managed", inventoryNames(report.Inventory))
	return nil, nil
}

// remove has the engine delete the objects, and tells what it did.
func (k *kustomizations) remove(ctx context.Context, obj *kustomizev1.Kustomization, access engine.Access, inventory gitops.Inventory) gitops.Report {
	removal := engine.Removal{
		Owner: kustomizationRef(obj), Access: access, Inventory: inventory, Timeout: obj.GetTimeout(),
		Wait:     obj.GetDeletionPolicy() == kustomizev1.DeletionPolicyWaitForTermination,
		Siblings: func() []engine.Sibling { return k.siblings(obj) },
	}
	if snapshot, ok := k.sources.acquire(sourceRef(obj)); ok {
		defer snapshot.Release()
		removal.Snapshot = &snapshot
	}
	report := k.engine.Remove(ctx, removal)
	k.told.add(obj.UID, changeLines(report.Changes))
	k.announceChanges(obj, obj.Status.LastAppliedRevision)
	// What was left already is left again in each run until the last object is gone.
	report.Left = slices.DeleteFunc(report.Left, func(l gitops.LeftObject) bool { return !k.told.first(obj.UID, "left "+l.Ref.ID()) })
	k.announceLeft(obj, report.Left)
	return report
}

// awaitTermination keeps the finalizer until the deleted objects are gone. The
// engine wakes the object then.
func (k *kustomizations) awaitTermination(ctx context.Context, obj *kustomizev1.Kustomization, report gitops.Report) (*ctrl.Result, error) {
	now := k.clock.Now()
	if over, err := k.namespaceInsists(ctx, obj, report, now); err != nil || over {
		return nil, err
	}
	pause := soonest(now, finalLook, report.Next)
	if due := k.pauses.due(obj.UID, "termination", now); due > 0 {
		return &ctrl.Result{RequeueAfter: soonest(now, due, report.Next)}, nil
	}
	after := obj.DeepCopy()
	after.Status.Inventory = toInventory(report.Inventory, obj.Status.Inventory)
	conditionsOf(after).set(meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingReason,
		fmt.Sprintf("Waiting with a timeout of %s until the deleted objects are gone", obj.GetTimeout()))
	if _, err := k.objects.patchStatus(ctx, obj, after); err != nil {
		return nil, err
	}
	return &ctrl.Result{RequeueAfter: pause}, nil
}

// notRemoved says why objects could not be deleted, or are not gone in time, and
// has it tried again.
func (k *kustomizations) notRemoved(ctx context.Context, obj *kustomizev1.Kustomization, report gitops.Report) (*ctrl.Result, error) {
	if over, err := k.namespaceInsists(ctx, obj, report, k.clock.Now()); err != nil || over {
		return nil, err
	}
	after := obj.DeepCopy()
	after.Status.Inventory = toInventory(report.Inventory, obj.Status.Inventory)
	c := conditionsOf(after)
	message := "pruning for deleted resource failed: " + report.Err.Error()
	if obj.Spec.KubeConfig != nil {
		message += fmt.Sprintf("; to leave the objects behind set the annotation %s: \"true\"", orphanAnnotation)
	}
	news := c.get(meta.ReadyCondition).Message != clip(message, maxConditionMessage)
	c.set(meta.ReadyCondition, "False", meta.PruneFailedReason, message)
	if _, err := k.objects.patchStatus(ctx, obj, after); err != nil {
		return nil, err
	}
	if news {
		k.events.failed(after, meta.PruneFailedReason, message, obj.Status.LastAppliedRevision)
	}
	pause := k.pauses.backoff(obj.UID, k.options.MinRetryDelay, min(k.options.MaxRetryDelay, finalLook))
	return &ctrl.Result{RequeueAfter: soonest(k.clock.Now(), pause, report.Next)}, nil
}

// namespaceInsists tells whether the object has to go although it is not done,
// because its own namespace is being deleted and has waited for long enough: the
// rights that are missing went with the namespace, and what is wrong is not going
// to be mended. What is not deleted is named in an event.
func (k *kustomizations) namespaceInsists(ctx context.Context, obj *kustomizev1.Kustomization, report gitops.Report, now time.Time) (bool, error) {
	terminates, err := k.namespaceTerminates(ctx, obj.Namespace)
	if err != nil || !terminates {
		return false, err
	}
	denied := gitops.KindOf(report.Err) == gitops.Denied
	if !denied && k.pauses.waited(obj.UID, now) < finalPatience {
		return false, nil
	}
	why := "its own namespace is being deleted, and not all of them are gone"
	if report.Err != nil {
		why = "its own namespace is being deleted, and they cannot be: " + report.Err.Error()
	}
	k.announceOrphans(obj, gitops.SeverityError, why, inventoryNames(report.Inventory))
	return true, nil
}

func (k *kustomizations) namespaceTerminates(ctx context.Context, name string) (bool, error) {
	namespace, err := k.references.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return false, nil // not to be found out
	case err != nil:
		return false, fmt.Errorf("find out whether namespace %q is being deleted: %w", name, err)
	}
	return !namespace.DeletionTimestamp.IsZero(), nil
}

// hold keeps the finalizer and says why, unless that kept a namespace from going.
func (k *kustomizations) hold(ctx context.Context, obj *kustomizev1.Kustomization, reason string, cause error) (*ctrl.Result, error) {
	terminates, err := k.namespaceTerminates(ctx, obj.Namespace)
	if err != nil {
		return nil, err
	}
	if terminates {
		k.announceOrphans(obj, gitops.SeverityError, "its own namespace is being deleted, and "+cause.Error(), storedNames(obj.Status.Inventory))
		return nil, nil
	}
	_, err = k.stall(ctx, obj, &blocked{reason: reason, stalled: true, cause: cause})
	return &ctrl.Result{RequeueAfter: finalLook}, err
}
