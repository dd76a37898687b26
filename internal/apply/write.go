package apply

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/ownership"
)

// takeOverTries bounds how often fields are taken over of an object that
// others change at the same time.
const takeOverTries = 3

// write applies one object and settles it.
func (r *run) write(ctx context.Context, s *step) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if s.recreate {
		return r.recreate(ctx, s)
	}
	answer, created, err := r.apply(ctx, s)
	if err != nil {
		if s.policy.Force && cluster.IsImmutable(err) {
			return r.recreate(ctx, s)
		}
		return r.refused(s, gitops.StageApply, err)
	}
	action := gitops.ActionConfigure
	switch {
	case created:
		action = gitops.ActionCreate
	case s.before != "" && s.before == answer.GetResourceVersion():
		action = gitops.ActionUnchanged
	}
	return r.finish(ctx, s, answer, action)
}

// finish takes over what is to be taken over and settles the step.
func (r *run) finish(ctx context.Context, s *step, answer *unstructured.Unstructured, action gitops.Action) error {
	live := r.marker(answer)
	s.policy = policyOf(s, live)
	if len(live.TakeOver) > 0 && s.policy.Apply != gitops.ApplyMerge {
		taken, err := r.takeOver(ctx, s, answer)
		if err != nil {
			return r.refused(s, gitops.StageApply, err)
		}
		if action == gitops.ActionUnchanged && taken.GetResourceVersion() != answer.GetResourceVersion() {
			action = gitops.ActionConfigure
		}
		answer, live = taken, r.marker(taken)
	}
	r.settle(s, gitops.Done{
		Action:  action,
		Live:    live,
		Changed: ownership.Differences(s.manifest(), answer.Object),
	})
	return nil
}

// marker is what is kept of an answer: with its health, so that the state before
// the write is not taken for the one after it.
func (r *run) marker(answer *unstructured.Unstructured) gitops.Live {
	live := ownership.Observe(answer, r.Keys)
	kind := gitops.GroupKind{Group: answer.GroupVersionKind().Group, Kind: answer.GetKind()}
	live.Health = r.req.Rules.For(kind).Assess(answer)
	return live
}

// policyOf is the step's policy with a live object's wish to be merged.
func policyOf(s *step, live gitops.Live) gitops.ObjectPolicy {
	policy := s.policy
	if live.Policy.Apply == gitops.ApplyMerge {
		policy.Apply = gitops.ApplyMerge
	}
	return policy
}

func (r *run) apply(ctx context.Context, s *step) (*unstructured.Unstructured, bool, error) {
	return r.send(ctx, s, cluster.ApplyOptions{})
}

// send makes the apply, or its dry-run. A kind that was defined a moment ago may
// not be served by every API server yet.
func (r *run) send(ctx context.Context, s *step, options cluster.ApplyOptions) (answer *unstructured.Unstructured, created bool, err error) {
	options.FieldManager = r.Keys.Manager
	_, fresh := r.defined[s.change.Ref.GroupKind()]
	late := r.poll(ctx, func() (bool, error) {
		answer, created, err = r.Cluster.Apply(ctx, s.res, s.change.Ref.Namespace, s.change.Ref.Name, s.manifest(), options)
		return !fresh || !cluster.IsNotServed(err), nil
	})
	return answer, created, cmp.Or(err, late)
}

// takeOver gives the fields of other managers to us and applies again, so that
// what they added is removed. It starts from the answer of an apply.
func (r *run) takeOver(ctx context.Context, s *step, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	ref := s.change.Ref
	for range takeOverTries {
		patch, err := r.takeOverPatch(s, obj)
		if err != nil || patch == nil {
			return obj, err
		}
		taken, err := r.Cluster.JSONPatch(ctx, s.res, ref.Namespace, ref.Name, patch, r.Keys.Manager)
		if err == nil {
			err = r.relax(s, taken)
		}
		if err == nil {
			obj, _, err = r.apply(ctx, s)
		} else if isOvertaken(err) {
			obj, err = r.changed(ctx, s, obj, err)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(ownership.Observe(obj, r.Keys).TakeOver) > 0 {
		return nil, errors.New("changed by others each time their fields were to be taken over")
	}
	return obj, nil
}

// changed reads an object whose patch was refused, and returns that refusal where
// the object is still the same: then nobody was in the way.
func (r *run) changed(ctx context.Context, s *step, was *unstructured.Unstructured, refusal error) (*unstructured.Unstructured, error) {
	is, err := r.Cluster.Get(ctx, s.res, s.change.Ref.Namespace, s.change.Ref.Name)
	if err == nil && is.GetResourceVersion() == was.GetResourceVersion() {
		err = refusal
	}
	return is, err
}

// takeOverPatch is nil where there is nothing to take over. It fails on the server
// where one of the entries that it replaces was changed since; what others write
// meanwhile, such as a controller its status, is not in the way.
func (r *run) takeOverPatch(s *step, obj *unstructured.Unstructured) ([]byte, error) {
	was := obj.GetManagedFields()
	entries, changed, err := ownership.TakeOver(was, r.Keys, s.change.Manifest.APIVersion())
	if err != nil || !changed {
		return nil, err
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value,omitempty"`
	}
	patch := []operation{{Op: "test", Path: "/metadata/uid", Value: obj.GetUID()}}
	// The last first, so that the places of the others stay what they were.
	stay, own := entries[:len(entries)-1], entries[len(entries)-1]
	for i, entry := range slices.Backward(was) {
		if n := len(stay); n > 0 && equality.Semantic.DeepEqual(stay[n-1], entry) {
			stay = stay[:n-1]
			continue
		}
		path := "/metadata/managedFields/" + strconv.Itoa(i)
		patch = append(patch, operation{Op: "test", Path: path, Value: entry}, operation{Op: "remove", Path: path})
	}
	patch = append(patch, operation{Op: "add", Path: "/metadata/managedFields/-", Value: own})
	for _, drop := range []struct {
		at    string
		has   map[string]string
		names []string
	}{
		{"/metadata/annotations/", obj.GetAnnotations(), r.Keys.DropAnnotations},
		{"/metadata/labels/", obj.GetLabels(), r.Keys.DropLabels},
	} {
		for _, name := range drop.names {
			if _, ok := drop.has[name]; ok {
				patch = append(patch, operation{Op: "remove", Path: drop.at + pointer(name)})
			}
		}
	}
	return json.Marshal(patch)
}

// pointer escapes a name for a JSON pointer (RFC 6901).
func pointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// recreate deletes an object that cannot be changed as declared, and creates it
// again.
func (r *run) recreate(ctx context.Context, s *step) error {
	ref := s.change.Ref
	live, err := r.Cluster.Get(ctx, s.res, ref.Namespace, ref.Name)
	if err == nil {
		err = r.Cluster.Delete(ctx, s.res, ref.Namespace, ref.Name, cluster.Preconditions{UID: string(live.GetUID())})
	}
	if err != nil && !cluster.IsNotFound(err) {
		return r.refused(s, gitops.StageApply, err)
	}
	if live != nil {
		if err := r.awaitGone(ctx, s, string(live.GetUID())); err != nil {
			return err
		}
	}
	s.relaxed = nil
	answer, _, err := r.apply(ctx, s)
	if err != nil {
		failed := r.refused(s, gitops.StageApply, err)
		failed.Cause = fmt.Errorf("deleted to be created again, and then refused: %w", failed.Cause)
		return failed
	}
	return r.finish(ctx, s, answer, gitops.ActionRecreate)
}
