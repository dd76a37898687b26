package flux

import (
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestPauses(t *testing.T) {
	t.Parallel()
	p, uid, now := newPauses(), types.UID("a"), time.Unix(1000, 0)
	if due := p.due(uid, "dependency", now); due != progressDelay {
		t.Errorf("a wait that begins is due in %s, want %s", due, progressDelay)
	}
	if due := p.due(uid, "dependency", now.Add(progressDelay)); due != 0 {
		t.Errorf("a wait that lasted is due in %s, want now", due)
	}
	if due := p.due(uid, "health", now.Add(progressDelay)); due != progressDelay {
		t.Errorf("a wait for something else is due in %s, want %s", due, progressDelay)
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		if got := p.backoff(uid, time.Second, 5*time.Second); got != want {
			t.Errorf("pause %d is %s, want %s", i, got, want)
		}
	}
	p.succeeded(uid)
	if got := p.backoff(uid, time.Second, 5*time.Second); got != time.Second {
		t.Errorf("the pause after a success is %s, want the first one", got)
	}
}

func TestGiveWayOncePerRevision(t *testing.T) {
	t.Parallel()
	p, uid := newPauses(), types.UID("a")
	for i, step := range []struct {
		revision string
		want     bool
	}{{"main@sha1:1", true}, {"main@sha1:1", false}, {"main@sha1:2", true}, {"main@sha1:2", false}} {
		if got := p.giveWay(uid, step.revision); got != step.want {
			t.Errorf("call %d, for %s, gave way: %t, want %t", i, step.revision, got, step.want)
		}
	}
}

func TestSoonest(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		pause time.Duration
		next  time.Time
		want  time.Duration
	}{
		"the pause where there is no next":            {pause: time.Minute, want: time.Minute},
		"the earlier next":                            {pause: time.Minute, next: now.Add(time.Second), want: time.Second},
		"the earlier pause":                           {pause: time.Second, next: now.Add(time.Minute), want: time.Second},
		"never nothing, which would mean never again": {pause: time.Minute, next: now.Add(-time.Second), want: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := soonest(now, test.pause, test.next); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	s := newSources()
	ref := gitops.OwnerRef{Kind: "GitRepository", Namespace: "a", Name: "b", UID: "1"}
	released := map[string]int{}
	publish := func(revision string) {
		s.publish(ref, gitops.Snapshot{Artifact: gitops.Artifact{Revision: revision}, Release: func() { released[revision]++ }})
	}
	var seen []string
	s.follow(func(_ gitops.OwnerRef, snapshot gitops.Snapshot) { seen = append(seen, snapshot.Artifact.Revision) })
	if _, ok := s.acquire(ref); ok {
		t.Error("a snapshot of a source that was never published")
	}
	publish("1")
	reader, ok := s.acquire(ref)
	if !ok || reader.Artifact.Revision != "1" {
		t.Fatalf("got %v %t, want revision 1", reader.Artifact, ok)
	}
	publish("2")
	if released["1"] != 0 {
		t.Error("a snapshot is released while it is read")
	}
	reader.Release()
	reader.Release()
	if released["1"] != 1 {
		t.Errorf("released %d times, want once", released["1"])
	}
	s.remove(ref)
	if released["2"] != 1 {
		t.Error("the snapshot of a removed source is kept")
	}
	if len(seen) != 2 {
		t.Errorf("followers saw %v, want both revisions", seen)
	}
}

func TestLastingDisputes(t *testing.T) {
	t.Parallel()
	const delay = 10 * time.Second
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	table := newTold()
	for i, step := range []struct {
		at       time.Duration
		disputes []string
		old      []string
		next     time.Duration
	}{
		{0, []string{"a"}, nil, delay},
		{4 * time.Second, []string{"a", "b"}, nil, 6 * time.Second},
		{10 * time.Second, []string{"a", "b"}, []string{"a"}, 4 * time.Second},
		{11 * time.Second, []string{"b"}, nil, 3 * time.Second}, // a was settled
		{14 * time.Second, []string{"a", "b"}, []string{"b"}, delay},
		{15 * time.Second, nil, nil, 0},
	} {
		old, next := table.lasting("uid", step.disputes, delay, start.Add(step.at))
		if got := sortedKeys(old); strings.Join(got, " ") != strings.Join(step.old, " ") || next != step.next {
			t.Errorf("step %d: %v and next in %v, want %v and %v", i, got, next, step.old, step.next)
		}
	}
}

func TestLeastInterval(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration][2]time.Duration{
		0: {0, 0}, time.Nanosecond: {time.Second, time.Second}, time.Millisecond: {time.Second, time.Second}, time.Second: {time.Second, 1050 * time.Millisecond},
		time.Hour: {57 * time.Minute, 63 * time.Minute},
	} {
		for range 100 {
			if got := paced(d, 0.05); got < want[0] || got > want[1] {
				t.Errorf("%s becomes %s, want from %s to %s", d, got, want[0], want[1])
			}
		}
	}
	var k kustomizev1.Kustomization
	k.Spec.Interval.Duration = time.Minute
	for d, want := range map[time.Duration]time.Duration{time.Millisecond: time.Second, time.Second: time.Second, time.Hour: time.Hour} {
		k.Spec.RetryInterval = &metav1.Duration{Duration: d}
		if got := retryOf(&k); got != want {
			t.Errorf("a retry in %s is one in %s, want %s", d, got, want)
		}
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	const d = 10 * time.Minute
	for name, test := range map[string]struct {
		vary      func(time.Duration, float64) time.Duration
		share     float64
		low, high time.Duration
	}{
		"an interval with no jitter":   {jittered, 0, d, d},
		"an interval with 5 per cent":  {jittered, 0.05, 570 * time.Second, 630 * time.Second},
		"an interval with 99 per cent": {jittered, 0.99, 6 * time.Second, 1194 * time.Second},
		"a wish with no jitter":        {lengthened, 0, d, d},
		"a wish with 5 per cent":       {lengthened, 0.05, d, 630 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := map[time.Duration]bool{}
			for range 1000 {
				got := test.vary(d, test.share)
				if got < test.low || got > test.high {
					t.Fatalf("%s is not from %s to %s", got, test.low, test.high)
				}
				seen[got] = true
			}
			if (len(seen) > 500) != (test.share > 0) {
				t.Errorf("%d different durations in 1000", len(seen))
			}
		})
	}
}
