package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// fewPacks is the number of packs that are never joined because of their size:
// joining costs a walk over everything.
const fewPacks = 4

// tooManyPacks is how many times the usual number of packs are joined whatever is under way.
const tooManyPacks = 4

// tidy joins packs in the background where it is time.
func (r *remote) tidy() {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.tidies()
}

// tidies is tidy for who has the mutex of the store.
func (r *remote) tidies() {
	if !r.untidy() || r.store.closed || !r.joining.CompareAndSwap(false, true) {
		return
	}
	r.store.work.Go(func() {
		defer r.joining.Store(false)
		// A failure, of a full disk for one, leaves the store as it was; the
		// next fetch, or what is forgotten next, tries again.
		_ = r.join(r.store.life)
	})
}

// untidy tells whether packs are to be joined: there are many, or they hold much more than
// when they were joined last, or what tips needed that were forgotten since. While they are
// joined there are the old ones, the new one and what comes in meanwhile, together three times
// as much at most.
func (r *remote) untidy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.set == nil || r.closed {
		return false
	}
	packs, disk := len(r.state.Packs), r.set.Disk()
	return packs >= r.store.options.Packs || packs > fewPacks && 4*disk > 7*r.state.Base || r.state.Stale && packs > 0 && len(r.state.Tips) > 0
}

// join copies everything that the tips need into one pack and drops the others. Few are
// joined at once, and nothing of the repository is held while it waits for that.
func (r *remote) join(ctx context.Context) error {
	return r.store.slots.Join(ctx, r.rejoin)
}

// rejoin is join with a slot.
//
// Fetches go on meanwhile: a pack that comes in builds on the tips of the moment at which
// it began, or on newer packs, and of both nothing is lost. Where one is under way that
// takes more than that for granted, packs are joined another time, or, where there are far
// too many, that fetch has to begin anew.
func (r *remote) rejoin(ctx context.Context) error {
	if err := r.whole.lock(ctx); err != nil {
		return err
	}
	defer r.whole.unlock()
	r.mu.Lock()
	st, set, dir := r.state.clone(), r.set, r.dir
	ready := set != nil && !r.closed && !r.broken.Load()
	many := len(st.Packs) >= tooManyPacks*r.store.options.Packs
	needed := slices.Collect(maps.Values(st.Tips))
	for b := range r.bases {
		if b.dir == dir {
			needed = slices.AppendSeq(needed, maps.Values(b.state.Tips))
			ready = ready && (!b.files || many)
		}
	}
	if ready {
		for b := range r.bases {
			b.lost = b.lost || b.files
		}
		set.Acquire()
	}
	r.mu.Unlock()
	if !ready {
		return nil
	}
	defer set.Release()
	var joined *pack.Pack
	err := r.store.slots.Hold(ctx, r.limits(), func(ctx context.Context, limits pack.Limits) (err error) {
		joined, err = r.joined(ctx, needed, set.Within(limits), dir)
		return err
	})
	if errors.Is(err, pack.ErrDeep) {
		// It would be so again, with more and more packs.
		r.broken.Store(true)
	}
	if err != nil {
		return fmt.Errorf("join packs: %w", err)
	}
	return r.replace(dir, joined, st.Packs)
}

// joined makes one pack of all that tips need.
func (r *remote) joined(ctx context.Context, needed []tip, set *pack.Set, dir *os.Root) (*pack.Pack, error) {
	var names []pack.ID
	seen := map[pack.ID]bool{}
	objects := r.read(set)
	needed = slices.SortedFunc(slices.Values(needed), func(a, b tip) int {
		return cmp.Or(compareBool(!a.whole(), !b.whole()), cmp.Compare(a.Want, b.Want))
	})
	for _, t := range needed {
		want, err := pack.ParseID(t.Want)
		if err != nil {
			return nil, err
		}
		more, err := objects.reachable(ctx, want, t.Paths, seen)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return pack.Repack(ctx, set, names, dir, r.name(), r.store.serial.Add(1))
}

// replace puts one pack into the place of the oldest ones.
func (r *remote) replace(dir *os.Root, joined *pack.Pack, old []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.dir != dir || len(r.state.Packs) < len(old) || !slices.Equal(r.state.Packs[:len(old)], old) {
		// The store was dropped meanwhile, with all its files.
		pack.NewSet(nil, pack.Limits{}, joined).Release()
		return nil
	}
	next := r.state.clone()
	next.Packs = append([]string{joined.Name}, next.Packs[len(old):]...)
	next.Base, next.Stale = joined.Disk(), false
	fresh := pack.NewSet(r.store.objects, r.limits(), append([]*pack.Pack{joined}, r.set.Packs()[len(old):]...)...)
	if err := writeState(dir, next); err != nil {
		fresh.Release()
		return errors.Join(err, pack.Remove(dir, joined.Name))
	}
	r.set.Release()
	r.set, r.state = fresh, next
	// What cannot be removed now is, once the store is opened again.
	var errs []error
	for _, name := range old {
		errs = append(errs, pack.Remove(dir, name))
	}
	return errors.Join(errs...)
}
