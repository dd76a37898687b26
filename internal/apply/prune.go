package apply

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
	"github.com/plumb-gitops/plumb/internal/plan"
)

// deleteTries bounds how often an object that changes meanwhile is looked at
// again before it is deleted.
const deleteTries = 5

// prune deletes rank by rank. What is refused does not keep the rest of its
// rank from being deleted, but the ranks after it: what others may still need
// goes last.
func (r *run) prune(ctx context.Context, steps []*step) error {
	if len(steps) == 0 {
		return nil
	}
	for _, rank := range ranks(steps) {
		if err := join(ctx, r.each(ctx, rank, r.delete)); err != nil {
			return err
		}
	}
	return nil
}

// delete deletes one object, if it still is the one that was planned to be
// deleted. An object that was changed since is looked at again: it may belong
// to another owner by now.
func (r *run) delete(ctx context.Context, s *step) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	pre := cluster.Preconditions{UID: s.change.UID, ResourceVersion: s.before}
	for try := 1; ; try++ {
		err := r.deleteOnce(ctx, s, &pre, try > 1)
		switch {
		case err == nil:
			return nil
		case try < deleteTries && (apierrors.IsConflict(err) || cluster.IsNotServed(err)):
		default:
			return r.refused(s, gitops.StagePrune, err)
		}
	}
}

// deleteOnce looks at the object where it has to, and asks for its deletion. A
// kind that is served in no version has no objects.
func (r *run) deleteOnce(ctx context.Context, s *step, pre *cluster.Preconditions, again bool) error {
	ref := s.change.Ref
	res, err := r.anyVersion(ctx, s)
	if cluster.IsNotServed(err) {
		r.settle(s, gitops.Done{Action: gitops.ActionDelete})
		return nil
	}
	if err != nil {
		return err
	}
	if pre.UID == "" || again {
		settled, err := r.deletable(ctx, s, res, pre)
		if err != nil || settled {
			return err
		}
	}
	err = r.Cluster.Delete(ctx, res, ref.Namespace, ref.Name, *pre)
	if err == nil || cluster.IsNotFound(err) {
		r.settle(s, gitops.Done{Action: gitops.ActionDelete, Live: gitops.Live{UID: pre.UID}})
		return nil
	}
	return err
}

// anyVersion finds the kind in the version of the inventory, or in another one
// if that is not served any more.
func (r *run) anyVersion(ctx context.Context, s *step) (cluster.Resource, error) {
	res, err := r.Cluster.Resource(ctx, s.change.Ref.GroupKind(), s.change.Version)
	if cluster.IsNotServed(err) {
		return r.Cluster.Resource(ctx, s.change.Ref.GroupKind(), "")
	}
	return res, err
}

// deletable looks at an object of which too little is known and fills in the
// preconditions. It settles the step where nothing is to be deleted.
func (r *run) deletable(ctx context.Context, s *step, res cluster.Resource, pre *cluster.Preconditions) (settled bool, err error) {
	obj, err := r.Cluster.Get(ctx, res, s.change.Ref.Namespace, s.change.Ref.Name)
	if cluster.IsNotFound(err) {
		r.settle(s, gitops.Done{Action: gitops.ActionDelete})
		return true, nil
	}
	if err != nil {
		return false, err
	}
	live := ownership.Observe(obj, r.Keys)
	if reason := plan.KeepReason(r.req.Owner, live); reason != "" {
		r.settle(s, gitops.Done{Action: gitops.ActionSkip, Reason: reason, Live: live})
		return true, nil
	}
	if pre.UID != "" && pre.UID != live.UID {
		return false, r.fail(s, gitops.StagePrune, gitops.Transient, errors.New("replaced by another object of the same name since the deletion was planned"))
	}
	pre.UID, pre.ResourceVersion = live.UID, live.ResourceVersion
	return false, nil
}
