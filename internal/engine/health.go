package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// wait is how far an owner's target is on its way to being healthy.
type wait struct {
	// digest is that of the build that is waited for, and checks that of what is
	// asked of it.
	digest, checks gitops.Digest
	// since is when the wait began.
	since time.Time
	// reached is set once the target was healthy.
	reached bool
	// lost is when a target that had been healthy ceased to be so; zero while
	// it is healthy.
	lost time.Time
}

// verdict is what is known of the health of a set of objects.
type verdict struct {
	checked int
	// bad are the objects that are not Current, by their refs.
	bad []assessed
}

type assessed struct {
	ref    gitops.ObjectRef
	health gitops.Health
}

// assess looks at the health of what the owner waits for, from memory.
func (r *run) assess(ctx context.Context) error {
	w := &r.owner.health
	now := r.Clock.Now()
	if r.task.Checks.None() || r.keeping {
		return nil
	}
	if err := r.read(ctx); err != nil {
		return err
	}
	if checks := r.task.Checks.digest(); w.digest != r.target.Digest || w.checks != checks || w.since.IsZero() {
		ready := r.task.Last.Ready && r.task.Last.Digest == r.target.Digest.String() && r.task.Last.Generation == r.task.Generation
		*w = wait{digest: r.target.Digest, checks: checks, since: now, reached: ready && !r.wrote()}
	}
	v := r.judge()
	r.report.Checked = v.checked
	if len(v.bad) == 0 {
		w.reached, w.lost = true, time.Time{}
		r.owner.made = nil
		r.report.Health = gitops.Health{Status: gitops.HealthCurrent}
		return nil
	}
	r.report.Health = v.worst()
	if w.reached {
		return r.lostHealth(w, v, now)
	}
	if failed := v.only(gitops.HealthFailed); len(failed.bad) > 0 && !r.settings.WaitForAll {
		return r.unhealthy(failed, "failed early: ")
	}
	deadline := w.since.Add(r.task.Timeout)
	if !now.Before(deadline) {
		return r.unhealthy(v, "timeout waiting for: ")
	}
	r.report.Waiting = true
	r.again(deadline)
	return nil
}

// vanishing are the declared objects that are removed from the cluster once they
// are done, and count as healthy then.
func (r *run) vanishing() map[gitops.ObjectRef]bool {
	var found map[gitops.ObjectRef]bool
	for i := range r.manifests {
		if m := &r.manifests[i]; health.Vanishes(m.Ref.GroupKind(), m.JSON) {
			if found == nil {
				found = map[gitops.ObjectRef]bool{}
			}
			found[m.Ref] = true
		}
	}
	return found
}

// leaveDone takes out of a plan the creation of objects that were done and have been
// removed since, as they declare it. As in Flux they are made again at the interval,
// or where they had failed at the retry interval, and not because they are missing.
func (r *run) leaveDone(p gitops.Plan) gitops.Plan {
	vanishing := r.vanishing()
	if len(vanishing) == 0 || r.compares() {
		return p
	}
	now := r.Clock.Now()
	for i := range p.Stages {
		p.Stages[i].Changes = slices.DeleteFunc(p.Stages[i].Changes, func(c gitops.Change) bool {
			if c.Basis != gitops.BasisRepair || c.Action != gitops.ActionCreate || !vanishing[c.Ref] {
				return false
			}
			pause := r.task.RetryLimit
			if r.hadFailed(c.Ref) {
				pause = r.task.Retry
			}
			due := time.Unix(r.owner.left[c.Ref].At, 0).Add(pause)
			if !now.Before(due) {
				return false
			}
			r.again(due)
			return true
		})
	}
	return p
}

// wrote tells whether the run changed something that has to become healthy.
func (r *run) wrote() bool {
	return slices.ContainsFunc(r.report.Changes, func(d gitops.Done) bool {
		switch d.Action {
		case gitops.ActionCreate, gitops.ActionConfigure, gitops.ActionRecreate:
			return true
		}
		return false
	})
}

// lostHealth deals with a target that had been healthy: it has the owner's
// timeout to become so again before that is worth a failure.
func (r *run) lostHealth(w *wait, v verdict, now time.Time) error {
	if w.lost.IsZero() {
		w.lost = now
	}
	if deadline := w.lost.Add(r.task.Timeout); now.Before(deadline) {
		r.again(deadline)
		return nil
	}
	return r.unhealthy(v, "not healthy any more: ")
}

// unhealthy is the failure of some objects to be healthy.
func (r *run) unhealthy(v verdict, prefix string) error {
	for _, a := range v.bad {
		r.report.Unhealthy = append(r.report.Unhealthy, a.ref)
	}
	return v.err(prefix)
}

