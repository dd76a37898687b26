package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/observe"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// Parts are what an Engine works with. All of them are needed.
type Parts struct {
	Builder  *build.Builder
	Clusters Clusters
	Keys     gitops.Keys
	Clock    clock.PassiveClock
	// Exists tells whether an owner exists, whether or not it is worked on.
	Exists func(gitops.OwnerRef) bool
	// Metrics is told what runs do.
	Metrics Metrics
}

// Metrics counts what runs do. Its words are those of gitops.Action and
// gitops.StageName.
type Metrics interface {
	// Built counts a build that was asked for: done, reused or failed.
	Built(outcome string)
	// Changed counts objects by what was done with them.
	Changed(action string, objects int)
	// Repaired counts changes of others that were undone for a kind of owner.
	Repaired(kind string, objects int)
	// Stage counts a stage of a run and how long it took.
	Stage(kind, stage string, took time.Duration)
}

// Settings are the engine's own settings.
type Settings struct {
	// NoHealth are kinds whose objects are taken to be healthy, because nobody
	// in the cluster works on them.
	NoHealth map[gitops.GroupKind]bool
	// WaitForAll waits for the health of all objects when one has failed already.
	WaitForAll bool
	// DeletionGuard holds back deletions that are more likely a mistake than a wish.
	DeletionGuard bool
	// CustomKinds are applied in a stage of their own before the rest.
	CustomKinds []gitops.GroupKind
	// SyncTimeout bounds how long a run waits for the first list of a kind.
	// Default 30 seconds.
	SyncTimeout time.Duration
}

// Engine runs the stages for owners. Runs of different owners are independent
// and may be made at the same time.
type Engine struct {
	Parts
	settings Settings

	// applying counts the runs that are writing objects.
	applying atomic.Int32

	mu sync.Mutex
	// owners is guarded by mu.
	owners map[gitops.OwnerRef]*owner
	// declared names for each object the owners whose newest build declares
	// it; guarded by mu.
	declared map[place]map[gitops.OwnerRef]bool
	// watchers are the owners that look at the health of an object that they
	// do not declare; guarded by mu.
	watchers map[place]map[gitops.OwnerRef]bool
	// failed are the declared Jobs that had failed when they were removed;
	// guarded by mu.
	failed map[place]bool
	// wake is called, without mu, for an owner that has to be run.
	wake func(gitops.OwnerRef)
}

// New makes an Engine and subscribes it to its clusters. Wake is called for
// every owner that something happened to; it must not block.
func New(parts Parts, settings Settings, wake func(gitops.OwnerRef)) *Engine {
	if settings.SyncTimeout == 0 {
		settings.SyncTimeout = 30 * time.Second
	}
	e := &Engine{
		Parts: parts, settings: settings, wake: wake,
		owners:   map[gitops.OwnerRef]*owner{},
		declared: map[place]map[gitops.OwnerRef]bool{},
		watchers: map[place]map[gitops.OwnerRef]bool{},
		failed:   map[place]bool{},
	}
	parts.Clusters.Subscribe(e.observed)
	return e
}

// Busy tells whether objects are being written.
func (e *Engine) Busy() bool { return e.applying.Load() > 0 }

// observed wakes whoever an observation concerns. What it means is decided by
// the run: nothing is trusted here that may be stale by then.
func (e *Engine) observed(clusterName string, o observe.Observation) {
	if plan.IsCustomResourceDefinition(o.Ref.GroupKind()) {
		e.Clusters.Invalidate(clusterName)
	}
	at := place{clusterName, o.Ref}
	concerned := map[gitops.OwnerRef]bool{}
	for _, ref := range []gitops.OwnerRef{o.Before.Owner, o.After.Owner} {
		if ref.Name != "" {
			concerned[ref.Key()] = true
		}
	}
	e.mu.Lock()
	e.noteFailed(at, o)
	for _, table := range []map[place]map[gitops.OwnerRef]bool{e.watchers, e.declared} {
		for ref := range table[at] {
			concerned[ref] = true
		}
	}
	for ref := range concerned {
		if o := e.owners[ref]; o == nil || !o.worksIn(clusterName) {
			delete(concerned, ref)
		}
	}
	e.mu.Unlock()
	for ref := range concerned {
		e.wake(ref)
	}
}

