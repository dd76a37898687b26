package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

const (
	// openWithin bounds how long the API server may take to begin an answer.
	openWithin = 30 * time.Second
	// nextWithin bounds the pause between two objects of an initial set. A server
	// that does not know how to mark the set's end is found out by it.
	nextWithin = 10 * time.Second
	// watchAtLeast is the shortest life that is asked for a watch; up to as much
	// again is added, so that the watches do not end together.
	watchAtLeast = 6 * time.Hour
	// settledAfter is how long a watch has to live for its end to be no failure.
	settledAfter = 10 * time.Second
	// firstPause is that after the first failure; it doubles with each up to
	// longestPause, or, for failures that last, up to longestLastingPause.
	firstPause          = 100 * time.Millisecond
	longestPause        = 30 * time.Second
	longestLastingPause = 5 * time.Minute
	// judgePause is that between two readings because of changed rules.
	judgePause = time.Second
	// missingTries is how often a kind may be missing before that is lasting: a
	// definition is served a moment after it is established.
	missingTries = 4
)

// errExpired says that a watch cannot go on from where it was.
var errExpired = errors.New("the watch's position is too old")

// errLate says that the API server did not begin to answer in time.
var errLate = fmt.Errorf("the API server does not begin to answer: %w", context.DeadlineExceeded)

// watcher follows one kind, or one object, into its table.
type watcher struct {
	observer *Observer
	key      key
	table    *table
	// again interrupts a pause between two tries.
	again chan struct{}
	// listFirst is set once the server has been found unable to stream lists. Only
	// the watch's goroutine uses it.
	listFirst bool

	// cancel ends the watch for good. The observer's mu guards it and what follows.
	cancel context.CancelFunc
	// interrupt ends the stream that runs, for another one to begin.
	interrupt context.CancelFunc
	owners    map[gitops.OwnerRef]demand
	version   string
	full      bool
	sparing   bool
	// listing is set while an initial set is received, stale where rules have
	// changed since it began, and pacing while the next reading waits for its time,
	// a pause after judged.
	listing, stale, pacing bool
	judged                 time.Time
}

// start begins a watch. The observer's mu is held.
func (o *Observer) start(k key, owner gitops.OwnerRef, d demand) *watcher {
	ctx, cancel := context.WithCancel(o.ctx)
	w := &watcher{
		observer: o, key: k, again: make(chan struct{}, 1), cancel: cancel, interrupt: func() {},
		owners:  map[gitops.OwnerRef]demand{owner: d},
		version: d.version, full: d.full,
		table: newTable(k.kind, k.object != name{}, o.tell),
	}
	w.table.moves.Store(d.moves)
	o.watchers[k] = w
	o.running.Add(1)
	go func() {
		defer o.running.Done()
		w.run(ctx)
	}()
	return w
}

// restart has another stream begin, of whole objects or not. The observer's mu is
// held.
func (w *watcher) restart(d demand) {
	w.version, w.full = d.version, d.full
	w.interrupt()
}

// judgeAnew has all objects read and assessed again, because a rule has changed:
// they are not kept. The first change is followed at once, and more of them in
// quick succession by one reading in a pause: after a start many owners come with
// rules of theirs. The observer's mu is held.
func (w *watcher) judgeAnew() {
	o := w.observer
	switch wait := judgePause - o.clock.Since(w.judged); {
	case w.listing:
		w.stale = true
	case w.pacing:
	case wait <= 0:
		w.judged = o.clock.Now()
		w.interrupt()
	default:
		w.pacing = true
		o.clock.AfterFunc(wait, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			w.pacing = false
			if o.watchers[w.key] == w {
				w.judgeAnew()
			}
		})
	}
}

// lists says that an initial set begins: it is assessed by the rules of now.
func (w *watcher) lists() {
	w.observer.mu.Lock()
	defer w.observer.mu.Unlock()
	w.listing, w.stale = true, false
	w.table.begin()
}

// listed says that an initial set is complete.
func (w *watcher) listed() {
	w.observer.mu.Lock()
	defer w.observer.mu.Unlock()
	w.listing = false
	if w.stale {
		w.stale = false
		w.judgeAnew()
	}
	w.observer.progressed()
}

// judges are the rules by which an object of an owner is assessed now.
func (w *watcher) judges(owner gitops.OwnerRef) (rule *health.Rule, others []*health.Rule) {
	w.observer.mu.RLock()
	defer w.observer.mu.RUnlock()
	if w.key.object == (name{}) {
		return w.owners[owner.Key()].rule, nil
	}
	for _, d := range w.owners {
		if d.rule != nil && !slices.ContainsFunc(others, d.rule.Same) {
			others = append(others, d.rule)
		}
	}
	slices.SortFunc(others, func(a, b *health.Rule) int {
		left, right := a.Digest(), b.Digest()
		return bytes.Compare(left[:], right[:])
	})
	return nil, others
}

// retry ends a pause between two tries.
func (w *watcher) retry() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// run follows streams until the watch is cancelled.
func (w *watcher) run(ctx context.Context) {
	defer w.cancel()
	for ctx.Err() == nil {
		w.observer.mu.Lock()
		full := w.full
		stream, interrupt := context.WithCancel(ctx)
		w.interrupt = interrupt
		w.observer.mu.Unlock()
		w.follow(stream, full)
		interrupt()
	}
}

