package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// run is one run for one owner.
type run struct {
	*Engine
	*Cluster
	task   Task
	owner  *owner
	report gitops.Report
	// target is what the cluster is to look like: the newest build, or the one
	// applied last where there is no newer one that can be built.
	target *gitops.Build
	// removing is set where everything is to be let go of.
	removing bool
	// keeping is set where target is not the newest revision: nothing is pruned
	// then, and nothing leaves the inventory.
	keeping bool
	// manifests are those of target as the cluster knows them.
	manifests []gitops.Manifest
	// checks are the objects that the owner names to be healthy.
	checks []gitops.InventoryEntry
}

// Run does what can be done now for an owner. It does not wait for objects to
// become healthy: the engine wakes the owner when one of them changes.
func (e *Engine) Run(ctx context.Context, task Task) gitops.Report {
	o := e.owner(task.Owner)
	o.running.Lock()
	defer o.running.Unlock()
	r := &run{Engine: e, owner: o, report: gitops.Report{
		Owner: task.Owner, Inventory: task.Inventory, Started: e.Clock.Now(),
		Unreadable: task.Unreadable != nil,
	}}
	if err := r.begin(task); err != nil {
		r.report.Err, r.report.Finished = err, e.Clock.Now()
		return r.report
	}
	r.report.Moved, o.moved = o.moved, nil
	ctx, cancel := bounded(ctx, task.Timeout, task.Access)
	defer cancel()
	r.stage(gitops.StageBuild, func() error { return r.build(ctx) })
	if r.target != nil && !errors.Is(r.report.Err, context.Canceled) {
		r.stage(gitops.StageApply, func() error { return r.apply(ctx) })
	}
	if r.fellShort() {
		r.stage(gitops.StageApply, func() error { return r.fallBack(ctx) })
	}
	if r.target != nil && r.report.Err == nil {
		r.stage(gitops.StageHealth, func() error { return r.assess(ctx) })
	}
	r.report.Finished = e.Clock.Now()
	r.measure()
	return r.report
}

// begin makes an owner and its task ready for a run; called with running held.
func (r *run) begin(task Task) error {
	o := r.owner
	if o.uid != task.Owner.UID {
		o.reset(task.Owner.UID)
	}
	if err := r.enter(task.Owner, task.Access); err != nil {
		return err
	}
	o.want(task.Compare)
	task.Build.Keys = r.Keys
	r.task = task
	return nil
}

// remoteTime bounds one run in a remote cluster, which may be slow; the next one goes on.
const remoteTime = 2 * time.Minute

