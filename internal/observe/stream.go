package observe

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// stream is one connection of a watch.
type stream struct {
	watcher *watcher
	full    bool
	// position is the resource version that the next connection may go on from;
	// empty until the initial set is complete.
	position string
	// initial is set while the initial set is received.
	initial bool
}

// read takes the events of a connection until it ends.
func (s *stream) read(ctx context.Context, events <-chan watch.Event) error {
	for s.initial {
		if err := s.next(ctx, events); err != nil {
			return err
		}
	}
	for {
		select {
		case event, ok := <-events:
			if !ok {
				return nil
			}
			if err := s.take(event); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// next takes one event of the initial set, within its time.
func (s *stream) next(ctx context.Context, events <-chan watch.Event) error {
	w := s.watcher
	timer := w.observer.clock.NewTimer(nextWithin)
	defer timer.Stop()
	select {
	case event, ok := <-events:
		if !ok {
			return fmt.Errorf("the initial set of %s was cut short", w.key.kind)
		}
		return s.take(event)
	case <-timer.C():
		w.listFirst = true
		return fmt.Errorf("the initial set of %s did not end", w.key.kind)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take stores what an event says and moves the position on.
func (s *stream) take(event watch.Event) error {
	switch event.Type {
	case watch.Error:
		if err := apierrors.FromObject(event.Object); !expired(err) {
			return err
		}
		s.position = ""
		return errExpired
	case watch.Added, watch.Modified:
		if err := s.watcher.put(event.Object, s.initial); err != nil {
			return err
		}
	case watch.Deleted:
		meta, err := metaOf(event.Object)
		if err != nil {
			return err
		}
		n := name{namespace: meta.GetNamespace(), name: meta.GetName()}
		s.watcher.table.remove(n, string(meta.GetUID()), meta.GetResourceVersion())
	case watch.Bookmark:
	default:
		return fmt.Errorf("unknown event %q", event.Type)
	}
	return s.move(event)
}

// move takes over the position of an event. Those of an initial set are in no
// order and count from its end only.
func (s *stream) move(event watch.Event) error {
	meta, err := metaOf(event.Object)
	if err != nil {
		return err
	}
	if s.initial {
		if event.Type != watch.Bookmark || meta.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
			return nil
		}
		s.initial = false
		s.watcher.table.complete(meta.GetResourceVersion(), s.full)
		s.watcher.listed()
	}
	s.position = meta.GetResourceVersion()
	return nil
}

func metaOf(object runtime.Object) (metav1.Object, error) {
	meta, ok := object.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("%T has no metadata", object)
	}
	return meta, nil
}
