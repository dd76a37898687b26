package git

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestWhoLeavesTakesNothingAway: those who follow a repository need not know each other. One
// whose time is over, or who is gone, does not end the fetch for which others wait: whoever
// comes again and again with little time would keep them from ever having it.
func TestWhoLeavesTakesNothingAway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		other Ref
		// old tells that the first one has tried for longer than the other one would.
		old     bool
		fetches int
	}{
		"for the same ref":                              {Ref{Branch: "slow"}, false, 1},
		"for the same commit by another name":           {Ref{Name: "refs/heads/slow"}, false, 1},
		"a fetch is not kept for longer than it is due": {Ref{Branch: "slow"}, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			repo := server.Repository(t, "app")
			d := &dribbling{commit: repo.Commit(t, "slow", testenv.Files{"f": strings.Repeat("slow ", 100)}), asked: make(chan struct{}, 1), enough: make(chan struct{})}
			server.Around(d.around)
			s := store(t, Options{})
			get := func(ctx context.Context, ref Ref) chan error {
				ended := make(chan error, 1)
				go func() {
					ctx, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					result, err := s.Fetch(ctx, Request{URL: server.URL("app"), Ref: ref})
					if err == nil {
						result.Release()
					}
					ended <- err
				}()
				return ended
			}
			ctx, leave := context.WithCancel(t.Context())
			first := get(ctx, Ref{Branch: "slow"})
			<-d.asked
			r, err := s.remote(t.Context(), Request{URL: server.URL("app")})
			if err != nil {
				t.Fatal(err)
			}
			second := get(t.Context(), test.other)
			waitFor(t, func() bool { return r.one.waiting() == 1 })
			if test.old {
				r.one.age(59500 * time.Millisecond)
			}
			leave()
			if err := <-first; gitops.KindOf(err) != gitops.Transient || !strings.Contains(err.Error(), "canceled") {
				t.Errorf("who left has error %v of kind %q", err, gitops.KindOf(err))
			}
			if test.old {
				waitFor(t, func() bool { return r.one.waiting() == 0 })
			}
			close(d.enough)
			if err := <-second; err != nil {
				t.Error(err)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.fetches != test.fetches {
				t.Errorf("the commit was fetched %d times, want %d", d.fetches, test.fetches)
			}
		})
	}
}

// TestLastToLeave: what nobody waits for any more is over when the last one is gone.
func TestLastToLeave(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	d := &dribbling{commit: repo.Commit(t, "slow", testenv.Files{"f": strings.Repeat("slow ", 100)}), asked: make(chan struct{}, 1), enough: make(chan struct{})}
	server.Around(d.around)
	s := store(t, Options{})
	request := Request{URL: server.URL("app"), Ref: Ref{Branch: "slow"}}
	r, err := s.remote(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ended := make(chan error, 3)
	for range cap(ended) {
		go func() {
			_, err := s.Fetch(ctx, request)
			ended <- err
		}()
	}
	<-d.asked
	waitFor(t, func() bool { return r.one.waiting() == cap(ended)-1 })
	leave()
	for range cap(ended) {
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "canceled") {
			t.Errorf("error %v of a fetch that is canceled", err)
		}
	}
	waitFor(t, func() bool {
		r.one.mu.Lock()
		defer r.one.mu.Unlock()
		return len(r.one.doors) == 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bases) > 0 {
		t.Errorf("%d fetches are under way", len(r.bases))
	}
}

// TestCloseEndsEfforts that others wait for.
func TestCloseEndsEfforts(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	d := &dribbling{commit: repo.Commit(t, "slow", testenv.Files{"f": strings.Repeat("slow ", 100)}), asked: make(chan struct{}, 1), enough: make(chan struct{})}
	server.Around(d.around)
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "slow"}})
		ended <- err
	}()
	<-d.asked
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("a fetch ends well in a store that is closed")
	}
}

// TestPanicsReachTheAsker: one of a fetch must not end the operator.
func TestPanicsReachTheAsker(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	s := store(t, Options{})
	r, err := s.remote(t.Context(), Request{URL: server.URL("app")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p := recover(); !strings.Contains(fmt.Sprint(p), "broken thing") {
			t.Errorf("panicked with %v", p)
		}
	}()
	_, _, err = r.endeavour(t.Context(), func(*effort) (tip, *objects, error) { panic("broken thing") })
	t.Errorf("it did not panic: %v", err)
}

// TestTurnIsNotWaitedForTooLong: those who have little time wait a part of it, and make nobody
// else hurry.
func TestTurnIsNotWaitedForTooLong(t *testing.T) {
	t.Parallel()
	at := turn{gate: newGate(), patience: time.Hour}
	leave, err := at.take(t.Context(), endless)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	beside, err := at.take(ctx, 40*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	beside()
	if at.slow.Load() {
		t.Error("all others go beside it at once")
	}
}

// waitFor waits until something is so.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	late := time.After(time.Minute)
	for !so() {
		select {
		case <-again.C:
		case <-late:
			t.Fatal("it did not come to that")
		}
	}
}

// waiting is how many wait before a door.
func (g *efforts) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, d := range g.doors {
		n += len(d.queue)
	}
	return n
}

// age has those who are behind a door have begun earlier.
func (g *efforts) age(by time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	aged := map[*effort]bool{}
	for _, d := range g.doors {
		if !aged[d.holder] {
			d.holder.began = d.holder.began.Add(-by)
			aged[d.holder] = true
		}
	}
}