// bounded gives a run the time that it may take; a timeout of 0 is none.
func bounded(ctx context.Context, timeout time.Duration, access Access) (context.Context, context.CancelFunc) {
	if access.Remote != nil && (timeout <= 0 || timeout > remoteTime) {
		timeout = remoteTime
	}
	if timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// enter finds what the work is done with. Whoever comes with other rights, or to
// another cluster, than before knows nothing of the objects there; what is in the
// cluster that it leaves stays there.
func (r *run) enter(owner gitops.OwnerRef, access Access) error {
	o := r.owner
	if o.cluster != nil && o.access == access.ID() {
		r.Cluster = o.cluster
		return nil
	}
	c, err := r.Clusters.Acquire(access)
	if err != nil {
		return &gitops.Error{Stage: gitops.StagePlan, Kind: gitops.Invalid, Cause: err}
	}
	from := o.cluster
	r.withdraw(owner.Key(), o)
	o.reset(o.uid)
	if from != nil && from.Address != c.Address {
		o.moved = &gitops.Move{From: from.Address, To: c.Address}
	}
	o.cluster, o.access = c, access.ID()
	o.works.Store(c)
	r.Cluster = c
	return nil
}

// lookAgain is how soon it is noticed that a remote cluster is away, or there again,
// while nothing happens: to look costs no request.
const lookAgain = 30 * time.Second

// away is why nothing is seen of a remote cluster any more; nil where it is seen.
func (r *run) away() error {
	if r.Cluster.Name == "" {
		return nil
	}
	r.again(r.Clock.Now().Add(lookAgain))
	for _, m := range r.manifests {
		if err := r.Observer.Err(m.Ref.GroupKind()); cluster.IsUnreachable(err) {
			return &gitops.Error{Stage: gitops.StagePlan, Kind: gitops.Transient,
				Cause: fmt.Errorf("cluster %s cannot be reached: %s", r.Cluster.Address, cluster.Unreachable(err))}
		}
	}
	return nil
}

// at is where an object is.
func (r *run) at(ref gitops.ObjectRef) place { return place{r.Cluster.Name, ref} }

// measure lets a report that ends a wait begin where the wait began.
func (r *run) measure() {
	o := r.owner
	switch {
	case r.report.Waiting && o.begun.IsZero():
		o.begun = r.report.Started
	case !r.report.Waiting && !o.begun.IsZero():
		r.report.Started, o.begun = o.begun, time.Time{}
	}
}

// stage runs a part and keeps its first error and its duration.
func (r *run) stage(name gitops.StageName, f func() error) {
	start := r.Clock.Now()
	err := f()
	took := r.Clock.Since(start)
	r.report.Stages = append(r.report.Stages, gitops.StageResult{Stage: name, Duration: took, Err: err})
	r.countStage(name, took)
	if err == nil {
		return
	}
	var known *gitops.Error
	if !errors.As(err, &known) && !errors.Is(err, context.Canceled) {
		err = &gitops.Error{Stage: name, Kind: gitops.Transient, Cause: err}
	}
	if r.report.Err == nil {
		r.report.Err = err
	}
}

// build finds the target.
func (r *run) build(ctx context.Context) error {
	o := r.owner
	if r.task.Unreadable != nil {
		r.keeping = true
		return &gitops.Error{Stage: gitops.StagePlan, Kind: gitops.Invalid, Cause: r.task.Unreadable}
	}
	r.target, r.keeping = o.target, true
	if r.task.Snapshot == nil {
		return nil
	}
	snapshot := *r.task.Snapshot
	r.report.Attempted = snapshot.Artifact.Revision
	if o.failed != nil && r.Builder.Current(o.failed.Trace, snapshot.Files, r.task.Build) {
		return o.failed.Err
	}
	built, reused, err := r.Builder.Build(ctx, snapshot, r.task.Build, o.built)
	var failure *build.Failure
	r.countBuild(reused, err)
	switch {
	case errors.As(err, &failure):
		o.failed = failure
		o.stuck.Store(&declaration{trace: failure.Trace, generation: r.task.Generation})
		o.trace.Store(&failure.Trace)
		return failure.Err
	case err != nil:
		return err
	}
	if !reused {
		o.trace.Store(&built.Trace)
	}
	o.failed, o.built = nil, built
	o.stuck.Store(nil)
	r.report.Digest, r.report.Built, r.report.Warnings = built.Digest, !reused, built.Warnings
	r.keeping = false
	if err := o.rejected.still(built.Digest, r.task, r.Clock.Now()); err != nil && !r.compares() {
		r.keeping = true
		return err
	}
	r.target = built
	return nil
}

// apply brings the cluster to the target.
func (r *run) apply(ctx context.Context) error {
	if err := r.resolve(ctx); err != nil {
		return err
	}
	if !r.keeping {
		r.declare()
	}
	if err := r.watch(ctx, r.task.Inventory); err != nil {
		return err
	}
	if err := r.away(); err != nil {
		return err
	}
	r.trust()
	p, err := r.plan()
	if err != nil {
		return err
	}
	r.report.Planned, r.report.Foreign = true, p.Foreign
	p, settled := r.handOver(r.leaveDone(r.pause(p)))
	if settled && !r.keeping && !r.removing {
		p = r.guard(p)
	}
	complete := true
	if !p.Empty() {
		complete = false
		r.investigate(ctx, p)
		// What we write is no news; what others do meanwhile is told afterwards.
		hold := r.Observer.Hold(refsOf(p)...)
		r.applying.Add(1)
		former := r.formerOwners(p)
		r.report.Changes, err = r.Applier.Run(ctx, apply.Request{
			Owner:      r.task.Owner,
			Plan:       p,
			Force:      r.task.Force,
			Isolate:    r.task.Isolate,
			Rules:      r.task.Checks.Rules,
			Live:       r.live,
			OwnedBy:    r.ownedBy,
			WriteAhead: func(ctx context.Context) error { return r.writeAhead(ctx, p) },
			Record:     r.record,
		})
		r.applying.Add(-1)
		hold.Release()
		r.tookOver(former)
		complete = err == nil
		// Kinds that were defined just now can be watched from now on.
		r.defined()
		if watchErr := r.watch(ctx, p.Inventory); watchErr != nil && err == nil {
			err = watchErr
		}
	}
	r.report.Inventory = plan.Remaining(p, r.report.Changes, complete)
	if r.keeping {
		r.report.Inventory = r.task.Inventory.Union(r.report.Inventory)
	}
	r.left(p)
	r.contest(p)
	r.countChanges()
	if r.keeping {
		return err
	}
	r.owner.rejected = rejected(r.target.Digest, err, r.task.Isolate, r.Clock.Now())
	if err == nil || r.owner.rejected.err != nil {
		r.owner.compared = r.owner.wanted
	}
	if err != nil {
		r.owner.target = r.partly(ctx, r.owner.target)
	} else {
		r.owner.target = r.target
		revision := r.report.Attempted
		r.owner.reached.Store(&revision)
		r.forgetGone()
	}
	return err
}

// left reports what leaves the inventory and stays in the cluster.
func (r *run) left(p gitops.Plan) {
	for _, left := range p.Left {
		if !r.report.Inventory.Has(left.Ref) {
			r.report.Left = append(r.report.Left, left)
		}
	}
	for _, done := range r.report.Changes {
		if done.Action == gitops.ActionSkip && !p.Inventory.Has(done.Ref) && plan.IsLeft(r.task.Owner, done.Live) {
			r.report.Left = append(r.report.Left, gitops.LeftObject{Ref: done.Ref, Reason: done.Reason})
		}
	}
}

// refsOf names everything that a plan writes.
func refsOf(p gitops.Plan) []gitops.ObjectRef {
	var refs []gitops.ObjectRef
	for _, stage := range p.Stages {
		for _, change := range stage.Changes {
			refs = append(refs, change.Ref)
		}
	}
	return refs
}

// defined has the kinds watched at once that the run defined.
func (r *run) defined() {
	for _, done := range r.report.Changes {
		if !plan.IsCustomResourceDefinition(done.Ref.GroupKind()) || done.Action == gitops.ActionUnchanged {
			continue
		}
		for _, m := range r.manifests {
			if d, ok := plan.Define(m); ok && m.Ref == done.Ref {
				r.Observer.Retry(d.Kind)
			}
		}
	}
}

// live is what is known of an object, the zero value where nothing is.
func (r *run) live(ref gitops.ObjectRef) gitops.Live {
	live, _ := r.Observer.Live(ref)
	return live
}

// resolve gives every manifest the ref under which the cluster knows it.
func (r *run) resolve(ctx context.Context) error {
	manifests, err := r.resolved(ctx, r.target.Manifests)
	if err == nil {
		r.manifests = manifests
	}
	return err
}

func (r *run) resolved(ctx context.Context, declared []gitops.Manifest) ([]gitops.Manifest, error) {
	versions := map[gitops.GroupKind]string{}
	for _, m := range declared {
		versions[m.Ref.GroupKind()] = m.Version
	}
	scopes := make(map[gitops.GroupKind]plan.Scope, len(versions))
	var failed error
	kinds := slices.SortedFunc(maps.Keys(versions), compareKinds)
	for _, kind := range kinds {
		resource, err := r.Client.Resource(ctx, kind, versions[kind])
		switch {
		case err == nil && resource.Namespaced:
			scopes[kind] = plan.ScopeNamespaced
		case err == nil:
			scopes[kind] = plan.ScopeCluster
		case !isNotServed(err) && failed == nil:
			failed = fmt.Errorf("find out about kind %s: %w", kind, err)
		}
	}
	if failed != nil {
		return nil, failed
	}
	return plan.Resolve(declared, func(kind gitops.GroupKind) plan.Scope { return scopes[kind] })
}

// declare lets other owners know what this one declares.
func (r *run) declare() {
	refs := make([]gitops.ObjectRef, 0, len(r.manifests))
	for _, m := range r.manifests {
		refs = append(refs, m.Ref)
	}
	if trace := r.owner.trace.Load(); trace != nil && !r.removing {
		// Whoever sees this sees the refs as well: they are set before.
		defer r.owner.declares.Store(&declaration{trace: *trace, generation: r.task.Generation, parent: slices.ContainsFunc(refs, r.isOwner)})
	}
	if slices.Equal(refs, r.owner.declared) {
		return
	}
	before := r.owner.declared
	r.setRefs(r.Engine.declared, r.task.Owner.Key(), r.Cluster.Name, before, refs)
	r.owner.declared = refs
	r.leave(r.task.Owner, r.Cluster.Name, before, refs)
}

// plan compares what is declared with what is known of the cluster.
func (r *run) plan() (gitops.Plan, error) {
	audit := r.owner.takeAudit()
	applied := r.owner.left
	if len(audit) > 0 {
		applied = make(map[gitops.ObjectRef]plan.Applied, len(r.owner.left))
		for ref, a := range r.owner.left {
			if !audit[ref] {
				applied[ref] = a
			}
		}
	}
	return plan.Compute(plan.Input{
		Owner:     r.task.Owner,
		Manifests: r.manifests,
		Inventory: r.inventory(),
		Live:      r.Observer.Live,
		Applied:   applied,
		OwnedBy:   r.ownedBy,
		Options: plan.Options{
			Prune:       r.task.Prune,
			Force:       r.task.Force,
			TrustNone:   r.compares(),
			CustomKinds: r.settings.CustomKinds,
		},
	})
}

// compares tells whether every object is to be compared in this run.
func (r *run) compares() bool {
	return r.owner.wanted != "" && r.owner.wanted != r.owner.compared && !r.keeping
}

// inventory is what the plan is told of the stored inventory: all of it, or
// only what is declared while nothing may be pruned.
func (r *run) inventory() gitops.Inventory {
	if !r.keeping {
		return r.task.Inventory
	}
	declared := make(map[gitops.ObjectRef]bool, len(r.manifests))
	for _, m := range r.manifests {
		declared[m.Ref] = true
	}
	var kept gitops.Inventory
	for _, e := range r.task.Inventory {
		if declared[e.Ref] {
			kept = append(kept, e)
		}
	}
	return kept
}

// writeAhead stores the inventory where it lacks something that is going to be
// written, and takes Ready away where the stored status says that another build
// is applied: should this run not end, the next process must not trust that
// success, not even if by then its build is wanted again.
func (r *run) writeAhead(ctx context.Context, p gitops.Plan) error {
	leaves := r.task.Last.Ready && r.task.Last.Digest != r.target.Digest.String()
	if !leaves && r.task.Inventory.Covers(p.WriteAhead) {
		return nil
	}
	if r.task.WriteAhead == nil {
		return fmt.Errorf("objects are to be written that are not in the inventory")
	}
	// A plan that keeps what was applied before knows of a part of the inventory.
	return r.task.WriteAhead(ctx, r.task.Inventory.Union(p.WriteAhead))
}

// record takes over what a write left behind. It is called by the applier, one
// call at a time.
func (r *run) record(done gitops.Done) {
	if done.Action == gitops.ActionDelete {
		r.Observer.RecordDeleted(done.Ref, done.Live.UID)
		delete(r.owner.left, done.Ref)
		return
	}
	if !done.Live.Exists() {
		return
	}
	r.Observer.Record(done.Ref, done.Live)
	if done.Action == gitops.ActionSkip {
		return
	}
	if r.owner.left == nil {
		r.owner.left = map[gitops.ObjectRef]plan.Applied{}
	}
	for i := range r.manifests {
		if r.manifests[i].Ref == done.Ref {
			if r.manifests[i].Policy.Apply == gitops.ApplyIfNotPresent {
				if r.owner.made == nil {
					r.owner.made = map[gitops.ObjectRef]bool{}
				}
				r.owner.made[done.Ref] = true
			}
			r.owner.left[done.Ref] = applied(r.manifests[i].Digest, done.Live)
			return
		}
	}
}

// applied is what an apply left of a manifest.
func applied(digest gitops.Digest, live gitops.Live) plan.Applied {
	return plan.Applied{Digest: digest, UID: live.UID, Fields: live.Fields, At: live.AppliedAt}
}

// forgetGone drops what is remembered of objects that are not declared any more.
func (r *run) forgetGone() {
	if len(r.owner.left) <= len(r.manifests) {
		return
	}
	declared := make(map[gitops.ObjectRef]bool, len(r.manifests))
	for _, m := range r.manifests {
		declared[m.Ref] = true
	}
	for ref := range r.owner.left {
		if !declared[ref] {
			delete(r.owner.left, ref)
		}
	}
}
