// Package event hands events on: to the Kubernetes API, where people and command
// lines read them, and to the address of an events receiver, if there is one.
//
// Recording never blocks and never fails: each destination has a queue of its own
// with a bound, one goroutine that sends, and a count of what was turned away.
// Reconcilers record, the composition root builds one Recorder and starts it.
// Names of components and keys of metadata are given by who records.
package event

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/plumb-gitops/plumb/internal/gitops"
	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// The names of the queues, as Options.Dropped is told them.
const (
	QueueKubernetes = "kubernetes-events"
	QueueReceiver   = "events-receiver"
)

// Limits of a Recorder.
const (
	// QueueLength is how many events wait for a destination at most.
	QueueLength = 4096
	// MaxMessage is the length of a message in bytes; what is longer is cut. It
	// is what an events receiver takes.
	MaxMessage = 39000
	// RepeatWindow is the time in which an equal event raises the count of the
	// first one instead of being written anew.
	RepeatWindow = 10 * time.Minute
	// FlushTimeout is the time for sending what is queued when stopping.
	FlushTimeout = 5 * time.Second
	// MaxDelay is how long an event waits at most for what is more urgent.
	MaxDelay = 5 * time.Second
	// busyPause is how often that is looked at.
	busyPause = 50 * time.Millisecond
	// requestTimeout is the default of Options.RequestTimeout.
	requestTimeout = 5 * time.Second
)

// Options are what a Recorder needs.
type Options struct {
	// Events writes Kubernetes events.
	Events typedcorev1.EventsGetter
	// Address is the URL that events are posted to; empty for none.
	Address string
	// Instance names this process, such as its pod.
	Instance string
	// Redact takes secrets out of messages and metadata.
	Redact func(string) string
	// Dropped is told the queue of each event that was not delivered.
	Dropped func(queue string)
	// Log is told why an event was not delivered.
	Log logr.Logger
	// Now is the clock.
	Now func() time.Time
	// Busy tells whether there is something more urgent to be sent to the API
	// server than a Kubernetes event; nil for never.
	Busy func() bool
	// RetryDelays are the pauses before another try to reach the receiver; nil
	// for one, two and four seconds.
	RetryDelays []time.Duration
	// RequestTimeout bounds one request to either destination; 5 seconds where it
	// is 0.
	RequestTimeout time.Duration
}

// Recorder hands events on. Its methods may be called from any goroutine.
type Recorder struct {
	options    Options
	kubernetes chan record
	receiver   chan record // nil without address
	// seen is what was written lately. Only the goroutine of kubernetes uses it.
	seen map[identity]sighting
}

// record is an event on its way.
type record struct {
	component string
	object    corev1.ObjectReference
	severity  gitops.Severity
	reason    string
	message   string
	metadata  map[string]string
	time      time.Time
}

// New gives a Recorder that does nothing until it is started. It fails where an
// option is missing or the address is no URL.
func New(options Options) (*Recorder, error) {
	if options.Events == nil || options.Redact == nil || options.Dropped == nil || options.Now == nil {
		return nil, errors.New("event recorder: Events, Redact, Dropped and Now are needed")
	}
	if options.RetryDelays == nil {
		options.RetryDelays = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}
	}
	if options.RequestTimeout == 0 {
		options.RequestTimeout = requestTimeout
	}
	r := &Recorder{
		options:    options,
		kubernetes: make(chan record, QueueLength),
		seen:       map[identity]sighting{},
	}
	if options.Address != "" {
		if u, err := url.Parse(options.Address); err != nil || u.Host == "" {
			return nil, errors.New("event recorder: the address is no URL")
		}
		r.receiver = make(chan record, QueueLength)
	}
	return r, nil
}

// Record queues an event about an object, in the name of a component. The object
// needs a kind, an API version and a name; a UID and a resource version where
// they are known. The event's owner and revision are not sent: what of them a
// reader needs stands in the object and in the metadata.
func (r *Recorder) Record(component string, object corev1.ObjectReference, e gitops.Event) {
	metadata := make(map[string]string, len(e.Metadata))
	for key, value := range e.Metadata {
		metadata[key] = r.options.Redact(value)
	}
	next := record{
		component: component,
		object:    object,
		severity:  e.Severity,
		reason:    e.Reason,
		message:   cut(r.options.Redact(e.Message), MaxMessage),
		metadata:  metadata,
		time:      r.options.Now(),
	}
	r.enqueue(r.kubernetes, QueueKubernetes, next)
	if r.receiver != nil {
		r.enqueue(r.receiver, QueueReceiver, next)
	}
}

func (r *Recorder) enqueue(queue chan record, name string, next record) {
	select {
	case queue <- next:
	default:
		r.options.Dropped(name)
	}
}

// Start sends until ctx ends, then for at most FlushTimeout what is still queued,
// and returns when both goroutines have ended. It is called once.
func (r *Recorder) Start(ctx context.Context) error {
	// Requests outlive ctx by FlushTimeout.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(FlushTimeout, cancel) })
	defer stop()

	var running sync.WaitGroup
	running.Go(func() {
		r.send(ctx, sending, r.kubernetes, QueueKubernetes, func(sending context.Context, next record) error {
			r.yield(ctx, next)
			return r.write(sending, next)
		})
	})
	if r.receiver != nil {
		running.Go(func() { r.send(ctx, sending, r.receiver, QueueReceiver, r.post) })
	}
	running.Wait()
	return nil
}

// yield lets what is more urgent go first, but no longer than MaxDelay and not
// when stopping.
func (r *Recorder) yield(ctx context.Context, next record) {
	for r.options.Busy != nil && r.options.Busy() && r.options.Now().Sub(next.time) < MaxDelay {
		select {
		case <-ctx.Done():
			return
		case <-time.After(busyPause):
		}
	}
}

// send delivers one event after the other: until ctx ends, and then until the
// queue is empty or sending ends.
func (r *Recorder) send(ctx, sending context.Context, queue chan record, name string, deliver func(context.Context, record) error) {
	for {
		select {
		case next := <-queue:
			r.deliver(sending, name, next, deliver)
			continue
		default:
		}
		select {
		case next := <-queue:
			r.deliver(sending, name, next, deliver)
		case <-ctx.Done():
			return
		}
	}
}

func (r *Recorder) deliver(ctx context.Context, name string, next record, deliver func(context.Context, record) error) {
	if err := deliver(ctx, next); err != nil {
		r.options.Dropped(name)
		r.options.Log.Error(err, "event not delivered", "queue", name,
			"kind", next.object.Kind, "namespace", next.object.Namespace, "name", next.object.Name, "reason", next.reason)
	}
}

// cut shortens text to at most limit bytes, at the end of a character.
func cut(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(mark)], "") + mark
}

// describe names the object of an error.
func describe(object corev1.ObjectReference) string {
	return fmt.Sprintf("%s/%s/%s", object.Kind, object.Namespace, object.Name)
}
