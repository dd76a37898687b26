package source

import (
	"context"
	"sync"
)

// Turns let one at a time work at what has a name. Their zero value is ready.
type Turns struct {
	mu   sync.Mutex
	held map[string]*turn // guarded by mu
}

// turn is had by somebody, or waited for.
type turn struct {
	token chan struct{}
	users int // guarded by Turns.mu
}

// Take waits for the turn, until the context ends, whose error it gives then. It is given
// back by calling leave once.
func (t *Turns) Take(ctx context.Context, name string) (leave func(), err error) {
	t.mu.Lock()
	if t.held == nil {
		t.held = map[string]*turn{}
	}
	one := t.held[name]
	if one == nil {
		one = &turn{token: make(chan struct{}, 1)}
		t.held[name] = one
	}
	one.users++
	t.mu.Unlock()
	drop := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.held, name)
		}
	}
	select {
	case one.token <- struct{}{}:
		return func() { <-one.token; drop() }, nil
	case <-ctx.Done():
		drop()
		return nil, ctx.Err()
	}
}
