package flux

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
)

func TestShares(t *testing.T) {
	t.Parallel()
	at := clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	s := newShares(6, 0, at)
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
	if len(s.running) != 0 || len(s.busy) != 0 {
		t.Errorf("%v and %v are left", s.running, s.busy)
	}
	s.take(key("few", 0))
	s.give(key("few", 0), 0)
	s.take(key("many", 0))
	s.give(key("many", 0), 0)
	if len(s.due) != 0 {
		t.Errorf("%v is due for ever", s.due)
	}
}

func TestSharesHaveAReconcilerGiveWay(t *testing.T) {
	t.Parallel()
	at := clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))
	s := newShares(2, 0, at)
	runs := 0
	run := s.among(func(context.Context, ctrl.Request) (ctrl.Result, error) {
		runs++
		return ctrl.Result{RequeueAfter: time.Hour}, nil
	})
	mine := types.NamespacedName{Namespace: "mine", Name: "one"}
	s.take(types.NamespacedName{Namespace: "mine", Name: "other"})
	s.asked(types.NamespacedName{Namespace: "else", Name: "late"})
	at.Step(time.Second)
	if result, err := run(t.Context(), ctrl.Request{NamespacedName: mine}); err != nil || runs != 0 || result.RequeueAfter != sharePause {
		t.Errorf("it ran %d times, %v, %v", runs, result, err)
	}
	s.take(types.NamespacedName{Namespace: "else", Name: "late"})
	if result, err := run(t.Context(), ctrl.Request{NamespacedName: mine}); err != nil || runs != 1 || result.RequeueAfter != time.Hour {
		t.Errorf("it ran %d times, %v, %v", runs, result, err)
	}
}

// TestSharesKeepWorkersFree: a namespace never has all workers where some are kept free.
func TestSharesKeepWorkersFree(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ workers, want int }{"four": {4, 3}, "two": {2, 1}, "one": {1, 1}} {
		s, got := newShares(test.workers, 1, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0))), 0
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