// noteFailed remembers whether a Job that is removed had failed: one that its time
// to live removes counts as done otherwise. Called with mu held.
func (e *Engine) noteFailed(at place, o observe.Observation) {
	if !health.IsJob(o.Ref.GroupKind()) || len(e.declared[at]) == 0 {
		return
	}
	switch going := !o.After.Exists() || o.After.Deleting; {
	case going && o.Before.Health.Status == gitops.HealthFailed:
		e.failed[at] = true
	case !going:
		delete(e.failed, at)
	}
}

// hadFailed tells whether a Job that is gone had failed.
func (r *run) hadFailed(ref gitops.ObjectRef) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[r.at(ref)]
}

// owner gives what is remembered of an owner.
func (e *Engine) owner(ref gitops.OwnerRef) *owner {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.owners[ref.Key()]
	if o == nil {
		o = &owner{}
		e.owners[ref.Key()] = o
	}
	return o
}

// Forget drops all that is remembered of an owner, and what is watched for it.
func (e *Engine) Forget(ref gitops.OwnerRef) {
	key := ref.Key()
	e.mu.Lock()
	o := e.owners[key]
	delete(e.owners, key)
	e.mu.Unlock()
	if o == nil {
		return
	}
	o.running.Lock()
	defer o.running.Unlock()
	e.withdraw(key, o)
}

// withdraw takes back all that an owner has declared and asked to be watched; called
// with running held.
func (e *Engine) withdraw(key gitops.OwnerRef, o *owner) {
	if o.cluster == nil {
		return
	}
	e.setRefs(e.declared, key, o.cluster.Name, o.declared, nil)
	e.leave(key, o.cluster.Name, o.declared, nil)
	e.setRefs(e.watchers, key, o.cluster.Name, o.watched, nil)
	o.cluster.Observer.Need(key, nil, nil)
	e.Clusters.Release(o.cluster)
	o.declared, o.watched, o.cluster = nil, nil, nil
	o.works.Store(nil)
}

// Suspend stops repairs for an owner until its next run, which compares every
// object anew.
func (e *Engine) Suspend(ref gitops.OwnerRef) {
	e.mu.Lock()
	known := e.owners[ref.Key()] != nil
	e.mu.Unlock()
	if known {
		e.Forget(ref)
	}
}

// Affected tells whether a new snapshot may change what is applied for an
// owner. It reads no file. An owner that has not been built yet is affected.
func (e *Engine) Affected(ref gitops.OwnerRef, tree gitops.Tree) bool {
	e.mu.Lock()
	o := e.owners[ref.Key()]
	e.mu.Unlock()
	if o == nil {
		return true
	}
	trace := o.trace.Load()
	return trace == nil || !build.Valid(*trace, tree)
}

// setRefs replaces what a table says of an owner's objects in a cluster, given what
// it said before.
func (e *Engine) setRefs(table map[place]map[gitops.OwnerRef]bool, owner gitops.OwnerRef, clusterName string, before, after []gitops.ObjectRef) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ref := range before {
		at := place{clusterName, ref}
		delete(table[at], owner)
		if len(table[at]) == 0 {
			delete(table, at)
		}
	}
	for _, ref := range after {
		at := place{clusterName, ref}
		if table[at] == nil {
			table[at] = map[gitops.OwnerRef]bool{}
		}
		table[at][owner] = true
	}
	for _, ref := range before {
		if at := (place{clusterName, ref}); len(e.declared[at]) == 0 {
			delete(e.failed, at)
		}
	}
}

// ownedBy tells whether another owner is known and declares an object in the run's
// cluster.
func (r *run) ownedBy(owner gitops.OwnerRef, ref gitops.ObjectRef) bool {
	e := r.Engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.declared[r.at(ref)][owner.Key()] {
		return true
	}
	o := e.owners[owner.Key()]
	if o != nil && o.declares.Load() != nil {
		return false
	}
	// Not built in this process: it keeps what it has for as long as it exists.
	return e.Exists(owner)
}
