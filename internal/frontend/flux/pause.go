package flux

import (
	"math/rand/v2"
	"sync"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// blocked says why an object cannot be worked on now, although nothing is
// wrong with what was applied before.
type blocked struct {
	reason string
	cause  error
	// stalled is set where only a change of the object's own spec helps.
	stalled bool
	// quiet is set where the status should not speak of it, such as before a
	// source has been fetched for the first time after a start.
	quiet bool
	// waiting marks what is not a failure: a dependency that is not ready yet.
	waiting bool
	// waited is for how long that has been so already, where it is known.
	waited time.Duration
	// retry is when to look again, should no event come before.
	retry time.Duration
}

func (b *blocked) Error() string { return b.cause.Error() }
func (b *blocked) Unwrap() error { return b.cause }

// pauses remembers per object since when it waits, and how often it failed.
type pauses struct {
	mu sync.Mutex
	// byObject is guarded by mu.
	byObject map[types.UID]*pause
}

type pause struct {
	why      string
	since    time.Time
	failures int
	// ending is when a deletion was found unfinished for the first time.
	ending time.Time
	// gaveWay is the revision whose report has given way already.
	gaveWay string
}

func newPauses() *pauses { return &pauses{byObject: map[types.UID]*pause{}} }

func (p *pauses) of(uid types.UID) *pause {
	if p.byObject[uid] == nil {
		p.byObject[uid] = &pause{}
	}
	return p.byObject[uid]
}

// due is how long an object still has to wait for the same thing before it is
// worth a status write; 0 once it is.
func (p *pauses) due(uid types.UID, why string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.of(uid)
	if of.why != why {
		of.why, of.since = why, now
	}
	return max(progressDelay-now.Sub(of.since), 0)
}

// waited is for how long the deletion of an object has been unfinished.
func (p *pauses) waited(uid types.UID, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.of(uid)
	if of.ending.IsZero() {
		of.ending = now
	}
	return now.Sub(of.ending)
}

// over ends a wait.
func (p *pauses) over(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(uid).why = ""
}

// giveWay tells whether the report of a revision is to be made after more urgent
// work: true once for each revision in a row.
func (p *pauses) giveWay(uid types.UID, revision string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.of(uid)
	first := of.gaveWay != revision
	of.gaveWay = revision
	return first
}

// backoff is the pause after one more failure in a row: low, then twice as long
// each time, at most high.
func (p *pauses) backoff(uid types.UID, low, high time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.of(uid)
	d := low << min(of.failures, 20)
	of.failures++
	if d > high || d <= 0 {
		return high
	}
	return d
}

// succeeded ends a row of failures.
func (p *pauses) succeeded(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(uid).failures = 0
}

// forget drops an object that is gone.
func (p *pauses) forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byObject, uid)
}

// soonest is the shorter one of a pause and the time until next, at least a
// millisecond; next is ignored where it is zero.
func soonest(now time.Time, pause time.Duration, next time.Time) time.Duration {
	if !next.IsZero() {
		pause = min(pause, next.Sub(now))
	}
	return max(pause, time.Millisecond)
}

// jittered varies a duration by up to the share in either direction.
func jittered(d time.Duration, share float64) time.Duration {
	if share <= 0 {
		return d
	}
	return time.Duration(float64(d) * (1 + share*(2*rand.Float64()-1)))
}

// leastInterval is the shortest time after which an object is looked at again by itself. The
// API takes a millisecond, with which one object would keep a worker and a server busy.
const leastInterval = time.Second

// paced is a jittered interval of at least leastInterval. None is none, as in Flux: nothing is
// done by itself.
func paced(d time.Duration, share float64) time.Duration {
	if d <= 0 {
		return d
	}
	return max(jittered(d, share), leastInterval)
}

// retryOf is the pause of a Kustomization after a failure.
func retryOf(obj *kustomizev1.Kustomization) time.Duration { return paced(obj.GetRetryInterval(), 0) }

