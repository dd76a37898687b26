package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
)

// Admission is who a contest names where a field is changed while it is written.
const Admission = "admission"

const (
	// freeRepairs is how many repairs of one object are made at once within
	// contestWindow; after that each pause is twice as long as the one before.
	freeRepairs   = 5
	contestWindow = time.Minute
	firstPause    = 15 * time.Second
)

// contest counts the repairs of one object that somebody else keeps changing.
type contest struct {
	repairs []time.Time
	pause   time.Duration
	until   time.Time
	found   gitops.Contest
}

// pause takes out of a plan the repairs of objects that have been repaired too
// often, until their pauses are over.
func (r *run) pause(p gitops.Plan) gitops.Plan {
	now := r.Clock.Now()
	if r.compares() {
		return p
	}
	for i := range p.Stages {
		p.Stages[i].Changes = slices.DeleteFunc(p.Stages[i].Changes, func(c gitops.Change) bool {
			if c.Basis != gitops.BasisRepair {
				return false
			}
			fight := r.owner.contests[c.Ref]
			if fight == nil || !now.Before(fight.until) {
				return false
			}
			r.again(fight.until)
			return true
		})
	}
	return p
}

// again asks for another run at an instant at the latest.
func (r *run) again(at time.Time) {
	if r.report.Next.IsZero() || at.Before(r.report.Next) {
		r.report.Next = at
	}
}

// contest counts the repairs of this run and reports the declared objects whose
// fields somebody else keeps changing, or changes while they are written.
func (r *run) contest(p gitops.Plan) {
	now := r.Clock.Now()
	repaired := map[gitops.ObjectRef]bool{}
	for _, stage := range p.Stages {
		for _, c := range stage.Changes {
			repaired[c.Ref] = c.Basis == gitops.BasisRepair
		}
	}
	for _, done := range r.report.Changes {
		if len(done.Changed) > 0 {
			fight := r.fight(done.Ref)
			fight.found = gitops.Contest{Ref: done.Ref, Fields: done.Changed, By: Admission}
		} else if fight := r.owner.contests[done.Ref]; fight != nil && fight.found.By == Admission {
			fight.found = gitops.Contest{}
		}
		if repaired[done.Ref] && done.Action != gitops.ActionUnchanged {
			r.Metrics.Repaired(r.task.Owner.Kind, 1)
			r.fight(done.Ref).repaired(now, r.task.RetryLimit)
		}
	}
	declared := make(map[gitops.ObjectRef]bool, len(r.manifests))
	for i := range r.manifests {
		declared[r.manifests[i].Ref] = true
	}
	for ref, fight := range r.owner.contests {
		if !declared[ref] || fight.over(now) {
			delete(r.owner.contests, ref)
			continue
		}
		if fight.found.Ref != (gitops.ObjectRef{}) {
			r.report.Contested = append(r.report.Contested, fight.found)
		}
	}
	slices.SortFunc(r.report.Contested, func(a, b gitops.Contest) int { return gitops.CompareRefs(a.Ref, b.Ref) })
}

func (r *run) fight(ref gitops.ObjectRef) *contest {
	if r.owner.contests == nil {
		r.owner.contests = map[gitops.ObjectRef]*contest{}
	}
	if r.owner.contests[ref] == nil {
		r.owner.contests[ref] = &contest{}
	}
	return r.owner.contests[ref]
}

// repaired counts one repair. The first ones are free; then the object rests
// until the window of the first repair is over, and after each further repair
// twice as long as before, up to limit.
func (c *contest) repaired(now time.Time, limit time.Duration) {
	if c.pause > 0 {
		c.pause = min(2*c.pause, max(limit, firstPause))
		c.until = now.Add(c.pause)
		return
	}
	c.repairs = slices.DeleteFunc(c.repairs, func(t time.Time) bool { return now.Sub(t) >= contestWindow })
	c.repairs = append(c.repairs, now)
	if len(c.repairs) < freeRepairs {
		return
	}
	c.pause = firstPause
	c.until = c.repairs[0].Add(contestWindow)
}

// investigate finds out who changed which field of the objects that are about to
// be repaired once too often. It reads those objects, and no others.
func (r *run) investigate(ctx context.Context, p gitops.Plan) {
	for _, stage := range p.Stages {
		for _, c := range stage.Changes {
			fight := r.owner.contests[c.Ref]
			if c.Basis != gitops.BasisRepair || fight == nil || len(fight.repairs) < freeRepairs-1 {
				continue
			}
			fight.found = gitops.Contest{Ref: c.Ref}
			resource, err := r.Client.Resource(ctx, c.Ref.GroupKind(), c.Version)
			if err != nil {
				continue // the repair itself will say so
			}
			live, err := r.Client.Get(ctx, resource, c.Ref.Namespace, c.Ref.Name)
			if err != nil {
				continue
			}
			fields, managers := ownership.Lost(live.GetManagedFields(), r.Keys, c.Manifest.JSON)
			fight.found.Fields, fight.found.By = fields, strings.Join(managers, ", ")
		}
	}
}

// over tells whether a contest has been quiet for so long that it is forgotten.
func (c *contest) over(now time.Time) bool {
	if c.found.By == Admission {
		return false
	}
	last := c.until
	if n := len(c.repairs); n > 0 && c.repairs[n-1].After(last) {
		last = c.repairs[n-1]
	}
	return now.Sub(last) >= max(contestWindow, 2*c.pause)
}
