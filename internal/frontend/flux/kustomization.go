package flux

import (
	"context"
	"errors"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// KustomizationOptions are the settings of the Kustomization reconciler. The
// zero value of a duration or share means none.
type KustomizationOptions struct {
	// NoCrossNamespaceRefs refuses sources of other namespaces.
	NoCrossNamespaceRefs bool
	// ReferencesAsOwner reads what a Kustomization refers to with the rights of its
	// service account.
	ReferencesAsOwner bool
	// Sources are the kinds of sources that can be followed; nil for GitRepository.
	Sources map[string]bool
	// DefaultServiceAccount is whose rights are used for a Kustomization that names
	// no service account; empty for the operator's own.
	DefaultServiceAccount string
	// Kubeconfigs says what the kubeconfigs of remote clusters may ask for.
	Kubeconfigs cluster.KubeconfigPolicy
	// DefaultKubeconfigServiceAccount is whose tokens a remote cluster is given where
	// its ConfigMap names no service account; empty for none.
	DefaultKubeconfigServiceAccount string
	// DefaultDecryptionServiceAccount is as whom services that keep keys are asked where
	// a Kustomization names no service account; empty for the operator itself.
	DefaultDecryptionServiceAccount string
	// ServiceAccountLogins lets service accounts log in at clouds.
	ServiceAccountLogins bool
	// VaultConfig is the ConfigMap with the Vaults at which service accounts log in; no
	// name for none.
	VaultConfig client.ObjectKey
	// AgeSecret has the age identities for Kustomizations with decryption that name
	// no Secret themselves; no name for none.
	AgeSecret client.ObjectKey
	// StrictSubstitution fails a build on a variable that is not set and has no default.
	StrictSubstitution bool
	// AdditiveDependencyCheck asks for the built-in dependency check beside a readyExpr.
	AdditiveDependencyCheck bool
	// RequeueDependency is the pause after which a dependency or source that is
	// not ready is looked at again, should no event come before.
	RequeueDependency time.Duration
	// MinRetryDelay and MaxRetryDelay bound the pauses after transient failures.
	MinRetryDelay, MaxRetryDelay time.Duration
	// IntervalJitter is the share, from 0 to 1, by which intervals vary.
	IntervalJitter float64
}

// followsKind tells whether sources of a kind can be followed.
func (o KustomizationOptions) followsKind(kind string) bool {
	if o.Sources == nil {
		return kind == sourcev1.GitRepositoryKind
	}
	return o.Sources[kind]
}

// kustomizations reconciles Kustomizations.
type kustomizations struct {
	objects    *objects[*kustomizev1.Kustomization]
	selector   labels.Selector
	metrics    Metrics
	engine     *engine.Engine
	sources    *sources
	references *references
	events     *events
	clock      clock.PassiveClock
	options    KustomizationOptions
	triggers   *triggers
	pauses     *pauses
	told       *told
	rules      *healthRules
	slots      *slots
	// logins log in at clusters of clouds; nil where nobody does.
	logins *auth.Logins
}

// reconcile brings one Kustomization as far as it can be brought now.
func (k *kustomizations) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj, err := k.objects.get(ctx, req.NamespacedName)
	switch {
	case apierrors.IsNotFound(err):
		markGone(ctx)
		k.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	case !serves(k.selector, obj):
		k.pauses.forget(obj.UID)
		k.told.forget(obj.UID)
		k.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	case !obj.DeletionTimestamp.IsZero():
		return k.finalize(ctx, obj)
	case obj.Spec.Suspend:
		ctrl.LoggerFrom(ctx).Info("Reconciliation is suspended for this object")
		k.engine.Suspend(kustomizationRef(obj))
		return ctrl.Result{}, nil
	}
	if err := refuseKustomization(obj, k.options); err != nil {
		k.engine.Suspend(kustomizationRef(obj))
		return k.stall(ctx, obj, err)
	}
	obj, err = k.objects.setFinalizer(ctx, obj, kustomizev1.KustomizationFinalizer, true)
	if err != nil {
		return ctrl.Result{}, err
	}
	return k.advance(ctx, obj)
}

