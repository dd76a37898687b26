package flux

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// succeed writes the status of a revision that is stored.
func (r *sourceReconciler[T, R]) succeed(ctx context.Context, obj T, f fetched) (ctrl.Result, error) {
	before, err := r.objects.get(ctx, client.ObjectKeyFromObject(obj))
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	after := before.DeepCopyObject().(T)
	news, err := r.describe(after, obj, f)
	if err != nil {
		return r.fail(ctx, obj, err)
	}
	if _, err := r.objects.patchStatus(ctx, before, after); err != nil {
		return ctrl.Result{}, err
	}
	if news {
		r.announce(after, before, f)
	}
	r.pauses.succeeded(obj.GetUID())
	r.stands(ctx, obj, f)
	if f.request != requestOf(before) {
		// Somebody has asked since that look began. It is told first, so that those who ask
		// without end do not keep it from being told.
		r.triggers.add(client.ObjectKeyFromObject(obj), urgent)
	}
	return ctrl.Result{RequeueAfter: r.interval(obj)}, nil
}

// describe writes a stored revision into the status, and returns whether it is news: a
// new artifact, or the first success after a failure.
func (r *sourceReconciler[T, R]) describe(after, started T, f fetched) (bool, error) {
	status := r.kind.status(after)
	c := conditioned{list: status.conditions, generation: started.GetGeneration()}
	changed, err := r.name(after, f)
	if err != nil {
		return false, err
	}
	recovered := c.is(meta.ReadyCondition, metav1.ConditionFalse)
	message, _ := r.kind.words(started, f)
	success, _ := r.kind.reasons(f)
	c.set(meta.ReadyCondition, metav1.ConditionTrue, success, message)
	c.set(sourcev1.ArtifactInStorageCondition, metav1.ConditionTrue, success, message)
	if f.verified != "" {
		c.set(sourcev1.SourceVerifiedCondition, metav1.ConditionTrue, meta.SucceededReason, f.verified)
	} else {
		c.remove(sourcev1.SourceVerifiedCondition)
	}
	c.remove(sourcev1.FetchFailedCondition, sourcev1.BuildFailedCondition, sourcev1.StorageOperationFailedCondition,
		sourcev1.IncludeUnavailableCondition, sourcev1.ArtifactOutdatedCondition, meta.ReconcilingCondition, meta.StalledCondition)
	*status.generation = started.GetGeneration()
	r.kind.observe(after, started, f)
	if f.request != "" {
		status.request.SetLastHandledReconcileRequest(f.request)
	}
	return changed || recovered, nil
}

// announce tells of an artifact that is new, or that could be confirmed again after a
// failure.
func (r *sourceReconciler[T, R]) announce(obj, before T, f fetched) {
	condition, news := r.kind.words(obj, f)
	success, _ := r.kind.reasons(f)
	event := gitops.Event{
		Severity: gitops.SeverityInfo, Reason: success, Revision: f.artifact.Revision, Message: condition,
		Metadata: map[string]string{sourceGroup + "/digest": f.artifact.Digest},
	}
	if old := before.GetArtifact(); old == nil || !old.HasDigest(f.artifact.Digest) || !old.HasRevision(f.artifact.Revision) {
		event.Message = news
		if success == meta.SucceededReason {
			event.Reason = "NewArtifact"
		}
		if f.rewritten {
			event.Message += "; the history was rewritten: the commit before it is not an ancestor"
		}
	}
	r.send(obj, event)
}

func (r *sourceReconciler[T, R]) send(obj T, event gitops.Event) {
	r.events.send(sourceManager, sourceGroup, sourcev1.GroupVersion.String()+"/"+r.kind.name(), obj, event)
}

