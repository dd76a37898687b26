package source_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plumb-gitops/plumb/internal/source"
)

func TestTimeout(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		// during is what happens in the ten seconds after the first one.
		during func(first, ctx context.Context, l *source.Line) (end func())
		want   time.Duration
	}{
		"nobody waits":    {func(_, _ context.Context, _ *source.Line) func() { return func() {} }, 5 * time.Second},
		"it waits itself": {func(_, ctx context.Context, l *source.Line) func() { return l.Stop(ctx) }, 15 * time.Second},
		"it waits, twice": {func(_, ctx context.Context, l *source.Line) func() {
			a, b := l.Stop(ctx), l.Stop(ctx)
			return func() { a(); a(); b() }
		}, 15 * time.Second},
		"another one waits":  {func(first, _ context.Context, l *source.Line) func() { return l.Stop(first) }, 5 * time.Second},
		"the remote is slow": {func(_, ctx context.Context, l *source.Line) func() { return l.Wait(ctx) }, 5 * time.Second},
		"the first in the line waits": {func(first, ctx context.Context, l *source.Line) func() {
			leave, resume := l.Wait(ctx), l.Stop(first)
			return func() { resume(); leave() }
		}, 15 * time.Second},
		"the first in the line has begun to wait": {func(first, ctx context.Context, l *source.Line) func() {
			resume, leave := l.Stop(first), l.Wait(ctx)
			return func() { leave(); resume() }
		}, 15 * time.Second},
		"the first in the line waits, for another one that has no timeout": {func(_, ctx context.Context, l *source.Line) func() {
			leave, resume := l.Wait(ctx), l.Stop(context.Background())
			return func() { resume(); leave() }
		}, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first, cancelFirst := source.WithTimeout(t.Context(), time.Hour)
				defer cancelFirst()
				parent, cancel := source.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				child, cancelChild := context.WithCancel(context.WithValue(parent, key{}, 1))
				defer cancelChild()
				begun := time.Now()
				time.Sleep(time.Second)
				end := test.during(first, child, &source.Line{})
				time.AfterFunc(10*time.Second, end)
				<-child.Done()
				if took := time.Since(begun); took != test.want || !errors.Is(child.Err(), context.DeadlineExceeded) || !errors.Is(parent.Err(), context.DeadlineExceeded) {
					t.Errorf("after %s: %v, %v; want the end after %s", took, child.Err(), parent.Err(), test.want)
				}
				time.Sleep(20 * time.Second)
			})
		})
	}
}

type key struct{}

// TestTimeoutCanBeCanceled: also while the clock stands, by whoever began it and by the parent.
func TestTimeoutCanBeCanceled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, byParent := range []bool{false, true} {
			above, end := context.WithCancel(t.Context())
			ctx, cancel := source.WithTimeout(above, time.Second)
			resume := new(source.Line).Stop(ctx)
			if ends, ok := ctx.Deadline(); !ok || !ends.Equal(time.Now().Add(time.Second)) {
				t.Errorf("the deadline is at %s", ends)
			}
			time.Sleep(time.Hour)
			if ends, ok := ctx.Deadline(); !ok || !ends.Equal(time.Now().Add(time.Second)) || ctx.Err() != nil {
				t.Errorf("an hour later the deadline is at %s, and the error %v", ends, ctx.Err())
			}
			if byParent {
				end()
			} else {
				cancel()
			}
			<-ctx.Done()
			if !errors.Is(ctx.Err(), context.Canceled) {
				t.Errorf("canceled, by the parent %t: %v", byParent, ctx.Err())
			}
			resume()
			cancel()
			end()
		}
	})
}
