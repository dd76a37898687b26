package flux

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
)

// shareLate is how late an object is that waits for a worker, before those of other
// namespaces give way to it.
const shareLate = 500 * time.Millisecond

// shares divide the workers of a kind among namespaces, where one waits for another: how
// long a reconciliation takes, and how often one is asked for, is up to whoever has the
// object and the server that it names. While nobody waits, a namespace may have all of them
// but those that are kept free.
type shares struct {
	workers int
	// free is how many are not for whoever has one already: where a reconciliation lasts for
	// minutes, those who come next must not wait for all that are under way.
	free  int
	clock clock.PassiveClock
	// again puts an object that has given way back into the queue.
	again func(key types.NamespacedName)

	mu sync.Mutex
	// namespaces are those that have workers, or objects that wait for one now or later;
	// guarded by mu.
	namespaces map[string]*namespaceShare
}

// namespaceShare is what a namespace has and wants.
type namespaceShare struct {
	// busy are the objects that have a worker.
	busy map[string]bool
	// due is since when an object waits for a worker, or from when on it will.
	due map[string]time.Time
	// aside are those that have given way, in that order. While there are some, another
	// object of the namespace has a worker.
	aside []string
}

func newShares(workers, free int, clock clock.PassiveClock, again func(types.NamespacedName)) *shares {
	return &shares{workers: workers, free: free, clock: clock, again: again, namespaces: map[string]*namespaceShare{}}
}

// asked notes that an object is to be reconciled now.
func (s *shares) asked(key types.NamespacedName) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.of(key.Namespace)
	if due, known := of.due[key.Name]; !known || s.clock.Now().Before(due) {
		of.due[key.Name] = s.clock.Now()
	}
}

// of gives the share of a namespace.
func (s *shares) of(namespace string) *namespaceShare {
	of := s.namespaces[namespace]
	if of == nil {
		of = &namespaceShare{busy: map[string]bool{}, due: map[string]time.Time{}}
		s.namespaces[namespace] = of
	}
	return of
}

// take gives an object a worker; false where it has to give way. It is back in the queue when
// its namespace may have a worker for it, then.
func (s *shares) take(key types.NamespacedName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.of(key.Namespace)
	if has := len(of.busy); has > 0 && has >= s.most(key.Namespace) {
		if _, known := of.due[key.Name]; !known {
			of.due[key.Name] = s.clock.Now()
		}
		if !slices.Contains(of.aside, key.Name) {
			of.aside = append(of.aside, key.Name)
		}
		return false
	}
	delete(of.due, key.Name)
	of.aside = slices.DeleteFunc(of.aside, func(name string) bool { return name == key.Name })
	of.busy[key.Name] = true
	return true
}

// most is how many workers a namespace may have now: its part of all, where another one waits
// for too long.
func (s *shares) most(namespace string) int {
	most := max(s.workers-s.free, 1)
	if len(s.namespaces) == 1 {
		return most
	}
	now, waits, wanting := s.clock.Now(), false, 0
	for name, of := range s.namespaces {
		late := name != namespace && of.late(now)
		waits = waits || late
		if late || len(of.busy) > 0 {
			wanting++
		}
	}
	if !waits {
		return most
	}
	return min(most, max(s.workers/wanting, 1))
}

// late tells whether an object waits for too long that is not under way.
func (n *namespaceShare) late(now time.Time) bool {
	for name, due := range n.due {
		if now.Sub(due) > shareLate && !n.busy[name] {
			return true
		}
	}
	return false
}

// give takes the worker back, and notes when the object is due again; 0 is for never.
func (s *shares) give(key types.NamespacedName, again time.Duration) {
	s.mu.Lock()
	of := s.of(key.Namespace)
	delete(of.busy, key.Name)
	due := s.clock.Now().Add(again)
	if before, known := of.due[key.Name]; again > 0 && (!known || due.Before(before)) {
		of.due[key.Name] = due
	}
	back := s.recall()
	if len(of.busy) == 0 && len(of.due) == 0 && len(of.aside) == 0 {
		delete(s.namespaces, key.Namespace)
	}
	s.mu.Unlock()
	for _, key := range back {
		s.again(key)
	}
}

// recall takes those who may have a worker now from aside.
func (s *shares) recall() (back []types.NamespacedName) {
	for namespace, of := range s.namespaces {
		if len(of.aside) == 0 {
			continue
		}
		n := min(max(s.most(namespace)-len(of.busy), 0), len(of.aside))
		for _, name := range of.aside[:n] {
			back = append(back, types.NamespacedName{Namespace: namespace, Name: name})
		}
		of.aside = slices.Clone(of.aside[n:])
	}
	return back
}

// among has a reconciler give way.
func (s *shares) among(run func(context.Context, ctrl.Request) (ctrl.Result, error)) func(context.Context, ctrl.Request) (ctrl.Result, error) {
	if s == nil {
		return run
	}
	return func(ctx context.Context, req ctrl.Request) (result ctrl.Result, err error) {
		if !s.take(req.NamespacedName) {
			return ctrl.Result{}, nil
		}
		defer func() {
			again := result.RequeueAfter
			if err != nil {
				again = 0 // it is repeated after a pause that is not known here
			}
			s.give(req.NamespacedName, again)
		}()
		return run(ctx, req)
	}
}