// lengthened makes a duration longer by up to the share.
func lengthened(d time.Duration, share float64) time.Duration {
	return d + time.Duration(float64(d)*share*rand.Float64())
}

// told remembers per object what was told of it, so that it is told once, and
// what is to be told with the outcome of its run.
type told struct {
	mu sync.Mutex
	// byObject is guarded by mu.
	byObject map[types.UID]*telling
}

type telling struct {
	once map[string]bool
	// disputed is since when each dispute has lasted.
	disputed map[string]time.Time
	changes  []string
	// sick are the objects that were last said not to be healthy, at a revision and
	// an instant.
	sick     map[gitops.ObjectRef]bool
	revision string
	at       time.Time
}

func newTold() *told { return &told{byObject: map[types.UID]*telling{}} }

func (t *told) of(uid types.UID) *telling {
	if t.byObject[uid] == nil {
		t.byObject[uid] = &telling{once: map[string]bool{}}
	}
	return t.byObject[uid]
}

// first tells whether something is said of an object for the first time.
func (t *told) first(uid types.UID, what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.of(uid)
	seen := of.once[what]
	of.once[what] = true
	return !seen
}

// lasting keeps since when each dispute of an object has lasted, and gives those
// that have for as long as delay, and how long it is until the next one has; 0 where
// there is none.
func (t *told) lasting(uid types.UID, disputes []string, delay time.Duration, now time.Time) (old map[string]bool, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of, since := t.of(uid), map[string]time.Time{}
	old = map[string]bool{}
	for _, dispute := range disputes {
		begun, known := of.disputed[dispute]
		if !known {
			begun = now
		}
		since[dispute] = begun
		rest := delay - now.Sub(begun)
		switch {
		case rest <= 0:
			old[dispute] = true
		case next == 0 || rest < next:
			next = rest
		}
	}
	of.disputed = since
	return old, next
}

// add keeps lines until they are taken.
func (t *told) add(uid types.UID, lines []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(lines) > 0 {
		t.of(uid).changes = append(t.of(uid).changes, lines...)
	}
}

// take gives the lines that were kept.
func (t *told) take(uid types.UID) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.of(uid).changes
	t.of(uid).changes = nil
	return lines
}

// quiet is how long the outcome of a run is no news: while the health of the same
// objects was told to have failed less than a retry interval ago, or of more than
// those, other texts, or a moment in which none of them is Failed, are not worth a
// status write and an event. 0 says that it is to be told.
func (t *told) quiet(obj *kustomizev1.Kustomization, revision string, report gitops.Report, now time.Time) time.Duration {
	failed := report.Failed() == gitops.StageHealth
	if (!failed && !report.Waiting) || requested(obj.Annotations, obj.Status.ReconcileRequestStatus) {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.of(obj.UID)
	if of.sick == nil || of.revision != revision || conditionsOf(obj).get(meta.ReadyCondition).ObservedGeneration != obj.Generation {
		return 0
	}
	for _, ref := range report.Unhealthy {
		if failed && !of.sick[ref] {
			return 0
		}
	}
	return max(of.at.Add(retryOf(obj)).Sub(now), 0)
}

// unhealthy remembers what a run told of the health of objects.
func (t *told) unhealthy(obj *kustomizev1.Kustomization, revision string, report gitops.Report, news bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.of(obj.UID)
	switch {
	case report.Failed() == gitops.StageHealth && news:
		if of.revision != revision || of.sick == nil || now.Sub(of.at) >= retryOf(obj) {
			of.sick, of.revision, of.at = map[gitops.ObjectRef]bool{}, revision, now
		}
		for _, ref := range report.Unhealthy {
			of.sick[ref] = true
		}
	case report.Failed() != gitops.StageHealth && !report.Waiting:
		of.sick = nil
	}
}

// forget drops an object that is gone.
func (t *told) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byObject, uid)
}
