package git

import (
	"context"
	"slices"
	"sync"

	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// listings lets those who ask for refs of the same repository at the same
// moment share one answer. An answer is shared only with those who began to
// wait before the server was asked, so that nobody sees the state of a moment
// before their call.
type listings struct {
	turn chan struct{}

	mu      sync.Mutex // guards all below
	clock   uint64     // counts calls and requests
	waiting map[string]int
	last    listing
}

// listing is an answer.
type listing struct {
	asked    uint64
	prefixes []string
	refs     []wire.Ref
	err      error
}

func newListings() listings {
	return listings{turn: make(chan struct{}, 1), waiting: map[string]int{}}
}

// ask lists the refs with some prefixes, through list or by sharing.
func (l *listings) ask(ctx context.Context, prefixes []string, list func(context.Context, []string) ([]wire.Ref, error)) ([]wire.Ref, error) {
	arrived := l.arrive(prefixes)
	defer l.leave(prefixes)
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return list(ctx, prefixes) // says how the context ended
	}
	defer func() { <-l.turn }()
	all, shared := l.begin(arrived, prefixes)
	if shared != nil {
		return shared.refs, shared.err
	}
	asked := l.stamp()
	refs, err := list(ctx, all)
	if ctx.Err() == nil {
		l.mu.Lock()
		l.last = listing{asked: asked, prefixes: all, refs: refs, err: err}
		l.mu.Unlock()
	}
	return refs, err
}

func (l *listings) stamp() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	return l.clock
}

func (l *listings) arrive(prefixes []string) uint64 {
	l.mu.Lock()
	for _, p := range prefixes {
		l.waiting[p]++
	}
	l.mu.Unlock()
	return l.stamp()
}

// leave forgets the last answer when nobody is left to share it with.
func (l *listings) leave(prefixes []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range prefixes {
		if l.waiting[p]--; l.waiting[p] == 0 {
			delete(l.waiting, p)
		}
	}
	if len(l.waiting) == 0 {
		l.last = listing{}
	}
}

// begin gives an answer that can be shared, or all prefixes that are waited for.
func (l *listings) begin(arrived uint64, prefixes []string) ([]string, *listing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	covered := !slices.ContainsFunc(prefixes, func(p string) bool { return !slices.Contains(l.last.prefixes, p) })
	if l.last.asked > arrived && covered {
		last := l.last
		return nil, &last
	}
	all := make([]string, 0, len(l.waiting))
	for p := range l.waiting {
		all = append(all, p)
	}
	slices.Sort(all)
	return all, nil
}