// fail writes why there is no newer revision. The last one stays in force.
func (r *sourceReconciler[T, R]) fail(ctx context.Context, obj T, err error) (ctrl.Result, error) {
	var b *blocked
	isBlocked := errors.As(err, &b)
	if isBlocked && b.quiet {
		return ctrl.Result{RequeueAfter: b.retry}, r.hushed(ctx, obj, b)
	}
	stalled := isBlocked && b.stalled || gitops.KindOf(err) == gitops.Stalled ||
		gitops.KindOf(err) == gitops.Invalid && lasting(r.reasonOf(err))
	after := obj.DeepCopyObject().(T)
	caught, behind := r.catchUp(ctx, after)
	missing := r.unserved(ctx, after)
	if missing != nil {
		r.withdraw(after)
	}
	news := r.describeFailure(after, err, stalled)
	u := r.answer(after, err)
	if _, patchErr := r.objects.patchStatus(ctx, obj, after); patchErr != nil {
		return ctrl.Result{}, patchErr
	}
	if behind {
		r.caughtUp(ctx, after, obj, caught)
	}
	if missing != nil {
		r.announceWithdrawal(obj, missing)
	}
	if news {
		r.announceFailure(after)
	}
	if stalled {
		return ctrl.Result{}, nil
	}
	var pause time.Duration
	if isBlocked && b.retry > 0 {
		pause = b.retry
	} else {
		pause = r.pauses.backoff(obj.GetUID(), r.options.MinRetryDelay, r.options.MaxRetryDelay)
	}
	pause = min(pause, max(obj.GetRequeueAfter(), r.options.MinRetryDelay))
	if u != nil && u.pause > pause {
		// Not all who were sent away come back at the same instant.
		pause = lengthened(u.pause, r.options.IntervalJitter)
	}
	return ctrl.Result{RequeueAfter: pause}, nil
}

// answer notes in the status which request a failure answers: that of the object or, where it
// is one of a look, that for which the look was begun.
func (r *sourceReconciler[T, R]) answer(obj T, err error) *unfetched {
	var u *unfetched
	switch status := r.kind.status(obj); {
	case !errors.As(err, &u):
		setHandled(status.request, obj)
	case u.request != "":
		status.request.SetLastHandledReconcileRequest(u.request)
	}
	return u
}

// unaffected tells whether a look at the remote that failed is no failure of an object, because
// it needs none.
func (r *sourceReconciler[T, R]) unaffected(ctx context.Context, obj T, following pursuit[R], err error) bool {
	status := r.kind.status(obj)
	c := conditioned{list: status.conditions}
	return *status.artifact != nil && *status.generation == obj.GetGeneration() && c.is(meta.ReadyCondition, metav1.ConditionTrue) &&
		gitops.KindOf(err) != gitops.Stalled && failureCondition(r.reasonOf(err)) == sourcev1.FetchFailedCondition &&
		r.kind.settled(obj, following) && r.unserved(ctx, obj) == nil
}

// goOn leaves an object Ready. It looks again after its interval, and when what it follows changes.
func (r *sourceReconciler[T, R]) goOn(ctx context.Context, obj T, err error) (ctrl.Result, error) {
	ctrl.LoggerFrom(ctx).Info("A look at the remote failed that nothing depends on", "error", err.Error())
	after := obj.DeepCopyObject().(T)
	caught, behind := r.catchUp(ctx, after)
	r.answer(after, err)
	if _, err := r.objects.patchStatus(ctx, obj, after); err != nil {
		return ctrl.Result{}, err
	}
	if behind {
		r.caughtUp(ctx, after, obj, caught)
	}
	return ctrl.Result{RequeueAfter: r.interval(obj)}, nil
}

// announceFailure tells why a source could not be fetched, in the words of its condition.
func (r *sourceReconciler[T, R]) announceFailure(obj T) {
	ready := (conditioned{list: r.kind.status(obj).conditions}).get(meta.ReadyCondition)
	revision := ""
	if artifact := obj.GetArtifact(); artifact != nil {
		revision = artifact.Revision
	}
	r.send(obj, gitops.Event{Severity: gitops.SeverityError, Reason: ready.Reason, Message: ready.Message, Revision: revision})
}

// failures are the conditions that stand for kinds of failures.
func failures() []string {
	return []string{sourcev1.FetchFailedCondition, sourcev1.BuildFailedCondition, sourcev1.StorageOperationFailedCondition, sourcev1.IncludeUnavailableCondition}
}

