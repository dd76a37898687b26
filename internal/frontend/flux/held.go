package flux

import (
	"fmt"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// maxHeldNames bounds how many held deletions a condition names.
const maxHeldNames = 100

// summaryEnd ends the summary at the beginning of a condition's message.
const summaryEnd = ": "

// The parts of the message of HeldCondition, which HeldObjects and HeldRevision
// take apart again.
const (
	heldBefore    = summaryEnd
	heldBetween   = ", "
	heldMore      = "and "
	heldConfirmBy = " --revision "
)

// describeHeld names the deletions that wait for a confirmation. A run that could
// not judge them leaves the condition as it is.
func describeHeld(c conditioned, obj *kustomizev1.Kustomization, revision string, report gitops.Report) {
	switch {
	case !report.Judged:
	case len(report.Held.Refs) == 0:
		c.remove(HeldCondition)
	default:
		c.set(HeldCondition, metav1.ConditionTrue, string(report.Held.Reason), heldMessage(obj, revision, report.Held))
	}
}

// heldMessage says in its first line what is held, and in its second one what to
// do. The first one is the same for the same set at any revision.
func heldMessage(obj *kustomizev1.Kustomization, revision string, hold gitops.Hold) string {
	why := map[gitops.HoldReason]string{
		gitops.HoldEmptyBuild:    "the build is empty",
		gitops.HoldManyDeletions: "they are more than half of the inventory",
		gitops.HoldProtectedKind: "other objects or data would go with it",
	}[hold.Reason]
	names := make([]string, 0, min(len(hold.Refs), maxHeldNames+1))
	for i, ref := range hold.Refs {
		if i == maxHeldNames {
			names = append(names, fmt.Sprintf("%s%d more", heldMore, len(hold.Refs)-maxHeldNames))
			break
		}
		names = append(names, ref.String())
	}
	return fmt.Sprintf("%s held, because %s%s%s\n"+
		"To delete them: plumb approve kustomization %s -n %s%s%s, or the annotation %s with that revision. To keep them: declare them again.",
		counted(len(hold.Refs), "deletion is", "deletions are"), why, heldBefore, strings.Join(names, heldBetween),
		obj.Name, obj.Namespace, heldConfirmBy, revision, ApproveAnnotation)
}

// Summary says how many objects HeldCondition or OwnedByOtherCondition is about, and
// why, given its message.
func Summary(message string) string {
	summary, _, _ := strings.Cut(message, summaryEnd)
	return summary
}

// HeldObjects are the held objects that the message of HeldCondition names, each
// as gitops.ObjectRef prints it.
func HeldObjects(message string) []string {
	first, _, _ := strings.Cut(message, "\n")
	_, list, _ := strings.Cut(first, heldBefore)
	var names []string
	for name := range strings.SplitSeq(list, heldBetween) {
		if name != "" && !strings.HasPrefix(name, heldMore) {
			names = append(names, name)
		}
	}
	return names
}

// HeldRevision is the revision that the message of HeldCondition asks to confirm.
func HeldRevision(message string) string {
	_, rest, _ := strings.Cut(message, heldConfirmBy)
	revision, _, _ := strings.Cut(rest, ", or the annotation ")
	return revision
}

// announceHeld warns once of each set of deletions that are held: what the status
// said before of the same set, at whatever revision, was told with it.
func (k *kustomizations) announceHeld(before, after *kustomizev1.Kustomization, revision string) {
	held := conditionsOf(after).get(HeldCondition)
	if held.Status != metav1.ConditionTrue {
		return
	}
	was, _, _ := strings.Cut(conditionsOf(before).get(HeldCondition).Message, "\n")
	if is, _, _ := strings.Cut(held.Message, "\n"); is == was {
		return
	}
	k.events.kustomization(after, gitops.Event{Severity: gitops.SeverityError, Reason: HeldCondition, Message: held.Message, Revision: revision})
}
