package flux

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
)

// priority orders the work of a controller: what changes a cluster comes before
// what only writes a status.
type priority int

const (
	// routine is for intervals, and for owners that a new revision does not
	// change: they get a status write.
	routine priority = 0
	// following is for owners that wait for another one.
	following priority = 50
	// urgent is for what somebody waits for: a request, a changed declaration,
	// drift.
	urgent priority = 100
)

// triggers puts keys into the queue of a controller from anywhere in the
// process. Keys that come before the controller has started are kept until then.
type triggers struct {
	// shares divide the workers of the controller among namespaces; nil does not.
	shares *shares

	mu sync.Mutex
	// queue is nil until the controller starts; guarded by mu, as is early.
	queue workqueue.TypedRateLimitingInterface[ctrl.Request]
	early map[types.NamespacedName]priority
}

// divide has the workers of the controller divided among namespaces, but for those that are
// kept free. It is called before the first key is added.
func (t *triggers) divide(workers, free int, clock clock.PassiveClock) {
	t.shares = newShares(workers, free, clock, func(key types.NamespacedName) { t.add(key, following) })
}

// start is the controller's event source.
func (t *triggers) start(_ context.Context, queue workqueue.TypedRateLimitingInterface[ctrl.Request]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = queue
	for key, p := range t.early {
		enqueue(queue, key, p)
	}
	t.early = nil
	return nil
}

// add has an object reconciled.
func (t *triggers) add(key types.NamespacedName, p priority) {
	t.shares.asked(key)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue != nil {
		enqueue(t.queue, key, p)
		return
	}
	if t.early == nil {
		t.early = map[types.NamespacedName]priority{}
	}
	t.early[key] = max(t.early[key], p)
}

// enqueue adds a key to a controller's queue with a priority, where it has any.
func enqueue(queue workqueue.TypedRateLimitingInterface[ctrl.Request], key types.NamespacedName, p priority) {
	request := ctrl.Request{NamespacedName: key}
	if pq, ok := queue.(priorityqueue.PriorityQueue[ctrl.Request]); ok {
		pq.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(int(p))}, request)
		return
	}
	queue.Add(request)
}

// withRoutinePriority has whatever a reconciliation is repeated for wait in
// line with all other intervals, however urgent its first reason was.
func withRoutinePriority(f func(context.Context, ctrl.Request) (ctrl.Result, error)) func(context.Context, ctrl.Request) (ctrl.Result, error) {
	return func(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
		result, err := f(ctx, req)
		result.Priority = ptr.To(int(routine))
		return result, err
	}
}
