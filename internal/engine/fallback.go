package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// fellShort tells whether the newest build could not be applied, so that what
// was applied before is to be kept in order.
func (r *run) fellShort() bool {
	return r.report.Err != nil && r.task.Unreadable == nil && !r.keeping && r.owner.target != nil && !errors.Is(r.report.Err, context.Canceled)
}

// fallBack keeps in order what was applied before the newest build was refused:
// a refusal, however long it lasts, is no reason to leave drift as it is.
func (r *run) fallBack(ctx context.Context) error {
	refused := r.report
	r.target, r.keeping = r.owner.target, true
	r.task.Inventory = refused.Inventory
	r.report.Changes, r.report.Contested = nil, nil
	err := r.apply(ctx)
	r.report.Changes = append(slices.Clone(refused.Changes), r.report.Changes...)
	if refused.Planned {
		r.report.Foreign = refused.Foreign
	}
	return err
}

// partly is what the cluster is to look like after the newest build was applied
// in part only: what was written of it, and the build before for the rest.
func (r *run) partly(ctx context.Context, before *gitops.Build) *gitops.Build {
	done := map[gitops.ObjectRef]gitops.Action{}
	for _, d := range r.report.Changes {
		// Of an isolated run what needed no write is as the newest build has it, too.
		if d.Action != gitops.ActionSkip && (d.Action != gitops.ActionUnchanged || r.task.Isolate) {
			done[d.Ref] = d.Action
		}
	}
	if len(done) == 0 {
		return before
	}
	out := &gitops.Build{Revision: r.target.Revision}
	if before != nil {
		kept, err := r.resolved(ctx, before.Manifests)
		if err != nil {
			return before
		}
		out.Manifests = slices.DeleteFunc(kept, func(m gitops.Manifest) bool { return done[m.Ref] != "" })
	}
	for _, m := range r.manifests {
		if done[m.Ref] != "" {
			out.Manifests = append(out.Manifests, m)
		}
	}
	slices.SortFunc(out.Manifests, func(a, b gitops.Manifest) int { return gitops.CompareRefs(a.Ref, b.Ref) })
	return out
}
