package flux

import (
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// describeArtifact writes a stored revision into the status, and returns
// whether it is news: a new artifact, or the first success after a failure.
func describeArtifact(after, started *sourcev1.GitRepository, f fetched, store packed) (bool, error) {
	status := &after.Status
	c := conditioned{list: &status.Conditions, generation: started.Generation}
	next, err := store.describe(f.artifact)
	if err != nil {
		return false, err
	}
	changed := status.Artifact == nil || status.Artifact.Revision != next.Revision || status.Artifact.Digest != next.Digest
	if !changed {
		next.LastUpdateTime = status.Artifact.LastUpdateTime
	}
	recovered := c.is(meta.ReadyCondition, metav1.ConditionFalse)
	status.Artifact = next
	status.IncludedArtifacts = nil
	for _, artifact := range f.includes {
		included, err := store.describe(artifact)
		if err != nil {
			return false, err
		}
		status.IncludedArtifacts = append(status.IncludedArtifacts, included)
	}
	message := fmt.Sprintf("stored artifact for revision '%s'", f.artifact.Revision)
	c.set(meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, message)
	c.set(sourcev1.ArtifactInStorageCondition, metav1.ConditionTrue, meta.SucceededReason, message)
	c.remove(sourcev1.FetchFailedCondition, sourcev1.StorageOperationFailedCondition, sourcev1.IncludeUnavailableCondition,
		sourcev1.ArtifactOutdatedCondition, meta.ReconcilingCondition, meta.StalledCondition)
	status.ObservedGeneration = started.Generation
	status.ObservedIgnore = started.Spec.Ignore
	status.ObservedInclude = started.Spec.Include
	status.ObservedRecurseSubmodules = started.Spec.RecurseSubmodules
	status.ObservedSparseCheckout = started.Spec.SparseCheckout
	setHandled(&status.ReconcileRequestStatus, started)
	return changed || recovered, nil
}

// describeFetchFailure writes an error into the status, and returns whether it
// is another one than before.
func describeFetchFailure(after *sourcev1.GitRepository, err error, stalled bool) bool {
	c := conditioned{list: &after.Status.Conditions, generation: after.Generation}
	reason, kind := sourceFailure(err)
	message := err.Error()
	if a := after.Status.Artifact; a != nil && !stalled {
		message += fmt.Sprintf("; revision '%s' stays in force", a.Revision)
	}
	ready := c.get(meta.ReadyCondition)
	news := ready.Status != metav1.ConditionFalse || ready.Message != clip(message, 20000)
	for _, other := range []string{sourcev1.FetchFailedCondition, sourcev1.StorageOperationFailedCondition, sourcev1.IncludeUnavailableCondition} {
		if other != kind {
			c.remove(other)
		}
	}
	c.set(kind, metav1.ConditionTrue, reason, message)
	c.set(meta.ReadyCondition, metav1.ConditionFalse, reason, message)
	if stalled {
		c.set(meta.StalledCondition, metav1.ConditionTrue, reason, message)
		c.remove(meta.ReconcilingCondition)
		after.Status.ObservedGeneration = after.Generation
	} else {
		c.set(meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason, "Retrying to fetch "+redactedURL(after.Spec.URL))
		c.remove(meta.StalledCondition)
	}
	return news
}

// sourceFailure is the reason of an error and the condition that stands for it.
func sourceFailure(err error) (reason, condition string) {
	reason, condition = sourcev1.GitOperationFailedReason, sourcev1.FetchFailedCondition
	var b *blocked
	var e *gitops.Error
	switch {
	case errors.As(err, &b):
		reason = b.reason
	case errors.As(err, &e) && e.Reason != "":
		reason = e.Reason
	}
	switch reason {
	case sourcev1.ArchiveOperationFailedReason, sourcev1.DirCreationFailedReason, sourcev1.StatOperationFailedReason:
		condition = sourcev1.StorageOperationFailedCondition
	case includeNotFound, includeNoArtifact:
		condition = sourcev1.IncludeUnavailableCondition
	}
	return reason, condition
}

// Reasons of an include that cannot be had.
const (
	includeNotFound   = "NotFound"
	includeNoArtifact = "NoArtifact"
)
