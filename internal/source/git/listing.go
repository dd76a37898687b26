package git

import (
	"cmp"
	"context"
	"slices"
	"strings"
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
//
// Those who share need not know or trust each other. A prefix that is answered by many
// refs, and one that a server may have failed for, is listed alone, so that neither is
// anybody else's loss.
type listings struct {
	now  func() time.Time
	list func(context.Context, []string) ([]wire.Ref, error)

	mu       sync.Mutex // guards all below
	clock    uint64     // counts calls and requests
	waiting  map[string]int
	followed map[string]follower
	shared   *lane
	apart    map[string]*lane // by prefix
}

// lane is where one request is under way at a time.
type lane struct {
	turn gate
	last listing // guarded by that of the listings
}

// listing is an answer.
type listing struct {
	asked    uint64
	at       time.Time
	prefixes []string // in order
	refs     []wire.Ref
	err      error
}

// follower is when a prefix was asked for last, and after what time it is asked for
// again; zero where that is not known yet.
type follower struct {
	last   time.Time
	period time.Duration
	// apart is set while the prefix is listed alone.
	apart bool
}

const (
	// mostKept and mostKeptBytes bound the refs that are kept for those who come later.
	mostKept      = 4096
	mostKeptBytes = 1 << 20
	// mostLanes is the number of prefixes listed alone for which answers are kept.
	mostLanes = 16
	// mostFollowed is the largest number of prefixes that are known. Others are listed
	// alone.
	mostFollowed = 4096
	// mostAsked and mostAskedBytes bound the prefixes that are asked for together.
	// Servers have limits too: Git's own is 65,536 prefixes.
	mostAsked      = 1000
	mostAskedBytes = 64 << 10
	// mostOwn is how many refs a prefix may bring to those who share the answer.
	mostOwn = 1000
	// tooSlow is the wait for an answer after which it is due to one of the prefixes
	// that are asked for together, if it does not come at all.
	tooSlow = 5 * time.Second
	// forgotten is when a prefix that is not asked for again is left out, at least.
	forgotten = time.Hour
	// atOnce is what counts as one question of several objects.
	atOnce = time.Second
	// harmless is a prefix that every repository and server knows.
	harmless = "HEAD"
)

func newListings(now func() time.Time, list func(context.Context, []string) ([]wire.Ref, error)) *listings {
	return &listings{
		now: now, list: list, waiting: map[string]int{}, followed: map[string]follower{},
		shared: &lane{turn: newGate()}, apart: map[string]*lane{},
	}
}

// ask lists the refs with a prefix, or takes an answer that somebody shares. Zero for
// notBefore asks for an answer that the server gave after this call began.
func (l *listings) ask(ctx context.Context, prefix string, notBefore time.Time) ([]wire.Ref, error) {
	arrived := l.arrive(prefix)
	defer l.leave(prefix)
	for {
		at, alone := l.lane(prefix)
		if at.turn.lock(ctx) != nil {
			return l.list(ctx, []string{prefix}) // says how the context ended
		}
		answer, done := l.take(ctx, at, alone, arrived, prefix, notBefore)
		at.turn.unlock()
		if done {
			return answer.refs, answer.err
		}
	}
}

// take gives an answer, from the server where none is there that can be shared. It is
// false where the prefix must be asked for in another lane. The caller has the turn.
func (l *listings) take(ctx context.Context, at *lane, alone bool, arrived uint64, prefix string, notBefore time.Time) (listing, bool) {
	if now, _ := l.lane(prefix); now != at {
		return listing{}, false // it was put apart, or back, while we waited
	}
	all, known := l.begin(at, alone, arrived, notBefore, prefix)
	if known != nil {
		return *known, true
	}
	answer := listing{asked: l.stamp(), at: l.now(), prefixes: all}
	answer.refs, answer.err = l.list(ctx, all)
	if ctx.Err() != nil {
		if len(all) > 1 && l.now().Sub(answer.at) >= tooSlow {
			l.part(all)
		}
		return answer, true
	}
	if answer.err != nil && len(all) > 1 {
		// It may be due to one of them: then the server answers something else.
		if _, err := l.list(ctx, []string{harmless}); err == nil {
			l.part(all)
			return listing{}, false
		}
	}
	l.finish(at, alone, answer)
	return answer, true
}

func (l *listings) stamp() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	return l.clock
}

