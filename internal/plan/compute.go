package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Applied is what the last apply left of an object: as long as the build has
// the same digest and the cluster the same marker, there is nothing to do.
type Applied struct {
	// Digest is that of the manifest that was applied.
	Digest gitops.Digest
	// UID and Fields are those of the marker that the apply was answered with,
	// and At is its AppliedAt.
	UID    string
	Fields gitops.Digest
	At     int64
}

// Options are wishes of the owner for the whole set.
type Options struct {
	// Prune deletes objects that are not declared any more. Without it they are
	// left behind and leave the inventory.
	Prune bool
	// Force recreates objects on immutable fields, as if each asked for it.
	Force bool
	// TrustNone has every object compared that is not written anyway, because
	// somebody asked for it or the owner's specification changed.
	TrustNone bool
	// CustomKinds are applied in a stage of their own before the rest.
	CustomKinds []gitops.GroupKind
}

// Input is everything that a plan is made from. Nothing in it is changed.
type Input struct {
	// Owner is the one that the plan is made for.
	Owner gitops.OwnerRef
	// Manifests are what is declared, with namespaces resolved as by Resolve.
	Manifests []gitops.Manifest
	// Inventory is the stored one.
	Inventory gitops.Inventory
	// Live says what is known of an object; known is false where nothing is.
	// An object that is known not to exist has the zero Live. Nil knows nothing.
	Live func(gitops.ObjectRef) (live gitops.Live, known bool)
	// Applied is what was left the last time. It is empty after a restart, but
	// for objects of which the caller proved that they are as they were left.
	Applied map[gitops.ObjectRef]Applied
	// OwnedBy tells whether another owner exists and still declares an object
	// that bears its labels. Nil means that no other owner does.
	OwnedBy func(owner gitops.OwnerRef, ref gitops.ObjectRef) bool
	Options Options
}

// Compute makes the plan. The error is an Invalid one where an object is
// declared twice; it names both places.
func Compute(in Input) (gitops.Plan, error) {
	manifests := slices.Clone(in.Manifests)
	slices.SortStableFunc(manifests, func(a, b gitops.Manifest) int { return gitops.CompareRefs(a.Ref, b.Ref) })
	if err := unique(manifests); err != nil {
		return gitops.Plan{}, err
	}
	in.Live = onlyKnown(in.Live)
	if in.OwnedBy == nil {
		in.OwnedBy = func(gitops.OwnerRef, gitops.ObjectRef) bool { return false }
	}

	p := gitops.Plan{}
	var changes []gitops.Change
	var keep []gitops.InventoryEntry
	for i := range manifests {
		v := in.judge(&manifests[i])
		if v.foreign != (gitops.OwnerRef{}) {
			p.Foreign = append(p.Foreign, gitops.ForeignObject{Ref: manifests[i].Ref, Owner: v.foreign})
			continue
		}
		keep = append(keep, entry(manifests[i]))
		switch v.change.Action {
		case gitops.ActionUnchanged:
		case gitops.ActionSkip:
			p.Skipped = append(p.Skipped, v.change)
		default:
			changes = append(changes, v.change)
		}
	}
	p.Stages = stages(changes, in.Options.CustomKinds)

	deletions, skipped := in.stale(manifests)
	for _, change := range skipped {
		if live, _ := in.Live(change.Ref); IsLeft(in.Owner, live) {
			p.Left = append(p.Left, gitops.LeftObject{Ref: change.Ref, Reason: change.Reason})
		}
	}
	p.Skipped = append(p.Skipped, skipped...)
	if len(deletions) > 0 {
		slices.SortFunc(deletions, func(a, b gitops.Change) int { return compareChanges(b, a) })
		p.Stages = append(p.Stages, gitops.Stage{Name: StagePrune, Changes: deletions})
	}
	p.Inventory = gitops.NewInventory(keep)
	p.WriteAhead = in.Inventory.Union(p.Inventory)
	return p, nil
}

// onlyKnown gives the zero Live for what is not known, whatever ask says.
func onlyKnown(ask func(gitops.ObjectRef) (gitops.Live, bool)) func(gitops.ObjectRef) (gitops.Live, bool) {
	return func(ref gitops.ObjectRef) (gitops.Live, bool) {
		if ask == nil {
			return gitops.Live{}, false
		}
		live, known := ask(ref)
		if !known {
			return gitops.Live{}, false
		}
		return live, true
	}
}

// Remaining is what has to stay in the stored inventory when a plan was carried
// out as far as done says: everything that may exist because of this owner. It
// is the plan's Inventory once all deletions are done and complete says that
// every stage was.
func Remaining(p gitops.Plan, done gitops.ChangeSet, complete bool) gitops.Inventory {
	gone := map[gitops.ObjectRef]bool{}
	for _, d := range done {
		gone[d.Ref] = d.Action == gitops.ActionDelete || d.Action == gitops.ActionSkip
	}
	from := p.WriteAhead
	if complete {
		from = p.Inventory.Union(deletions(p))
	}
	var left gitops.Inventory
	for _, e := range from {
		if p.Inventory.Has(e.Ref) || !gone[e.Ref] {
			left = append(left, e)
		}
	}
	return left
}

func deletions(p gitops.Plan) gitops.Inventory {
	var entries []gitops.InventoryEntry
	for _, stage := range p.Stages {
		for _, change := range stage.Changes {
			if change.Action == gitops.ActionDelete {
				entries = append(entries, gitops.InventoryEntry{Ref: change.Ref, Version: change.Version})
			}
		}
	}
	return gitops.NewInventory(entries)
}

// unique wants manifests in the order of their refs.
func unique(manifests []gitops.Manifest) error {
	for i := 1; i < len(manifests); i++ {
		a, b := manifests[i-1], manifests[i]
		if a.Ref != b.Ref {
			continue
		}
		if cmp.Or(cmp.Compare(a.Origin.File, b.Origin.File), cmp.Compare(a.Origin.Line, b.Origin.Line)) > 0 {
			a, b = b, a
		}
		return &gitops.Error{
			Stage: gitops.StagePlan,
			Kind:  gitops.Invalid,
			Ref:   a.Ref,
			Cause: fmt.Errorf("declared twice, in %s and in %s: remove one of them", a.Origin, b.Origin),
		}
	}
	return nil
}

func entry(m gitops.Manifest) gitops.InventoryEntry {
	return gitops.InventoryEntry{Ref: m.Ref, Version: m.Version}
}
