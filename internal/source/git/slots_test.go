package git

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestFetchesTakeTurns: few packs are indexed at once, and a server that hangs in the
// midst of one takes nobody's turn.
func TestFetchesTakeTurns(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	server.Repository(t, "slow").Commit(t, "main", testenv.Files{"f": "1"})
	s := store(t, Options{})
	get := func(ctx context.Context, name string) error {
		result, err := s.Fetch(ctx, Request{URL: server.URL(name), Ref: Ref{Branch: "main"}})
		if err == nil {
			result.Release()
		}
		return err
	}
	// All servers that hang do so within a pack.
	hanging, enough := make(chan struct{}, 10), make(chan struct{})
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.URL.Path == "/slow/git-upload-pack" {
				w = &hangs{ResponseWriter: w, hanging: hanging, enough: enough}
			}
			next.ServeHTTP(w, r)
		})
	})
	slow := make(chan error, 1)
	go func() { slow <- get(t.Context(), "slow") }()
	select {
	case <-hanging:
	case err := <-slow:
		t.Fatalf("the fetch ended before the server hung: %v", err)
	}
	began, ended, done := make(chan struct{}, 4), make(chan struct{}), make(chan error, 4)
	for range 4 {
		go func() {
			done <- s.slots.Index(t.Context(), 1, 1, pack.Limits{}, func(context.Context, pack.Limits) error {
				began <- struct{}{}
				<-ended
				return nil
			})
		}()
	}
	for range 4 {
		select {
		case <-began:
		case <-time.After(time.Minute):
			t.Fatal("a server that hangs holds a slot")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := get(ctx, "app"); gitops.KindOf(err) != gitops.Transient {
		t.Errorf("a pack is indexed while all slots are taken: %v", err)
	}
	close(ended)
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := get(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	close(enough)
	if err := <-slow; err != nil {
		t.Error(err)
	}
}

// TestWaitsForSlotsAtNobodysCost: while a fetch waits for a slot its clock stands, and so do
// those of the fetches that wait for the same repository.
func TestWaitsForSlotsAtNobodysCost(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	s := store(t, Options{})
	// All slots for small packs are taken.
	taken, free := make(chan struct{}), make(chan struct{})
	for range 4 {
		go func() {
			_ = s.slots.Index(t.Context(), 1, 1, pack.Limits{}, func(context.Context, pack.Limits) error {
				taken <- struct{}{}
				<-free
				return nil
			})
		}()
		<-taken
	}
	begin := func() (context.Context, context.CancelFunc, chan error) {
		ctx, cancel := source.WithTimeout(t.Context(), 30*time.Second)
		ends := make(chan error, 1)
		go func() {
			result, err := s.Fetch(ctx, Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
			if err == nil {
				result.Release()
			}
			ends <- err
		}()
		return ctx, cancel, ends
	}
	// stands waits until the deadline moves, as it does while the clock stands.
	stands := func(ctx context.Context, what string) {
		t.Helper()
		first, _ := ctx.Deadline()
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			if now, _ := ctx.Deadline(); now.After(first) {
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				t.Fatalf("%s uses up its time", what)
			}
		}
	}
	first, cancel, firstEnds := begin()
	defer cancel()
	stands(first, "a fetch that waits for a slot")
	second, cancel, secondEnds := begin()
	defer cancel()
	stands(second, "a fetch that waits for one that waits for a slot")
	third, give, thirdEnds := begin()
	stands(third, "another one")
	give()
	if err := <-thirdEnds; err == nil {
		t.Error("a fetch that waits cannot be canceled")
	}
	close(free)
	for _, ends := range []chan error{firstEnds, secondEnds} {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
}

// TestTooLargeIsRemembered: what passes a limit is fetched once, not with each poll, for a
// while.
func TestTooLargeIsRemembered(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"a": "1", "b": "2"})
	var hours atomic.Int64
	s := store(t, Options{PackObjects: 3, Now: func() time.Time { return time.Unix(3600*hours.Load(), 0) }})
	for i, test := range []struct{ hour, requests int64 }{{0, 2}, {0, 1}, {1, 2}, {1, 1}} {
		hours.Store(test.hour)
		before := server.Requests()
		_, err := s.Fetch(t.Context(), Request{URL: server.URL("app"), Ref: Ref{Branch: "main"}})
		if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), "at most 3 are allowed") {
			t.Errorf("fetch %d: error %v of kind %q", i, err, gitops.KindOf(err))
		}
		// The first of all asks what the server can do, too.
		if got := server.Requests() - before; i > 0 && got != test.requests {
			t.Errorf("fetch %d: %d requests, want %d", i, got, test.requests)
		}
	}
}

// hangs stops an answer with a pack in its midst.
type hangs struct {
	http.ResponseWriter
	hanging, enough chan struct{}
	written         int
}

func (h *hangs) Write(p []byte) (int, error) {
	if h.written += len(p); h.written > 100 {
		half := len(p) / 2
		n, err := h.ResponseWriter.Write(p[:half])
		if err != nil {
			return n, err
		}
		http.NewResponseController(h.ResponseWriter).Flush()
		h.hanging <- struct{}{}
		<-h.enough
		more, err := h.ResponseWriter.Write(p[half:])
		return n + more, err
	}
	return h.ResponseWriter.Write(p)
}
