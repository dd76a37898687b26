package engine

import (
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// held is what was held back of a build.
type held struct {
	digest gitops.Digest
	hold   gitops.Hold
}

// guard holds back the deletions of a plan that have to be confirmed. Each build
// is judged anew; what was held of one stays held until it is confirmed.
func (r *run) guard(p gitops.Plan) gitops.Plan {
	guard := plan.Guard{Enabled: r.settings.DeletionGuard, Confirmed: r.confirmed()}
	if r.owner.held.digest == r.target.Digest {
		guard.Before = r.owner.held.hold
	}
	p = guard.Hold(p, len(r.manifests), r.task.Inventory)
	r.owner.held = held{digest: r.target.Digest, hold: p.Held}
	r.report.Held, r.report.Judged = p.Held, true
	return p
}

// confirmed tells whether the deletions of this build were confirmed: for the
// revision that the run works on, or for that which the build was made from and
// which the later one left as it was.
func (r *run) confirmed() bool {
	approved := r.task.Approved
	return approved != "" && (approved == r.report.Attempted || approved == r.target.Revision)
}
