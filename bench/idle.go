package main

import (
	"context"
	"time"
)

// idleInterval is that of the source and all Kustomizations while nothing happens.
const idleInterval = "10s"

// idleResult is a while in which nothing changes.
type idleResult struct {
	Window   duration `json:"windowSeconds"`
	Requests tally    `json:"requests"`
	CPU      duration `json:"cpuSeconds"`
}

// idle gives the source and all Kustomizations a short interval and counts what
// the operator does when there is nothing to do.
func (s *session) idle(ctx context.Context) (*idleResult, error) {
	change := map[string]any{"spec": map[string]any{"interval": idleInterval}}
	paths := []string{gitRepositories().path(controlNamespace) + "/" + sourceName}
	for app := range s.fleet.apps {
		paths = append(paths, kustomizations().path(controlNamespace)+"/"+s.fleet.name(app))
	}
	err := parallel(ctx, s.options.workers, len(paths), func(ctx context.Context, i int) error {
		return s.plane.patch(ctx, paths[i], change)
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.allReady()(ctx, allWithin); err != nil {
		return nil, err
	}
	from, err := s.plane.audit.now()
	if err != nil {
		return nil, err
	}
	// The new specs have been answered; what still comes of them is not idleness.
	if _, err := s.operator.quiet(ctx, from, quietFor); err != nil {
		return nil, err
	}
	if from, err = s.plane.audit.now(); err != nil {
		return nil, err
	}
	cpu, began := s.operator.used(), time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(s.options.idle):
	}
	result := &idleResult{CPU: duration(s.operator.used() - cpu)}
	result.Requests, _, err = s.plane.audit.since(from)
	result.Window = duration(time.Since(began))
	return result, err
}

// deleteResult is the deletion of all Kustomizations.
type deleteResult struct {
	// Objects is from the one request that deletes them until the last object of
	// the apps is gone, Kustomizations until the last of them is.
	Objects        duration `json:"objectsSeconds"`
	Kustomizations duration `json:"kustomizationsSeconds"`
	Requests       tally    `json:"requests"`
	CPU            duration `json:"cpuSeconds"`
}

func (s *session) delete(ctx context.Context) (*deleteResult, error) {
	from, err := s.plane.audit.now()
	if err != nil {
		return nil, err
	}
	cpu := s.operator.used()
	objects := s.apps.expectGone()
	owners := s.kustomizations.expect(func(object) bool { return true }, none())
	began := time.Now()
	if _, err := s.plane.send(ctx, "DELETE", kustomizations().path(controlNamespace), "", nil); err != nil {
		return nil, err
	}
	objectsAt, err := objects(ctx)
	if err != nil {
		return nil, err
	}
	ownersAt, err := owners(ctx, allWithin)
	if err != nil {
		return nil, err
	}
	result := &deleteResult{
		Objects:        duration(objectsAt.Sub(began)),
		Kustomizations: duration(ownersAt.Sub(began)),
	}
	result.Requests, err = s.operator.settled(ctx, from, time.Minute)
	result.CPU = duration(s.operator.used() - cpu)
	return result, err
}
