package flux

import (
	"errors"
	"fmt"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func conditionsOf(obj *kustomizev1.Kustomization) conditioned {
	return conditioned{list: &obj.Status.Conditions, generation: obj.Generation}
}

// setHandled records the reconciliation request that a run answered.
func setHandled(status *meta.ReconcileRequestStatus, obj metav1.Object) {
	if v, ok := meta.ReconcileAnnotationValue(obj.GetAnnotations()); ok {
		status.SetLastHandledReconcileRequest(v)
	}
}

// requested tells whether somebody asked for a reconciliation that has not
// been answered.
func requested(annotations map[string]string, status meta.ReconcileRequestStatus) bool {
	v, ok := meta.ReconcileAnnotationValue(annotations)
	return ok && v != status.GetLastHandledReconcileRequest()
}

// describe writes the outcome of a run into the status. It returns whether the
// outcome is news: worth an event, and an entry in the history. A run that finds
// everything as it was leaves the status as it was. Quiet is set where a failure of
// health was told a short while ago: its text may have changed since. Disputes are
// those about objects of other owners that have lasted.
func describe(after, started *kustomizev1.Kustomization, artifact gitops.Artifact, report gitops.Report, disputes []string, quiet bool) bool {
	status := &after.Status
	c := conditioned{list: &status.Conditions, generation: started.Generation}
	status.LastAttemptedRevision = artifact.Revision
	if !report.Unreadable {
		status.Inventory = toInventory(report.Inventory, status.Inventory)
	}
	if report.Planned {
		describeContests(c, report.Contested)
		describeForeign(c, report.Foreign, disputes)
	}
	describeHeld(c, started, artifact.Revision, report)
	quiet = quiet && report.Failed() == gitops.StageHealth && c.is(meta.ReadyCondition, metav1.ConditionFalse) &&
		c.get(meta.ReadyCondition).Reason == meta.HealthCheckFailedReason
	if quiet {
		return false
	}
	describeHealth(c, started, report)
	if report.Waiting {
		describeProgress(c, artifact.Revision, started.GetTimeout())
		return false
	}
	asked := requested(started.Annotations, started.Status.ReconcileRequestStatus)
	var news bool
	if report.Err != nil {
		news = describeFailure(c, status, artifact, report, asked)
	} else {
		news = describeSuccess(c, status, started.Generation, artifact, report, asked)
	}
	setHandled(&status.ReconcileRequestStatus, started)
	return news
}

// describeProgress says that a run is under way.
func describeProgress(c conditioned, revision string, timeout time.Duration) {
	c.set(meta.ReadyCondition, metav1.ConditionUnknown, meta.ProgressingReason, "Reconciliation in progress")
	c.set(meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingReason,
		fmt.Sprintf("Applying revision %s with a timeout of %s", revision, timeout))
	c.remove(meta.StalledCondition)
}

func describeSuccess(c conditioned, status *kustomizev1.KustomizationStatus, generation int64, artifact gitops.Artifact, report gitops.Report, asked bool) bool {
	recovered := !c.is(meta.ReadyCondition, metav1.ConditionTrue) || c.is(meta.StalledCondition, metav1.ConditionTrue)
	moved := status.LastAppliedRevision != artifact.Revision
	c.set(meta.ReadyCondition, metav1.ConditionTrue, meta.ReconciliationSucceededReason, "Applied revision: "+artifact.Revision)
	c.remove(meta.ReconcilingCondition, meta.StalledCondition)
	status.ObservedGeneration = generation
	status.LastAppliedRevision = artifact.Revision
	status.LastAppliedOriginRevision = artifact.Metadata[originRevisionKey]
	if moved || recovered || asked {
		addHistory(status, meta.ReconciliationSucceededReason, artifact, report)
	}
	return recovered || asked || (moved && len(report.Changes) > 0)
}

func describeFailure(c conditioned, status *kustomizev1.KustomizationStatus, artifact gitops.Artifact, report gitops.Report, asked bool) bool {
	reason, message := failureReason(report.Err), report.Err.Error()
	ready := c.get(meta.ReadyCondition)
	news := asked || ready.Status != metav1.ConditionFalse || ready.Reason != reason || ready.Message != clip(message, maxConditionMessage)
	c.set(meta.ReadyCondition, metav1.ConditionFalse, reason, message)
	c.set(meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason,
		"Retrying revision "+artifact.Revision)
	c.remove(meta.StalledCondition)
	if news && report.Digest != (gitops.Digest{}) {
		addHistory(status, reason, artifact, report)
	}
	return news
}

// failureReason is the condition reason of an error: its own, or that of the
// stage that it came from.
func failureReason(err error) string {
	var e *gitops.Error
	if !errors.As(err, &e) {
		return meta.ReconciliationFailedReason
	}
	if e.Reason != "" {
		return e.Reason
	}
	switch e.Stage {
	case gitops.StageFetch:
		return meta.ArtifactFailedReason
	case gitops.StageBuild:
		return meta.BuildFailedReason
	case gitops.StagePrune:
		return meta.PruneFailedReason
	case gitops.StageHealth:
		return meta.HealthCheckFailedReason
	default:
		return meta.ReconciliationFailedReason
	}
}

// describeHealth sets the Healthy condition, which is there while health is
// checked at all.
func describeHealth(c conditioned, started *kustomizev1.Kustomization, report gitops.Report) {
	switch {
	case report.Checked == 0 && !report.Waiting:
		if report.Failed() == "" {
			c.remove(meta.HealthyCondition)
		}
	case report.Waiting:
		c.set(meta.HealthyCondition, metav1.ConditionUnknown, meta.ProgressingReason,
			fmt.Sprintf("Running health checks with a timeout of %s", started.GetTimeout()))
	case report.Failed() == gitops.StageHealth:
		c.set(meta.HealthyCondition, metav1.ConditionFalse, meta.HealthCheckFailedReason, report.Err.Error())
	case report.Err == nil && !c.is(meta.HealthyCondition, metav1.ConditionTrue):
		c.set(meta.HealthyCondition, metav1.ConditionTrue, meta.SucceededReason,
			fmt.Sprintf("Health check passed for %d objects", report.Checked))
	case report.Err == nil:
		// Still healthy: only the generation moves on.
		h := c.get(meta.HealthyCondition)
		c.set(meta.HealthyCondition, metav1.ConditionTrue, h.Reason, h.Message)
	}
}

// describeContests names the fields that somebody else changes again and again.
func describeContests(c conditioned, contests []gitops.Contest) {
	if len(contests) == 0 {
		c.remove(contestedCondition)
		return
	}
	lines := make([]string, 0, len(contests))
	reason := "FieldConflict"
	for _, contest := range contests {
		by := contest.By
		if by == "" {
			by = "another writer"
		}
		if by == admissionWriter {
			reason = "AdmissionChange"
		}
		lines = append(lines, fmt.Sprintf("%s: %s is changed by %s", contest.Ref, strings.Join(contest.Fields, ", "), by))
	}
	c.set(contestedCondition, metav1.ConditionTrue, reason, strings.Join(lines, "\n"))
}

// describeForeign names the objects that are left to their owners. A dispute that has
// not lasted yet leaves the condition as it is.
func describeForeign(c conditioned, foreign []gitops.ForeignObject, lasting []string) {
	switch {
	case len(foreign) == 0:
		c.remove(OwnedByOtherCondition)
	case len(lasting) > 0:
		c.set(OwnedByOtherCondition, metav1.ConditionTrue, OwnedByOtherCondition, fmt.Sprintf("%s left alone, because other owners declare them too%s%s",
			counted(len(lasting), "object is", "objects are"), summaryEnd, strings.Join(lasting, ", ")))
	}
}

func addHistory(status *kustomizev1.KustomizationStatus, outcome string, artifact gitops.Artifact, report gitops.Report) {
	metadata := map[string]string{"revision": artifact.Revision}
	if origin := artifact.Metadata[originRevisionKey]; origin != "" {
		metadata["originRevision"] = origin
	}
	status.History.Upsert(report.Digest.String(), report.Finished, report.Finished.Sub(report.Started).Round(time.Millisecond), outcome, metadata)
}

const (
	// originRevisionKey is the artifact annotation that holds the revision of
	// the sources that an artifact was made from.
	originRevisionKey = "org.opencontainers.image.revision"
	// admissionWriter is who a contest names where a field is changed while it
	// is written.
	admissionWriter = "admission"
)

// toInventory is the stored form of an inventory. It is nil only where there has
// never been one.
func toInventory(inventory gitops.Inventory, stored *kustomizev1.ResourceInventory) *kustomizev1.ResourceInventory {
	if len(inventory) == 0 && stored == nil {
		return nil
	}
	out := &kustomizev1.ResourceInventory{Entries: make([]kustomizev1.ResourceRef, 0, len(inventory))}
	for _, e := range inventory {
		out.Entries = append(out.Entries, kustomizev1.ResourceRef{ID: e.Ref.ID(), Version: e.Version})
	}
	return out
}

// fromInventory reads a stored inventory. An entry that cannot be read is an
// error: an inventory with a hole would forget an object.
func fromInventory(stored *kustomizev1.ResourceInventory) (gitops.Inventory, error) {
	if stored == nil {
		return nil, nil
	}
	entries := make([]gitops.InventoryEntry, 0, len(stored.Entries))
	for _, e := range stored.Entries {
		ref, err := gitops.ParseID(e.ID)
		if err != nil {
			return nil, fmt.Errorf("read status.inventory: %w", err)
		}
		entries = append(entries, gitops.InventoryEntry{Ref: ref, Version: e.Version})
	}
	return gitops.NewInventory(entries), nil
}
