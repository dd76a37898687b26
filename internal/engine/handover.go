package engine

import (
	"context"
	"slices"
	"time"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

const (
	// handOverPause is how soon a deletion is looked at again that waits for
	// other owners to be built.
	handOverPause = 100 * time.Millisecond
	// handOverLimit is how long it waits at most: an owner that is not built, for
	// want of a Secret say, does not keep others from pruning.
	handOverLimit = 10 * time.Second
	// claimLimit is how long the claim of an owner with other rights keeps an object.
	claimLimit = 5 * time.Minute
)

// Prepare builds for an owner that cannot be run yet, so that others know what
// it is going to declare: an object that moves to it is not deleted meanwhile.
// A build that fails says so in the owner's own run.
func (e *Engine) Prepare(ctx context.Context, task Task) {
	o := e.owner(task.Owner)
	o.running.Lock()
	defer o.running.Unlock()
	r := &run{Engine: e, owner: o}
	if r.begin(task) != nil || r.build(ctx) != nil || r.target == nil || r.resolve(ctx) != nil {
		return
	}
	r.declare()
}

// declaration is what an owner's declared refs were made from.
type declaration struct {
	trace      gitops.Trace
	generation int64
	// parent is set where the owner declares other owners.
	parent bool
}

// handOverWait is how long the deletions of a revision have waited.
type handOverWait struct {
	revision string
	since    time.Time
}

// handOver takes deletions out of a plan that would destroy what another owner
// is about to take over. An object that another owner declares by now stays in
// this owner's inventory until the other one's labels are on it. While an owner
// of the same source has not been built at this revision nothing is deleted, and
// settled is false.
func (r *run) handOver(p gitops.Plan) (out gitops.Plan, settled bool) {
	last := len(p.Stages) - 1
	if last < 0 || p.Stages[last].Name != plan.StagePrune {
		return p, true
	}
	wait := r.unbuilt() && r.patient()
	var kept []gitops.InventoryEntry
	claims := map[gitops.ObjectRef]time.Time{}
	p.Stages[last].Changes = slices.DeleteFunc(p.Stages[last].Changes, func(c gitops.Change) bool {
		if !wait && !r.honours(c.Ref, claims) {
			return false
		}
		kept = append(kept, gitops.InventoryEntry{Ref: c.Ref, Version: c.Version})
		return true
	})
	if len(kept) > 0 && (wait || r.removing && r.patient()) {
		r.again(r.Clock.Now().Add(handOverPause))
	}
	r.owner.claims = claims
	p.Inventory = p.Inventory.Union(gitops.NewInventory(kept))
	return p, !wait
}

// honours tells whether an object is kept from being deleted because another owner
// declares it. One that works with other rights may declare what it is not allowed
// to take over: its claim is honoured for a time, and not while this owner is being
// deleted and has waited for long enough.
func (r *run) honours(ref gitops.ObjectRef, claims map[gitops.ObjectRef]time.Time) bool {
	claimed, alike := r.claimed(ref)
	if !claimed || alike {
		return claimed
	}
	now, limit := r.Clock.Now(), claimLimit
	if r.removing {
		limit = handOverLimit
	}
	since, known := r.owner.claims[ref]
	if !known {
		since = now
	}
	claims[ref] = since
	if now.Sub(since) >= limit {
		return false
	}
	r.again(since.Add(limit))
	return true
}

// patient tells whether deletions of this revision have not waited for too long.
func (r *run) patient() bool {
	revision := ""
	if r.task.Snapshot != nil {
		revision = r.task.Snapshot.Artifact.Revision
	}
	now, w := r.Clock.Now(), &r.owner.handsOver
	if w.since.IsZero() || w.revision != revision {
		*w = handOverWait{revision: revision, since: now}
	}
	return now.Sub(w.since) < handOverLimit
}

// unbuilt tells whether an owner that follows the same source has still to say
// what it declares at the revision of this run: one that was not built at it or
// for its newest specification, one that is declared and not there yet, and one
// that declares owners and has not applied them.
func (r *run) unbuilt() bool {
	if r.task.Siblings == nil || r.task.Snapshot == nil {
		return false
	}
	for _, sibling := range r.task.Siblings() {
		if sibling.Owner.Key() == r.task.Owner.Key() {
			continue
		}
		r.mu.Lock()
		o := r.owners[sibling.Owner.Key()]
		r.mu.Unlock()
		if o == nil || !o.declaresAt(*r.task.Snapshot, sibling.Generation) {
			return true
		}
	}
	return slices.ContainsFunc(r.declaredOwners(), func(owner gitops.OwnerRef) bool { return !r.Exists(owner) })
}

// declaresAt tells whether an owner has said what it declares at a revision, and
// applied it where it declares other owners. One that cannot be built at it goes on
// declaring what it did: there is nothing to wait for.
func (o *owner) declaresAt(snapshot gitops.Snapshot, generation int64) bool {
	if s := o.stuck.Load(); s != nil && s.generation == generation && build.Valid(s.trace, snapshot.Files) {
		return true
	}
	d := o.declares.Load()
	if d == nil || d.generation != generation || !build.Valid(d.trace, snapshot.Files) {
		return false
	}
	reached := o.reached.Load()
	return !d.parent || reached != nil && *reached == snapshot.Artifact.Revision
}

// declaredOwners are the owners that owners declare in the operator's own cluster:
// those in others are not its business.
func (r *run) declaredOwners() []gitops.OwnerRef {
	r.mu.Lock()
	defer r.mu.Unlock()
	var owners []gitops.OwnerRef
	for at := range r.Engine.declared {
		if ref := at.ref; at.cluster == "" && r.isOwnerKind(ref) {
			owners = append(owners, gitops.OwnerRef{Group: ref.Group, Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
		}
	}
	return owners
}

func (e *Engine) isOwnerKind(ref gitops.ObjectRef) bool {
	return ref.Group == e.Keys.OwnerGroup && ref.Kind == e.Keys.OwnerKind
}

// isOwner tells whether an object of the run's cluster may be an owner here: one of
// another cluster is that of somebody else.
func (r *run) isOwner(ref gitops.ObjectRef) bool {
	return r.Cluster.Name == "" && r.isOwnerKind(ref)
}

// isSelf tells whether an object is the owner of the run.
func (r *run) isSelf(ref gitops.ObjectRef) bool {
	owner := r.task.Owner
	return r.isOwner(ref) && ref.Namespace == owner.Namespace && ref.Name == owner.Name
}

// claimed tells whether another owner declares an object, and whether one does that
// works with the same rights.
func (r *run) claimed(ref gitops.ObjectRef) (claimed, alike bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for owner := range r.Engine.declared[r.at(ref)] {
		if owner == r.task.Owner.Key() {
			continue
		}
		claimed = true
		if o := r.owners[owner]; o != nil && o.works.Load() == r.Cluster {
			alike = true
		}
	}
	return claimed, alike
}

// leave wakes the owners that declare what another one does not declare any more.
func (e *Engine) leave(owner gitops.OwnerRef, clusterName string, before, after []gitops.ObjectRef) {
	still := make(map[gitops.ObjectRef]bool, len(after))
	for _, ref := range after {
		still[ref] = true
	}
	heirs := map[gitops.OwnerRef]bool{}
	e.mu.Lock()
	for _, ref := range before {
		if still[ref] {
			continue
		}
		for heir := range e.declared[place{clusterName, ref}] {
			heirs[heir] = heir != owner.Key()
		}
	}
	e.mu.Unlock()
	for heir, other := range heirs {
		if other {
			e.wake(heir)
		}
	}
}

// formerOwners are the other owners that the objects of a plan have now.
func (r *run) formerOwners(p gitops.Plan) map[gitops.ObjectRef]gitops.OwnerRef {
	former := map[gitops.ObjectRef]gitops.OwnerRef{}
	for _, ref := range refsOf(p) {
		if owner := r.live(ref).Owner; owner.Name != "" && owner.Key() != r.task.Owner.Key() {
			former[ref] = owner.Key()
		}
	}
	return former
}

// tookOver wakes the former owners of what the run wrote: they may let go of it.
func (r *run) tookOver(former map[gitops.ObjectRef]gitops.OwnerRef) {
	for _, done := range r.report.Changes {
		if owner, ok := former[done.Ref]; ok && done.Live.Owner.Key() == r.task.Owner.Key() {
			r.wake(owner)
		}
	}
}
