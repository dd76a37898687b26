package apply

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/plan"
)

const (
	defaultParallel = 4
	defaultPatience = time.Minute
)

// Applier writes to one cluster. It is safe for use by many goroutines; plans
// for one owner must not be run at the same time.
type Applier struct {
	Cluster *cluster.Client
	Keys    gitops.Keys
	// Parallel is how many requests of one run may be under way; 4 where it is 0.
	Parallel int
	// Patience bounds the wait for definitions to be served and for recreated
	// objects to be gone; a minute where it is 0.
	Patience time.Duration
	// Clock is the real one where it is nil.
	Clock clock.Clock

	// active remembers namespaces that were seen to be active, by name.
	active sync.Map
}

// Request is one plan to be carried out.
type Request struct {
	Owner gitops.OwnerRef
	Plan  gitops.Plan
	// Force recreates objects on immutable fields, beside those that ask for it.
	Force bool
	// Isolate goes on after an object is refused: it and what cannot be without it are
	// left out, and the error at the end tells of them all. Nothing is pruned then.
	Isolate bool
	// Rules are by which the health of what was written is assessed; nil for
	// those of kstatus.
	Rules *health.Rules
	// Live is what is known of an object; the zero value where nothing is. It
	// may be nil.
	Live func(gitops.ObjectRef) gitops.Live
	// OwnedBy is that of plan.Input: it is asked about objects that the plan
	// knew nothing of. It may be nil.
	OwnedBy func(gitops.OwnerRef, gitops.ObjectRef) bool
	// WriteAhead is called once, right before the first write, and not at all
	// where there is nothing to write. Its error ends the run. It may be nil.
	WriteAhead func(context.Context) error
	// Record is called for every object as soon as it is done, also for those
	// that turned out to need nothing; one call at a time. It may be nil.
	Record func(gitops.Done)
}

// Run carries the plan out and tells what happened, also when it fails. The
// error is a *gitops.Error, an *Errors of several, or that of the context.
func (a *Applier) Run(ctx context.Context, req Request) (gitops.ChangeSet, error) {
	r := newRun(a, req)
	err := r.all(ctx)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	return r.done, err
}

func (a *Applier) parallel() int {
	if a.Parallel > 0 {
		return a.Parallel
	}
	return defaultParallel
}

func (a *Applier) patience() time.Duration {
	if a.Patience > 0 {
		return a.Patience
	}
	return defaultPatience
}

func (a *Applier) clock() clock.Clock {
	if a.Clock != nil {
		return a.Clock
	}
	return clock.RealClock{}
}

// run is one plan on its way.
type run struct {
	*Applier
	req    Request
	stages []stage
	// defined are the kinds that definitions in this plan define.
	defined map[gitops.GroupKind]plan.Definition
	// makes are the namespaces in this plan; true for those that do not exist yet.
	makes map[string]bool

	// refusals are those of the objects that an isolated run has left out.
	refusals []*gitops.Error

	begun sync.Mutex // held while WriteAhead runs; guards wrote and wroteErr
	wrote bool
	err   error

	mu   sync.Mutex // guards done, and calls of Record
	done gitops.ChangeSet
}

type stage struct {
	name  string
	steps []*step
}

// step is one change on its way.
type step struct {
	change gitops.Change
	// res is where the object is found, once found says that it is known.
	res   cluster.Resource
	found bool
	// validated says that the API server has accepted a dry-run.
	validated bool
	// settled says that nothing is left to do.
	settled bool
	// refused says that the object was left out of an isolated run.
	refused bool
	// recreate says that the dry-run was refused for an immutable field.
	recreate bool
	// relaxed is the manifest with what is left to others as it is in the cluster; nil
	// for the manifest itself.
	relaxed []byte
	// before is the resource version ahead of the write; empty where unknown.
	before string
	policy gitops.ObjectPolicy
}

func newRun(a *Applier, req Request) *run {
	if req.Live == nil {
		req.Live = func(gitops.ObjectRef) gitops.Live { return gitops.Live{} }
	}
	if req.OwnedBy == nil {
		req.OwnedBy = func(gitops.OwnerRef, gitops.ObjectRef) bool { return false }
	}
	r := &run{Applier: a, req: req, defined: map[gitops.GroupKind]plan.Definition{}, makes: map[string]bool{}}
	for _, s := range req.Plan.Stages {
		st := stage{name: s.Name}
		for _, change := range s.Changes {
			st.steps = append(st.steps, r.newStep(change))
		}
		r.stages = append(r.stages, st)
	}
	return r
}