// judge collects the health of all checked objects.
func (r *run) judge() verdict {
	var v verdict
	vanishing := r.vanishing()
	r.eachChecked(func(ref gitops.ObjectRef, at sight) {
		v.checked++
		h := r.healthOf(ref, at)
		if h.Status == gitops.HealthNotFound && vanishing[ref] {
			h = gitops.Health{Status: gitops.HealthCurrent}
			if r.hadFailed(ref) {
				h = gitops.Health{Status: gitops.HealthFailed, Message: "Job failed, and was removed by its time to live"}
			}
		}
		if h.Status != gitops.HealthCurrent {
			v.bad = append(v.bad, assessed{ref, h})
		}
	})
	slices.SortFunc(v.bad, func(a, b assessed) int { return gitops.CompareRefs(a.ref, b.ref) })
	return v
}

// eachChecked calls f for each object that has to be healthy.
func (r *run) eachChecked(f func(gitops.ObjectRef, sight)) {
	look := func(ref gitops.ObjectRef, at sight) {
		if !r.settings.NoHealth[ref.GroupKind()] {
			f(ref, at)
		}
	}
	if r.task.Checks.All {
		foreign := map[gitops.ObjectRef]bool{}
		for _, f := range r.report.Foreign {
			foreign[f.Ref] = true
		}
		for _, m := range r.manifests {
			live, _ := r.Observer.Live(m.Ref)
			policy := plan.EffectivePolicy(m.Policy, live.Policy)
			if policy.Apply == gitops.ApplyIfNotPresent && r.owner.made[m.Ref] {
				policy.Apply = gitops.ApplyOverride
			}
			if r.isSelf(m.Ref) || foreign[m.Ref] || plan.SkipReason(policy, live) != "" {
				continue
			}
			look(m.Ref, sight{live: r.Observer.Live, err: func(ref gitops.ObjectRef) error { return r.Observer.Err(ref.GroupKind()) }})
		}
	}
	named := func(ref gitops.ObjectRef) (gitops.Live, bool) { return r.Observer.Named(r.task.Owner.Key(), ref) }
	for _, e := range r.checks {
		look(e.Ref, sight{named: true, live: named, err: r.Observer.NamedErr})
	}
}

// sight is where it is looked for how objects are, and why they may not be seen.
type sight struct {
	// named is set for an object that is looked at without being declared.
	named bool
	live  func(gitops.ObjectRef) (gitops.Live, bool)
	err   func(gitops.ObjectRef) error
}

func (r *run) healthOf(ref gitops.ObjectRef, at sight) gitops.Health {
	live, known := at.live(ref)
	if r.reads() {
		// What others were told of the object is not for this owner.
		live.Health = gitops.Health{}
	}
	switch {
	case !known:
		if err := at.err(ref); err != nil {
			return gitops.Health{Status: gitops.HealthUnknown, Message: err.Error()}
		}
		return gitops.Health{Status: gitops.HealthUnknown, Message: "not seen yet"}
	case r.reads() && at.named:
		if last, wasRead := r.owner.readings[ref]; wasRead {
			return last.health
		}
		return gitops.Health{Status: gitops.HealthUnknown, Message: "not read yet"}
	case !live.Exists():
		return gitops.Health{Status: gitops.HealthNotFound, Message: "Resource not found"}
	case live.Health.Status == "" && r.needsStatus(ref.GroupKind()):
		if last, wasRead := r.owner.readings[ref]; wasRead && r.reads() {
			return last.health
		}
		return gitops.Health{Status: gitops.HealthUnknown, Message: "status not seen yet"}
	case live.Health.Status == "":
		return health.OfMetadata(live.Deleting)
	}
	return live.Health
}

// only keeps the objects of one status.
func (v verdict) only(status gitops.HealthStatus) verdict {
	v.bad = slices.DeleteFunc(slices.Clone(v.bad), func(a assessed) bool { return a.health.Status != status })
	return v
}

// worst is the health of the object that is furthest from being Current.
func (v verdict) worst() gitops.Health {
	order := []gitops.HealthStatus{gitops.HealthFailed, gitops.HealthNotFound, gitops.HealthTerminating, gitops.HealthUnknown, gitops.HealthInProgress}
	worst := slices.MinFunc(v.bad, func(a, b assessed) int {
		return cmp.Compare(slices.Index(order, a.health.Status), slices.Index(order, b.health.Status))
	})
	return gitops.Health{Status: worst.health.Status, Message: worst.ref.String() + ": " + worst.health.Message}
}

// maxNamed is how many objects an error names.
const maxNamed = 20

// err names the objects that are not healthy, in the form that Flux uses.
func (v verdict) err(prefix string) error {
	names := make([]string, 0, len(v.bad))
	for i, a := range v.bad {
		if i == maxNamed {
			names = append(names, fmt.Sprintf("and %d more", len(v.bad)-maxNamed))
			break
		}
		name := fmt.Sprintf("%s status: '%s'", a.ref, a.health.Status)
		if a.health.Message != "" {
			name += ": " + a.health.Message
		}
		names = append(names, name)
	}
	return &gitops.Error{Stage: gitops.StageHealth, Kind: gitops.Waiting,
		Cause: fmt.Errorf("%s[%s]", prefix, strings.Join(names, ", "))}
}
