package flux

import (
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// orphanedReason is that of events about objects that nobody manages any more.
	orphanedReason = "Orphaned"
	// maxListed bounds the lines of a list in one event.
	maxListed = 300
)

// announceOrphans tells, once, that the objects of a Kustomization that goes stay
// in the cluster. It is the last chance to say which they are.
func (k *kustomizations) announceOrphans(obj *kustomizev1.Kustomization, severity gitops.Severity, why string, names []string) {
	if len(names) == 0 || !k.told.first(obj.UID, "orphans") {
		return
	}
	k.tellAll(obj, gitops.Event{
		Severity: severity, Reason: orphanedReason, Revision: obj.Status.LastAppliedRevision,
		Message: fmt.Sprintf("%s left behind, because %s", counted(len(names), "object is", "objects are"), why),
	}, names)
}

// tellAll sends an event with a list, and as many as it takes for all of it.
func (k *kustomizations) tellAll(obj *kustomizev1.Kustomization, event gitops.Event, lines []string) {
	about, after := event.Message, ""
	for part := range slices.Chunk(lines, maxListed) {
		event.Message = about + after + ":\n" + strings.Join(part, "\n")
		k.events.kustomization(obj, event)
		after = ", continued"
	}
}

// announceMove tells that a Kustomization is applied to another cluster from now on,
// and what it leaves in the one before.
func (k *kustomizations) announceMove(obj *kustomizev1.Kustomization, report gitops.Report) {
	names := storedNames(obj.Status.Inventory)
	if report.Moved == nil || len(names) == 0 {
		return
	}
	called := func(name string) string {
		if name == "" {
			return "the operator's own cluster"
		}
		return "cluster " + name
	}
	k.tellAll(obj, gitops.Event{
		Severity: gitops.SeverityInfo, Reason: orphanedReason, Revision: obj.Status.LastAppliedRevision,
		Message: fmt.Sprintf("It is applied to %s from now on; %s left in %s and not managed any more", called(report.Moved.To),
			counted(len(names), "object is", "objects are"), called(report.Moved.From)),
	}, names)
}

// announceLeft tells which objects were let go of one by one, and why.
func (k *kustomizations) announceLeft(obj *kustomizev1.Kustomization, left []gitops.LeftObject) {
	if len(left) == 0 {
		return
	}
	lines := make([]string, 0, len(left))
	for _, l := range left {
		lines = append(lines, fmt.Sprintf("%s: %s", l.Ref, l.Reason))
	}
	slices.Sort(lines)
	k.tellAll(obj, gitops.Event{
		Severity: gitops.SeverityInfo, Reason: orphanedReason, Revision: obj.Status.LastAttemptedRevision,
		Message: fmt.Sprintf("%s left in the cluster and not managed any more", counted(len(left), "object is", "objects are")),
	}, lines)
}

// counted is a number with the words for one or for several.
func counted(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}

func inventoryNames(inventory gitops.Inventory) []string {
	names := make([]string, 0, len(inventory))
	for _, e := range inventory {
		names = append(names, e.Ref.String())
	}
	return names
}

// storedNames are those of a stored inventory. An entry that cannot be read is
// named as it is stored.
func storedNames(stored *kustomizev1.ResourceInventory) []string {
	if stored == nil {
		return nil
	}
	names := make([]string, 0, len(stored.Entries))
	for _, e := range stored.Entries {
		name := e.ID
		if ref, err := gitops.ParseID(e.ID); err == nil {
			name = ref.String()
		}
		names = append(names, name)
	}
	return names
}
