package flux

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// longestUntold is for how long newer revisions may keep an object's status from telling any.
const longestUntold = 10 * time.Second

// overdue is an object whose revisions were overtaken by newer ones before its status had
// them: what it is made from changes faster than it can be packed, or told. Consumers in the
// process have the newest one all the same.
type overdue struct {
	// since is when that began; zero where something has been told since.
	since time.Time
	// waiting packs the newest revision, once that which is being packed is.
	waiting func()
	// packed is a revision that was packed, and then was the newest no more.
	packed *fetched
}

// overtaken notes that a revision of an object is not told, and says whether none has been
// for long. The caller has mu.
func (r *sourceReconciler[T, R]) overtaken(uid types.UID) (long bool) {
	o := r.overdue[uid]
	if o == nil {
		if r.overdue == nil {
			r.overdue = map[types.UID]*overdue{}
		}
		o = &overdue{}
		r.overdue[uid] = o
	}
	if o.since.IsZero() {
		o.since = r.clock.Now()
	}
	return r.clock.Since(o.since) >= longestUntold
}

// afterwards takes what is to be packed now that another revision is; nil for nothing.
func (r *sourceReconciler[T, R]) afterwards(uid types.UID) (begin func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.overdue[uid]; o != nil {
		begin, o.waiting = o.waiting, nil
	}
	return begin
}

// packedLate keeps a revision that was packed when it was the newest no more, to be told where
// none was for long.
func (r *sourceReconciler[T, R]) packedLate(uid types.UID, of fetched, packed gitops.Artifact) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.fetched[uid]; !known || !r.overtaken(uid) {
		return false
	}
	of.artifact = packed
	r.overdue[uid].packed = &of
	return true
}

// late is what is told of an object that would tell nothing otherwise, because there is always
// something newer.
func (r *sourceReconciler[T, R]) late(obj T, following pursuit[R]) (fetched, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	uid := obj.GetUID()
	if o := r.overdue[uid]; o != nil && o.packed != nil {
		of := *o.packed
		o.packed = nil
		// Not one that was verified by keys that do not hold any more.
		return of, of.generation == obj.GetGeneration() && of.terms == following.terms
	}
	// The newest one is packed, and is out of date again for its parts have moved on.
	last := r.fetched[uid]
	return last, last.untold(obj, last.content) && last.failure == nil && last.content != following.content && last.terms == following.terms && len(last.parts) > 0 && r.overtaken(uid)
}

// tellLate writes the status of a revision, and has the object looked at for the newest.
func (r *sourceReconciler[T, R]) tellLate(ctx context.Context, obj T, of fetched) (ctrl.Result, error) {
	// Of parts that have moved on before they were packed there is no artifact to name.
	of, _ = r.withParts(of)
	result, err := r.succeed(ctx, obj, of)
	r.triggers.add(client.ObjectKeyFromObject(obj), following)
	return result, err
}

// tooLong notes that a packed revision of an object is not told, and says whether none has been
// for long.
func (r *sourceReconciler[T, R]) tooLong(uid types.UID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.overtaken(uid)
}

// told forgets that nothing was told.
func (r *sourceReconciler[T, R]) told(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.overdue[uid]; o != nil {
		if o.since = (time.Time{}); o.waiting == nil && o.packed == nil {
			delete(r.overdue, uid)
		}
	}
}
