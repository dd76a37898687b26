package flux

import (
	"context"
	"sync"
)

const (
	// mostPackings is how many artifacts of sources are packed at the same time, and
	// namespacePackings how many of one namespace: large ones of one tenant must not keep
	// those of the others waiting.
	mostPackings      = 16
	namespacePackings = 4
)

// packings are the artifacts that are being packed.
type packings struct {
	all chan struct{}

	mu sync.Mutex
	// of are those of the namespaces that have or want some; guarded by mu.
	of map[string]*share
}

// share is what one namespace has.
type share struct {
	places chan struct{}
	users  int // guarded by packings.mu
}

func newPackings() *packings {
	return &packings{all: make(chan struct{}, mostPackings), of: map[string]*share{}}
}

// take waits for a place, first for one of the namespace's, as long as the context allows.
// It is given back by calling leave once.
func (p *packings) take(ctx context.Context, namespace string) (leave func(), err error) {
	if p == nil {
		return func() {}, nil
	}
	mine := p.share(namespace)
	select {
	case mine.places <- struct{}{}:
	case <-ctx.Done():
		p.drop(namespace, mine)
		return nil, ctx.Err()
	}
	select {
	case p.all <- struct{}{}:
	case <-ctx.Done():
		<-mine.places
		p.drop(namespace, mine)
		return nil, ctx.Err()
	}
	return func() {
		<-p.all
		<-mine.places
		p.drop(namespace, mine)
	}, nil
}

func (p *packings) share(namespace string) *share {
	p.mu.Lock()
	defer p.mu.Unlock()
	mine := p.of[namespace]
	if mine == nil {
		mine = &share{places: make(chan struct{}, namespacePackings)}
		p.of[namespace] = mine
	}
	mine.users++
	return mine
}

// drop forgets the share of a namespace that nobody uses.
func (p *packings) drop(namespace string, mine *share) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(p.of, namespace)
	}
}