// advance runs one Kustomization that is to be worked on.
func (k *kustomizations) advance(ctx context.Context, obj *kustomizev1.Kustomization) (ctrl.Result, error) {
	if err := k.references.want(kustomizationRef(obj), referred(obj, k.options)); err != nil {
		return k.wait(ctx, obj, gitops.Report{}, err)
	}
	access, err := k.access(obj)
	if err != nil {
		// Credentials that were taken away are not used any more.
		if !errors.Is(err, errReferenceUnread) {
			k.engine.Suspend(kustomizationRef(obj))
		}
		return k.wait(ctx, obj, gitops.Report{}, err)
	}
	release := k.slots.take(access.Remote)
	if release == nil {
		return ctrl.Result{RequeueAfter: remotePause}, nil
	}
	defer release()
	rules, err := k.rules.of(obj)
	if err != nil {
		return k.keep(ctx, obj, access, err)
	}
	snapshot, err := k.snapshot(obj)
	if err != nil {
		return k.keep(ctx, obj, access, err)
	}
	defer snapshot.Release()
	task, err := k.task(obj, access, snapshot, rules)
	if err != nil {
		return k.keep(ctx, obj, access, err)
	}
	if err := k.checkDependencies(ctx, obj, snapshot.Artifact.Revision); err != nil {
		k.engine.Prepare(ctx, task)
		return k.keep(ctx, obj, access, err)
	}
	report := k.engine.Run(ctx, task)
	if errors.Is(report.Err, context.Canceled) {
		return ctrl.Result{}, nil
	}
	return k.finish(ctx, obj, snapshot.Artifact, report)
}

// keep repairs what was applied before while a new revision cannot be worked
// on, and says why it cannot.
func (k *kustomizations) keep(ctx context.Context, obj *kustomizev1.Kustomization, access engine.Access, err error) (ctrl.Result, error) {
	report := k.engine.Run(ctx, k.maintenance(obj, access))
	k.told.add(obj.UID, changeLines(report.Changes))
	k.announceChanges(obj, obj.Status.LastAppliedRevision)
	k.announceMove(obj, report)
	if report.Err != nil && !errors.Is(report.Err, context.Canceled) && k.told.first(obj.UID, "keep "+report.Err.Error()) {
		k.events.failed(obj, failureReason(report.Err), "keeping what was applied: "+report.Err.Error(), obj.Status.LastAppliedRevision)
	}
	return k.wait(ctx, obj, report, err)
}

// wait says why a Kustomization cannot be worked on, and has it tried again. The report
// is that of keeping what was applied before.
func (k *kustomizations) wait(ctx context.Context, obj *kustomizev1.Kustomization, report gitops.Report, err error) (ctrl.Result, error) {
	now := k.clock.Now()
	var b *blocked
	switch {
	case errors.Is(err, context.Canceled):
		return ctrl.Result{}, nil
	case !errors.As(err, &b):
		b = &blocked{reason: meta.ReconciliationFailedReason, cause: err, retry: retryOf(obj)}
	case b.stalled:
		// What was applied before is kept in order meanwhile.
		pause := obj.GetRequeueAfter()
		if report.Err != nil {
			pause = retryOf(obj)
		}
		_, err := k.stall(ctx, obj, b)
		return ctrl.Result{RequeueAfter: soonest(now, pause, report.Next)}, err
	}
	asked := requested(obj.Annotations, obj.Status.ReconcileRequestStatus)
	if due := k.pauses.due(obj.UID, b.Error(), now); due > 0 && !asked {
		return ctrl.Result{RequeueAfter: due}, nil
	}
	if !b.quiet {
		after := obj.DeepCopy()
		c := conditionsOf(after)
		news := c.get(meta.ReadyCondition).Message != b.Error()
		c.set(meta.ReadyCondition, "False", b.reason, b.Error())
		c.remove(meta.StalledCondition)
		setHandled(&after.Status.ReconcileRequestStatus, obj)
		if _, err := k.objects.patchStatus(ctx, obj, after); err != nil {
			return ctrl.Result{}, err
		}
		if news {
			k.events.blocked(after, b)
		}
	}
	retry := b.retry
	if retry <= 0 {
		retry = k.options.RequeueDependency
	}
	return ctrl.Result{RequeueAfter: soonest(now, retry, report.Next)}, nil
}

