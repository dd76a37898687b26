package engine

import (
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// held is what was held back for an owner.
type held struct {
	// judged is set once deletions were judged in this process.
	judged bool
	hold   gitops.Hold
	// approved is the newest confirmation, and digest the build that it was first
	// seen with: it confirms no other one.
	approved string
	digest   gitops.Digest
}

// guard holds back the deletions of a plan that have to be confirmed. What was held
// once stays held until it is confirmed or declared again, whatever is built
// meanwhile: the new objects of a build that replaces all others are in the stored
// inventory by then, and would make it look like a small change. Of what a former
// process held only the fact is known, so all that is to be deleted first counts.
func (r *run) guard(p gitops.Plan) gitops.Plan {
	o := &r.owner.held
	guard := plan.Guard{Enabled: r.settings.DeletionGuard, Confirmed: r.confirmed(), Before: o.hold}
	if !o.judged && r.task.Held != "" {
		guard.Before = gitops.Hold{Reason: r.task.Held, Refs: deletedBy(p)}
	}
	p = guard.Hold(p, len(r.manifests), r.task.Inventory)
	o.judged, o.hold = true, p.Held
	r.report.Held, r.report.Judged = p.Held, true
	return p
}

// deletedBy names what a plan deletes.
func deletedBy(p gitops.Plan) []gitops.ObjectRef {
	var refs []gitops.ObjectRef
	for _, stage := range p.Stages {
		if stage.Name != plan.StagePrune {
			continue
		}
		for _, change := range stage.Changes {
			refs = append(refs, change.Ref)
		}
	}
	return refs
}

// confirmed tells whether the deletions of this build were confirmed: for the
// revision that the run works on, or for that which the build was made from and
// which the later one left as it was. Another build of the same revision, after a
// change of the specification or of a variable, is not what somebody looked at.
func (r *run) confirmed() bool {
	approved, o := r.task.Approved, &r.owner.held
	if approved == "" || approved != r.report.Attempted && approved != r.target.Revision {
		return false
	}
	if o.approved != approved {
		o.approved, o.digest = approved, r.target.Digest
	}
	return o.digest == r.target.Digest
}
