package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// measure runs all rounds of all sizes. What was measured before an error is kept.
func (b *bench) measure(ctx context.Context) error {
	for _, apps := range b.options.sizes {
		f, err := newFleet(apps, b.options.namespaces)
		if err != nil {
			return err
		}
		b.results.Sizes = append(b.results.Sizes, sizeResult{Apps: apps})
		size := &b.results.Sizes[len(b.results.Sizes)-1]
		for i := range b.options.rounds {
			round, err := b.round(ctx, f, i)
			size.Rounds = append(size.Rounds, round)
			if err != nil {
				return fmt.Errorf("%d apps, round %d: %w", apps, i+1, err)
			}
		}
	}
	return nil
}

// round gives each contestant one turn. Who begins changes from round to round;
// the last round ends with the operator, which then runs all scenarios.
func (b *bench) round(ctx context.Context, f *fleet, index int) (result roundResult, err error) {
	last := index == b.options.rounds-1
	turns := []func() error{
		func() (err error) { result.Bare, err = b.bare(ctx, f, plain, last); return err },
		func() (err error) { result.DryRun, err = b.bare(ctx, f, dryRuns, last); return err },
		func() (err error) { result.Floor, err = b.bare(ctx, f, floor, last); return err },
		func() (err error) { result.Operator, err = b.operator(ctx, f, last); return err },
	}
	if b.options.skipBare {
		turns = turns[3:]
	}
	if b.options.tenants {
		with := *f
		if with.tenancy, err = newTenancy(); err != nil {
			return result, err
		}
		turns = append(turns, func() (err error) { result.Tenants, err = b.operator(ctx, &with, last); return err })
	}
	shift := (b.options.rounds - 1 - index) % len(turns)
	began := time.Now()
	before := readProcessors()
	for i := range turns {
		b.say("%d apps, round %d of %d, turn %d", f.apps, index+1, b.options.rounds, i+1)
		if err := turns[(i+shift)%len(turns)](); err != nil {
			return result, err
		}
	}
	after := readProcessors()
	result.Foreign, result.Stolen = after.sharesSince(before, time.Since(began))
	b.say("round took %.0fs", time.Since(began).Seconds())
	return result, nil
}

// bare is a turn of a bare client.
func (b *bench) bare(ctx context.Context, f *fleet, kind bareKind, last bool) (result *bareResult, err error) {
	p, err := b.plane(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	changes := 1
	if last {
		changes = b.options.samples
	}
	r, err := (&bare{plane: p, fleet: f, workers: b.options.workers, kind: kind}).run(ctx, changes)
	if err != nil {
		return nil, fmt.Errorf("bare client: %w", err)
	}
	b.say("%s: install %.2fs, %.2f ms an object (load before: %.1f)", kind,
		time.Duration(r.Install).Seconds(), float64(r.perObject(f.apps).Microseconds())/1000, r.Load)
	return &r, nil
}

// operator is a turn of the operator: the install, and in the last round the rest.
func (b *bench) operator(ctx context.Context, f *fleet, last bool) (result *operatorResult, err error) {
	p, err := b.plane(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	repo, err := newRepository(ctx, f, filepath.Join(p.dir, "repository"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, repo.stop()) }()
	o, err := newOperator(p, b.options.plumb, b.options.flags)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	wanted := b.options.scenarios
	if !last {
		wanted = nil
	}
	s := &session{plane: p, fleet: f, repo: repo, operator: o, options: b.options, say: b.say}
	r, err := s.run(ctx, wanted)
	if r.Install != nil {
		b.say("operator: install %.2fs (%s; load before: %.1f)", time.Duration(r.Install.Wall).Seconds(), r.Install.Requests, r.Load)
	}
	if err != nil {
		return &r, fmt.Errorf("operator: %w", err)
	}
	return &r, nil
}

// plane starts a control plane for one turn.
func (b *bench) plane(ctx context.Context, f *fleet) (*plane, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := startPlane(ctx, b.options.cluster, f)
	if err != nil || b.results.Machine.Kubernetes != "" {
		return p, err
	}
	if b.results.Machine.Kubernetes, err = p.version(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}
