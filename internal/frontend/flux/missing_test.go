package flux

import (
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestMissing: it counts from the first time that somebody asked in vain, until there is a
// snapshot or the source is gone.
func TestMissing(t *testing.T) {
	t.Parallel()
	s, now := newSources(), time.Unix(1000, 0)
	app, other := gitops.OwnerRef{Kind: "GitRepository", Name: "app"}, gitops.OwnerRef{Kind: "GitRepository", Name: "other"}
	for i, step := range []struct {
		after time.Duration
		do    func()
		of    gitops.OwnerRef
		want  time.Duration
	}{
		{0, nil, app, 0},
		{time.Minute, nil, app, time.Minute},
		{time.Second, nil, other, 0},
		{time.Second, nil, gitops.OwnerRef{Kind: "GitRepository", Name: "app", UID: "one"}, time.Minute + 2*time.Second},
		{0, func() { s.publish(app, gitops.Snapshot{Release: func() {}}) }, app, 0},
		{time.Hour, nil, app, 0},
		{0, func() { s.remove(app) }, app, 0},
		{time.Second, nil, app, time.Second},
		{0, func() { s.remove(app) }, app, 0},
	} {
		now = now.Add(step.after)
		if step.do != nil {
			step.do()
		}
		if got, _ := s.missing(step.of, now); got != step.want {
			t.Errorf("step %d: it is missing for %s, want %s", i, got, step.want)
		}
	}
}
