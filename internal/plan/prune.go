package plan

import (
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// stale sorts the objects that are in the inventory and not declared any more
// into deletions, and those that are left alone and leave the inventory.
func (in Input) stale(manifests []gitops.Manifest) (deletions, skipped []gitops.Change) {
	for _, e := range in.Inventory {
		_, declared := slices.BinarySearchFunc(manifests, e.Ref, func(m gitops.Manifest, ref gitops.ObjectRef) int {
			return gitops.CompareRefs(m.Ref, ref)
		})
		if declared {
			continue
		}
		live, known := in.Live(e.Ref)
		if known && !live.Exists() {
			continue
		}
		change := gitops.Change{Ref: e.Ref, Version: e.Version}
		if reason := in.keepReason(live, known); reason != "" {
			change.Action, change.Reason = gitops.ActionSkip, reason
			skipped = append(skipped, change)
			continue
		}
		change.Action, change.Reason, change.UID = gitops.ActionDelete, "not declared any more", live.UID
		change.Unguarded = live.Policy.Unguarded
		deletions = append(deletions, change)
	}
	return deletions, skipped
}

// keepReason says why an object that is not declared any more is not deleted;
// "" where it is. Whoever deletes an object that is not known asks [KeepReason]
// again with what it found.
func (in Input) keepReason(live gitops.Live, known bool) string {
	if !in.Options.Prune {
		return "pruning is off"
	}
	if !known {
		return ""
	}
	return KeepReason(in.Owner, live)
}

// KeepReason says why an existing object is not to be deleted for an owner that
// does not declare it any more: its own wish, another owner, a deletion that is
// under way. It is "" where the object is to be deleted.
func KeepReason(owner gitops.OwnerRef, live gitops.Live) string {
	switch {
	case live.Policy.KeepOnPrune:
		return "pruning is disabled for it"
	case live.Policy.Paused:
		return "reconciliation is disabled for it"
	case live.Policy.Apply == gitops.ApplyIgnore:
		return "it asks to be ignored"
	case live.Owner == (gitops.OwnerRef{}):
		return "it does not bear the owner's labels any more"
	case live.Owner.Key() != owner.Key():
		return "it belongs to " + live.Owner.String()
	case live.Deleting:
		return "it is being deleted already"
	}
	return ""
}

// IsLeft tells whether an object that its owner does not declare any more and
// does not delete is left with nobody to manage it: it has no other owner, and
// it is not on its way out.
func IsLeft(owner gitops.OwnerRef, live gitops.Live) bool {
	return !live.Deleting && (live.Owner == (gitops.OwnerRef{}) || live.Owner.Key() == owner.Key())
}
