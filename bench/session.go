package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	// longInterval keeps timers out of all measurements but the idle one.
	longInterval = "1h"
	// liveWithin and allWithin are how long one object, and all of them, may take
	// before the run gives up.
	liveWithin = time.Minute
	allWithin  = 10 * time.Minute
)

// operatorResult is what the operator took on a fresh control plane. Scenarios
// that were not run are nil.
type operatorResult struct {
	Install *installResult `json:"install,omitempty"`
	OneApp  *commitResult  `json:"oneApp,omitempty"`
	AllApps *commitResult  `json:"allApps,omitempty"`
	Drift   *driftResult   `json:"drift,omitempty"`
	// Variable is nil for a fleet without tenants.
	Variable *variableResult `json:"variable,omitempty"`
	Restart  *restartResult  `json:"restart,omitempty"`
	Idle     *idleResult     `json:"idle,omitempty"`
	Delete   *deleteResult   `json:"delete,omitempty"`
	// PeakMemory is the highest resident memory of the operator with its
	// children, in bytes: the kernel's own mark of the process, or the sum over
	// all of them when it was sampled, whichever is higher.
	PeakMemory int64 `json:"peakMemoryBytes"`
	// CPU is the processor time of all, with the children.
	CPU  duration `json:"cpuSeconds"`
	Load float64  `json:"loadBefore"`
}

// session is one operator on one control plane, with the driver's watches.
type session struct {
	plane    *plane
	fleet    *fleet
	repo     *repository
	operator *operator
	options  *options
	say      func(format string, args ...any)

	apps           appWatches
	kustomizations *tracker
}

// run measures the given scenarios in the order in which they build on each other.
func (s *session) run(ctx context.Context, wanted map[scenario]bool) (result operatorResult, err error) {
	result.Load = loadAverage()
	if err := s.begin(ctx); err != nil {
		return result, err
	}
	defer s.end()
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\nlast lines of the operator's log:\n%s", err, s.operator.tail())
		}
	}()
	if result.Install, err = s.install(ctx); err != nil {
		return result, fmt.Errorf("install: %w", err)
	}
	result.Install.Memory = s.operator.memory()
	s.say("%s: peak memory so far %d MiB", install, result.Install.Memory>>20)
	if s.apps, err = trackApps(ctx, s.plane.client); err != nil {
		return result, err
	}
	steps := []struct {
		name scenario
		run  func() error
	}{
		{oneApp, func() error { result.OneApp, err = s.oneApp(ctx); return err }},
		{allApps, func() error { result.AllApps, err = s.allApps(ctx); return err }},
		{drift, func() error { result.Drift, err = s.drift(ctx); return err }},
		{variable, func() error { result.Variable, err = s.variable(ctx); return err }},
		{restart, func() error { result.Restart, err = s.restart(ctx); return err }},
		{idle, func() error { result.Idle, err = s.idle(ctx); return err }},
		{deletion, func() error { result.Delete, err = s.delete(ctx); return err }},
	}
	for _, step := range steps {
		if !wanted[step.name] || step.name == variable && s.fleet.tenancy == nil {
			continue
		}
		s.say("%s", step.name)
		if err := step.run(); err != nil {
			return result, fmt.Errorf("%s: %w", step.name, err)
		}
		s.say("%s: peak memory so far %d MiB", step.name, s.operator.memory()>>20)
	}
	if err := s.operator.stop(syscall.SIGTERM); err != nil {
		return result, err
	}
	result.PeakMemory, result.CPU = s.operator.memory(), duration(s.operator.used())
	return result, nil
}

// begin starts the operator and the driver's watch of its custom resources, and
// waits until nothing moves any more. The apps' objects are not watched during the
// install: nobody does so for the bare client, and it costs the API server as much as
// the operator's own watches.
func (s *session) begin(ctx context.Context) error {
	if err := s.operator.start(); err != nil {
		return err
	}
	if err := s.operator.ready(ctx); err != nil {
		return err
	}
	var err error
	if s.kustomizations, err = track(ctx, s.plane.client, kustomizations(), ""); err != nil {
		return err
	}
	if _, err = s.operator.settled(ctx, 0, time.Minute); err != nil {
		s.end()
	}
	return err
}

func (s *session) end() {
	s.apps.stop()
	s.kustomizations.stop()
}

// deployments is the watch that shows the version of an app.
func (s *session) deployments() *tracker { return s.apps[2] }

// allReady matches nothing until an object says Ready about its spec of now.
func (s *session) allReady() func(context.Context, time.Duration) (time.Time, error) {
	return s.kustomizations.expect(object.ready, atLeast(s.fleet.apps))
}

// installResult is the cold install.
type installResult struct {
	// Wall is from the first custom resource created to the last Kustomization
	// Ready.
	Wall     duration `json:"wallSeconds"`
	CPU      duration `json:"cpuSeconds"`
	Requests tally    `json:"requests"`
	Builds   int      `json:"builds"`
	Memory   int64    `json:"peakMemoryBytes"`
	State    string   `json:"state"`
}

func (s *session) install(ctx context.Context) (*installResult, error) {
	custom, err := s.fleet.customResources(s.repo.url, longInterval)
	if err != nil {
		return nil, err
	}
	from, err := s.plane.audit.now()
	if err != nil {
		return nil, err
	}
	cpu := s.operator.used()
	ready := s.allReady()
	began := time.Now()
	err = parallel(ctx, s.options.workers, len(custom), func(ctx context.Context, i int) error {
		return s.plane.apply(ctx, custom[i], foreignManager, false)
	})
	if err != nil {
		return nil, err
	}
	at, err := ready(ctx, allWithin)
	if err != nil {
		return nil, errors.Join(err, s.operator.alive(), s.firstUnready())
	}
	result := &installResult{Wall: duration(at.Sub(began)), CPU: duration(s.operator.used() - cpu)}
	if result.Requests, err = s.operator.settled(ctx, from, time.Minute); err != nil {
		return nil, err
	}
	if result.Builds, err = s.operator.builds(ctx); err != nil {
		return nil, err
	}
	if result.State, err = digestState(ctx, s.plane.client); err != nil {
		return nil, err
	}
	return result, s.watched()
}

// watched fails where the audit log knows nothing of the operator's watches: then
// what is counted there would not be the operator's requests.
func (s *session) watched() error {
	all, _, err := s.plane.audit.since(0)
	if err == nil && all.Watches == 0 {
		err = fmt.Errorf("the audit log has no watch of a client whose user agent begins with %q", operatorAgent)
	}
	return err
}

// firstUnready says why some Kustomization is not Ready.
func (s *session) firstUnready() error {
	for app := range s.fleet.apps {
		o, ok := s.kustomizations.get(controlNamespace, s.fleet.name(app))
		if !ok || o.ready() {
			continue
		}
		return fmt.Errorf("for example Kustomization %q: %+v", o.Metadata.Name, o.Status.Conditions)
	}
	return nil
}
