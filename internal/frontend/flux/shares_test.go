package flux

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
)

func TestShares(t *testing.T) {
	t.Parallel()
	at := clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	var back []types.NamespacedName
	s := newShares(6, 0, at, func(key types.NamespacedName) { back = append(back, key) })
	key := func(namespace string, i int) types.NamespacedName {
		return types.NamespacedName{Namespace: namespace, Name: fmt.Sprint(i)}
	}
	taken := func(want bool, k types.NamespacedName, when string) {
		t.Helper()
		if got := s.take(k); got != want {
			t.Errorf("%s: %s has a worker: %t, want %t", when, k, got, want)
		}
	}
	for i := range 5 {
		taken(true, key("many", i), "nobody else waits")
	}
	s.asked(key("few", 0))
	taken(true, key("many", 5), "another one does not wait for long")
	at.Step(shareLate + time.Millisecond)
	s.give(key("many", 0), 0)
	taken(false, key("many", 0), "another one waits")
	for i := range 2 {
		s.give(key("many", i+1), 0)
	}
	taken(false, key("many", 0), "another one waits, and three of two are half")
	s.give(key("many", 3), 0)
	if len(back) != 1 || back[0] != key("many", 0) {
		t.Errorf("%v are back in the queue, want what gave way", back)
	}
	taken(true, key("many", 0), "less than half")
	taken(true, key("few", 0), "there is one left")
	for i := 1; i < 3; i++ {
		taken(true, key("many", i), "it does not wait any more")
	}

	// What runs waits for nobody, however often it is asked for.
	s.give(key("many", 0), 0)
	s.asked(key("few", 0))
	at.Step(time.Minute)
	taken(true, key("many", 0), "the other one has a worker")

	// An interval that is over is a wait, too; and one that is not yet is none.
	s.give(key("few", 0), time.Minute)
	s.take(key("few", 0)) // what it was asked for meanwhile
	s.give(key("few", 0), time.Minute)
	s.give(key("many", 0), 0)
	at.Step(59 * time.Second)
	taken(true, key("many", 0), "the other one's interval is not over")
	s.give(key("many", 0), 0)
	at.Step(2 * time.Second)
	taken(false, key("many", 0), "the other one's interval is over")
	taken(true, key("third", 0), "it has none")
	for _, k := range []types.NamespacedName{key("third", 0), key("many", 1), key("many", 2), key("many", 4), key("many", 5)} {
		s.give(k, 0)
	}
	for _, k := range []types.NamespacedName{key("few", 0), key("many", 0)} {
		s.take(k)
		s.give(k, 0)
	}
	if len(s.namespaces) != 0 {
		t.Errorf("%v have or want something for ever", s.namespaces)
	}
}

// TestSharesLetAllHaveTheirTurn: what gives way runs as soon as it may, also where much does.
func TestSharesLetAllHaveTheirTurn(t *testing.T) {
	t.Parallel()
	const workers, each = 4, 300
	q := priorityqueue.New[ctrl.Request]("test")
	self := &triggers{}
	self.divide(workers, 1, clock.RealClock{})
	var mu sync.Mutex
	running, most, ended := map[string]int{}, 0, map[types.NamespacedName]int{}
	done := make(chan struct{})
	run := self.shares.among(func(_ context.Context, req ctrl.Request) (ctrl.Result, error) {
		mu.Lock()
		running[req.Namespace]++
		most = max(most, running[req.Namespace])
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		running[req.Namespace]--
		if ended[req.NamespacedName]++; len(ended) == 2*each {
			close(done)
		}
		return ctrl.Result{}, nil
	})
	if err := self.start(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for {
				req, shut := q.Get()
				if shut {
					return
				}
				if _, err := run(t.Context(), req); err != nil {
					t.Error(err)
				}
				q.Done(req)
			}
		})
	}
	for i := range each {
		self.add(types.NamespacedName{Namespace: "a", Name: fmt.Sprint(i)}, urgent)
	}
	for i := range each {
		self.add(types.NamespacedName{Namespace: "b", Name: fmt.Sprint(i)}, routine)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second): // half a second for each, at six in a second
		t.Errorf("%d of %d had their turn", len(ended), 2*each)
	}
	q.ShutDown()
	all.Wait()
	if most != workers-1 {
		t.Errorf("a namespace had %d of %d workers, want all but one", most, workers)
	}
	if len(self.shares.namespaces) != 0 {
		t.Errorf("%v have or want something for ever", self.shares.namespaces)
	}
}

// TestSharesKeepWorkersFree: a namespace never has all workers where some are kept free.
func TestSharesKeepWorkersFree(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ workers, want int }{"four": {4, 3}, "two": {2, 1}, "one": {1, 1}} {
		s, got := newShares(test.workers, 1, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)), nil), 0
		for i := range 6 {
			if s.take(types.NamespacedName{Namespace: "a", Name: fmt.Sprint(i)}) {
				got++
			}
		}
		if got != test.want {
			t.Errorf("of %s workers a namespace has %d, want %d", name, got, test.want)
		}
	}
}