// describeFailure writes an error into the status, and returns whether it is another one
// than before.
func (r *sourceReconciler[T, R]) describeFailure(after T, err error, stalled bool) bool {
	status := r.kind.status(after)
	c := conditioned{list: status.conditions, generation: after.GetGeneration()}
	reason := r.reasonOf(err)
	condition := failureCondition(reason)
	message := err.Error()
	if !stalled || lasting(reason) {
		message += r.inForce(after)
	}
	ready := c.get(meta.ReadyCondition)
	news := ready.Status != metav1.ConditionFalse || ready.Message != clip(message, maxConditionMessage)
	for _, other := range failures() {
		if other != condition {
			c.remove(other)
		}
	}
	if condition == sourcev1.SourceVerifiedCondition {
		c.set(condition, metav1.ConditionFalse, reason, message)
	} else {
		c.set(condition, metav1.ConditionTrue, reason, message)
	}
	if reason == ChartVerificationError {
		c.set(sourcev1.SourceVerifiedCondition, metav1.ConditionFalse, sourcev1.VerificationError, message)
	}
	c.set(meta.ReadyCondition, metav1.ConditionFalse, reason, message)
	if stalled {
		c.set(meta.StalledCondition, metav1.ConditionTrue, reason, message)
		c.remove(meta.ReconcilingCondition)
		*status.generation = after.GetGeneration()
	} else {
		c.set(meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason, "Retrying to fetch "+r.kind.settings(after).address)
		c.remove(meta.StalledCondition)
	}
	return news
}

// reasonOf is the reason of an error.
func (r *sourceReconciler[T, R]) reasonOf(err error) string {
	var b *blocked
	var e *gitops.Error
	switch {
	case errors.As(err, &b):
		return b.reason
	case errors.As(err, &e) && e.Reason != "":
		return e.Reason
	}
	_, failure := r.kind.reasons(fetched{})
	return failure
}

// lasting tells whether a failure with a reason stays until the object or what it is made
// from changes, either of which has it looked at again: as in Flux it is not retried.
func lasting(reason string) bool {
	switch reason {
	case invalidChartReference, metadataPatchError, valuesFilesError:
		return true
	}
	return false
}

// failureCondition is the condition that stands for failures with a reason.
func failureCondition(reason string) string {
	switch reason {
	case noRoom, sourcev1.ArchiveOperationFailedReason, sourcev1.DirCreationFailedReason, sourcev1.StatOperationFailedReason,
		includeIllegalPath, includeCopyFailure:
		return sourcev1.StorageOperationFailedCondition
	case includeNotFound, includeNoArtifact:
		return sourcev1.IncludeUnavailableCondition
	case sourcev1.VerificationError, invalidTagSignature, invalidCommitSignature, invalidVerificationMode, invalidGitObject:
		return sourcev1.SourceVerifiedCondition
	case metadataPatchError, valuesFilesError, dependencyBuildError, chartPackageError, ChartVerificationError:
		return sourcev1.BuildFailedCondition
	}
	return sourcev1.FetchFailedCondition
}

// noRoom is the reason of a revision that does not fit into what the sources of its namespace
// may keep. It is none of Flux's.
const noRoom = "StorageLimitExceeded"

// noRoomOr gives an error of artifact.NoRoom the reason noRoom; the other one where it is nil.
func noRoomOr(full, other error) error {
	if full == nil {
		return other
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: noRoom, Cause: fmt.Errorf("the newest revision is not taken: %w", full)}
}

// Reasons of Flux that have no name in its API.
const (
	includeNotFound   = "NotFound"
	includeNoArtifact = "NoArtifact"

	includeIllegalPath = "IllegalPath"
	includeCopyFailure = "CopyFailure"

	invalidTagSignature     = "InvalidTagSignature"
	invalidCommitSignature  = "InvalidCommitSignature"
	invalidVerificationMode = "InvalidVerificationMode"
	invalidGitObject        = "InvalidGitObject"

	noSourceArtifact      = "NoSourceArtifact"
	sourceUnavailable     = "SourceUnavailable"
	unsupportedSourceKind = "UnsupportedSourceKind"
	invalidChartReference = "InvalidChartReference"
	metadataPatchError    = "MetadataPatchError"
	valuesFilesError      = "ValuesFilesError"
	dependencyBuildError  = "DependencyBuildError"
	chartPackageError     = "ChartPackageError"
)

// ChartVerificationError is the reason of a chart whose signature is refused.
const ChartVerificationError = "ChartVerificationError"

// fetchError says that the time of the spec is over where that is what happened.
func (r *sourceReconciler[T, R]) fetchError(obj T, ctx context.Context, timeout time.Duration, err error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	_, failure := r.kind.reasons(fetched{})
	limit := "spec.timeout"
	if timeout == longestTimeout {
		limit += ", which can be no longer"
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: failure,
		Cause: fmt.Errorf("no answer from %q within %s (%s): %w", r.kind.settings(obj).address, timeout, limit, context.DeadlineExceeded)}
}
