package engine

import (
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// countBuild counts a build that was asked for.
func (r *run) countBuild(reused bool, err error) {
	switch {
	case err != nil:
		r.Metrics.Built("failed")
	case reused:
		r.Metrics.Built("reused")
	default:
		r.Metrics.Built("done")
	}
}

// countChanges counts what the run did to objects.
func (r *run) countChanges() {
	byAction := map[gitops.Action]int{}
	for _, done := range r.report.Changes {
		byAction[done.Action]++
	}
	for action, n := range byAction {
		r.Metrics.Changed(string(action), n)
	}
}

// countStage counts how long a stage took.
func (r *run) countStage(name gitops.StageName, took time.Duration) {
	r.Metrics.Stage(r.task.Owner.Kind, string(name), took)
}
