package event

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxSeen bounds what is remembered of written events.
const maxSeen = 4096

// identity is what makes two events equal.
type identity struct {
	component, kind, namespace, name string
	uid                              types.UID
	severity                         gitops.Severity
	reason, message                  string
}

// sighting is the last event that was written of an identity.
type sighting struct {
	event string // its name
	count int32
	first time.Time
}

// write makes a Kubernetes event, or raises the count of an equal one that was
// written in the RepeatWindow.
func (r *Recorder) write(ctx context.Context, next record) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.RequestTimeout)
	defer cancel()
	id := identity{
		component: next.component, kind: next.object.Kind, namespace: next.object.Namespace, name: next.object.Name,
		uid: next.object.UID, severity: next.severity, reason: next.reason, message: next.message,
	}
	events := r.options.Events.Events(cmp.Or(next.object.Namespace, metav1.NamespaceDefault))

	if last, ok := r.seen[id]; ok && next.time.Sub(last.first) < RepeatWindow {
		last.count++
		patch, err := json.Marshal(map[string]any{"count": last.count, "lastTimestamp": metav1.NewTime(next.time)})
		if err != nil {
			return fmt.Errorf("encode the count of an event: %w", err)
		}
		_, err = events.Patch(ctx, last.event, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if err == nil {
			r.seen[id] = last
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("count an event of %s: %w", describe(next.object), err)
		}
		// It has expired; write it anew.
	}

	written, err := events.Create(ctx, r.kubernetesEvent(next), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("write an event of %s: %w", describe(next.object), err)
	}
	r.remember(id, sighting{event: written.Name, count: 1, first: next.time}, next.time)
	return nil
}

func (r *Recorder) remember(id identity, s sighting, now time.Time) {
	if len(r.seen) >= maxSeen {
		maps.DeleteFunc(r.seen, func(_ identity, s sighting) bool { return now.Sub(s.first) >= RepeatWindow })
	}
	if len(r.seen) >= maxSeen {
		clear(r.seen)
	}
	r.seen[id] = s
}

func (r *Recorder) kubernetesEvent(next record) *corev1.Event {
	kind := corev1.EventTypeNormal
	if next.severity == gitops.SeverityError {
		kind = corev1.EventTypeWarning
	}
	at := metav1.NewTime(next.time)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			// A name of 253 characters leaves no room for the suffix.
			Name:        fmt.Sprintf("%.220s.%x", next.object.Name, next.time.UnixNano()),
			Namespace:   cmp.Or(next.object.Namespace, metav1.NamespaceDefault),
			Annotations: next.metadata,
		},
		InvolvedObject:      next.object,
		Type:                kind,
		Reason:              next.reason,
		Message:             next.message,
		Count:               1,
		FirstTimestamp:      at,
		LastTimestamp:       at,
		Source:              corev1.EventSource{Component: next.component},
		ReportingController: next.component,
		ReportingInstance:   r.options.Instance,
	}
}
