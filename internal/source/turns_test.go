package source_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source"
)

// TestTurns: each takes a second, in an order that leaves no namespace behind.
func TestTurns(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		places int
		asks   []string // the namespaces, in the order in which they ask
		want   []string
	}{
		"one namespace is served in order":            {0, []string{"a", "a", "a"}, []string{"a 1s", "a 2s", "a 3s"}},
		"a second namespace passes those of another":  {1, []string{"a", "a", "a", "a", "b"}, []string{"a 1s", "a 2s", "b 3s", "a 4s", "a 5s"}},
		"three namespaces take turns":                 {0, []string{"a", "b", "b", "c", "c"}, []string{"a 1s", "b 2s", "c 3s", "b 4s", "c 5s"}},
		"two places let two in":                       {2, []string{"a", "a", "a", "b", "a"}, []string{"a 1s", "a 1s", "a 2s", "b 2s", "a 3s"}},
		"who gives up is not waited for":              {0, []string{"a", "gone", "gone", "a", "gone", "b"}, []string{"a 1s", "a 2s", "b 3s"}},
		"who gives up alone leaves nothing behind it": {0, []string{"a", "gone", "a"}, []string{"a 1s", "a 2s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				turns, begun := source.Turns{Places: test.places}, time.Now()
				var all sync.WaitGroup
				var mu sync.Mutex
				var got []string
				for _, namespace := range test.asks {
					ctx, cancel := context.WithCancel((*artifact.Rooms)(nil).In(t.Context(), namespace))
					defer cancel()
					all.Go(func() {
						leave, err := turns.Take(ctx, &source.Line{})
						if namespace == "gone" {
							if !errors.Is(err, context.Canceled) {
								t.Errorf("who gave up: %v", err)
							}
							return
						}
						if err != nil {
							t.Error(err)
							return
						}
						defer leave()
						time.Sleep(time.Second)
						mu.Lock()
						defer mu.Unlock()
						got = append(got, namespace+" "+time.Since(begun).String())
					})
					synctest.Wait() // it works or waits
					if namespace == "gone" {
						cancel()
					}
				}
				all.Wait()
				slices.SortFunc(got, func(a, b string) int { return strings.Compare(a[2:]+a, b[2:]+b) })
				if !slices.Equal(got, test.want) {
					t.Errorf("got %q, want %q", got, test.want)
				}
				leave, err := turns.Take(t.Context(), &source.Line{})
				if err != nil {
					t.Fatalf("a place is lost: %v", err)
				}
				leave()
			})
		})
	}
}

// TestTurnsStopTheClock: waiting takes nothing of a timeout.
func TestTurnsStopTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns source.Turns
		leave, err := turns.Take(t.Context(), &source.Line{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, func() { leave(); leave() })
		ctx, cancel := source.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		second, err := turns.Take(ctx, &source.Line{})
		if err != nil {
			t.Fatal(err)
		}
		defer second()
		begun := time.Now()
		<-ctx.Done()
		if left := time.Since(begun); left != 5*time.Second {
			t.Errorf("%s were left", left)
		}
		if _, err := turns.Take(ctx, &source.Line{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that has ended: %v", err)
		}
		short, cancelShort := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancelShort)
		if _, err := turns.Take(short, &source.Line{}); !errors.Is(err, context.Canceled) {
			t.Errorf("the place was given back twice: %v", err)
		}
	})
}
