package flux

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// waits is a remote that answers when it is told to.
type waits struct{ begun, answer chan struct{} }

func newWaits() waits { return waits{begun: make(chan struct{}, 10), answer: make(chan struct{})} }

// begins waits until it is asked.
func (w waits) begins(t *testing.T) {
	t.Helper()
	select {
	case <-w.begun:
	case <-time.After(time.Minute):
		t.Fatal("no look was begun within a minute")
	}
}

func (w waits) Fetch(ctx context.Context, _ GitRequest, _ string) (source.Result, error) {
	w.begun <- struct{}{}
	select {
	case <-w.answer:
		return source.Result{Revision: "main@sha1:a", Release: func() {}}, nil
	case <-ctx.Done():
		return source.Result{}, ctx.Err()
	}
}
func (waits) Last(context.Context, GitRequest) (source.Result, error) { return source.Result{}, nil }
func (waits) Retain([]GitRequest) error                               { return nil }

// TestNewsDuringALook: what changes while a look is under way is looked at when it has ended.
func TestNewsDuringALook(t *testing.T) {
	t.Parallel()
	following := func(change func(*pursuit[GitRequest], *sourcev1.GitRepository), obj *sourcev1.GitRepository) *pursuit[GitRequest] {
		p := &pursuit[GitRequest]{terms: "terms", parts: parts{{Artifact: gitops.Artifact{Revision: "main@sha1:one"}, Release: func() {}}}}
		change(p, obj)
		return p
	}
	for name, test := range map[string]struct {
		change func(*pursuit[GitRequest], *sourcev1.GitRepository)
		// anew is set where the look is of no use any more, again where another follows it.
		anew, again bool
	}{
		"nothing": {change: func(*pursuit[GitRequest], *sourcev1.GitRepository) {}},
		"a part": {again: true, change: func(p *pursuit[GitRequest], _ *sourcev1.GitRepository) {
			p.parts[0].Artifact.Revision = "main@sha1:two"
		}},
		"a request": {again: true, change: func(_ *pursuit[GitRequest], obj *sourcev1.GitRepository) {
			obj.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
		}},
		"the keys that have to have signed it": {anew: true, change: func(p *pursuit[GitRequest], _ *sourcev1.GitRepository) {
			p.terms, p.request = "other terms", GitRequest{URL: "https://example.com/b"}
		}},
		"the declaration": {anew: true, change: func(_ *pursuit[GitRequest], obj *sourcev1.GitRepository) { obj.Generation++ }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			remote := newWaits()
			r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{
				kind: gitRepositories{}, fetcher: remote, clock: clock.RealClock{}, lane: newLane(4), flights: newFlights[GitRequest](), triggers: &triggers{},
			}
			obj := &sourcev1.GitRepository{}
			obj.Name, obj.Namespace, obj.UID = "a", "b", "c"
			none := func(*pursuit[GitRequest], *sourcev1.GitRepository) {}
			if landed, err := r.fetch(t.Context(), obj, following(none, obj), ""); landed != nil || err != nil {
				t.Fatalf("a look that nothing ends has ended: %v, %v", landed, err)
			}
			remote.begins(t)
			p := following(test.change, obj)
			if landed, err := r.fetch(t.Context(), obj, p, ""); landed != nil || err != nil {
				t.Fatalf("a look that nothing ends has ended: %v, %v", landed, err)
			}
			if test.anew {
				remote.begins(t)
			}
			under := r.flights.byObject[obj.UID]
			close(remote.answer)
			<-under.done
			r.triggers.mu.Lock()
			r.triggers.early = nil // it has told that it landed
			r.triggers.mu.Unlock()
			landed, err := r.fetch(t.Context(), obj, following(test.change, obj.DeepCopy()), "")
			if landed == nil || err != nil || landed.err != nil {
				t.Fatalf("the look has brought %v, %v", landed, err)
			}
			landed.release()
			if _, again := r.triggers.early[client.ObjectKeyFromObject(obj)]; again != test.again {
				t.Errorf("it is looked at again: %t, want %t", again, test.again)
			}
			if !test.anew && len(remote.begun) > 0 {
				t.Error("another look was begun meanwhile")
			}
		})
	}
}

