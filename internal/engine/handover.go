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
	// handOverLimit is how long it waits at most: an owner that cannot be built,
	// for want of a variable say, does not keep others from pruning.
	handOverLimit = 10 * time.Second
)

// Prepare builds for an owner that cannot be run yet, so that others know what
// it is going to declare: an object that moves to it is not deleted meanwhile.
// A build that fails says so in the owner's own run.
func (e *Engine) Prepare(ctx context.Context, task Task) {
	o := e.owner(task.Owner)
	o.running.Lock()
	defer o.running.Unlock()
	if o.uid != task.Owner.UID {
		o.reset(task.Owner.UID)
	}
	task.Build.Keys = e.Keys
	r := &run{Engine: e, task: task, owner: o}
	if r.build(ctx) != nil || r.target == nil || r.resolve(ctx) != nil {
		return
	}
	r.declare()
}

// handOver takes deletions out of a plan that would destroy what another owner
// is about to take over. An object that another owner declares by now stays in
// this owner's inventory until the other one's labels are on it. While an owner
// of the same source has not been built at this revision nothing is deleted.
func (r *run) handOver(p gitops.Plan) gitops.Plan {
	last := len(p.Stages) - 1
	if last < 0 || p.Stages[last].Name != plan.StagePrune {
		return p
	}
	now := r.Clock.Now()
	wait := r.unbuilt()
	switch {
	case !wait:
		r.owner.handsOver = time.Time{}
	case r.owner.handsOver.IsZero():
		r.owner.handsOver = now
	default:
		wait = now.Sub(r.owner.handsOver) < handOverLimit
	}
	var kept []gitops.InventoryEntry
	p.Stages[last].Changes = slices.DeleteFunc(p.Stages[last].Changes, func(c gitops.Change) bool {
		if !wait && !r.claimed(c.Ref) {
			return false
		}
		kept = append(kept, gitops.InventoryEntry{Ref: c.Ref, Version: c.Version})
		return true
	})
	if wait && len(kept) > 0 {
		r.again(now.Add(handOverPause))
	}
	p.Inventory = p.Inventory.Union(gitops.NewInventory(kept))
	return p
}

// unbuilt tells whether an owner that follows the same source has still to be
// built at the revision of this run.
func (r *run) unbuilt() bool {
	if r.task.Siblings == nil || r.task.Snapshot == nil {
		return false
	}
	for _, ref := range r.task.Siblings() {
		if ref.Key() == r.task.Owner.Key() {
			continue
		}
		r.mu.Lock()
		o := r.owners[ref.Key()]
		r.mu.Unlock()
		if o == nil {
			return true
		}
		trace := o.trace.Load()
		if trace == nil || !build.Valid(*trace, r.task.Snapshot.Files) {
			return true
		}
	}
	return false
}

// claimed tells whether another owner declares an object.
func (r *run) claimed(ref gitops.ObjectRef) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for owner := range r.Engine.declared[ref] {
		if owner != r.task.Owner.Key() {
			return true
		}
	}
	return false
}

// leave wakes the owners that declare what this one does not declare any more.
func (r *run) leave(before, after []gitops.ObjectRef) {
	still := make(map[gitops.ObjectRef]bool, len(after))
	for _, ref := range after {
		still[ref] = true
	}
	heirs := map[gitops.OwnerRef]bool{}
	r.mu.Lock()
	for _, ref := range before {
		if still[ref] {
			continue
		}
		for owner := range r.Engine.declared[ref] {
			heirs[owner] = owner != r.task.Owner.Key()
		}
	}
	r.mu.Unlock()
	for owner, other := range heirs {
		if other {
			r.wake(owner)
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
