package gitops

import "slices"

// InventoryEntry is an object that an owner is responsible for.
type InventoryEntry struct {
	Ref ObjectRef
	// Version is the API version that the object was last applied in.
	Version string
}

// Inventory is the set of objects of an owner, ordered by CompareRefs.
type Inventory []InventoryEntry

// NewInventory orders the entries and drops repeated refs; of those the last
// one wins.
func NewInventory(entries []InventoryEntry) Inventory {
	byRef := make(map[ObjectRef]string, len(entries))
	for _, e := range entries {
		byRef[e.Ref] = e.Version
	}
	inv := make(Inventory, 0, len(byRef))
	for ref, version := range byRef {
		inv = append(inv, InventoryEntry{Ref: ref, Version: version})
	}
	slices.SortFunc(inv, func(a, b InventoryEntry) int { return CompareRefs(a.Ref, b.Ref) })
	return inv
}

// Has tells whether the inventory holds the object.
func (inv Inventory) Has(ref ObjectRef) bool {
	_, found := slices.BinarySearchFunc(inv, ref, func(e InventoryEntry, r ObjectRef) int { return CompareRefs(e.Ref, r) })
	return found
}

// Covers tells whether every object of other is in the inventory too.
func (inv Inventory) Covers(other Inventory) bool {
	for _, e := range other {
		if !inv.Has(e.Ref) {
			return false
		}
	}
	return true
}

// Union holds the objects of both; where both have one, the version of other wins.
func (inv Inventory) Union(other Inventory) Inventory {
	return NewInventory(append(slices.Clone(inv), other...))
}

// Live is what is known of an object in the cluster without holding the object:
// enough to tell whether it is still as the last apply left it.
type Live struct {
	UID             string
	ResourceVersion string
	Generation      int64
	// Deleting is set once deletion has been asked for.
	Deleting bool
	// Fields is a digest of our own Apply entry in managedFields; zero where
	// there is none. It changes when anybody changes or removes a field that
	// we own, and does not change for anything else.
	Fields Digest
	// AppliedAt is the time of our own Apply entry in Unix seconds; 0 where
	// there is none.
	AppliedAt int64
	// TakeOver names the managers of the take-over list that have an entry
	// without subresource in managedFields, sorted.
	TakeOver []string
	// Owner is the owner that the object's labels name; the zero value where
	// they name none.
	Owner OwnerRef
	// Policy is what the live object's own annotations and labels ask for.
	Policy ObjectPolicy
	// Health is the object's health where its kind is watched for health, and
	// has an empty Status elsewhere.
	Health Health
}

// Exists tells whether the object is in the cluster.
func (l Live) Exists() bool { return l.UID != "" }

// Action is what is or was done with an object.
type Action string

const (
	ActionCreate    Action = "created"
	ActionConfigure Action = "configured"
	ActionUnchanged Action = "unchanged"
	ActionDelete    Action = "deleted"
	ActionSkip      Action = "skipped"
	ActionRecreate  Action = "recreated"
	// ActionHold is a deletion that waits for a confirmation.
	ActionHold Action = "held"
)

// Change is one step of a plan.
type Change struct {
	Ref     ObjectRef
	Version string
	Action  Action
	// Reason says why, in words for people, such as "not in the build any more".
	Reason string
	// Manifest is what is to be applied; nil for a deletion.
	Manifest *Manifest
	// UID is the precondition of a deletion: the object that was planned to be
	// deleted, not a later one of the same name. Empty where it is not known.
	UID string
	// Unguarded is set for a deletion that needs no confirmation.
	Unguarded bool
	// Basis is what the plan knows of the live object.
	Basis Basis
}

// Basis says why a change is planned, and so how it has to be carried out.
type Basis string

const (
	// BasisChanged is a manifest that differs from the one applied last, or an
	// object that does not exist: a dry-run validates it, then it is applied.
	BasisChanged Basis = "changed"
	// BasisRepair is a manifest that has been applied before and whose object
	// was changed since: it is applied without a dry-run.
	BasisRepair Basis = "repair"
	// BasisCompare is an object of which nothing is known but that it exists:
	// it is read and dry-run, and written only where the two differ.
	BasisCompare Basis = "compare"
)

// Stage is a set of changes that can be made at the same time, once the stages
// before it are done.
type Stage struct {
	// Name is one of definitions, classes, custom, rest and prune.
	Name    string
	Changes []Change
}

// Plan is what has to be done to bring a cluster from what is live to what is
// built.
type Plan struct {
	Stages []Stage
	// Inventory is what the owner is responsible for once the plan has been
	// carried out.
	Inventory Inventory
	// WriteAhead is what must be in the stored inventory before the first
	// write: the union of the old inventory and every ref of the plan.
	WriteAhead Inventory
	// Held are deletions that wait for a confirmation.
	Held Hold
	// Foreign are declared objects that another owner has.
	Foreign []ForeignObject
	// Skipped are objects that their own policy keeps from being written.
	Skipped []Change
	// Left are objects that leave the inventory and stay in the cluster, where
	// nobody manages them then.
	Left []LeftObject
}

// Hold is a set of deletions that wait for a confirmation.
type Hold struct {
	// Refs are ordered by CompareRefs.
	Refs   []ObjectRef
	Reason HoldReason
}

// HoldReason says why deletions wait for a confirmation.
type HoldReason string

const (
	// HoldEmptyBuild is a build without any object, and an inventory with several.
	HoldEmptyBuild HoldReason = "EmptyBuild"
	// HoldManyDeletions are more deletions than a change of one app makes, and
	// more than half of the inventory.
	HoldManyDeletions HoldReason = "ManyDeletions"
	// HoldProtectedKind are objects whose deletion takes others, or data, along.
	HoldProtectedKind HoldReason = "ProtectedKind"
)

// LeftObject is an object that nobody manages any more.
type LeftObject struct {
	Ref ObjectRef
	// Reason says why it was not deleted, in words for people.
	Reason string
}

// ForeignObject is an object that another owner has.
type ForeignObject struct {
	Ref   ObjectRef
	Owner OwnerRef
}

// Empty tells whether the plan has nothing to do.
func (p Plan) Empty() bool {
	for _, s := range p.Stages {
		if len(s.Changes) > 0 {
			return false
		}
	}
	return true
}

// Done is what really happened to one object.
type Done struct {
	Ref     ObjectRef
	Version string
	Action  Action
	// Reason says why, for a skipped object.
	Reason string
	// Live is the object as the write left it; of a deleted one it holds the
	// uid, where that was known.
	Live Live
	// Changed are the fields in which the cluster's answer differs from what
	// was sent: what admission changed of our own fields. Paths as in
	// .spec.replicas, sorted.
	Changed []string
}

// ChangeSet is what really happened, in the order in which it happened.
type ChangeSet []Done