// stall records an error that only a change of the object can mend.
func (k *kustomizations) stall(ctx context.Context, obj *kustomizev1.Kustomization, b *blocked) (ctrl.Result, error) {
	after := obj.DeepCopy()
	c := conditionsOf(after)
	news := c.get(meta.StalledCondition).Message != b.Error()
	c.set(meta.ReadyCondition, "False", b.reason, b.Error())
	c.set(meta.StalledCondition, "True", b.reason, b.Error())
	c.remove(meta.ReconcilingCondition)
	after.Status.ObservedGeneration = obj.Generation
	setHandled(&after.Status.ReconcileRequestStatus, obj)
	if _, err := k.objects.patchStatus(ctx, obj, after); err != nil {
		return ctrl.Result{}, err
	}
	if news {
		k.events.blocked(after, b)
	}
	return ctrl.Result{}, nil
}

// finish turns a report into status, events and the time of the next run.
// Started is the object that the run was made for: what it asked for has been
// answered, not what was asked for since.
func (k *kustomizations) finish(ctx context.Context, started *kustomizev1.Kustomization, artifact gitops.Artifact, report gitops.Report) (ctrl.Result, error) {
	now := k.clock.Now()
	k.told.add(started.UID, changeLines(report.Changes))
	k.announceMove(started, report)
	disputes, more := k.announceDisputes(started, report, now)
	if more > 0 {
		if at := now.Add(more); report.Next.IsZero() || at.Before(report.Next) {
			report.Next = at
		}
	}
	before, err := k.objects.get(ctx, client.ObjectKeyFromObject(started))
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	quiet := k.told.quiet(started, artifact.Revision, report, now)
	if report.Waiting {
		if due := max(k.pauses.due(started.UID, "waiting for "+artifact.Revision, now), quiet); due > 0 {
			return ctrl.Result{RequeueAfter: soonest(now, due, report.Next)}, nil
		}
	} else {
		k.pauses.over(started.UID)
		if report.Built && onlyMoves(before, started, report) && k.pauses.giveWay(started.UID, artifact.Revision) {
			return ctrl.Result{RequeueAfter: time.Millisecond}, nil
		}
	}
	after := before.DeepCopy()
	news := describe(after, started, artifact, report, disputes, quiet > 0)
	if _, err := k.objects.patchStatus(ctx, before, after); err != nil {
		return ctrl.Result{}, err
	}
	k.announceLeft(after, report.Left)
	k.announceHeld(before, after, artifact.Revision)
	next := k.next(started, report, now)
	if quiet > 0 {
		next = min(next, quiet)
	}
	k.told.unhealthy(started, artifact.Revision, report, news, now)
	if news {
		k.announceOutcome(after, artifact, report, next)
	} else {
		k.announceChanges(after, artifact.Revision)
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// onlyMoves tells whether a run leaves nothing to say but the revision. After a start
// every owner is built, and what drifted or changed meanwhile is to be found before
// each of the others has had its status written.
func onlyMoves(obj, started *kustomizev1.Kustomization, report gitops.Report) bool {
	return report.Err == nil && len(changeLines(report.Changes)) == 0 && len(report.Contested) == 0 &&
		conditionsOf(obj).is(meta.ReadyCondition, "True") && obj.Status.ObservedGeneration == started.Generation &&
		!requested(started.Annotations, started.Status.ReconcileRequestStatus)
}

// next is the pause until the object is looked at again without an event.
func (k *kustomizations) next(obj *kustomizev1.Kustomization, report gitops.Report, now time.Time) time.Duration {
	pause := paced(obj.GetRequeueAfter(), k.options.IntervalJitter)
	switch {
	case report.Err == nil:
		k.pauses.succeeded(obj.UID)
	case gitops.KindOf(report.Err) == gitops.Transient:
		pause = min(retryOf(obj), k.pauses.backoff(obj.UID, k.options.MinRetryDelay, k.options.MaxRetryDelay))
	default:
		pause = retryOf(obj)
	}
	return soonest(now, pause, report.Next)
}

// forget drops all that is remembered of a Kustomization that is gone.
func (k *kustomizations) forget(key client.ObjectKey) {
	owner := gitops.OwnerRef{Group: kustomizeGroup, Kind: kustomizev1.KustomizationKind, Namespace: key.Namespace, Name: key.Name}
	k.engine.Forget(owner)
	k.rules.forget(key)
	k.metrics.Forget(kustomizev1.KustomizationKind, key.Namespace, key.Name)
	k.references.release(owner)
}
