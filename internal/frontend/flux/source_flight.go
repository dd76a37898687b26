package flux

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source"
)

// flights are the looks at remotes that are under way, by object, and the objects whose
// last one was slow.
type flights[R any] struct {
	mu sync.Mutex
	// byObject and slow are guarded by mu, as is proven: the objects whose last look has
	// brought something.
	byObject map[types.UID]*flight[R]
	slow     map[types.UID]slow
	proven   map[types.UID]bool
}

// slow is what is known of an object whose last look lasted: what that was at, when a worker
// found out, and since when there has been no place for another one; zero where there was.
type slow struct {
	at           string
	tried, since time.Time
}

// triedAgain is how often a worker finds out, at most, whether an object that asks for
// something else than before is still slow.
const triedAgain = 10 * time.Second

// flight is one look at a remote. A worker waits for it a moment and goes on to other work
// then; the object is reconciled once it has landed.
type flight[R any] struct {
	// key is what the look depends on, terms what of it must not change while it lasts, and
	// request the one for which it was begun.
	key, terms string
	request    string
	following  pursuit[R]
	cancel     context.CancelFunc
	// done is closed when it has landed; result and err may be read then.
	done   chan struct{}
	result source.Result
	err    error
	// place gives back the place on the lane that it has; nil while a worker waits for it.
	// It is guarded by flights.mu, as are landed, and abandoned: nobody wants it any more.
	place             func()
	landed, abandoned bool
}

func newFlights[R any]() *flights[R] {
	return &flights[R]{byObject: map[types.UID]*flight[R]{}, slow: map[types.UID]slow{}, proven: map[types.UID]bool{}}
}

// of gives the flight of an object that was begun with a key, nil for none, and whether the
// last one is likely to be like the next: it was slow, and at the same, or a moment ago. One
// with another key is abandoned, unless its terms hold still: what it is made of may change
// faster than it lasts, and what it brings is newer than what there is. Empty terms never
// hold.
func (f *flights[R]) of(e errand[R], now time.Time) (under *flight[R], isSlow bool) {
	f.mu.Lock()
	under = f.byObject[e.uid]
	last, known := f.slow[e.uid]
	f.mu.Unlock()
	isSlow = known && (last.at == e.at || now.Sub(last.tried) < triedAgain)
	if under != nil && under.key != e.key && (under.terms != e.terms || e.terms == "") {
		f.abandon(e.uid)
		under = nil
	}
	return under, isSlow
}

// begin remembers the flight of an object.
func (f *flights[R]) begin(uid types.UID, under *flight[R]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byObject[uid] = under
}

// abandon ends the flight of an object of which nobody wants to know what it brings.
func (f *flights[R]) abandon(uid types.UID) {
	f.mu.Lock()
	under := f.byObject[uid]
	if under == nil {
		f.mu.Unlock()
		return
	}
	delete(f.byObject, uid)
	under.abandoned = true
	landed := under.landed
	f.mu.Unlock()
	under.cancel()
	if landed {
		under.release()
	}
}

// forget drops an object that is gone.
func (f *flights[R]) forget(uid types.UID) {
	f.abandon(uid)
	f.quick(uid)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.proven, uid)
}

// lasts remembers that a look lasts.
func (f *flights[R]) lasts(e errand[R], now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow[e.uid] = slow{at: e.at, tried: now, since: f.slow[e.uid].since}
}

// has tells whether an object has a flight.
func (f *flights[R]) has(uid types.UID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byObject[uid] != nil
}

// brought remembers whether a look has brought something. One that was given up says nothing
// of its server.
func (f *flights[R]) brought(uid types.UID, under *flight[R], err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.byObject[uid] != under:
	case err == nil:
		f.proven[uid] = true
	default:
		delete(f.proven, uid)
	}
}

// seat gives a look a place on the lane, or a worker that waits for it.
func (f *flights[R]) seat(l *lane, e errand[R]) (place, patient func()) {
	f.mu.Lock()
	proven := f.proven[e.uid]
	f.mu.Unlock()
	return l.take(e.of, proven)
}

// quick forgets that a look lasted.
func (f *flights[R]) quick(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.slow, uid)
}

