package helmrepo

import (
	"context"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source"
)

// polls lets those who ask for the index of a repository at the same moment share one
// answer. An answer is shared only with those who began to wait before the server was
// asked, so that nobody sees the state of a moment before their call.
type polls struct {
	turn chan struct{}
	// line is who waits for it, at no cost while the one who has it waits for the operator.
	line source.Line

	mu      sync.Mutex // guards all below
	clock   uint64     // counts calls and requests
	waiting int
	asked   uint64 // the clock when the last answer was asked for; 0 without one
	err     error  // the last answer
}

func newPolls() *polls { return &polls{turn: make(chan struct{}, 1)} }

// ask brings the index up to date, or shares what somebody else does.
func (p *polls) ask(ctx context.Context, update func(context.Context) error) error {
	p.mu.Lock()
	p.clock++
	arrived := p.clock
	p.waiting++
	p.mu.Unlock()
	defer p.leave()
	if err := p.await(ctx); err != nil {
		return err
	}
	defer func() { <-p.turn }()
	p.mu.Lock()
	if p.asked > arrived {
		defer p.mu.Unlock()
		return p.err
	}
	p.clock++
	asked := p.clock
	p.mu.Unlock()
	err := update(ctx)
	// What did not fit for one namespace may for another.
	if ctx.Err() == nil && artifact.Full(ctx) == nil {
		p.mu.Lock()
		p.asked, p.err = asked, err
		p.mu.Unlock()
	}
	return err
}

func (p *polls) await(ctx context.Context) error {
	defer p.line.Wait(ctx)()
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave forgets the last answer when nobody is left to share it with.
func (p *polls) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		p.asked, p.err = 0, nil
	}
}

// turns lets one at a time work at what has a name. Waiting ends with a context.
type turns struct {
	// line is who waits, at no cost while somebody who has a turn waits for the operator.
	line source.Line

	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	token chan struct{}
	users int // guarded by turns.mu
}

// take waits for the turn. It is given back by calling leave once.
func (t *turns) take(ctx context.Context, name string) (leave func(), err error) {
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
	defer t.line.Wait(ctx)()
	select {
	case one.token <- struct{}{}:
		return func() { <-one.token; drop() }, nil
	case <-ctx.Done():
		drop()
		return nil, ctx.Err()
	}
}
