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
)

// wait is how far an owner's target is on its way to being healthy.
type wait struct {
	// digest and revision are what is waited for.
	digest gitops.Digest
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
	if w.digest != r.target.Digest || w.since.IsZero() {
		ready := r.task.Last.Ready && r.task.Last.Digest == r.target.Digest.String()
		*w = wait{digest: r.target.Digest, since: now, reached: ready && !r.wrote()}
	}
	v := r.judge()
	r.report.Checked = v.checked
	if len(v.bad) == 0 {
		w.reached, w.lost = true, time.Time{}
		r.report.Health = gitops.Health{Status: gitops.HealthCurrent}
		return nil
	}
	r.report.Health = v.worst()
	if w.reached {
		return r.lostHealth(w, v, now)
	}
	if failed := v.only(gitops.HealthFailed); len(failed.bad) > 0 && !r.settings.WaitForAll {
		return failed.err("failed early: ")
	}
	deadline := w.since.Add(r.task.Timeout)
	if !now.Before(deadline) {
		return v.err("timeout waiting for: ")
	}
	r.report.Waiting = true
	r.again(deadline)
	return nil
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
	return v.err("not healthy any more: ")
}

// lookup gives what is known of an object.
type lookup func(gitops.ObjectRef) (gitops.Live, bool)

// checked calls f for each object that has to be healthy.
func (r *run) checked(f func(gitops.ObjectRef, lookup)) {
	look := func(ref gitops.ObjectRef, known lookup) {
		if !r.settings.NoHealth[ref.GroupKind()] {
			f(ref, known)
		}
	}
	if r.task.Checks.All {
		foreign := map[gitops.ObjectRef]bool{}
		for _, f := range r.report.Foreign {
			foreign[f.Ref] = true
		}
		for _, m := range r.manifests {
			live, _ := r.Observer.Live(m.Ref)
			self := m.Ref.Kind == r.task.Owner.Kind && m.Ref.Group == r.task.Owner.Group &&
				m.Ref.Name == r.task.Owner.Name && m.Ref.Namespace == r.task.Owner.Namespace
			if self || foreign[m.Ref] || m.Policy.Paused || live.Policy.Paused || m.Policy.Apply == gitops.ApplyIgnore {
				continue
			}
			look(m.Ref, r.Observer.Live)
		}
	}
	for _, e := range r.task.Checks.Objects {
		look(e.Ref, r.Observer.Named)
	}
}

// judge collects the health of all checked objects.
func (r *run) judge() verdict {
	var v verdict
	r.checked(func(ref gitops.ObjectRef, known lookup) {
		v.checked++
		if h := r.healthOf(ref, known); h.Status != gitops.HealthCurrent {
			v.bad = append(v.bad, assessed{ref, h})
		}
	})
	slices.SortFunc(v.bad, func(a, b assessed) int { return gitops.CompareRefs(a.ref, b.ref) })
	return v
}

func (r *run) healthOf(ref gitops.ObjectRef, look lookup) gitops.Health {
	live, known := look(ref)
	switch {
	case !known:
		if err := r.Observer.Err(ref.GroupKind()); err != nil {
			return gitops.Health{Status: gitops.HealthUnknown, Message: err.Error()}
		}
		return gitops.Health{Status: gitops.HealthUnknown, Message: "not seen yet"}
	case !live.Exists():
		return gitops.Health{Status: gitops.HealthNotFound, Message: "Resource not found"}
	case live.Health.Status == "" && health.NeedsStatus(ref.GroupKind()):
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
