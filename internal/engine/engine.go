package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/observe"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// Parts are what an Engine works with. All of them are needed.
type Parts struct {
	Builder  *build.Builder
	Cluster  *cluster.Client
	Applier  *apply.Applier
	Observer *observe.Observer
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
	declared map[gitops.ObjectRef]map[gitops.OwnerRef]bool
	// watchers are the owners that look at the health of an object that they
	// do not declare; guarded by mu.
	watchers map[gitops.ObjectRef]map[gitops.OwnerRef]bool
	// failed are the declared Jobs that had failed when they were removed;
	// guarded by mu.
	failed map[gitops.ObjectRef]bool
	// wake is called, without mu, for an owner that has to be run.
	wake func(gitops.OwnerRef)
}

// New makes an Engine and subscribes it to its observer. Wake is called for
// every owner that something happened to; it must not block.
func New(parts Parts, settings Settings, wake func(gitops.OwnerRef)) *Engine {
	if settings.SyncTimeout == 0 {
		settings.SyncTimeout = 30 * time.Second
	}
	e := &Engine{
		Parts: parts, settings: settings, wake: wake,
		owners:   map[gitops.OwnerRef]*owner{},
		declared: map[gitops.ObjectRef]map[gitops.OwnerRef]bool{},
		watchers: map[gitops.ObjectRef]map[gitops.OwnerRef]bool{},
		failed:   map[gitops.ObjectRef]bool{},
	}
	parts.Observer.Subscribe(e.observed)
	return e
}

// Busy tells whether objects are being written.
func (e *Engine) Busy() bool { return e.applying.Load() > 0 }

// observed wakes whoever an observation concerns. What it means is decided by
// the run: nothing is trusted here that may be stale by then.
func (e *Engine) observed(o observe.Observation) {
	if plan.IsCustomResourceDefinition(o.Ref.GroupKind()) {
		e.Cluster.Invalidate()
	}
	concerned := map[gitops.OwnerRef]bool{}
	for _, ref := range []gitops.OwnerRef{o.Before.Owner, o.After.Owner} {
		if ref.Name != "" {
			concerned[ref.Key()] = true
		}
	}
	e.mu.Lock()
	e.noteFailed(o)
	for _, table := range []map[gitops.ObjectRef]map[gitops.OwnerRef]bool{e.watchers, e.declared} {
		for ref := range table[o.Ref] {
			concerned[ref] = true
		}
	}
	for ref := range concerned {
		if e.owners[ref] == nil {
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
func (e *Engine) noteFailed(o observe.Observation) {
	if !health.IsJob(o.Ref.GroupKind()) || len(e.declared[o.Ref]) == 0 {
		return
	}
	switch going := !o.After.Exists() || o.After.Deleting; {
	case going && o.Before.Health.Status == gitops.HealthFailed:
		e.failed[o.Ref] = true
	case !going:
		delete(e.failed, o.Ref)
	}
}

// hadFailed tells whether a Job that is gone had failed.
func (e *Engine) hadFailed(ref gitops.ObjectRef) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed[ref]
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
	e.setRefs(e.declared, key, o.declared, nil)
	e.leave(key, o.declared, nil)
	e.setRefs(e.watchers, key, o.watched, nil)
	e.Observer.Need(key, nil, nil)
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

// setRefs replaces what a table says of an owner, given what it said before.
func (e *Engine) setRefs(table map[gitops.ObjectRef]map[gitops.OwnerRef]bool, owner gitops.OwnerRef, before, after []gitops.ObjectRef) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ref := range before {
		delete(table[ref], owner)
		if len(table[ref]) == 0 {
			delete(table, ref)
		}
	}
	for _, ref := range after {
		if table[ref] == nil {
			table[ref] = map[gitops.OwnerRef]bool{}
		}
		table[ref][owner] = true
	}
	for _, ref := range before {
		if len(e.declared[ref]) == 0 {
			delete(e.failed, ref)
		}
	}
}

// ownedBy tells whether another owner is known and declares an object.
func (e *Engine) ownedBy(owner gitops.OwnerRef, ref gitops.ObjectRef) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.declared[ref][owner.Key()] {
		return true
	}
	o := e.owners[owner.Key()]
	if o != nil && o.declares.Load() != nil {
		return false
	}
	// Not built in this process: it keeps what it has for as long as it exists.
	return e.Exists(owner)
}
