package source

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// TestTurns: one at a time works at a thing, others at other things, and nobody is
// remembered in the end.
func TestTurns(t *testing.T) {
	t.Parallel()
	var turns Turns
	take := func(ctx context.Context, name string) func() {
		t.Helper()
		leave, err := turns.Take(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		return leave
	}
	leave := take(t.Context(), "a")
	take(t.Context(), "b")()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.Take(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("beside another one: %v", err)
	}
	working := 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			leave, err := turns.Take(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			defer leave()
			if working++; working != 1 {
				t.Errorf("%d work at once", working)
			}
			working--
		})
	}
	leave()
	all.Wait()
	if len(turns.held) > 0 {
		t.Errorf("%d turns are remembered", len(turns.held))
	}
}
