package observe

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/version"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// key names a watch: that of a kind, or of one object by name.
type key struct {
	kind   gitops.GroupKind
	object name
}

// demand is what one owner wants of a watch.
type demand struct {
	version string
	// full asks for whole objects.
	full bool
	// moves asks for every change to be told.
	moves bool
	// rule is by which the owner's objects are assessed, in a watch of one object
	// that object; nil for the rules of kstatus.
	rule *health.Rule
}

// Need declares what an owner needs, in place of what it declared before, and
// returns at once. A watch that nobody needs any more ends after the grace period;
// an owner that is gone declares nothing.
func (o *Observer) Need(owner gitops.OwnerRef, needs []Need, objects []Object) {
	wanted := make(map[key]demand, len(needs)+len(objects))
	for _, n := range needs {
		k := key{kind: n.Kind}
		wanted[k] = newer(wanted[k], n.demand())
	}
	for _, object := range objects {
		k := key{kind: object.Ref.GroupKind(), object: nameOf(object.Ref)}
		wanted[k] = newer(wanted[k], object.demand())
	}
	owner = owner.Key()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return
	}
	for k, w := range o.watchers {
		if _, still := wanted[k]; !still {
			if _, had := w.owners[owner]; had {
				delete(w.owners, owner)
				w.spare()
			}
		}
	}
	for k, d := range wanted {
		if w := o.watchers[k]; w != nil {
			w.want(owner, d)
		} else {
			o.start(k, owner, d)
		}
	}
}

// demand is what the need asks of a watch.
func (n Need) demand() demand {
	d := demand{version: n.Version, full: n.Health && (n.Rule != nil || health.NeedsStatus(n.Kind)), moves: n.Moves}
	if d.full || d.moves {
		d.rule = n.Rule
	}
	return d
}

func (o Object) demand() demand {
	full := !o.Moves && (o.Rule != nil || health.NeedsStatus(o.Ref.GroupKind()))
	return demand{version: o.Version, full: full, moves: o.Moves, rule: o.Rule}
}

// newer joins two demands.
func newer(a, b demand) demand {
	joined := demand{version: a.version, full: a.full || b.full, moves: a.moves || b.moves, rule: cmp.Or(a.rule, b.rule)}
	if a.version == "" || version.CompareKubeAwareVersionStrings(b.version, a.version) > 0 {
		joined.version = b.version
	}
	return joined
}

// joined is the version and the fullness that all owners of a watch want together.
// The observer's mu is held.
func (w *watcher) joined() demand {
	var all demand
	for _, d := range w.owners {
		all = newer(all, d)
	}
	all.rule = nil
	return all
}

// want adds or changes the demand of an owner. The observer's mu is held.
func (w *watcher) want(owner gitops.OwnerRef, d demand) {
	if w.owners[owner] == d {
		return
	}
	w.owners[owner] = d
	if w.full && d.full && w.table.misjudged(owner, d.rule) {
		w.judgeAnew()
	}
	if d.version == w.version && d.full == w.full && d.moves == w.table.moves.Load() {
		return
	}
	all := w.joined()
	w.table.moves.Store(all.moves)
	switch {
	case all.full && !w.full:
		w.restart(all)
	case w.full && !all.full:
		w.spare()
	case all.version != w.version:
		w.version = all.version
		w.retry()
	}
}

// spare looks, after the grace period, whether the watch is still needed as it is.
// The observer's mu is held.
func (w *watcher) spare() {
	if w.sparing {
		return
	}
	w.sparing = true
	o := w.observer
	o.clock.AfterFunc(o.options.Grace, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		w.sparing = false
		all := w.joined()
		w.table.moves.Store(all.moves)
		switch {
		case len(w.owners) == 0:
			w.cancel()
			delete(o.watchers, w.key)
			o.progressed()
		case w.full && !all.full:
			w.restart(all)
		default:
			w.version = all.version
		}
	})
}

// synced tells whether what a kind, or an object, is watched for is known: markers, and
// their health where full says so.
func (o *Observer) synced(k key, full bool) bool {
	t := o.table(k)
	if t == nil {
		return false
	}
	s := t.stateNow()
	return s.synced && (!full || s.full)
}

// Err says why a kind is not watched or why its watch is interrupted; nil where
// it is in step, or on its way without a failure so far, or not needed.
func (o *Observer) Err(kind gitops.GroupKind) error { return o.err(key{kind: kind}) }

// NamedErr is Err for an object that is watched by name.
func (o *Observer) NamedErr(ref gitops.ObjectRef) error {
	return o.err(key{kind: ref.GroupKind(), object: nameOf(ref)})
}

func (o *Observer) err(k key) error {
	t := o.table(k)
	if t == nil {
		return nil
	}
	return t.stateNow().err
}

// WaitSynced waits until everything that was declared with Need is known. It gives
// up where a kind may not be or cannot be watched for the time being, and when ctx
// ends; the error says which.
func (o *Observer) WaitSynced(ctx context.Context, needs []Need, objects []Object) error {
	type wish struct {
		key  key
		full bool
	}
	waiting := make([]wish, 0, len(needs)+len(objects))
	for _, n := range needs {
		waiting = append(waiting, wish{key{kind: n.Kind}, n.demand().full})
	}
	for _, object := range objects {
		waiting = append(waiting, wish{key{kind: object.Ref.GroupKind(), object: nameOf(object.Ref)}, object.demand().full})
	}
	for {
		o.mu.RLock()
		progress := o.progress
		o.mu.RUnlock()
		waiting = slices.DeleteFunc(waiting, func(w wish) bool { return o.synced(w.key, w.full) })
		if len(waiting) == 0 {
			return nil
		}
		for _, w := range waiting {
			t := o.table(w.key)
			if t == nil {
				return fmt.Errorf("%s is not watched", w.key.kind)
			}
			if s := t.stateNow(); s.lasting {
				return s.err
			}
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("watch of %s is not in step: %w", waiting[0].key.kind, context.Cause(ctx))
		case <-o.ctx.Done():
			return fmt.Errorf("watch of %s has ended", waiting[0].key.kind)
		}
	}
}

// Retry tries at once again to watch a kind that could not be watched: to be called
// when the kind has just been defined, or rights have changed.
func (o *Observer) Retry(kind gitops.GroupKind) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, k := range slices.Collect(maps.Keys(o.watchers)) {
		if k.kind == kind {
			o.watchers[k].retry()
		}
	}
}

// progressed wakes those that wait. The observer's mu is held.
func (o *Observer) progressed() {
	close(o.progress)
	o.progress = make(chan struct{})
}
