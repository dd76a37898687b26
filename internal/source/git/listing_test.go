package git

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// TestListingsAreBounded: however many refs are followed, and however long their names
// are, a request has a bound, and short names come first.
func TestListingsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var asked []string
	l := newListings(func() time.Time { return now }, func(_ context.Context, prefixes []string) ([]wire.Ref, error) {
		asked = prefixes
		return nil, nil
	})
	ask := func(prefix string) {
		t.Helper()
		now = now.Add(time.Second)
		if _, err := l.ask(t.Context(), prefix, time.Time{}); err != nil {
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

// TestPrefixesThatBringTooMuch are listed alone while they do.
func TestPrefixesThatBringTooMuch(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	tags := 2 * mostOwn
	var asked [][]string
	l := newListings(func() time.Time { return now }, func(_ context.Context, prefixes []string) ([]wire.Ref, error) {
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
			if refs, err := l.ask(t.Context(), prefix, now); err != nil || len(refs) < n {
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
	_, _ = l.ask(t.Context(), "refs/tags/", now) // finds out
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
	l := newListings(func() time.Time { return now }, func(ctx context.Context, prefixes []string) ([]wire.Ref, error) {
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
		_, err := l.ask(ctx, prefix, time.Time{})
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
