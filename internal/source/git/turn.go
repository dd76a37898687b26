package git

import (
	"context"
	"errors"
	"os"
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
		return waited(ctx.Err())
	}
}

// waited says how a context ended with which somebody waited for another fetch.
func waited(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &wire.Error{Code: wire.CodeTimeout, Text: "another fetch of the repository did not end within the timeout", Err: err}
	}
	return endOf(err)
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

// take waits for the turn, or goes without where that takes too long: a quarter of all the time
// that there is, too. It is given back by calling leave.
func (t *turn) take(ctx context.Context, span time.Duration) (leave func(), err error) {
	patience := min(t.patience, span/4)
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
			if patience == t.patience {
				t.slow.Store(true)
			}
			return func() {}, nil
		}
	}
	t.slow.Store(false)
	return func() { t.slow.Store(false); t.gate.unlock() }, nil
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
