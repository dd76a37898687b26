package git

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// listingsOf are listings with a clock of their own that tell nobody.
func listingsOf(now *time.Time, list func(context.Context, []string) ([]wire.Ref, error)) *listings {
	return newListings(func() time.Time { return *now }, list, func(string) {})
}

// TestListingsAreBounded: however many refs are followed, and however long their names
// are, a request has a bound, and short names come first.
func TestListingsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var asked []string
	l := listingsOf(&now, func(_ context.Context, prefixes []string) ([]wire.Ref, error) {
		asked = prefixes
		return nil, nil
	})
	ask := func(prefix string) {
		t.Helper()
		now = now.Add(time.Second)
		if _, err := l.ask(t.Context(), question{prefix: prefix}); err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for _, p := range asked {
			bytes += len(p)
		}
		if len(asked) > mostAsked || bytes > mostAskedBytes || !slices.Contains(asked, prefix) {
			t.Fatalf("%d refs with %d bytes are asked for, among them %.40q: %v", len(asked), bytes, prefix, slices.Contains(asked, prefix))
		}
	}
	for i := range 100 {
		ask(fmt.Sprintf("refs/heads/%d-%s", i, strings.Repeat("x", 1000)))
	}
	for i := range 500 {
		ask(fmt.Sprintf("refs/heads/short-%d", i))
	}
	ask("refs/heads/main")
	for i := range 500 {
		if name := fmt.Sprintf("refs/heads/short-%d", i); !slices.Contains(asked, name) {
			t.Fatalf("%q is not asked for beside long names", name)
		}
	}
	for i := range mostFollowed {
		ask(fmt.Sprintf("refs/heads/many-%d", i))
	}
	if len(l.followed) > mostFollowed || len(l.apart) > mostLanes || len(l.waiting) != 0 {
		t.Errorf("%d prefixes and %d lanes are kept, %d are waited for", len(l.followed), len(l.apart), len(l.waiting))
	}
}

// TestFollowersThatAreGone make room for others, and those that ask seldom stay.
func TestFollowersThatAreGone(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	l := listingsOf(&now, func(context.Context, []string) ([]wire.Ref, error) { return nil, nil })
	ask := func(follower string) {
		t.Helper()
		if _, err := l.ask(t.Context(), question{prefix: "refs/heads/main", notBefore: now, follower: follower}); err != nil {
			t.Fatal(err)
		}
	}
	known := func(what string, want int, names ...string) {
		t.Helper()
		if len(l.followers) != want {
			t.Errorf("%s: %d followers are known, want %d", what, len(l.followers), want)
		}
		for _, name := range names {
			if _, ok := l.followers[name]; !ok {
				t.Errorf("%s: %q is not known", what, name)
			}
		}
	}
	ask("seldom")
	now = now.Add(10 * time.Hour)
	ask("seldom")
	for i := range 2 * mostFollowed {
		ask(fmt.Sprint(i))
	}
	known("all at once", mostFollowed, "seldom", "0")
	now = now.Add(forgotten + time.Minute)
	ask("new")
	known("an hour later", 2, "seldom", "new")
	now = now.Add(30 * time.Hour)
	for i := range mostFollowed {
		ask(fmt.Sprint("again", i))
	}
	if _, ok := l.followers["seldom"]; ok || len(l.followers) != mostFollowed {
		t.Errorf("%d followers are known, one that does not ask any more among them: %v", len(l.followers), ok)
	}
}

// TestPrefixesThatBringTooMuch are listed alone while they do.
func TestPrefixesThatBringTooMuch(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	tags := 2 * mostOwn
	var asked [][]string
	l := listingsOf(&now, func(_ context.Context, prefixes []string) ([]wire.Ref, error) {
		asked = append(asked, prefixes)
		var refs []wire.Ref
		for i := range tags {
			if name := fmt.Sprintf("refs/tags/v%d", i); slices.Contains(prefixes, "refs/tags/") || slices.Contains(prefixes, name) {
				refs = append(refs, wire.Ref{Name: name})
			}
		}
		if slices.Contains(prefixes, "refs/heads/main") {
			refs = append(refs, wire.Ref{Name: "refs/heads/main"})
		}
		return refs, nil
	})
	round := func(want ...[]string) {
		t.Helper()
		now = now.Add(time.Minute)
		asked = nil
		for prefix, n := range map[string]int{"refs/tags/": tags, "refs/heads/main": 1} {
			if refs, err := l.ask(t.Context(), question{prefix: prefix, notBefore: now}); err != nil || len(refs) < n {
				t.Fatalf("%q: %d refs, error %v, want %d", prefix, len(refs), err, n)
			}
		}
		slices.SortFunc(asked, slices.Compare)
		if !slices.EqualFunc(asked, want, slices.Equal) {
			t.Errorf("asked for %v, want %v", asked, want)
		}
	}
	alone := [][]string{{"refs/heads/main"}, {"refs/tags/"}}
	now = now.Add(time.Minute)
	_, _ = l.ask(t.Context(), question{prefix: "refs/tags/", notBefore: now}) // finds out
	round(alone...)
	round(alone...)
	tags = 10
	round(alone...)
	round([]string{"refs/heads/main", "refs/tags/"})
}