func (r *run) newStep(change gitops.Change) *step {
	s := &step{change: change, before: r.req.Live(change.Ref).ResourceVersion}
	m := change.Manifest
	if m == nil {
		return s
	}
	s.policy = m.Policy
	s.policy.Force = s.policy.Force || r.req.Force
	if d, ok := plan.Define(*m); ok {
		r.defined[d.Kind] = d
	}
	if plan.IsNamespace(m.Ref.GroupKind()) {
		r.makes[m.Ref.Name] = change.Action == gitops.ActionCreate
	}
	return s
}

// manifest is what is sent for a step.
func (s *step) manifest() []byte {
	if s.relaxed != nil {
		return s.relaxed
	}
	return s.change.Manifest.JSON
}

// relax leaves to others, in what is sent, what the declaration leaves to them.
func (r *run) relax(s *step, live *unstructured.Unstructured) error {
	if len(s.change.Manifest.Ignored) == 0 || live == nil {
		return nil
	}
	var err error
	s.relaxed, err = ownership.Relax(s.change.Manifest.JSON, live, r.Keys, s.change.Manifest.Ignored)
	return err
}

// all is the run: everything that can be found out without writing, then stage
// after stage.
func (r *run) all(ctx context.Context) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	for i, st := range r.stages {
		if st.name == plan.StagePrune {
			if len(r.refusals) > 0 {
				break // nothing is deleted for a set that is not whole
			}
			if err := r.prune(ctx, st.steps); err != nil {
				return err
			}
			continue
		}
		if err := r.locate(ctx, st.steps); err != nil {
			return err
		}
		var later []*step
		if i == 0 {
			later = r.readyEarly(r.stages[1:])
		}
		if err := r.validate(ctx, st.steps, later); err != nil {
			return err
		}
		if err := r.writeStage(ctx, st.steps); err != nil {
			return err
		}
		if st.name == plan.StageDefinitions {
			if err := r.await(ctx, st.steps); err != nil {
				return err
			}
		}
	}
	return r.leftOut(ctx)
}

// writeStage writes wave by wave, the objects of a wave at the same time. A
// refusal ends it after the wave in which it happened.
func (r *run) writeStage(ctx context.Context, steps []*step) error {
	for _, wave := range waves(steps) {
		errs := r.each(ctx, wave, r.write)
		if err := join(ctx, r.goOn(errs)); err != nil {
			return err
		}
	}
	return nil
}

// waves splits steps by what can be written at the same time.
func waves(steps []*step) [][]*step {
	ordered := slices.Clone(steps)
	slices.SortStableFunc(ordered, func(a, b *step) int {
		return cmp.Compare(plan.Wave(a.change.Ref.Kind), plan.Wave(b.change.Ref.Kind))
	})
	return split(ordered, plan.Wave)
}

// ranks splits steps, which are in the order of a plan, where the rank changes.
func ranks(steps []*step) [][]*step { return split(steps, plan.Rank) }

// split splits steps where the order of their kinds changes, and leaves out those
// that nothing is left to do for.
func split(steps []*step, order func(kind string) int) [][]*step {
	var out [][]*step
	for i, s := range steps {
		if i == 0 || order(steps[i-1].change.Ref.Kind) != order(s.change.Ref.Kind) {
			out = append(out, nil)
		}
		if !s.settled {
			out[len(out)-1] = append(out[len(out)-1], s)
		}
	}
	return out
}

// begin has the write-ahead inventory stored before anything is written.
func (r *run) begin(ctx context.Context) error {
	r.begun.Lock()
	defer r.begun.Unlock()
	if !r.wrote && r.req.WriteAhead != nil {
		r.err = r.req.WriteAhead(ctx)
	}
	r.wrote = true
	return r.err
}

// settle records what happened to an object.
func (r *run) settle(s *step, done gitops.Done) {
	s.settled = true
	done.Ref, done.Version = s.change.Ref, s.change.Version
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, done)
	if r.req.Record != nil {
		r.req.Record(done)
	}
}

// each runs a function for steps, a bounded number at a time, and gathers the
// errors. After the context has ended no further one is begun.
func (r *run) each(ctx context.Context, steps []*step, do func(context.Context, *step) error) []error {
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		errs  []error
	)
	slots := make(chan struct{}, r.parallel())
	for _, s := range steps {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() { <-slots }()
			if err := do(ctx, s); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		}()
	}
	group.Wait()
	return errs
}
