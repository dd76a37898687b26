package engine

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// An owner with an identity of its own does not get the content of objects from the
// operator's watches: they are told of changes only, and the owner reads what it
// waits for with its own rights.

const (
	// readParallel is how many objects of one run are read at the same time.
	readParallel = 4
	// readPause is the shortest pause between two reads of an object that is waited
	// for, and readHealthyPause that of one that is healthy: some kinds have their
	// status written every second.
	readPause        = 50 * time.Millisecond
	readHealthyPause = 10 * time.Second
	// readAgain is when an object is read again that could not be read now; it
	// doubles with each failure up to readAgainLimit.
	readAgain      = time.Second
	readAgainLimit = 5 * time.Minute
)

// reading is the health of an object as it was read last.
type reading struct {
	resourceVersion string
	// rule is the digest of the rule by which the health was assessed.
	rule   gitops.Digest
	at     time.Time
	health gitops.Health
	// retry is set where another try may tell more without a change of the object.
	retry bool
	// failures counts those in a row that are to be tried again.
	failures int
}

// pause is how long the object is not read again.
func (l reading) pause() time.Duration {
	switch {
	case l.failures > 0:
		return min(readAgain<<min(l.failures-1, 10), readAgainLimit)
	case l.health.Status == gitops.HealthCurrent:
		return readHealthyPause
	}
	return readPause
}

// reads tells whether the owner reads the health of its objects itself.
func (r *run) reads() bool { return r.task.Access.User != "" }

// read finds the health of objects that changed since it was read last. Objects
// that were read a moment ago are read again later.
func (r *run) read(ctx context.Context) error {
	if !r.reads() {
		return nil
	}
	versions := map[gitops.ObjectRef]string{}
	for _, m := range r.manifests {
		versions[m.Ref] = m.Version
	}
	for _, e := range r.checks {
		versions[e.Ref] = e.Version
	}
	var wanted []gitops.ObjectRef
	known := map[gitops.ObjectRef]bool{}
	now := r.Clock.Now()
	r.eachChecked(func(ref gitops.ObjectRef, at sight) {
		live, seen := at.live(ref)
		// Of an object that is only named, not even whether it exists is known without
		// the right to read it.
		needed := at.named || live.Exists() && r.needsStatus(ref.GroupKind())
		if !seen || !needed || known[ref] {
			return
		}
		known[ref] = true
		last, wasRead := r.owner.readings[ref]
		wasRead = wasRead && last.rule == r.task.Checks.Rules.For(ref.GroupKind()).Digest()
		if wasRead && last.resourceVersion == live.ResourceVersion {
			return
		}
		if due := last.at.Add(last.pause()); wasRead && now.Before(due) {
			r.again(due)
			return
		}
		wanted = append(wanted, ref)
	})
	r.forgetReadings(known)
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		slots = make(chan struct{}, readParallel)
	)
	for _, ref := range wanted {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			got := r.readOne(ctx, ref, versions[ref])
			mu.Lock()
			defer mu.Unlock()
			if got.retry {
				got.failures = r.owner.readings[ref].failures + 1
			}
			r.owner.readings[ref] = got
		})
	}
	group.Wait()
	for _, ref := range wanted {
		if last := r.owner.readings[ref]; last.retry {
			r.again(now.Add(last.pause()))
		}
	}
	return ctx.Err()
}

// readOne reads an object. One that may not be read is not healthy: that says so.
func (r *run) readOne(ctx context.Context, ref gitops.ObjectRef, version string) reading {
	rule := r.task.Checks.Rules.For(ref.GroupKind())
	got := reading{at: r.Clock.Now(), rule: rule.Digest()}
	resource, err := r.Client.Resource(ctx, ref.GroupKind(), version)
	if err == nil {
		object, getErr := r.Client.Get(ctx, resource, ref.Namespace, ref.Name)
		switch err = getErr; {
		case cluster.IsNotFound(err):
			got.health = gitops.Health{Status: gitops.HealthNotFound, Message: "Resource not found"}
			return got
		case err == nil:
			got.resourceVersion, got.health = object.GetResourceVersion(), rule.Assess(object)
			return got
		}
	}
	got.health = gitops.Health{Status: gitops.HealthUnknown, Message: "cannot be read: " + err.Error()}
	got.retry = !apierrors.IsForbidden(err) && !cluster.IsNotServed(err)
	return got
}

// forgetReadings drops what was read of objects that are not waited for any more.
func (r *run) forgetReadings(known map[gitops.ObjectRef]bool) {
	for ref := range r.owner.readings {
		if !known[ref] {
			delete(r.owner.readings, ref)
		}
	}
	if r.owner.readings == nil {
		r.owner.readings = map[gitops.ObjectRef]reading{}
	}
}
