package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// await watches a custom resource until done tells so, and gives it as it is
// then. Each state is shown to done once. A time that runs out is an error that
// says what the object was doing.
func (c *clients) await(ctx context.Context, kind crds.Definition, namespace, name string, done func(resource) bool) (resource, error) {
	var last resource
	for {
		object, err := c.dynamic.Resource(kind.Resource()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			if last, err = read(object); err != nil {
				return last, err
			}
			if done(last) {
				return last, nil
			}
			last, err = c.follow(ctx, kind, object, last, done)
			if err == nil {
				return last, nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return last, timedOut(ctx, last)
		case errors.Is(err, errWatchEnded):
			// The API server ends watches; begin anew.
		default:
			return last, explain(err, kind, namespace, name)
		}
	}
}

var errWatchEnded = errors.New("the watch ended")

func (c *clients) follow(ctx context.Context, kind crds.Definition, from *unstructured.Unstructured, last resource, done func(resource) bool) (resource, error) {
	w, err := c.dynamic.Resource(kind.Resource()).Namespace(from.GetNamespace()).Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", from.GetName()).String(),
		ResourceVersion: from.GetResourceVersion(),
	})
	if err != nil {
		return last, err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		switch {
		case event.Type == watch.Error:
			if err := apierrors.FromObject(event.Object); !apierrors.IsGone(err) && !apierrors.IsResourceExpired(err) {
				return last, err
			}
			return last, errWatchEnded
		case event.Type == watch.Deleted:
			return last, fmt.Errorf("deleted while waiting for it")
		case !ok:
			continue
		}
		if last, err = read(object); err != nil {
			return last, err
		}
		if done(last) {
			return last, nil
		}
	}
	return last, errWatchEnded
}

func timedOut(ctx context.Context, last resource) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	ready := last.condition("Ready")
	if ready.Message == "" {
		return fmt.Errorf("timed out waiting for %s: nothing has reported on it; is an operator running?", last)
	}
	return fmt.Errorf("timed out waiting for %s: Ready is %s: %s", last, ready.Status, ready.Message)
}

// verdict is nil for an object that is ready, and else an error with what it says.
func verdict(r resource) error {
	ready := r.condition("Ready")
	if ready.Status == metav1.ConditionTrue {
		return nil
	}
	return fmt.Errorf("%s is not ready: %s: %s", r, ready.Reason, ready.Message)
}
