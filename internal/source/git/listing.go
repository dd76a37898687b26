package git

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
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
// The server is asked for everything that will be looked at before the next question,
// not only for what is waited for, and a follower does not take an answer twice: so
// all that is followed in a repository costs one request in an interval. Whoever was
// given an older answer is told of news, and so learns of them with the first one who
// asks.
//
// Those who share need not know or trust each other. A prefix that is answered by many
// refs, and one that a server may have failed for, is listed alone, so that neither is
// anybody else's loss.
type listings struct {
	now  func() time.Time
	list func(context.Context, []string) ([]wire.Ref, error)
	// news is called with followers whose refs have changed since they asked.
	news func(follower string)

	mu       sync.Mutex // guards all below
	clock    uint64     // counts calls and requests
	waiting  map[string]int
	followed map[string]tracked
	// followers are those who ask again and again, at most mostFollowed.
	followers map[string]follower
	// expired is when those that have not asked for long were dropped last.
	expired time.Time
	shared  *lane
	apart   map[string]*lane // by prefix
}

// question is for the refs with a prefix.
type question struct {
	prefix string
	// notBefore is the moment from which on an answer is new enough; zero for that at
	// which the question was asked.
	notBefore time.Time
	// follower is who asks again and again; empty for nobody.
	follower string
	arrived  uint64
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

// tracked is when a prefix was asked for last, and after what time it is asked for
// again; zero where that is not known yet.
type tracked struct {
	last   time.Time
	period time.Duration
	// apart is set while the prefix is listed alone.
	apart bool
	// refs identifies the refs that it stood for last; empty where that is not known.
	refs string
}

// follower is what somebody asked for last, when that was and after what time it may be
// asked for again, and of when the answer was.
type follower struct {
	prefix string
	given  time.Time
	asked  time.Time
	period time.Duration
}

const (
	// mostKept and mostKeptBytes bound the refs that are kept for those who come later.
	mostKept      = 4096
	mostKeptBytes = 1 << 20
	// mostLanes is the number of prefixes listed alone for which answers are kept.
	mostLanes = 16
	// mostFollowed is the largest number of prefixes, and of followers, that are known.
	// Other prefixes are listed alone, and other followers are not told of news, until one
	// of those that are known has not asked for long.
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
	// sharedWait is how long all wait for an answer that they share.
	sharedWait = time.Minute
	// forgotten is when a prefix that is not asked for again is left out, at least.
	forgotten = time.Hour
	// expiry is how often followers are looked at that may not ask again.
	expiry = time.Minute
	// atOnce is what counts as one question of several objects.
	atOnce = time.Second
	// harmless is a prefix that every repository and server knows.
	harmless = "HEAD"
)

func newListings(now func() time.Time, list func(context.Context, []string) ([]wire.Ref, error), news func(follower string)) *listings {
	return &listings{
		now: now, list: list, news: news, waiting: map[string]int{}, followed: map[string]tracked{}, followers: map[string]follower{},
		shared: &lane{turn: newGate()}, apart: map[string]*lane{},
	}
}

// ask gives an answer to a question, or one that somebody shares.
func (l *listings) ask(ctx context.Context, q question) ([]wire.Ref, error) {
	q.arrived = l.arrive(q.prefix)
	defer l.leave(q.prefix)
	for {
		at, alone := l.lane(q.prefix)
		if at.turn.lock(ctx) != nil {
			return l.list(ctx, []string{q.prefix}) // says how the context ended
		}
		answer, done := l.take(ctx, at, alone, q)
		at.turn.unlock()
		if done {
			return answer.refs, answer.err
		}
	}
}

// take gives an answer, from the server where none is there that can be shared. It is
// false where the prefix must be asked for in another lane. The caller has the turn.
func (l *listings) take(ctx context.Context, at *lane, alone bool, q question) (listing, bool) {
	if now, _ := l.lane(q.prefix); now != at {
		return listing{}, false // it was put apart, or back, while we waited
	}
	all, known := l.begin(at, alone, q)
	if known != nil {
		return *known, true
	}
	answer := listing{asked: l.stamp(), at: l.now(), prefixes: all}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if !alone {
		limited, cancel = context.WithTimeout(ctx, sharedWait)
	}
	answer.refs, answer.err = l.list(limited, all)
	late := limited.Err() != nil
	cancel()
	if late && ctx.Err() == nil {
		// Whoever has more time waits alone: others would wait with it.
		l.part([]string{q.prefix})
		return listing{}, false
	}
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
	for _, other := range l.finish(at, alone, answer, q) {
		l.news(other)
	}
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
func (l *listings) begin(at *lane, alone bool, q question) ([]string, *listing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, covered := slices.BinarySearch(at.last.prefixes, q.prefix); covered && l.fresh(at.last, q) {
		last := at.last
		l.given(last, q)
		return nil, &last
	}
	if alone {
		return []string{q.prefix}, nil
	}
	return l.together(q), nil
}

// fresh tells whether an answer is new enough. A follower takes one that it was given
// already, or may have been, in the first half of its time only: then each of many whose
// times are the same takes what another one heard, and one of them hears anew. The
// caller has the mutex.
func (l *listings) fresh(answer listing, q question) bool {
	switch {
	case answer.asked > q.arrived:
		return true
	case q.notBefore.IsZero() || answer.err != nil || answer.at.Before(q.notBefore):
		return false
	case q.follower == "":
		return true
	}
	if f, known := l.followers[q.follower]; known && f.prefix == q.prefix && f.given.Before(answer.at) {
		return true
	}
	return !answer.at.Before(q.notBefore.Add(l.now().Sub(q.notBefore) / 2))
}

// given keeps in mind which answer a follower has. The caller has the mutex.
func (l *listings) given(answer listing, q question) {
	if q.follower == "" {
		return
	}
	now := l.now()
	f, known := l.followers[q.follower]
	if !known && len(l.followers) >= mostFollowed {
		l.expire(now)
	}
	if !known && len(l.followers) >= mostFollowed {
		return
	}
	if gap := now.Sub(f.asked); known && gap >= atOnce {
		f.period = gap
	}
	f.prefix, f.given, f.asked = q.prefix, answer.at, now
	l.followers[q.follower] = f
}

// expire drops followers that have not asked for long, such as objects that are gone, but
// seldom: it looks at all of them. The caller has the mutex.
func (l *listings) expire(now time.Time) {
	if now.Sub(l.expired) < expiry {
		return
	}
	l.expired = now
	maps.DeleteFunc(l.followers, func(_ string, f follower) bool { return now.Sub(f.asked) > max(3*f.period, forgotten) })
}

// together gives the prefix of a question and those that are listed with it: all that
// will be asked for before the same question comes again. The caller has the mutex.
func (l *listings) together(q question) []string {
	var others []string
	now := l.now()
	for p, f := range l.followed {
		if l.waiting[p] == 0 && now.Sub(f.last) > max(3*f.period, forgotten) {
			l.forget(p)
			continue
		}
		soon := q.notBefore.IsZero() || !f.last.Add(f.period).After(now.Add(now.Sub(q.notBefore)))
		if p != q.prefix && !f.apart && (l.waiting[p] > 0 || soon) {
			others = append(others, p)
		}
	}
	// Where not all are asked for, long names, which are seldom honest, go last.
	slices.SortFunc(others, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	all := []string{q.prefix}
	bytes := len(q.prefix)
	for _, p := range others {
		if bytes += len(p); len(all) == mostAsked || bytes > mostAskedBytes {
			break
		}
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// forget drops what is known of a prefix and of its followers. The caller has the mutex.
func (l *listings) forget(prefix string) {
	delete(l.followed, prefix)
	delete(l.apart, prefix)
	maps.DeleteFunc(l.followers, func(_ string, f follower) bool { return f.prefix == prefix })
}

// finish keeps an answer, decides what is listed alone next time, and gives the followers
// to whom it is news and who have not asked for it.
func (l *listings) finish(at *lane, alone bool, answer listing, q question) []string {
	var stood []standing
	if answer.err == nil {
		stood = standings(answer.refs, answer.prefixes)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at.last = answer
	l.given(answer, q)
	changed := map[string]bool{}
	for i, s := range stood {
		p := answer.prefixes[i]
		f, known := l.followed[p]
		if !known {
			continue
		}
		if alone || len(answer.refs) > mostOwn {
			f.apart = s.count > mostOwn
		}
		if f.refs != "" && s.refs != "" && f.refs != s.refs {
			changed[p] = true
		}
		f.refs = s.refs
		l.followed[p] = f
	}
	var told []string
	if len(changed) > 0 {
		for name, f := range l.followers {
			if name != q.follower && changed[f.prefix] {
				told = append(told, name)
			}
		}
	}
	return told
}

// standing is what a prefix stands for.
type standing struct {
	count int
	refs  string
}

// standings tell of each prefix how many refs it stands for, and which.
func standings(refs []wire.Ref, prefixes []string) []standing {
	sorted := slices.SortedFunc(slices.Values(refs), func(a, b wire.Ref) int { return cmp.Compare(a.Name, b.Name) })
	all := make([]standing, len(prefixes))
	for i, p := range prefixes {
		first, _ := slices.BinarySearchFunc(sorted, p, func(ref wire.Ref, p string) int { return cmp.Compare(ref.Name, p) })
		sum := sha256.New()
		for _, ref := range sorted[first:] {
			if !strings.HasPrefix(ref.Name, p) {
				break
			}
			if all[i].count++; all[i].count > mostOwn {
				break // it is listed alone, and nobody is told of its news
			}
			fmt.Fprintf(sum, "%s %s\n", ref.ID, ref.Name)
		}
		if all[i].count <= mostOwn {
			all[i].refs = string(sum.Sum(nil))
		}
	}
	return all
}