// TestAnswersThatNeverCome are not waited for by all again and again.
func TestAnswersThatNeverCome(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	l := listingsOf(&now, func(ctx context.Context, prefixes []string) ([]wire.Ref, error) {
		if slices.Contains(prefixes, "refs/heads/pit") {
			now = now.Add(time.Minute)
			ended, cancel := context.WithCancel(ctx)
			cancel()
			return nil, ended.Err()
		}
		return []wire.Ref{{Name: "refs/heads/main"}}, nil
	})
	// The context of each question has ended where the answer has not come.
	ask := func(prefix string) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		list := l.list
		defer func() { l.list = list }()
		l.list = func(ctx context.Context, prefixes []string) ([]wire.Ref, error) {
			refs, err := list(ctx, prefixes)
			if err != nil {
				cancel()
			}
			return refs, err
		}
		_, err := l.ask(ctx, question{prefix: prefix})
		return err
	}
	if err := ask("refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	if err := ask("refs/heads/pit"); err == nil {
		t.Fatal("the pit answers")
	}
	for range 3 {
		now = now.Add(time.Minute)
		if err := ask("refs/heads/main"); err != nil {
			t.Errorf("a ref at which the server hangs is asked for beside another one: %v", err)
		}
	}
}

// TestFollowersCostOnePollAnInterval: whenever in an interval each of them looks, at
// whatever branch, and also where their intervals vary a little.
func TestFollowersCostOnePollAnInterval(t *testing.T) {
	t.Parallel()
	const (
		count, branches = 500, 10
		interval        = time.Minute
		intervals       = 20
	)
	start := time.Unix(1_700_000_000, 0)
	now, polls, tip := start, 0, "1"
	told := map[string]bool{}
	l := newListings(func() time.Time { return now }, func(_ context.Context, prefixes []string) ([]wire.Ref, error) {
		polls++
		var refs []wire.Ref
		for _, p := range prefixes {
			ref := wire.Ref{Name: p}
			if p == "refs/heads/b7" {
				ref.Name = p + tip
			}
			refs = append(refs, ref)
		}
		return refs, nil
	}, func(follower string) { told[follower] = true })
	random := rand.New(rand.NewPCG(1, 2))
	due := make([]time.Time, count)
	for i := range due {
		due[i] = start.Add(time.Duration(i) * interval / count)
	}
	look := func(i int) []wire.Ref {
		q := question{prefix: fmt.Sprintf("refs/heads/b%d", i%branches), notBefore: now.Add(-interval), follower: fmt.Sprint(i)}
		refs, err := l.ask(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		due[i] = now.Add(time.Duration((0.95 + 0.1*random.Float64()) * float64(interval)))
		return refs
	}
	until := func(end time.Time) {
		for {
			next := 0
			for i := range due {
				if due[i].Before(due[next]) {
					next = i
				}
			}
			if due[next].After(end) {
				now = end
				return
			}
			now = due[next]
			look(next)
		}
	}
	until(start.Add(5 * interval))
	polls = 0
	until(start.Add((5 + intervals) * interval))
	if polls < intervals || polls > intervals+intervals/10 {
		t.Errorf("%d polls in %d intervals", polls, intervals)
	}
	// What one of them hears is news for all who follow the branch, and for nobody else.
	if len(told) > 0 {
		t.Errorf("%d were told where nothing happened", len(told))
	}
	tip = "2"
	until(now.Add(interval * 11 / 10))
	if len(told) < count/branches-1 {
		t.Errorf("%d of %d followers were told", len(told), count/branches)
	}
	before := polls
	for i := range count {
		name := fmt.Sprint(i)
		if told[name] && i%branches != 7 {
			t.Errorf("%d was told of another branch", i)
		}
		if told[name] {
			refs := look(i)
			if !slices.ContainsFunc(refs, func(r wire.Ref) bool { return r.Name == "refs/heads/b72" }) {
				t.Errorf("%d was told, and hears what was", i)
			}
		}
	}
	if polls != before {
		t.Errorf("%d polls for news that are known", polls-before)
	}
	// Alone, each look is a poll.
	alone := listingsOf(&now, func(context.Context, []string) ([]wire.Ref, error) { polls++; return nil, nil })
	polls = 0
	for range 10 {
		now = now.Add(interval * 95 / 100)
		if _, err := alone.ask(t.Context(), question{prefix: "refs/heads/main", notBefore: now.Add(-interval), follower: "one"}); err != nil {
			t.Fatal(err)
		}
	}
	if polls != 10 {
		t.Errorf("%d polls in ten intervals of a single follower", polls)
	}
}
