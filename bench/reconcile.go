package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// reconcileSources has the operator reconcile sources, on a fresh control plane: the time
// from the first one created to the last one Ready, and the requests until it is at rest.
// While it is still there, then is called, if it is given.
func (b *bench) reconcileSources(ctx context.Context, kind resource, objects []item, then func(context.Context) error) (took time.Duration, requests tally, err error) {
	f, err := newFleet(1, 1)
	if err != nil {
		return 0, requests, err
	}
	p, err := b.plane(ctx, f)
	if err != nil {
		return 0, requests, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	o, err := newOperator(p, b.options.plumb, b.options.flags)
	if err != nil {
		return 0, requests, err
	}
	defer func() { err = errors.Join(err, o.stop(syscall.SIGTERM), o.close()) }()
	if err := o.start(); err != nil {
		return 0, requests, err
	}
	if err := o.ready(ctx); err != nil {
		return 0, requests, err
	}
	if _, err := o.settled(ctx, 0, time.Minute); err != nil {
		return 0, requests, err
	}
	watch, err := track(ctx, p.client, kind, "")
	if err != nil {
		return 0, requests, err
	}
	defer watch.stop()
	from, err := p.audit.now()
	if err != nil {
		return 0, requests, err
	}
	ready := watch.expect(object.ready, atLeast(len(objects)))
	began := time.Now()
	err = parallel(ctx, b.options.workers, len(objects), func(ctx context.Context, i int) error {
		return p.apply(ctx, objects[i], foreignManager, false)
	})
	if err != nil {
		return 0, requests, err
	}
	at, err := ready(ctx, allWithin)
	if err != nil {
		return 0, requests, errors.Join(err, o.alive(), errors.New(o.tail()))
	}
	if requests, err = o.settled(ctx, from, time.Minute); err == nil && then != nil {
		err = then(ctx)
	}
	return at.Sub(began), requests, err
}

// writeSources makes the writes that an operator makes for sources, and those that create
// them, on a fresh control plane without one: for each object a finalizer, the outcome and
// an event.
func (b *bench) writeSources(ctx context.Context, objects []item) (took time.Duration, err error) {
	f, err := newFleet(1, 1)
	if err != nil {
		return 0, err
	}
	p, err := b.plane(ctx, f)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	client := &bare{plane: p, fleet: f, workers: b.options.workers, kind: floor}
	began := time.Now()
	err = parallel(ctx, b.options.workers, len(objects), func(ctx context.Context, i int) error {
		if err := p.apply(ctx, objects[i], foreignManager, false); err != nil {
			return err
		}
		return client.follow(ctx, objects[i])
	})
	return time.Since(began), err
}

// sourceObjects are sources of a kind, named after a prefix and their number.
func sourceObjects(kind resource, count int, prefix string, spec func(i int, name string) map[string]any) ([]item, error) {
	var objects []item
	for i := range count {
		name := fmt.Sprintf("%s-%03d", prefix, i)
		it, err := newItem(kind, controlNamespace, name, map[string]any{
			"apiVersion": kind.group + "/" + kind.version, "kind": kind.kind,
			"metadata": map[string]any{"name": name, "namespace": controlNamespace},
			"spec":     spec(i, name),
		})
		if err != nil {
			return nil, err
		}
		objects = append(objects, it)
	}
	return objects, nil
}
