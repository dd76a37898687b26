package engine

import (
	"context"
	"slices"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// auditor compares every object with what was applied once in a period, one at
// a time, in case a watch has missed something.
type auditor struct {
	engine *Engine
	period time.Duration
}

// Auditor makes the audit. It runs until its context ends.
func (e *Engine) Auditor(period time.Duration) interface {
	Start(ctx context.Context) error
} {
	return &auditor{engine: e, period: period}
}

// minAuditPause bounds the rate of the audit: it never makes more than 20
// comparisons a second.
const minAuditPause = 50 * time.Millisecond

// Start wakes owners, each for one object, spread evenly over the period.
func (a *auditor) Start(ctx context.Context) error {
	for {
		todo := a.engine.audited()
		pause := max(a.period/time.Duration(len(todo)+1), minAuditPause)
		if !sleep(ctx, pause) {
			return nil
		}
		for _, item := range todo {
			a.engine.mu.Lock()
			o := a.engine.owners[item.owner]
			a.engine.mu.Unlock()
			if o != nil {
				o.wantAudit(item.ref)
				a.engine.wake(item.owner)
			}
			if !sleep(ctx, pause) {
				return nil
			}
		}
	}
}

// NeedLeaderElection says that only the process that works audits.
func (a *auditor) NeedLeaderElection() bool { return true }

type audited struct {
	owner gitops.OwnerRef
	ref   gitops.ObjectRef
}

// audited lists every declared object with one owner of it, in a fixed order.
func (e *Engine) audited() []audited {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]audited, 0, len(e.declared))
	for at, owners := range e.declared {
		for owner := range owners {
			list = append(list, audited{owner, at.ref})
		}
	}
	slices.SortFunc(list, func(a, b audited) int { return gitops.CompareRefs(a.ref, b.ref) })
	return list
}

// sleep waits; it returns false where the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