// lane is where a prefix is asked for.
func (l *listings) lane(prefix string) (at *lane, alone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, known := l.followed[prefix]; known && !f.apart {
		return l.shared, false
	}
	at, ok := l.apart[prefix]
	if !ok {
		at = &lane{turn: newGate()}
		l.apart[prefix] = at
	}
	return at, true
}

// part has prefixes listed alone from now on.
func (l *listings) part(prefixes []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range prefixes {
		l.mark(p, true)
	}
}

// mark says whether a prefix is listed alone. The caller has the mutex.
func (l *listings) mark(prefix string, apart bool) {
	if f, known := l.followed[prefix]; known {
		f.apart = apart
		l.followed[prefix] = f
	}
}

func (l *listings) arrive(prefix string) uint64 {
	l.mu.Lock()
	now := l.now()
	l.waiting[prefix]++
	f, known := l.followed[prefix]
	if gap := now.Sub(f.last); known && gap >= atOnce {
		f.period = gap
	}
	f.last = now
	if known || len(l.followed) < mostFollowed {
		l.followed[prefix] = f
	}
	l.mu.Unlock()
	return l.stamp()
}

// leave forgets answers that nobody is left to share with, where they are too large to
// be kept, or a failure.
func (l *listings) leave(prefix string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[prefix]--; l.waiting[prefix] == 0 {
		delete(l.waiting, prefix)
		at := l.apart[prefix]
		if at != nil && (!l.followed[prefix].apart || len(l.apart) > mostLanes || !at.last.kept()) {
			delete(l.apart, prefix)
		}
	}
	if len(l.waiting) == 0 && !l.shared.last.kept() {
		l.shared.last = listing{}
	}
}

// kept tells whether an answer is kept for those who come later.
func (a listing) kept() bool {
	if a.err != nil || len(a.refs) > mostKept {
		return false
	}
	bytes := 0
	for _, ref := range a.refs {
		bytes += len(ref.Name)
	}
	return bytes <= mostKeptBytes
}

// begin gives an answer that can be shared, or all prefixes to ask for.
func (l *listings) begin(at *lane, alone bool, arrived uint64, notBefore time.Time, prefix string) ([]string, *listing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, covered := slices.BinarySearch(at.last.prefixes, prefix)
	fresh := at.last.asked > arrived || !notBefore.IsZero() && at.last.err == nil && !at.last.at.Before(notBefore)
	if covered && fresh {
		last := at.last
		return nil, &last
	}
	if alone {
		return []string{prefix}, nil
	}
	return l.together(prefix), nil
}

// together gives a prefix and those that are listed with it. The caller has the mutex.
func (l *listings) together(prefix string) []string {
	var others []string
	now := l.now()
	for p, f := range l.followed {
		idle := now.Sub(f.last)
		if l.waiting[p] == 0 && idle > max(3*f.period, forgotten) {
			delete(l.followed, p)
			delete(l.apart, p)
			continue
		}
		// Whoever follows it looks soon, and may take this answer.
		if p != prefix && !f.apart && (l.waiting[p] > 0 || idle >= f.period/2) {
			others = append(others, p)
		}
	}
	// Where not all are asked for, long names, which are seldom honest, go last.
	slices.SortFunc(others, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	all := []string{prefix}
	bytes := len(prefix)
	for _, p := range others {
		if bytes += len(p); len(all) == mostAsked || bytes > mostAskedBytes {
			break
		}
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// finish keeps an answer, and decides what is listed alone next time.
func (l *listings) finish(at *lane, alone bool, answer listing) {
	var apart []bool
	if answer.err == nil && (alone || len(answer.refs) > mostOwn) {
		apart = tooMany(answer.refs, answer.prefixes)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at.last = answer
	for i, is := range apart {
		l.mark(answer.prefixes[i], is)
	}
}

// tooMany tells of each prefix whether it brings more refs than others should pay for.
func tooMany(refs []wire.Ref, prefixes []string) []bool {
	names := make([]string, len(refs))
	for i, ref := range refs {
		names[i] = ref.Name
	}
	slices.Sort(names)
	many := make([]bool, len(prefixes))
	for i, p := range prefixes {
		first, _ := slices.BinarySearch(names, p)
		behind := first + mostOwn
		many[i] = behind < len(names) && strings.HasPrefix(names[behind], p)
	}
	return many
}
