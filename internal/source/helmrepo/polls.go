package helmrepo

import (
	"context"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// polls lets those who ask for the index of a repository at the same moment share one
// answer. An answer is shared only with those who began to wait before the server was
// asked, so that nobody sees the state of a moment before their call.
type polls struct {
	turn chan struct{}

	mu      sync.Mutex // guards all below
	clock   uint64     // counts calls and requests
	waiting int
	asked   uint64 // the clock when the last answer was asked for; 0 without one
	err     error  // the last answer
}

func newPolls() polls { return polls{turn: make(chan struct{}, 1)} }

// ask brings the index up to date, or shares what somebody else does.
func (p *polls) ask(ctx context.Context, update func(context.Context) error) error {
	p.mu.Lock()
	p.clock++
	arrived := p.clock
	p.waiting++
	p.mu.Unlock()
	defer p.leave()
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
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

// leave forgets the last answer when nobody is left to share it with.
func (p *polls) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		p.asked, p.err = 0, nil
	}
}
