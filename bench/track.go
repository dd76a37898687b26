package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"
)

// object is what the driver looks at of anything that it watches.
type object struct {
	Metadata struct {
		Name, Namespace, UID string
		ResourceVersion      string
		Generation           int64
		Labels               map[string]string
		DeletionTimestamp    *string
	}
	AutomountServiceAccountToken *bool
	Spec                         struct {
		RevisionHistoryLimit *int
		Ports                []struct{ Name string }
		IngressClassName     string
	}
	Status struct {
		ObservedGeneration  int64
		LastAppliedRevision string
		Conditions          []condition
		Artifact            struct{ Revision string }
	}
}

// ready tells whether a Flux object says Ready=True about what is in its spec now.
func (o object) ready() bool {
	return o.Status.ObservedGeneration == o.Metadata.Generation && conditionTrue(o.Status.Conditions, "Ready")
}

// tracker follows the objects of one kind with one watch. It is the driver's
// clock: a time is that at which the watch's line arrived. A busy API server may
// end a watch at any time; it is then taken up again where it ended.
type tracker struct {
	client   *client
	kind     resource
	selector string
	cancel   context.CancelFunc
	done     chan struct{}
	// initial is closed when the objects that existed at first have come in, and
	// version is that of the newest line. Both belong to the goroutine of follow.
	initial chan struct{}
	version string

	mu      sync.Mutex // guards what follows
	objects map[string]object
	waiters map[*waiter]bool
	err     error
}

// waiter waits until the number of matching objects is right.
type waiter struct {
	match    func(object) bool
	enough   func(matching int) bool
	matching map[string]bool
	result   chan time.Time
}

// track starts to watch a kind in all namespaces, with a label selector or "". It
// returns when the objects that exist have come in.
func track(ctx context.Context, c *client, kind resource, selector string) (*tracker, error) {
	ctx, cancel := context.WithCancel(ctx)
	t := &tracker{
		client: c, kind: kind, selector: selector, cancel: cancel,
		done: make(chan struct{}), initial: make(chan struct{}),
		objects: map[string]object{}, waiters: map[*waiter]bool{},
	}
	stream, err := t.open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	go t.follow(ctx, stream)
	select {
	case <-t.initial:
		return t, nil
	case <-t.done:
		cancel()
		return nil, t.failure()
	}
}

// open begins the watch, or takes it up where it ended.
func (t *tracker) open(ctx context.Context) (io.ReadCloser, error) {
	query := url.Values{"watch": {"1"}, "timeoutSeconds": {"86400"}, "allowWatchBookmarks": {"true"}}
	if t.version == "" {
		query.Set("sendInitialEvents", "true")
		query.Set("resourceVersionMatch", "NotOlderThan")
	} else {
		query.Set("resourceVersion", t.version)
	}
	if t.selector != "" {
		query.Set("labelSelector", t.selector)
	}
	stream, err := t.client.open(ctx, "GET", t.kind.path("")+"?"+query.Encode(), "", nil)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", t.kind.plural, err)
	}
	return stream, nil
}

// stop ends the watch.
func (t *tracker) stop() {
	t.cancel()
	<-t.done
}

func (t *tracker) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// follow reads the watch, and those that take it up, until it is stopped or fails.
func (t *tracker) follow(ctx context.Context, stream io.ReadCloser) {
	defer close(t.done)
	for {
		read, err := t.read(stream)
		stream.Close()
		if errors.Is(err, io.EOF) && read > 0 && ctx.Err() == nil && t.started() {
			if stream, err = t.open(ctx); err == nil {
				continue
			}
		}
		t.mu.Lock()
		t.err = fmt.Errorf("watch of %s ended: %w", t.kind.plural, err)
		t.mu.Unlock()
		return
	}
}

// started tells whether the objects that existed at first have come in.
func (t *tracker) started() bool {
	select {
	case <-t.initial:
		return true
	default:
		return false
	}
}

// read takes in the lines of one connection, and returns how many there were.
func (t *tracker) read(stream io.Reader) (int, error) {
	lines := bufio.NewReaderSize(stream, 1<<16)
	for read := 0; ; read++ {
		line, err := lines.ReadBytes('\n')
		at := time.Now()
		if err == nil {
			err = t.event(line, at)
		}
		if err != nil {
			return read, err
		}
	}
}

// event takes in one line of the watch.
func (t *tracker) event(line []byte, at time.Time) error {
	var e struct {
		Type   string
		Object json.RawMessage
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	switch e.Type {
	case "BOOKMARK":
		var b struct {
			Metadata struct {
				ResourceVersion string
				Annotations     map[string]string
			}
		}
		if err := json.Unmarshal(e.Object, &b); err != nil {
			return err
		}
		t.version = b.Metadata.ResourceVersion
		if b.Metadata.Annotations["k8s.io/initial-events-end"] == "true" {
			close(t.initial)
		}
		return nil
	case "ERROR":
		return errors.New(string(e.Object))
	}
	var o object
	if err := json.Unmarshal(e.Object, &o); err != nil {
		return err
	}
	t.version = o.Metadata.ResourceVersion
	t.mu.Lock()
	defer t.mu.Unlock()
	key := o.Metadata.Namespace + "/" + o.Metadata.Name
	deleted := e.Type == "DELETED"
	if deleted {
		delete(t.objects, key)
	} else {
		t.objects[key] = o
	}
	for w := range t.waiters {
		if !deleted && w.match(o) {
			w.matching[key] = true
		} else {
			delete(w.matching, key)
		}
		t.settle(w, at)
	}
	return nil
}

// settle tells a waiter when its number is right. t.mu is held.
func (t *tracker) settle(w *waiter, at time.Time) {
	if w.enough(len(w.matching)) {
		delete(t.waiters, w)
		w.result <- at
	}
}

// expect begins to wait until the number of objects that match is enough. Objects
// that are there count. The wait goes on in the returned function, so that a wait
// can begin before that which it waits for.
func (t *tracker) expect(match func(object) bool, enough func(int) bool) func(context.Context, time.Duration) (time.Time, error) {
	w := &waiter{match: match, enough: enough, matching: map[string]bool{}, result: make(chan time.Time, 1)}
	t.mu.Lock()
	for key, o := range t.objects {
		if match(o) {
			w.matching[key] = true
		}
	}
	t.waiters[w] = true
	t.settle(w, time.Now())
	t.mu.Unlock()
	return func(ctx context.Context, within time.Duration) (time.Time, error) {
		defer t.forget(w)
		select {
		case at := <-w.result:
			return at, nil
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-t.done:
			return time.Time{}, t.failure()
		case <-time.After(within):
			t.mu.Lock()
			defer t.mu.Unlock()
			return time.Time{}, fmt.Errorf("%s: after %v %d of %d objects are as expected", t.kind.plural, within, len(w.matching), len(t.objects))
		}
	}
}

func (t *tracker) forget(w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiters, w)
}

// get is the newest state of an object that the watch has told.
func (t *tracker) get(namespace, name string) (object, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok := t.objects[namespace+"/"+name]
	return o, ok
}

// atLeast and none are numbers to wait for.
func atLeast(n int) func(int) bool { return func(matching int) bool { return matching >= n } }
func none() func(int) bool         { return func(matching int) bool { return matching == 0 } }

// one matches the object with a name for which a predicate holds.
func one(namespace, name string, is func(object) bool) func(object) bool {
	return func(o object) bool {
		return o.Metadata.Name == name && o.Metadata.Namespace == namespace && is(o)
	}
}
