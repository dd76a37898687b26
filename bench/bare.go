package main

import (
	"context"
	"time"
)

// bareResult is what the bare client took on a fresh control plane.
type bareResult struct {
	Kind    bareKind `json:"kind"`
	Objects int      `json:"objects"` // without the custom resources
	// Install is from the first to the last write acknowledged, custom resources
	// included.
	Install  duration `json:"installSeconds"`
	Requests int      `json:"requests"`
	// Change is what one apply of one changed object takes until the driver's
	// watch shows it; ChangeAll the same for one object of every app.
	Change    samples  `json:"changeSeconds"`
	ChangeAll duration `json:"changeAllSeconds"`
	// Delete is from the first deletion to the last object gone.
	Delete duration `json:"deleteSeconds"`
	// State is a digest of all objects after the install.
	State string  `json:"state"`
	Load  float64 `json:"loadBefore"`
}

// perObject is the time of an install for each object, custom resources included.
func (r bareResult) perObject(apps int) time.Duration {
	return time.Duration(r.Install) / time.Duration(r.Objects+apps+1)
}

// bareKind is what the bare client does beside applying every object.
type bareKind string

const (
	// plain does nothing else.
	plain bareKind = "bare client"
	// dryRuns has every object tried by a dry-run first.
	dryRuns bareKind = "bare client that dry-runs"
	// floor makes every write that the operator has to make: dry-runs, and for each
	// Kustomization a finalizer, the inventory ahead of the objects and the outcome
	// behind them. It waits for what the operator waits for. An operator that took no
	// processor time and watched nothing would take as long.
	floor bareKind = "bare client with all of the operator's writes"
)

// bare is the bare client: no operator, the same bytes to the same server.
type bare struct {
	plane   *plane
	fleet   *fleet
	workers int
	kind    bareKind
}

// run installs, and then, where it is the plain one, changes and deletes what it
// installed.
func (b *bare) run(ctx context.Context, changes int) (bareResult, error) {
	result := bareResult{Kind: b.kind, Load: loadAverage()}
	objects, err := b.fleet.allObjects(0)
	if err != nil {
		return result, err
	}
	// An address that is never asked: there is no operator.
	custom, err := b.fleet.customResources("http://127.0.0.1:1/fleet.git", longInterval)
	if err != nil {
		return result, err
	}
	result.Objects = len(objects)
	began := time.Now()
	if result.Requests, err = b.install(ctx, custom, objects); err != nil {
		return result, err
	}
	result.Install = duration(time.Since(began))
	if result.State, err = digestState(ctx, b.plane.client); err != nil || b.kind != plain {
		return result, err
	}
	if err := b.change(ctx, changes, &result); err != nil {
		return result, err
	}
	return result, b.delete(ctx, objects, &result)
}

// install applies stage after stage: the custom resources, then the objects, which
// are all of one stage. It returns the number of requests.
func (b *bare) install(ctx context.Context, custom, objects []item) (int, error) {
	requests := len(custom) + len(objects)
	if err := b.applyAll(ctx, custom, foreignManager, false); err != nil {
		return 0, err
	}
	outcome := func() error { return nil }
	if b.kind == floor {
		var err error
		if outcome, err = b.announce(ctx, custom, objects); err != nil {
			return 0, err
		}
		requests += 3 * b.fleet.apps
	}
	if b.kind != plain {
		requests += len(objects)
		if err := b.applyAll(ctx, objects, applyManager, true); err != nil {
			return 0, err
		}
	}
	if err := b.applyAll(ctx, objects, applyManager, false); err != nil {
		return 0, err
	}
	return requests, outcome()
}

func (b *bare) applyAll(ctx context.Context, items []item, manager string, dryRun bool) error {
	return parallel(ctx, b.workers, len(items), func(ctx context.Context, i int) error {
		return b.plane.apply(ctx, items[i], manager, dryRun)
	})
}

// change applies the next version of some apps' Deployments, one after the other,
// and then that of all.
func (b *bare) change(ctx context.Context, n int, result *bareResult) error {
	watch, err := track(ctx, b.plane.client, deployments(), partOf)
	if err != nil {
		return err
	}
	defer watch.stop()
	for i := range n {
		it, err := b.deployment(b.fleet.spread(i, n), i+1)
		if err != nil {
			return err
		}
		seen := watch.expect(one(it.namespace, it.name, hasVersion(i+1)), atLeast(1))
		began := time.Now()
		if err := b.plane.apply(ctx, it, applyManager, false); err != nil {
			return err
		}
		at, err := seen(ctx, liveWithin)
		if err != nil {
			return err
		}
		result.Change = append(result.Change, at.Sub(began))
	}
	var all []item
	for app := range b.fleet.apps {
		it, err := b.deployment(app, n+1)
		if err != nil {
			return err
		}
		all = append(all, it)
	}
	seen := watch.expect(hasVersion(n+1), atLeast(len(all)))
	began := time.Now()
	if err := b.applyAll(ctx, all, applyManager, false); err != nil {
		return err
	}
	at, err := seen(ctx, liveWithin)
	result.ChangeAll = duration(at.Sub(began))
	return err
}

// deployment is that of an app in a version.
func (b *bare) deployment(app, version int) (item, error) {
	items, err := b.fleet.objects(app, version)
	if err != nil {
		return item{}, err
	}
	return items[2], nil
}

// delete removes all objects and waits until they are gone.
func (b *bare) delete(ctx context.Context, objects []item, result *bareResult) error {
	watches, err := trackApps(ctx, b.plane.client)
	if err != nil {
		return err
	}
	defer watches.stop()
	gone := watches.expectGone()
	began := time.Now()
	err = parallel(ctx, b.workers, len(objects), func(ctx context.Context, i int) error {
		_, err := b.plane.send(ctx, "DELETE", objects[i].path+"?propagationPolicy=Background", "", nil)
		return err
	})
	if err != nil {
		return err
	}
	at, err := gone(ctx)
	result.Delete = duration(at.Sub(began))
	return err
}

// hasVersion matches a Deployment in a version.
func hasVersion(n int) func(object) bool {
	want := version(n)
	return func(o object) bool { return o.Metadata.Labels[versionLabel] == want }
}

// appWatches follow the four kinds of the apps' objects, in the order of appKinds.
type appWatches []*tracker

func trackApps(ctx context.Context, c *client) (appWatches, error) {
	var watches appWatches
	for _, kind := range appKinds() {
		t, err := track(ctx, c, kind, partOf)
		if err != nil {
			watches.stop()
			return nil, err
		}
		watches = append(watches, t)
	}
	return watches, nil
}

func (w appWatches) stop() {
	for _, t := range w {
		t.stop()
	}
}

// expectGone begins to wait for the end of all objects of all apps.
func (w appWatches) expectGone() func(context.Context) (time.Time, error) {
	var waits []func(context.Context, time.Duration) (time.Time, error)
	for _, t := range w {
		waits = append(waits, t.expect(func(object) bool { return true }, none()))
	}
	return func(ctx context.Context) (time.Time, error) {
		var last time.Time
		for _, wait := range waits {
			at, err := wait(ctx, allWithin)
			if err != nil {
				return at, err
			}
			if at.After(last) {
				last = at
			}
		}
		return last, nil
	}
}
