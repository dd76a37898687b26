package git

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// listings let those who follow refs of the same repository share the answers of its
// server. An answer is shared with those who began to wait before the server was
// asked, so that nobody sees the state of a moment before their call; and with those
// who say that an answer of that moment is new enough for them.
//
// The server is asked for everything that will be looked at soon, not only for what
// is waited for: all that is followed in a repository costs one request in a while,
// not one each.
type listings struct {
	now  func() time.Time
	turn gate

	mu       sync.Mutex // guards all below
	clock    uint64     // counts calls and requests
	waiting  map[string]int
	followed map[string]follower
	last     listing
}

// listing is an answer.
type listing struct {
	asked    uint64
	at       time.Time
	prefixes []string
	refs     []wire.Ref
	err      error
}

// follower is when a prefix was asked for last, and after what time it is asked for
// again; zero where that is not known yet.
type follower struct {
	last   time.Time
	period time.Duration
}

const (
	// mostKept is the largest number of refs that are kept for those who come later.
	mostKept = 4096
	// mostFollowed is the largest number of prefixes that are asked for together.
	mostFollowed = 1000
	// forgotten is when a prefix that is not asked for again is left out, at least.
	forgotten = time.Hour
	// atOnce is what counts as one question of several objects.
	atOnce = time.Second
)

func newListings(now func() time.Time) listings {
	return listings{now: now, turn: newGate(), waiting: map[string]int{}, followed: map[string]follower{}}
}

// ask lists the refs with some prefixes, through list or by sharing. Zero for
// notBefore asks for an answer that the server gave after this call began.
func (l *listings) ask(ctx context.Context, prefixes []string, notBefore time.Time, list func(context.Context, []string) ([]wire.Ref, error)) ([]wire.Ref, error) {
	arrived := l.arrive(prefixes)
	defer l.leave(prefixes)
	if l.turn.lock(ctx) != nil {
		return list(ctx, prefixes) // says how the context ended
	}
	defer l.turn.unlock()
	all, shared := l.begin(arrived, notBefore, prefixes)
	if shared != nil {
		return shared.refs, shared.err
	}
	answer := listing{asked: l.stamp(), at: l.now(), prefixes: all}
	answer.refs, answer.err = list(ctx, all)
	if ctx.Err() == nil {
		l.mu.Lock()
		l.last = answer
		l.mu.Unlock()
	}
	return answer.refs, answer.err
}

func (l *listings) stamp() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	return l.clock
}

func (l *listings) arrive(prefixes []string) uint64 {
	l.mu.Lock()
	now := l.now()
	for _, p := range prefixes {
		l.waiting[p]++
		f, known := l.followed[p]
		if gap := now.Sub(f.last); known && gap >= atOnce {
			f.period = gap
		}
		f.last = now
		if known || len(l.followed) < mostFollowed {
			l.followed[p] = f
		}
	}
	l.mu.Unlock()
	return l.stamp()
}

// leave forgets the last answer when nobody is left to share it with and it is too
// large, or a failure.
func (l *listings) leave(prefixes []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range prefixes {
		if l.waiting[p]--; l.waiting[p] == 0 {
			delete(l.waiting, p)
		}
	}
	if len(l.waiting) == 0 && (l.last.err != nil || len(l.last.refs) > mostKept) {
		l.last = listing{}
	}
}

// begin gives an answer that can be shared, or all prefixes to ask for.
func (l *listings) begin(arrived uint64, notBefore time.Time, prefixes []string) ([]string, *listing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	covered := !slices.ContainsFunc(prefixes, func(p string) bool { return !slices.Contains(l.last.prefixes, p) })
	fresh := l.last.asked > arrived || !notBefore.IsZero() && l.last.err == nil && !l.last.at.Before(notBefore)
	if covered && fresh {
		last := l.last
		return nil, &last
	}
	all := make([]string, 0, len(l.waiting))
	for p := range l.waiting {
		all = append(all, p)
	}
	now := l.now()
	for p, f := range l.followed {
		switch idle := now.Sub(f.last); {
		case l.waiting[p] > 0:
		case idle > max(3*f.period, forgotten):
			delete(l.followed, p)
		case idle >= f.period/2:
			// Whoever follows it looks soon, and may take this answer.
			all = append(all, p)
		}
	}
	slices.Sort(all)
	return all, nil
}
