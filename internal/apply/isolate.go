package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// goOn takes out of errs the refusals of single objects, where the run is to go on
// after them. Each of these objects, and what cannot be without it, is left out of the
// rest of the run; leftOut tells of them all.
func (r *run) goOn(errs []error) []error {
	if !r.req.Isolate {
		return errs
	}
	var end []error
	for _, err := range errs {
		var e *gitops.Error
		// Without an answer of the API server the next object will have none either.
		unanswered := cluster.IsUnreachable(err) || cluster.IsDiscoveryFailed(err)
		if !errors.As(err, &e) || e.Ref == (gitops.ObjectRef{}) || e.Kind == gitops.Internal || e.Kind == gitops.Transient && unanswered {
			end = append(end, err)
			continue
		}
		r.leaveOut(e)
	}
	return end
}

// leaveOut has a refused object take no further part, nor what is in its namespace or
// of its kind.
func (r *run) leaveOut(e *gitops.Error) {
	r.refusals = append(r.refusals, e)
	var refused *step
	r.eachStep(func(s *step) {
		if s.change.Ref == e.Ref {
			s.settled, s.refused, refused = true, true, s
		}
	})
	if refused == nil || refused.change.Manifest == nil {
		return
	}
	definition, defines := plan.Define(*refused.change.Manifest)
	namespace := plan.IsNamespace(e.Ref.GroupKind()) && r.makes[e.Ref.Name]
	r.eachStep(func(s *step) {
		ref := s.change.Ref
		if s.settled || s.change.Manifest == nil || !(namespace && ref.Namespace == e.Ref.Name || defines && ref.GroupKind() == definition.Kind && !s.found) {
			return
		}
		s.settled, s.refused = true, true
		r.refusals = append(r.refusals, r.fail(s, gitops.StageApply, gitops.Waiting, fmt.Errorf("it needs %s, which was not applied", e.Ref)))
	})
}

func (r *run) eachStep(f func(*step)) {
	for _, st := range r.stages {
		for _, s := range st.steps {
			f(s)
		}
	}
}

// leftOut tells of everything that takes no further part; nil of nothing.
func (r *run) leftOut(ctx context.Context) error {
	errs := make([]error, 0, len(r.refusals))
	for _, e := range r.refusals {
		errs = append(errs, e)
	}
	return join(ctx, errs)
}
