package apply

import (
	"context"
	"maps"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// compareTries bounds how often an object that others change at the same time is
// compared before it is written anyway.
const compareTries = 3

// validate has the API server judge the steps of the stage at hand, and those
// of later stages that can be judged already. A refusal of the latter counts
// only where it stays whatever the stages before do: rights, for one, may come
// with them, and are asked for again.
func (r *run) validate(ctx context.Context, now, later []*step) error {
	open := func(steps []*step) []*step {
		var out []*step
		for _, s := range steps {
			if r.needsLook(s) {
				out = append(out, s)
			}
		}
		return out
	}
	errs := r.each(ctx, open(now), r.look)
	errs = append(errs, r.each(ctx, open(later), func(ctx context.Context, s *step) error {
		if err := r.look(ctx, s); gitops.KindOf(err) == gitops.Invalid {
			return err
		}
		return nil
	})...)
	return join(ctx, r.goOn(errs))
}

// needsLook tells whether a step is to be looked at before it is written.
func (r *run) needsLook(s *step) bool {
	switch {
	case s.settled || s.validated:
		return false
	case r.compares(s):
		return true
	case s.change.Basis == gitops.BasisRepair:
		return false
	}
	// An object that is not in sight of the plan may exist without our labels,
	// and ask to be left alone.
	return !r.single() || s.change.Action == gitops.ActionCreate
}

// compares tells whether a step needs the object as it is: what the apply would
// change is not known, or what it may change depends on who has it.
func (r *run) compares(s *step) bool {
	return s.policy.Apply == gitops.ApplyIfNotPresent || s.change.Basis == gitops.BasisCompare || len(s.change.Manifest.Ignored) > 0
}

// single tells whether at most one object is applied: it is accepted or refused
// as a whole without a dry-run, and a refusal keeps everything from being pruned.
func (r *run) single() bool {
	n := 0
	for _, st := range r.stages {
		if st.name != plan.StagePrune {
			n += len(st.steps)
		}
	}
	return n <= 1
}

// look finds out what an apply would do, without doing it.
func (r *run) look(ctx context.Context, s *step) error {
	if !r.compares(s) {
		_, err := r.dryRun(ctx, s, false)
		return err
	}
	for try := 1; ; try++ {
		live, err := r.Cluster.Get(ctx, s.res, s.change.Ref.Namespace, s.change.Ref.Name)
		if cluster.IsNotFound(err) {
			_, err := r.dryRun(ctx, s, false)
			return err
		}
		if err != nil {
			return r.refused(s, gitops.StageApply, err)
		}
		if r.leaveAlone(s, live) {
			return nil
		}
		s.before = live.GetResourceVersion()
		if err := r.relax(s, live); err != nil {
			return r.refused(s, gitops.StageApply, err)
		}
		answer, err := r.dryRun(ctx, s, true)
		if err != nil || answer == nil {
			return err
		}
		if r.same(s, live, answer) {
			r.settle(s, gitops.Done{
				Action:  gitops.ActionUnchanged,
				Live:    r.marker(live),
				Changed: ownership.Differences(s.manifest(), live.Object),
			})
			return nil
		}
		// The two may differ for what somebody did between them.
		if answer.GetResourceVersion() == s.before || try == compareTries {
			return nil
		}
	}
}

// dryRun has the API server judge an apply. The answer is nil where the step
// needs no comparison: it is to be recreated, or turned out to be left alone. It
// holds only metadata where whole is false.
func (r *run) dryRun(ctx context.Context, s *step, whole bool) (*unstructured.Unstructured, error) {
	answer, _, err := r.send(ctx, s, cluster.ApplyOptions{DryRun: true, Metadata: !whole})
	if err != nil {
		if s.policy.Force && cluster.IsImmutable(err) {
			s.validated, s.recreate = true, true
			return nil, nil
		}
		return nil, r.refused(s, gitops.StageApply, err)
	}
	s.validated = true
	// An object without our labels is not in sight of the plan; here it is.
	if policy := r.Keys.Policy(answer.GetAnnotations(), answer.GetLabels()); policy.Paused || policy.Apply == gitops.ApplyIgnore {
		r.settle(s, gitops.Done{Action: gitops.ActionSkip, Reason: plan.SkipReason(policy, gitops.Live{})})
		return nil, nil
	}
	return answer, nil
}

// leaveAlone settles a step whose object turns out to belong to another owner,
// or to ask for being left alone.
func (r *run) leaveAlone(s *step, obj *unstructured.Unstructured) bool {
	live := ownership.Observe(obj, r.Keys)
	s.policy = plan.EffectivePolicy(s.policy, live.Policy)
	reason := ""
	other := live.Owner != (gitops.OwnerRef{}) && live.Owner.Key() != r.req.Owner.Key()
	if other && r.req.OwnedBy(live.Owner.Key(), s.change.Ref) {
		reason = "it belongs to " + live.Owner.String()
	} else {
		reason = plan.SkipReason(s.policy, live)
	}
	if reason != "" {
		r.settle(s, gitops.Done{Action: gitops.ActionSkip, Reason: reason, Live: live})
	}
	return reason != ""
}

// same tells whether an apply would leave a live object as it is: its content,
// the fields that we own, and nobody whose fields are to be taken over.
func (r *run) same(s *step, live, dryRun *unstructured.Unstructured) bool {
	was, will := ownership.Observe(live, r.Keys), ownership.Observe(dryRun, r.Keys)
	if was.UID != will.UID || was.Fields != will.Fields {
		return false
	}
	if s.policy.Apply != gitops.ApplyMerge && len(will.TakeOver) > 0 {
		return false
	}
	return reflect.DeepEqual(content(live), content(dryRun))
}

// content is an object without what the API server keeps of it by itself.
func content(obj *unstructured.Unstructured) map[string]any {
	out := maps.Clone(obj.Object)
	delete(out, "status")
	meta, _ := out["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		delete(meta, field)
	}
	out["metadata"] = meta
	return out
}
