package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

const (
	firstPause = 4 * time.Millisecond
	longPause  = 500 * time.Millisecond
)

// errPatience says that something did not happen in the time given to it.
var errPatience = errors.New("it took too long")

// poll asks at growing intervals until the answer is yes, an error, or errPatience.
func (r *run) poll(ctx context.Context, ask func() (bool, error)) error {
	clk := r.clock()
	deadline := clk.Now().Add(r.patience())
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		done, err := ask()
		if done || err != nil {
			return err
		}
		if clk.Now().Add(pause).After(deadline) {
			return errPatience
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clk.After(pause):
		}
	}
}

// await waits until what the definitions stage has written can be used.
func (r *run) await(ctx context.Context, steps []*step) error {
	wrote := map[gitops.ObjectRef]bool{}
	for _, d := range r.done {
		wrote[d.Ref] = d.Action != gitops.ActionSkip && d.Action != gitops.ActionUnchanged
	}
	var definitions, namespaces []*step
	for _, s := range steps {
		switch kind := s.change.Ref.GroupKind(); {
		case s.refused:
		case plan.IsCustomResourceDefinition(kind) && (wrote[s.change.Ref] || r.unserved(ctx, s)):
			definitions = append(definitions, s)
		case plan.IsNamespace(kind) && wrote[s.change.Ref]:
			namespaces = append(namespaces, s)
		}
	}
	errs := r.each(ctx, namespaces, r.awaitNamespace)
	errs = append(errs, r.each(ctx, definitions, r.awaitDefinition)...)
	return join(ctx, r.goOn(errs))
}

// unserved tells whether a definition that needed no write is not in use yet.
func (r *run) unserved(ctx context.Context, s *step) bool {
	d, ok := plan.Define(*s.change.Manifest)
	if !ok {
		return false
	}
	return slices.ContainsFunc(d.Versions, func(version string) bool {
		_, err := r.Cluster.Resource(ctx, d.Kind, version)
		return cluster.IsNotServed(err)
	})
}

func (r *run) awaitNamespace(ctx context.Context, s *step) error {
	name := s.change.Ref.Name
	state, err := r.Cluster.NamespaceState(ctx, name)
	switch {
	case err != nil:
		return r.refused(s, gitops.StageApply, err)
	case state == cluster.NamespaceTerminating:
		r.active.Delete(name)
		return r.fail(s, gitops.StageApply, gitops.Waiting, errors.New("namespace is being deleted: it can be applied again when it is gone"))
	}
	r.active.Store(name, true)
	return nil
}

// awaitDefinition waits until a definition is established and its kind found in
// every version that it serves.
func (r *run) awaitDefinition(ctx context.Context, s *step) error {
	d, ok := plan.Define(*s.change.Manifest)
	if !ok {
		return nil
	}
	var crd *unstructured.Unstructured
	err := r.poll(ctx, func() (bool, error) {
		var err error
		if crd, err = r.Cluster.Get(ctx, s.res, "", s.change.Ref.Name); err != nil {
			return false, err
		}
		return condition(crd, "Established").status == "True", nil
	})
	if errors.Is(err, errPatience) {
		return r.fail(s, gitops.StageApply, gitops.Transient, notEstablished(crd))
	}
	if err != nil {
		return r.refused(s, gitops.StageApply, err)
	}
	for _, version := range d.Versions {
		err := r.poll(ctx, func() (bool, error) {
			err := r.Cluster.Learn(ctx, d.Kind.Group, version)
			if err != nil && !cluster.IsNotServed(err) {
				return false, err
			}
			_, err = r.Cluster.Resource(ctx, d.Kind, version)
			return err == nil, nil
		})
		if errors.Is(err, errPatience) {
			return r.fail(s, gitops.StageApply, gitops.Transient, fmt.Errorf("established, but version %q of its kind is not served yet", version))
		}
		if err != nil {
			return r.refused(s, gitops.StageApply, err)
		}
	}
	return nil
}

func notEstablished(crd *unstructured.Unstructured) error {
	for _, name := range []string{"NamesAccepted", "Established", "NonStructuralSchema"} {
		c := condition(crd, name)
		if c.message != "" && (c.status == "False" || name == "NonStructuralSchema") {
			return fmt.Errorf("definition is not established: %s", c.message)
		}
	}
	return errors.New("definition is not established yet")
}

type conditionState struct{ status, message string }

// condition reads a condition of an object; the zero value where there is none.
func condition(obj *unstructured.Unstructured, name string) conditionState {
	list, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, item := range list {
		c, _ := item.(map[string]any)
		if c["type"] == name {
			status, _ := c["status"].(string)
			message, _ := c["message"].(string)
			return conditionState{status: status, message: message}
		}
	}
	return conditionState{}
}

// awaitGone waits until an object that was deleted is gone, or another one is
// in its place.
func (r *run) awaitGone(ctx context.Context, s *step, uid string) error {
	var left *unstructured.Unstructured
	err := r.poll(ctx, func() (bool, error) {
		obj, err := r.Cluster.Get(ctx, s.res, s.change.Ref.Namespace, s.change.Ref.Name)
		if cluster.IsNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		left = obj
		return string(obj.GetUID()) != uid, nil
	})
	if errors.Is(err, errPatience) {
		why := "deleted to be created again, and not gone yet"
		if finalizers := left.GetFinalizers(); len(finalizers) > 0 {
			slices.Sort(finalizers)
			why += ": finalizers " + strings.Join(finalizers, ", ") + " remain"
		}
		return r.fail(s, gitops.StageApply, gitops.Waiting, errors.New(why))
	}
	if err != nil {
		return r.refused(s, gitops.StageApply, err)
	}
	return nil
}
