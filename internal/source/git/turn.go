package git

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// gate lets one through at a time. It is a channel so that waiting can end with a
// context.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

// lock waits until nobody else is in.
func (g gate) lock(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		code, text := wire.CodeTimeout, "another fetch of the repository did not end within the timeout"
		if errors.Is(ctx.Err(), context.Canceled) {
			code, text = wire.CodeCanceled, "canceled"
		}
		return &wire.Error{Code: code, Text: text, Err: ctx.Err()}
	}
}

func (g gate) unlock() { <-g }

// turn is had by one fetch after the other, so that each builds on what the one before has
// brought. Those who follow a repository need not know or trust each other: nobody waits
// longer than its patience for one whose server is slow, or who fetches much.
type turn struct {
	gate     gate
	patience time.Duration
	// slow is set while somebody has it for whom somebody has waited long enough.
	slow atomic.Bool
}

// take waits for the turn, or goes without where that takes too long. It is given back by
// calling leave.
func (t *turn) take(ctx context.Context) (leave func(), err error) {
	patience := t.patience
	if t.slow.Load() {
		patience = 0
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case t.gate <- struct{}{}:
	default:
		if err := t.gate.lock(waiting); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			t.slow.Store(true)
			return func() {}, nil
		}
	}
	t.slow.Store(false)
	return func() { t.slow.Store(false); t.gate.unlock() }, nil
}

// gates are gates by name.
type gates struct {
	mu   sync.Mutex
	held map[string]*named
}

// named is a gate that somebody is in, or waits for.
type named struct {
	gate  gate
	users int // guarded by gates.mu
}

// lock waits until nobody else is in the gate with a name. It is given back by calling leave.
func (g *gates) lock(ctx context.Context, name string) (leave func(), err error) {
	g.mu.Lock()
	if g.held == nil {
		g.held = map[string]*named{}
	}
	at := g.held[name]
	if at == nil {
		at = &named{gate: newGate()}
		g.held[name] = at
	}
	at.users++
	g.mu.Unlock()
	drop := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(g.held, name)
		}
	}
	if err := at.gate.lock(ctx); err != nil {
		drop()
		return nil, err
	}
	return func() { at.gate.unlock(); drop() }, nil
}

// base is what a fetch builds on, which is kept until it ends.
type base struct {
	state state
	set   *pack.Set
	dir   *os.Root
	// files is set where it takes files for granted that no tip promises.
	files bool
	// lost is set where these may be gone; guarded by remote.mu.
	lost bool
}

// begin gives what a fetch can build on. It is given back by end.
func (r *remote) begin(ctx context.Context, files bool) (*base, error) {
	if files {
		if err := r.enter(ctx, r.whole); err != nil {
			return nil, err
		}
		defer r.whole.unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.set == nil || r.closed {
		return nil, unfollowed()
	}
	b := &base{state: r.state.clone(), set: r.set, dir: r.dir, files: files}
	b.set.Acquire()
	r.bases[b] = true
	return b, nil
}

func (r *remote) end(b *base) {
	r.mu.Lock()
	delete(r.bases, b)
	r.mu.Unlock()
	b.set.Release()
}

// unfollowed is the error of a fetch in a store that was removed meanwhile.
func unfollowed() error {
	return &wire.Error{Code: wire.CodeCanceled, Text: "the repository is not followed any more"}
}
