package plan

import (
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// guardedCount is the number of deletions up to which a plan that deletes more
// than half of an inventory is not held.
const guardedCount = 10

// Guard holds deletions back that are more likely a mistake than a wish.
type Guard struct {
	Enabled bool
	// Confirmed lets everything through: somebody looked at what was held.
	Confirmed bool
	// Before is what was held of the same build before. It stays held, also where
	// part of it was deleted by others since and the rest alone would not be.
	Before gitops.Hold
	// Size is how many objects the inventory had before something was held; 0 for as
	// many as it has.
	Size int
}

// Hold takes the deletions out of a plan that have to be confirmed. They stay in
// the inventory. Declared is how many objects are declared, inventory the stored
// one. It is asked once nobody else is about to take over what would be deleted:
// a move is no deletion.
func (g Guard) Hold(p gitops.Plan, declared int, inventory gitops.Inventory) gitops.Plan {
	last := len(p.Stages) - 1
	if !g.Enabled || g.Confirmed || last < 0 || p.Stages[last].Name != StagePrune {
		return p
	}
	deletions := p.Stages[last].Changes
	guarded := 0
	for _, change := range deletions {
		if !change.Unguarded {
			guarded++
		}
	}
	size := len(inventory)
	if g.Size > 0 {
		size = min(size, g.Size)
	}
	all := gitops.HoldReason("")
	switch {
	case declared == 0 && len(inventory) > 1:
		all = gitops.HoldEmptyBuild
	case guarded > guardedCount && 2*guarded > size:
		all = gitops.HoldManyDeletions
	}
	heldBefore := make(map[gitops.ObjectRef]bool, len(g.Before.Refs))
	for _, ref := range g.Before.Refs {
		heldBefore[ref] = true
	}
	held := gitops.Hold{Reason: all}
	var done []gitops.Change
	var kept []gitops.InventoryEntry
	for _, change := range deletions {
		before := heldBefore[change.Ref]
		switch {
		case change.Unguarded || all == "" && !before && !holdsOthers(change.Ref.GroupKind()):
			done = append(done, change)
			continue
		case held.Reason == "" && before:
			held.Reason = g.Before.Reason
		case held.Reason == "":
			held.Reason = gitops.HoldProtectedKind
		}
		held.Refs = append(held.Refs, change.Ref)
		kept = append(kept, gitops.InventoryEntry{Ref: change.Ref, Version: change.Version})
	}
	if len(held.Refs) == 0 {
		return p
	}
	slices.SortFunc(held.Refs, gitops.CompareRefs)
	p.Held = held
	p.Inventory = p.Inventory.Union(gitops.NewInventory(kept))
	p.Stages = slices.Clone(p.Stages)
	p.Stages[last].Changes = done
	if len(done) == 0 {
		p.Stages = p.Stages[:last]
	}
	return p
}

// holdsOthers tells whether the deletion of an object of this kind takes other
// objects, or data, with it.
func holdsOthers(kind gitops.GroupKind) bool {
	return IsCustomResourceDefinition(kind) || IsNamespace(kind) ||
		kind == gitops.GroupKind{Kind: "PersistentVolume"} || kind == gitops.GroupKind{Kind: "PersistentVolumeClaim"}
}