// waited is for how long there has been no place for the look of a slow object; placed says
// that there is one now.
func (f *flights[R]) waited(uid types.UID, now time.Time, placed bool) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	of, known := f.slow[uid]
	if !known {
		return 0
	}
	if of.since.IsZero() {
		of.since = now
	}
	waited := now.Sub(of.since)
	if placed {
		of.since = time.Time{}
	}
	f.slow[uid] = of
	return waited
}

// take gives what a flight has brought, whose caller releases it; nil while it is under way.
func (f *flights[R]) take(uid types.UID, under *flight[R]) *flight[R] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !under.landed {
		return nil
	}
	delete(f.byObject, uid)
	return under
}

// board has a flight go on without a worker; false where it has landed meanwhile.
func (f *flights[R]) board(under *flight[R], place func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !under.landed {
		under.place = place
	}
	return !under.landed
}

// land tells that a flight has ended. The place that it had is given back; where it had one
// nobody waits for it.
func (f *flights[R]) land(under *flight[R], result source.Result, err error) (unwatched bool) {
	f.mu.Lock()
	under.result, under.err, under.landed = result, err, true
	place, abandoned := under.place, under.abandoned
	f.mu.Unlock()
	under.cancel()
	close(under.done)
	if place != nil {
		place()
	}
	if abandoned {
		under.release()
	}
	return place != nil && !abandoned
}

func (f *flight[R]) release() {
	if f.err == nil {
		f.result.Release()
	}
	f.following.parts.release()
}

// within tells whether a flight lands within a time.
func (f *flight[R]) within(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-timer.C:
		return false
	}
}

// errand is what somebody wants to know of a remote.
type errand[R any] struct {
	uid types.UID
	of  server
	// key and terms are those of its flight; at is what is asked of the remote, whatever of
	// the object's declaration and parts changes.
	key, terms, at string
	// begin begins the look, with a place on the lane or, where that is nil, without.
	begin func(place func()) *flight[R]
	// full is the error where there is no place.
	full func() error
}

// run does an errand, or takes what a look has brought that was begun before. It is nil
// where there is nothing yet: the look tells when there is, or the error says when to look
// again.
func (f *flights[R]) run(l *lane, now func() time.Time, e errand[R]) (*flight[R], error) {
	under, isSlow := f.of(e, now())
	if under != nil {
		return f.take(e.uid, under), nil
	}
	var place, patient func()
	if isSlow {
		if place, patient = f.seat(l, e); place == nil && patient == nil {
			return nil, e.full()
		}
	}
	under = e.begin(place)
	if place != nil {
		f.waited(e.uid, now(), true)
		return nil, nil
	}
	if patient == nil {
		if under.within(workerWait) {
			return f.take(e.uid, under), nil
		}
		f.lasts(e, now())
		place, patient = f.seat(l, e)
	}
	if patient != nil {
		landed := under.within(l.patience)
		patient()
		if landed {
			f.waited(e.uid, now(), true)
			return f.take(e.uid, under), nil
		}
		if place, patient = f.seat(l, e); patient != nil {
			patient() // others have their turn
		}
	}
	switch {
	case place == nil:
		// Its namespace waits for others already: it begins anew when there is a place.
		f.abandon(e.uid)
		return nil, e.full()
	case f.board(under, place):
		f.waited(e.uid, now(), true)
		return nil, nil
	}
	place()
	return f.take(e.uid, under), nil
}

// fetch looks at the remote of an object. A flight takes the parts of what is followed with
// it. What has changed since it was begun, parts and requests, is looked at next: the news of
// it came while there was a flight.
func (r *sourceReconciler[T, R]) fetch(ctx context.Context, obj T, following *pursuit[R], known string) (*flight[R], error) {
	revisions := make([]string, 0, len(following.parts))
	for _, part := range following.parts {
		revisions = append(revisions, part.Artifact.Revision)
	}
	key, terms := contentOf(following.request, following.content, revisions, obj.GetGeneration(), known), ""
	if following.terms != "" {
		terms = contentOf(following.terms, obj.GetGeneration())
	}
	timeout := r.timeout(obj, following.timeout)
	landed, err := r.flights.run(r.lane, r.clock.Now, errand[R]{
		uid: obj.GetUID(), of: r.serverOf(obj), key: key, terms: terms, at: contentOf(following.request),
		begin: func(place func()) *flight[R] { return r.takeOff(ctx, obj, following, known, key, terms, place) },
		full:  func() error { return &unfetched{error: r.noPlace(obj, timeout)} },
	})
	if landed != nil && (landed.key != key || landed.request != requestOf(obj)) {
		r.triggers.add(client.ObjectKeyFromObject(obj), urgent)
	}
	return landed, err
}

