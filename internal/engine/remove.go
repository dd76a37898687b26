package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// endPause is how soon an object is looked at again that is being deleted and of
// which no watch would tell.
const endPause = 5 * time.Second

// Removal is the task of letting go of everything that an owner manages.
type Removal struct {
	Owner gitops.OwnerRef
	// Access is that of a Task.
	Access    Access
	Inventory gitops.Inventory
	// Timeout bounds one run's writes, and how long deleted objects may take to
	// be gone.
	Timeout time.Duration
	// Wait has the objects be gone, and not only their deletion be asked for.
	Wait bool
	// Snapshot and Siblings are those of a Task: what another owner is about to
	// take over is not deleted. Nil where the source is not known.
	Snapshot *gitops.Snapshot
	Siblings func() []Sibling
}

// Remove deletes everything in an owner's inventory that its owner may delete.
// The report's inventory is what is left to be deleted and, where the removal
// waits, what is not gone yet: the report is Waiting then, and the owner is woken
// whenever one of the objects is gone.
func (e *Engine) Remove(ctx context.Context, removal Removal) gitops.Report {
	o := e.owner(removal.Owner)
	o.running.Lock()
	defer o.running.Unlock()
	ctx, cancel := bounded(ctx, removal.Timeout, removal.Access)
	defer cancel()
	r := &run{
		Engine: e, owner: o, target: &gitops.Build{}, removing: true,
		task: Task{
			Owner: removal.Owner, Inventory: removal.Inventory, Prune: true, Timeout: removal.Timeout,
			Snapshot: removal.Snapshot, Siblings: removal.Siblings,
		},
		report: gitops.Report{
			Owner: removal.Owner, Inventory: removal.Inventory, Started: e.Clock.Now(),
		},
	}
	if err := r.enter(removal.Owner, removal.Access); err != nil {
		r.report.Err, r.report.Finished = err, e.Clock.Now()
		return r.report
	}
	r.stage(gitops.StagePrune, func() error {
		if err := r.apply(ctx); err != nil || !removal.Wait {
			return err
		}
		return r.awaitEnd(ctx)
	})
	if removal.Wait && r.report.Err != nil {
		// What is not known to be gone is still waited for in the next run.
		var left []gitops.InventoryEntry
		for _, entry := range removal.Inventory {
			if !o.end.gone[entry.Ref] && !r.outlives(entry.Ref) {
				left = append(left, entry)
			}
		}
		r.report.Inventory = r.report.Inventory.Union(gitops.NewInventory(left))
	}
	r.report.Finished = e.Clock.Now()
	return r.report
}

// ending is how far the deleted objects of an owner are on their way.
type ending struct {
	// since is when the wait began; zero while there is none.
	since time.Time
	// gone are the objects that were seen not to exist any more.
	gone map[gitops.ObjectRef]bool
}

// awaitEnd looks which of the deleted objects are still there. A watch says when
// one of them is gone; the API server is asked only about an object that the
// watch does not show, and once where it is gone.
func (r *run) awaitEnd(ctx context.Context) error {
	end := &r.owner.end
	if end.gone == nil {
		end.gone = map[gitops.ObjectRef]bool{}
	}
	var left []gitops.InventoryEntry
	for _, e := range r.task.Inventory {
		if end.gone[e.Ref] || r.report.Inventory.Has(e.Ref) || r.outlives(e.Ref) {
			continue
		}
		there, err := r.isEnding(ctx, e)
		if err != nil {
			return fmt.Errorf("find out whether %s is gone: %w", e.Ref, err)
		}
		if there {
			left = append(left, e)
		} else {
			end.gone[e.Ref] = true
		}
	}
	if len(left) == 0 {
		end.since = time.Time{}
		return nil
	}
	r.report.Inventory = r.report.Inventory.Union(gitops.NewInventory(left))
	now := r.Clock.Now()
	if end.since.IsZero() {
		end.since = now
	}
	if deadline := end.since.Add(r.task.Timeout); now.Before(deadline) {
		r.report.Waiting = true
		r.again(deadline)
		return nil
	}
	end.since = now // the next wait has its own time
	return r.lasting(ctx, left)
}

// isEnding tells whether an object is still there although its deletion was asked
// for. One that was left alone, or made anew, is not waited for.
func (r *run) isEnding(ctx context.Context, e gitops.InventoryEntry) (bool, error) {
	if live, known := r.Observer.Live(e.Ref); known && live.Exists() {
		return live.Deleting && live.Owner.Key() == r.task.Owner.Key(), nil
	}
	object, err := r.look(ctx, e)
	if object == nil || err != nil {
		return false, err
	}
	live := ownership.Observe(object, r.Keys)
	if !live.Deleting || r.isOther(live.Owner) {
		return false, nil
	}
	r.again(r.Clock.Now().Add(endPause))
	return true, nil
}

// look reads an object in whatever version its kind is served; nil where it does
// not exist.
func (r *run) look(ctx context.Context, e gitops.InventoryEntry) (*unstructured.Unstructured, error) {
	resource, err := r.Client.Resource(ctx, e.Ref.GroupKind(), e.Version)
	if isNotServed(err) {
		resource, err = r.Client.Resource(ctx, e.Ref.GroupKind(), "")
	}
	if isNotServed(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	object, err := r.Client.Get(ctx, resource, e.Ref.Namespace, e.Ref.Name)
	if cluster.IsNotFound(err) || isNotServed(err) {
		return nil, nil
	}
	return object, err
}

func (r *run) isOther(owner gitops.OwnerRef) bool {
	return owner != (gitops.OwnerRef{}) && owner.Key() != r.task.Owner.Key()
}

// outlives tells whether an object cannot be gone before its owner is: the
// owner's namespace, the definition of its kind, the owner itself. To wait for
// one would be to wait for ever.
func (r *run) outlives(ref gitops.ObjectRef) bool {
	owner := r.task.Owner
	switch {
	case r.Cluster.Name != "":
		return false
	case plan.IsNamespace(ref.GroupKind()):
		return ref.Name == owner.Namespace
	case plan.IsCustomResourceDefinition(ref.GroupKind()):
		return strings.HasSuffix(ref.Name, "."+owner.Group)
	}
	return r.isSelf(ref)
}

// lasting is the error that names the objects that do not end, with what keeps them.
func (r *run) lasting(ctx context.Context, left []gitops.InventoryEntry) error {
	var names []string
	for i, e := range left {
		if i == maxNamed {
			names = append(names, fmt.Sprintf("and %d more", len(left)-maxNamed))
			break
		}
		name := fmt.Sprintf("%s status: '%s'", e.Ref, gitops.HealthTerminating)
		// What keeps it is worth a look, and its want no second error.
		if object, err := r.look(ctx, e); err == nil && object != nil {
			if finalizers := object.GetFinalizers(); len(finalizers) > 0 {
				name += ": kept by finalizers " + strings.Join(finalizers, ", ")
			}
		}
		names = append(names, name)
	}
	return &gitops.Error{Stage: gitops.StagePrune, Kind: gitops.Waiting,
		Cause: fmt.Errorf("timeout waiting for termination: [%s]", strings.Join(names, ", "))}
}
