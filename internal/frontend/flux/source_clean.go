package flux

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// cleanEvery is how often the data folder is cleaned where nothing happens that is a
	// reason for it: what could not be removed is tried again, and what was read is free.
	cleanEvery = 10 * time.Minute
	// patience is how long an object of which it is not known what it follows keeps the
	// data folder from being cleaned. After that what it may have followed is fetched again,
	// should it be known one day.
	patience = 30 * time.Minute
)

// Start has the data removed of a kind of which there is no object left, and from time to
// time that which nobody follows. It waits, when the process ends, for the packing that is
// under way.
func (r *sourceReconciler[T, R]) Start(ctx context.Context) error {
	r.keepClean(ctx, cleanEvery)
	r.work.Wait()
	return nil
}

func (r *sourceReconciler[T, R]) keepClean(ctx context.Context, every time.Duration) {
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		if err := r.retain(ctx); err != nil && ctx.Err() == nil {
			r.events.log.Error(err, "Cleaning the data folder failed")
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// NeedLeaderElection says that only the process that works packs.
func (r *sourceReconciler[T, R]) NeedLeaderElection() bool { return true }

// forget drops all that is remembered of an object that is gone.
func (r *sourceReconciler[T, R]) forget(source gitops.OwnerRef, uid types.UID) {
	r.sources.remove(source)
	r.references.release(source)
	r.pauses.forget(uid)
	r.flights.forget(uid)
	r.mu.Lock()
	r.forgetUID(uid)
	r.mu.Unlock()
	if err := r.retain(context.Background()); err != nil {
		r.events.log.Error(err, "Cleaning the data folder failed")
	}
}

// forgetUID drops what is known of an object. The caller has mu.
func (r *sourceReconciler[T, R]) forgetUID(uid types.UID) {
	delete(r.fetched, uid)
	delete(r.requests, uid)
	delete(r.adopted, uid)
	delete(r.overdue, uid)
	delete(r.unstored, uid)
}

// forgetOthers drops what is known of objects that are gone though nobody has seen that, such as
// of those whose finalizer was taken off: they are known by their names alone then. The caller
// has mu.
func (r *sourceReconciler[T, R]) forgetOthers(items []T) (gone []types.UID) {
	there, known := map[types.UID]bool{}, map[types.UID]bool{}
	for _, item := range items {
		there[item.GetUID()] = true
	}
	for uid := range r.requests {
		known[uid] = true
	}
	for uid := range r.adopted {
		known[uid] = true
	}
	for uid := range r.fetched {
		known[uid] = true
	}
	for uid := range known {
		if !there[uid] {
			r.forgetUID(uid)
			gone = append(gone, uid)
		}
	}
	return gone
}

// follows remembers what an object follows, nil for nothing, and has the data removed
// that nobody follows any more.
func (r *sourceReconciler[T, R]) follows(ctx context.Context, uid types.UID, request *R) {
	var now *followed[R]
	if request != nil {
		now = &followed[R]{request: *request, key: contentOf(request)}
	}
	r.mu.Lock()
	old, had := r.requests[uid]
	r.requests[uid] = now
	r.mu.Unlock()
	if had && (old == nil) == (now == nil) && (old == nil || old.key == now.key) {
		return
	}
	if err := r.retain(ctx); err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Cleaning the data folder failed")
	}
}

// followsUnknown is for an object of which it cannot be told what it follows. It keeps the
// data that it followed before, and must not keep others' data from being cleaned.
func (r *sourceReconciler[T, R]) followsUnknown(ctx context.Context, uid types.UID, err error) {
	var b *blocked
	if errors.As(err, &b) && b.quiet {
		return // it will be known in a moment
	}
	r.mu.Lock()
	_, known := r.requests[uid]
	r.mu.Unlock()
	if !known {
		r.follows(ctx, uid, nil)
	}
}

// retain removes the data that no object follows. It removes nothing until it is known
// of every object what it follows, or has not been for long: one that fails, or waits for
// another one that does, must not keep others' data for ever. What is known of objects that
// are gone goes too.
func (r *sourceReconciler[T, R]) retain(ctx context.Context) error {
	gone, err := r.clean(ctx)
	for _, uid := range gone {
		r.pauses.forget(uid)
		r.flights.forget(uid)
	}
	return err
}

func (r *sourceReconciler[T, R]) clean(ctx context.Context) (gone []types.UID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	items, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	gone = r.forgetOthers(items)
	var owners []gitops.OwnerRef
	now, unknown, wait := r.clock.Now(), map[types.UID]time.Time{}, false
	for _, item := range items {
		uid := item.GetUID()
		if _, known := r.requests[uid]; !known && item.GetDeletionTimestamp().IsZero() && serves(r.selector, item) {
			since, before := r.unknown[uid]
			if !before {
				since = now
			}
			unknown[uid] = since
			wait = wait || now.Sub(since) < patience
		}
		owners = append(owners, r.ref(item))
	}
	if r.unknown = unknown; wait {
		return gone, nil
	}
	requests := make([]R, 0, len(r.requests))
	for _, f := range r.requests {
		if f != nil {
			requests = append(requests, f.request)
		}
	}
	return gone, errors.Join(r.fetcher.Retain(requests), r.packed.store.Retain(r.kind.name(), owners))
}