// noPlace has an object wait for a place. It is worth telling where that takes longer than
// the look might. Waiting says what for.
func (f *flights[R]) noPlace(uid types.UID, now time.Time, timeout time.Duration, namespace, waiting string) *blocked {
	waited := f.waited(uid, now, false)
	return &blocked{
		retry: min(max(lanePause, waited/4), mostLanePause), quiet: waited < timeout, waited: waited,
		cause: fmt.Errorf("%s, and no place to wait longer for one: too many sources of namespace '%s' wait for servers that do not answer; it is tried again when one of these has ended",
			waiting, namespace),
	}
}

func (r *sourceReconciler[T, R]) noPlace(obj T, timeout time.Duration) error {
	b := r.flights.noPlace(obj.GetUID(), r.clock.Now(), timeout, obj.GetNamespace(),
		fmt.Sprintf("no answer from %q within %s", r.kind.settings(obj).address, workerWait))
	_, b.reason = r.kind.reasons(fetched{})
	return b
}

func (r *sourceReconciler[T, R]) serverOf(obj T) server {
	return server{namespace: obj.GetNamespace(), host: hostOf(r.kind.settings(obj).address)}
}

// unfetched is the error of a look at a remote.
type unfetched struct {
	error
	// request is the one that it answers, empty for none: of one that came while the look
	// was under way it says nothing.
	request string
	// pause is for how long the server asks to be left alone.
	pause time.Duration
}

// Unwrap gives the error itself.
func (u *unfetched) Unwrap() error { return u.error }

// guarded looks at a remote. A panic is an error of this object, as it is in a worker; what
// says what panicked.
func guarded(ctx context.Context, what string, look func() (source.Result, error)) (result source.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			logr.FromContextOrDiscard(ctx).Error(fmt.Errorf("panic: %v", p), "A look at a remote panicked", "stack", string(debug.Stack()))
			result, err = source.Result{}, fmt.Errorf("%s panicked; the log of the operator has more", what)
		}
	}()
	return look()
}

// launch has a flight look at its remote, beside the workers. Where it lands and nobody waits
// for it, tell is called.
func (f *flights[R]) launch(work *background, uid types.UID, under *flight[R], look func() (source.Result, error), tell func()) *flight[R] {
	f.begin(uid, under)
	begins := work.Go(func() {
		begun := time.Now()
		result, err := look()
		if time.Since(begun) < workerWait {
			f.quick(uid)
		}
		f.brought(uid, under, err)
		if f.land(under, result, err) {
			tell()
		}
	})
	if !begins {
		f.land(under, source.Result{}, context.Canceled)
	}
	return under
}

// takeOff begins a look at the remote.
func (r *sourceReconciler[T, R]) takeOff(ctx context.Context, obj T, following *pursuit[R], known, key, terms string, place func()) *flight[R] {
	timeout := r.timeout(obj, following.timeout)
	ctx, cancel := source.WithTimeout(ctx, timeout)
	under := &flight[R]{key: key, terms: terms, request: requestOf(obj), following: *following, cancel: cancel, done: make(chan struct{}), place: place}
	following.parts = nil
	of := asker{r.serverOf(obj), r.kind.credential(under.following.request)}
	look := func() (source.Result, error) {
		noting, asked := egress.Wishes(r.packed.rooms.In(ctx, obj.GetNamespace()))
		result, err := guarded(ctx, "internal error: fetching", func() (source.Result, error) {
			return r.fetcher.Fetch(noting, under.following.request, known)
		})
		if err == nil {
			r.lane.welcome(of)
			return result, nil
		}
		failure := &unfetched{error: r.fetchError(obj, ctx, timeout, noRoomOr(artifact.Full(noting), err)), request: under.request, pause: r.lane.left(of, asked(), r.clock.Now())}
		if failure.pause > 0 {
			failure.error = fmt.Errorf("%w; the server asks to be left alone for a while, after which it is asked again, or at once when a reconciliation is requested", failure.error)
		}
		return source.Result{}, failure
	}
	return r.flights.launch(&r.work, obj.GetUID(), under, look, func() { r.triggers.add(client.ObjectKeyFromObject(obj), urgent) })
}