// follow keeps the table in step until ctx ends: connects, goes on where the last
// connection ended, and pauses after failures.
func (w *watcher) follow(ctx context.Context, full bool) {
	position, failures := "", 0
	for {
		began := w.observer.clock.Now()
		next, err := w.connect(ctx, full, position)
		if ctx.Err() != nil {
			return
		}
		position = next
		if w.observer.clock.Since(began) >= settledAfter {
			failures = 0
		}
		switch {
		case errors.Is(err, errExpired):
			position, err = "", nil
		case lasts(err):
			position = ""
		}
		failures++
		w.note(err, failures)
		if !w.pause(ctx, err, failures) {
			return
		}
	}
}

// note makes a failure known.
func (w *watcher) note(err error, failures int) {
	if err == nil {
		return
	}
	err = fmt.Errorf("watch %s: %w", w.key.kind, err)
	w.table.fail(err, lasts(err) && (!missing(err) || failures >= missingTries))
	w.observer.logger.Debug("watch failed", "kind", w.key.kind.String(), "error", err, "failures", failures)
	w.wake()
}

func (w *watcher) wake() {
	w.observer.mu.Lock()
	defer w.observer.mu.Unlock()
	w.observer.progressed()
}

// pause waits before the next try; false when ctx has ended. The end of a watch
// that lived is followed by the next one after a moment.
func (w *watcher) pause(ctx context.Context, err error, failures int) bool {
	longest := longestPause
	if lasts(err) && w.key.object == (name{}) {
		// Whoever watches one object waits for it.
		longest = longestLastingPause
	}
	d := longest
	if failures < 16 {
		d = min(firstPause<<(failures-1), longest)
	}
	d = d/2 + rand.N(d/2+1)
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok && !initializing(err) {
		d = max(d, min(time.Duration(seconds)*time.Second, longest))
	}
	timer := w.observer.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-w.again:
		return true
	case <-ctx.Done():
		return false
	}
}

// lasts tells whether an error says that the kind cannot or may not be watched.
func lasts(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsMethodNotSupported(err) || missing(err)
}

// initializing tells whether the API server is about to serve a kind: it asks for
// a second's patience then, while it needs some ten milliseconds for a kind that
// was defined just now. It has no reason of its own for that, only this text.
func initializing(err error) bool {
	return apierrors.IsTooManyRequests(err) && strings.Contains(err.Error(), "initializing")
}

func missing(err error) bool {
	return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) || cluster.IsNotServed(err)
}

// connect follows one connection from a position, or from the start where that is
// empty, and gives the position that it came to.
func (w *watcher) connect(ctx context.Context, full bool, position string) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t, err := w.target(ctx, full)
	if err != nil {
		return position, err
	}
	if position == "" && w.listFirst {
		if position, err = w.list(ctx, t); err != nil {
			return "", err
		}
	}
	options := metav1.ListOptions{
		Watch: true, AllowWatchBookmarks: true, ResourceVersion: position,
		TimeoutSeconds: new(int64(watchAtLeast/time.Second) + rand.Int64N(int64(watchAtLeast/time.Second))),
	}
	if position == "" {
		options.SendInitialEvents = new(true)
		options.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
	}
	events, err := w.open(ctx, cancel, t, options)
	if err != nil {
		if position == "" && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)) {
			w.listFirst = true
		}
		if apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
			w.table.rewind()
			err = errExpired
		}
		if expired(err) {
			err = errExpired
		}
		return position, err
	}
	defer events.Stop()
	s := stream{watcher: w, full: full, position: position, initial: position == ""}
	if s.initial {
		w.lists()
	} else {
		w.table.recovered()
		w.wake()
	}
	err = s.read(ctx, events.ResultChan())
	return s.position, err
}

// target is what the watch asks for.
func (w *watcher) target(ctx context.Context, full bool) (target, error) {
	o := w.observer
	o.mu.RLock()
	version := w.version
	o.mu.RUnlock()
	resource, namespaced, err := o.options.Resources(ctx, w.key.kind, version)
	if err != nil {
		return target{}, err
	}
	t := target{resource: resource, full: full}
	if w.key.object == (name{}) {
		t.labels = o.options.Keys.OwnerNameLabel
		return t, nil
	}
	t.fields = "metadata.name=" + w.key.object.name
	if namespaced {
		t.namespace = w.key.object.namespace
	}
	return t, nil
}

// open begins a watch, within its time.
func (w *watcher) open(ctx context.Context, cancel context.CancelCauseFunc, t target, options metav1.ListOptions) (watch.Interface, error) {
	late := w.observer.clock.AfterFunc(openWithin, func() { cancel(errLate) })
	defer late.Stop()
	events, err := w.observer.client.watch(ctx, t, options)
	if err != nil && errors.Is(context.Cause(ctx), errLate) {
		return nil, errLate
	}
	return events, err
}

// list fills the table page by page.
func (w *watcher) list(ctx context.Context, t target) (string, error) {
	w.lists()
	position, err := w.observer.client.list(ctx, t, func(object runtime.Object) error {
		return w.put(object, true)
	})
	if err != nil {
		return "", err
	}
	w.table.complete(position, t.full)
	w.listed()
	return position, nil
}

func (w *watcher) put(object runtime.Object, first bool) error {
	n, seen, err := reduce(object, w.key.kind, w.observer.options.Keys, w.judges, first)
	if err != nil {
		return err
	}
	if most := w.observer.options.MaxObjects; most > 0 && !w.table.hasRoom(n, most) {
		return fmt.Errorf("there are more than %d objects, which is the most that is watched", most)
	}
	w.table.put(n, seen)
	return nil
}

func expired(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err)
}
