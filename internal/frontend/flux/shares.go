package flux

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
)

const (
	// shareLate is how late an object is that waits for a worker, before those of other
	// namespaces give way to it.
	shareLate = 500 * time.Millisecond
	// sharePause is how soon an object that has given way is tried again.
	sharePause = 500 * time.Millisecond
)

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

	mu sync.Mutex
	// running is how many workers a namespace has, and busy with what; due is since when, or
	// from when on, an object waits for one. All are guarded by mu.
	running map[string]int
	busy    map[types.NamespacedName]bool
	due     map[types.NamespacedName]time.Time
}

func newShares(workers, free int, clock clock.PassiveClock) *shares {
	return &shares{
		workers: workers, free: free, clock: clock,
		running: map[string]int{}, busy: map[types.NamespacedName]bool{}, due: map[types.NamespacedName]time.Time{},
	}
}

// asked notes that an object is to be reconciled now.
func (s *shares) asked(key types.NamespacedName) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.clock.Now(); s.due[key].IsZero() || now.Before(s.due[key]) {
		s.due[key] = now
	}
}

// take gives an object a worker; false where its namespace has to give way.
func (s *shares) take(key types.NamespacedName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	if has := s.running[key.Namespace]; has > 0 && (has >= s.workers-s.free || has >= s.workers/max(s.wanting(key.Namespace, now), 1)) {
		s.due[key] = now.Add(sharePause)
		return false
	}
	delete(s.due, key)
	s.running[key.Namespace]++
	s.busy[key] = true
	return true
}

// wanting is how many namespaces there are to divide among: those that have a worker, and
// those that wait for one too long. It is 0 where none of the others waits.
func (s *shares) wanting(namespace string, now time.Time) int {
	late := map[string]bool{}
	for key, due := range s.due {
		if key.Namespace != namespace && !s.busy[key] && now.Sub(due) > shareLate {
			late[key.Namespace] = true
		}
	}
	if len(late) == 0 {
		return 0
	}
	for other := range s.running {
		late[other] = true
	}
	return len(late)
}

// give takes the worker back, and notes when the object is due again; 0 is for never.
func (s *shares) give(key types.NamespacedName, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[key.Namespace]--; s.running[key.Namespace] == 0 {
		delete(s.running, key.Namespace)
	}
	delete(s.busy, key)
	if due := s.clock.Now().Add(again); again > 0 && (s.due[key].IsZero() || due.Before(s.due[key])) {
		s.due[key] = due
	}
}

// among has a reconciler give way.
func (s *shares) among(run func(context.Context, ctrl.Request) (ctrl.Result, error)) func(context.Context, ctrl.Request) (ctrl.Result, error) {
	if s == nil {
		return run
	}
	return func(ctx context.Context, req ctrl.Request) (result ctrl.Result, err error) {
		if !s.take(req.NamespacedName) {
			return ctrl.Result{RequeueAfter: sharePause}, nil
		}
		defer func() { s.give(req.NamespacedName, result.RequeueAfter) }()
		return run(ctx, req)
	}
}
