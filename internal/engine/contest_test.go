package engine

import (
	"errors"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestContestPauses(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Minute
	start := time.Unix(1000, 0)
	c := &contest{}
	now := start
	writes := 0
	// Somebody changes the field again as soon as it is repaired.
	for now.Before(start.Add(time.Minute)) {
		if now.Before(c.until) {
			now = c.until
			continue
		}
		c.repaired(now, limit)
		writes++
		now = now.Add(10 * time.Millisecond)
	}
	if writes > freeRepairs {
		t.Errorf("%d writes in the first minute, want at most %d", writes, freeRepairs)
	}
	var pauses []time.Duration
	for range 8 {
		now = c.until
		c.repaired(now, limit)
		pauses = append(pauses, c.pause)
	}
	for i := 1; i < len(pauses); i++ {
		if want := min(2*pauses[i-1], limit); pauses[i] != want {
			t.Errorf("pause %d is %s, want %s", i, pauses[i], want)
		}
	}
	if c.over(c.until.Add(time.Second)) {
		t.Error("the contest is over as soon as its pause is")
	}
	if !c.over(c.until.Add(2*limit + time.Second)) {
		t.Error("a contest that ended long ago is not over")
	}
}

// Somebody changes a field again as soon as it is repaired, for hours. The runs are
// made when the engine asks for them.
func TestTwoWritersForHours(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Minute
	start := time.Unix(1000, 0)
	now := clocktesting.NewFakePassiveClock(start)
	ref := gitops.ObjectRef{Kind: "ConfigMap", Namespace: "ns", Name: "a"}
	e := &Engine{Parts: Parts{Clock: now, Metrics: noMetrics{}}}
	o := &owner{}
	var writes []time.Time
	for now.Now().Before(start.Add(5 * time.Hour)) {
		r := &run{Engine: e, owner: o, task: Task{RetryLimit: limit}, manifests: []gitops.Manifest{{Ref: ref}}}
		p := r.pause(gitops.Plan{Stages: []gitops.Stage{{Changes: []gitops.Change{
			{Ref: ref, Action: gitops.ActionConfigure, Basis: gitops.BasisRepair},
		}}}})
		next := now.Now().Add(10 * time.Millisecond)
		if p.Empty() {
			if next = r.report.Next; !next.After(now.Now()) {
				t.Fatalf("a run at %s repairs nothing and asks for another one at %s", now.Now(), next)
			}
		} else {
			writes = append(writes, now.Now())
			r.report.Changes = gitops.ChangeSet{{Ref: ref, Action: gitops.ActionConfigure}}
		}
		r.contest(p)
		now.SetTime(next)
	}
	within := 0
	for _, at := range writes {
		if at.Sub(start) < time.Minute {
			within++
		}
	}
	if within > freeRepairs || within == 0 {
		t.Errorf("%d writes in the first minute, want at most %d", within, freeRepairs)
	}
	var pauses []time.Duration
	for i := freeRepairs + 1; i < len(writes); i++ {
		pauses = append(pauses, writes[i].Sub(writes[i-1]).Round(time.Second))
	}
	for i := 1; i < len(pauses); i++ {
		if want := min(2*pauses[i-1], limit); pauses[i] != want {
			t.Errorf("pause %d is %s, want %s", i, pauses[i], want)
		}
	}
	if n := len(writes); n < 30 || n > 45 {
		t.Errorf("%d writes in five hours", n)
	}
}

type noMetrics struct{}

func (noMetrics) Built(string)                        {}
func (noMetrics) Changed(string, int)                 {}
func (noMetrics) Repaired(string, int)                {}
func (noMetrics) Stage(string, string, time.Duration) {}

func TestContestForgetsRareRepairs(t *testing.T) {
	t.Parallel()
	c := &contest{}
	now := time.Unix(1000, 0)
	for range 50 {
		c.repaired(now, time.Hour)
		now = now.Add(contestWindow)
	}
	if !c.until.IsZero() {
		t.Errorf("a repair once in %s is paused until %s", contestWindow, c.until)
	}
}

func TestRejection(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	digest, other := gitops.Digest{1}, gitops.Digest{2}
	task := Task{Retry: time.Minute}
	invalid := rejected(digest, &gitops.Error{Kind: gitops.Invalid, Cause: errTest}, false, now)
	for name, test := range map[string]struct {
		rejection rejection
		digest    gitops.Digest
		now       time.Time
		kept      bool
	}{
		"the same build is not tried again before its time": {invalid, digest, now.Add(time.Second), true},
		"it is tried again when its time has come":          {invalid, digest, now.Add(time.Minute), false},
		"another build is tried at once":                    {invalid, other, now, false},
		"a failure that may pass is no rejection":           {rejected(digest, &gitops.Error{Kind: gitops.Transient, Cause: errTest}, false, now), digest, now, false},
		"a success is none":                                 {rejected(digest, nil, false, now), digest, now, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := test.rejection.still(test.digest, task, test.now) != nil; got != test.kept {
				t.Errorf("kept: %t, want %t", got, test.kept)
			}
		})
	}
}

var errTest = errors.New("refused")
