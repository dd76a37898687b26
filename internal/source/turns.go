package source

import (
	"context"
	"slices"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// Turns let few at a time do what takes much memory. Of those who wait, each namespace has one
// served after the other, in turn: one that wants much keeps no other from the little that it
// wants. While somebody waits, the clock of its context stands, and so do those of its Line:
// it waits for the operator, not for the remote. The zero value lets in one at a time.
//
// Whoever has a turn must not wait for a server, nor for another turn of the same kind.
type Turns struct {
	// Places is how many are let in at once; 0 means one.
	Places int

	mu    sync.Mutex // guards all below
	taken int
	// waiting are those who wait, by namespace, and order are their namespaces, the next one
	// first.
	waiting map[string][]chan struct{}
	order   []string
}

// Take waits for a turn, until the context ends. It is given back by calling leave, which may
// be called more than once.
func (t *Turns) Take(ctx context.Context, line *Line) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	namespace := artifact.Tenant(ctx)
	if ready := t.enter(namespace); ready != nil {
		resume := line.Stop(ctx)
		select {
		case <-ready:
			resume()
		case <-ctx.Done():
			resume()
			t.quit(namespace, ready)
			return nil, ctx.Err()
		}
	}
	return sync.OnceFunc(t.next), nil
}

// enter takes a place, or waits for one: until ready is closed, unless it is nil.
func (t *Turns) enter(namespace string) (ready chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken < max(t.Places, 1) {
		t.taken++
		return nil
	}
	if t.waiting == nil {
		t.waiting = map[string][]chan struct{}{}
	}
	ready = make(chan struct{})
	if len(t.waiting[namespace]) == 0 {
		t.order = append(t.order, namespace)
	}
	t.waiting[namespace] = append(t.waiting[namespace], ready)
	return ready
}

// next gives a place to the next one who waits.
func (t *Turns) next() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.taken--
		return
	}
	namespace := t.order[0]
	t.order = t.order[1:]
	close(t.waiting[namespace][0])
	if t.waiting[namespace] = t.waiting[namespace][1:]; len(t.waiting[namespace]) > 0 {
		t.order = append(t.order, namespace)
	} else {
		delete(t.waiting, namespace)
	}
}

// quit ends waiting. Who was let in meanwhile gives its place to the next one.
func (t *Turns) quit(namespace string, ready chan struct{}) {
	t.mu.Lock()
	at := slices.Index(t.waiting[namespace], ready)
	if at < 0 {
		t.mu.Unlock()
		t.next()
		return
	}
	defer t.mu.Unlock()
	if t.waiting[namespace] = slices.Delete(t.waiting[namespace], at, at+1); len(t.waiting[namespace]) == 0 {
		delete(t.waiting, namespace)
		t.order = slices.DeleteFunc(t.order, func(other string) bool { return other == namespace })
	}
}