// TestSlowAgain: an object whose last look lasted waits for a place, and keeps no worker,
// however often its declaration changes. One that asks for something else is tried anew.
func TestSlowAgain(t *testing.T) {
	t.Parallel()
	l, remote, now := newLane(1), newWaits(), clocktesting.NewFakeClock(time.Unix(1000, 0))
	r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{
		kind: gitRepositories{}, fetcher: remote, clock: now, lane: l, flights: newFlights[GitRequest](), triggers: &triggers{},
	}
	obj := &sourcev1.GitRepository{}
	obj.Name, obj.Namespace, obj.UID = "a", "b", "c"
	l.all = lanePlaces
	for i, step := range []struct {
		after time.Duration
		url   string
		looks int
	}{{0, "one", 1}, {time.Hour, "one", 1}, {0, "two", 2}, {time.Second, "three", 2}, {triedAgain, "three", 3}, {time.Hour, "three", 3}} {
		now.Step(step.after)
		obj.Generation++
		landed, err := r.fetch(t.Context(), obj, &pursuit[GitRequest]{request: GitRequest{URL: step.url}}, "")
		var u *unfetched
		if landed != nil || !errors.As(err, &u) || u.request != "" {
			t.Fatalf("step %d: it has a place though there is none: %v, %v", i, landed, err)
		}
		if len(remote.begun) != step.looks {
			t.Errorf("step %d: a worker was kept for %d looks, want %d", i, len(remote.begun), step.looks)
		}
	}
	l.all = 0
	if landed, err := r.fetch(t.Context(), obj, &pursuit[GitRequest]{}, ""); landed != nil || err != nil {
		t.Fatalf("it does not go on though there is a place: %v, %v", landed, err)
	}
	close(remote.answer)
	r.work.Wait()
}

// TestSlowAndProven: a slow look has a place though those that never brought anything have
// taken all of theirs, as long as its own last one brought something.
func TestSlowAndProven(t *testing.T) {
	t.Parallel()
	l := newLane(1)
	r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{
		kind: gitRepositories{}, clock: clock.RealClock{}, lane: l, flights: newFlights[GitRequest](), triggers: &triggers{},
	}
	obj := &sourcev1.GitRepository{}
	obj.Name, obj.Namespace, obj.UID = "a", "b", "c"
	slowly := func(want bool, when string) {
		t.Helper()
		remote := newWaits()
		r.fetcher = remote
		obj.Generation++
		l.all = lanePlaces + 1
		landed, err := r.fetch(t.Context(), obj, &pursuit[GitRequest]{}, "")
		if placed := err == nil; landed != nil || placed != want {
			t.Errorf("%s: it has a place: %t (%v), want %t", when, placed, err, want)
		}
		r.flights.abandon(obj.UID)
		l.all = 0
	}
	brings := func(of Fetcher[GitRequest]) {
		t.Helper()
		r.fetcher = of
		obj.Generation++
		if landed, err := r.fetch(t.Context(), obj, &pursuit[GitRequest]{}, ""); landed == nil || err != nil {
			t.Fatalf("a look does not land: %v, %v", landed, err)
		}
	}
	answers := newWaits()
	close(answers.answer)
	slowly(false, "it never brought anything")
	r.flights.quick(obj.UID)
	brings(answers)
	slowly(true, "its last look brought something")
	r.flights.quick(obj.UID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.fetcher = newWaits()
	obj.Generation++
	if landed, err := r.fetch(ctx, obj, &pursuit[GitRequest]{}, ""); landed == nil || landed.err == nil || err != nil {
		t.Fatalf("a look does not fail: %v, %v", landed, err)
	}
	slowly(false, "its last look failed")
	r.work.Wait()
}

// TestFailureAnswersItsRequest: a look that failed answers the request that it was begun for,
// and no newer one; a failure before any look answers the newest.
func TestFailureAnswersItsRequest(t *testing.T) {
	t.Parallel()
	r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{kind: gitRepositories{}}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"a look for an older request":      {&unfetched{error: errors.New("no"), request: "older"}, "older"},
		"a look for none":                  {&unfetched{error: errors.New("no")}, "before"},
		"no look, because of its settings": {errors.New("no"), "newest"},
	} {
		obj := &sourcev1.GitRepository{}
		obj.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "newest"}
		obj.Status.SetLastHandledReconcileRequest("before")
		r.answer(obj, test.err)
		if got := obj.Status.GetLastHandledReconcileRequest(); got != test.want {
			t.Errorf("%s: %q is answered, want %q", name, got, test.want)
		}
	}
}

// TestWelcomeBack: a server that has answered does not ask to be left alone any more.
func TestWelcomeBack(t *testing.T) {
	t.Parallel()
	l, of, now := newLane(3), asker{server{"a", "one"}, "mine"}, time.Unix(1000, 0)
	if got := l.left(of, time.Hour, now); got != time.Hour {
		t.Fatalf("left alone for %s", got)
	}
	l.welcome(of)
	if got := l.left(of, 0, now.Add(time.Minute)); got != 0 {
		t.Errorf("after an answer it is left alone for %s because of another failure", got)
	}
}
