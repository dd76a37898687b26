package try

import (
	"context"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

// keepHappened is how many events are kept.
const keepHappened = 100

// Happened is something that the operator has done or noticed.
type Happened struct {
	At time.Time
	// Object is kind namespace/name of the custom resource.
	Object string
	// Message is one line; Warning tells that something is wrong.
	Message string
	Warning bool
}

// followEvents keeps the operator's events, a line of a message each. The caller
// holds mu.
func (v *view) followEvents(ctx context.Context) {
	resource := schema.GroupVersionResource{Version: "v1", Resource: "events"}
	informer := dynamicinformer.NewFilteredDynamicInformer(v.client, resource, "", 0, cache.Indexers{}, nil).Informer()
	// It fails only on an informer that was started.
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if !initial {
				v.heard(object)
			}
		},
		UpdateFunc: func(_, object any) { v.heard(object) },
	})
	v.running.Go(func() { informer.RunWithContext(ctx) })
}

// heard keeps an event of the operator.
func (v *view) heard(object any) {
	event, ok := object.(*unstructured.Unstructured)
	if !ok {
		return
	}
	text := func(fields ...string) string {
		s, _, _ := unstructured.NestedString(event.Object, fields...)
		return s
	}
	switch text("source", "component") {
	case "kustomize-controller", "source-controller":
	default:
		return
	}
	h := Happened{
		At:      time.Now(),
		Object:  strings.ToLower(text("involvedObject", "kind")) + " " + text("involvedObject", "namespace") + "/" + text("involvedObject", "name"),
		Warning: text("type") == "Warning",
	}
	v.mu.Lock()
	for line := range strings.Lines(text("message")) {
		if h.Message = strings.TrimSpace(line); h.Message != "" {
			v.happened = append(v.happened, h)
		}
	}
	if extra := len(v.happened) - keepHappened; extra > 0 {
		v.happened = slices.Delete(v.happened, 0, extra)
	}
	v.mu.Unlock()
	v.notify()
}

// newest gives the events since a time, the oldest first.
func (v *view) newest(since time.Time) []Happened {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.happened, func(h Happened) bool { return h.At.After(since) })
	if i < 0 {
		return nil
	}
	return slices.Clone(v.happened[i:])
}

// note adds an event of this program itself.
func (v *view) note(message string, warning bool) {
	v.mu.Lock()
	v.happened = append(v.happened, Happened{At: time.Now(), Object: "try", Message: message, Warning: warning})
	v.mu.Unlock()
	v.notify()
}

// publish says which revision is served.
func (v *view) publish(revision string) {
	v.mu.Lock()
	v.head = revision
	v.mu.Unlock()
	v.notify()
}

// revision is the one that is served, empty where it is not this program that
// serves it.
func (v *view) revision() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.head
}
