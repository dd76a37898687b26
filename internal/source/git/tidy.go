package git

import (
	"context"
	"errors"
	"fmt"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// fewPacks is the number of packs that are never joined because of their size:
// joining costs a walk over everything.
const fewPacks = 4

// tidy joins packs in the background where it is time. The caller has the turn,
// and the work waits for it.
func (r *remote) tidy() {
	if !r.untidy() {
		return
	}
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if r.store.closed {
		return
	}
	r.store.work.Go(func() {
		ctx := r.store.life
		if r.lock(ctx) != nil {
			return
		}
		defer r.unlock()
		// A failure, of a full disk for one, leaves the store as it was; the
		// next fetch tries again.
		_ = r.join(ctx)
	})
}

// untidy tells whether packs are to be joined: there are many, or they hold
// more than twice what they held when they were joined last.
func (r *remote) untidy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.set == nil || r.closed {
		return false
	}
	packs, disk := len(r.state.Packs), r.set.Disk()
	return packs >= r.store.options.Packs || packs > fewPacks && disk > 2*r.state.Base || r.state.Stale && packs > 1
}

// join copies everything that the tips need into one pack and drops the others.
// The caller has the turn.
func (r *remote) join(ctx context.Context) error {
	if !r.untidy() {
		return nil
	}
	r.mu.Lock()
	st, set, dir := r.state.clone(), r.set, r.dir
	set.Acquire()
	r.mu.Unlock()
	defer set.Release()

	var names []pack.ID
	seen := map[pack.ID]bool{}
	objects := r.read(set)
	for _, t := range st.Tips {
		want, err := pack.ParseID(t.Want)
		if err != nil {
			return err
		}
		more, err := objects.reachable(want, seen)
		if err != nil {
			return fmt.Errorf("join packs: %w", err)
		}
		names = append(names, more...)
	}
	joined, err := pack.Repack(ctx, set, names, dir, r.name(), r.store.serial.Add(1))
	if err != nil {
		return fmt.Errorf("join packs: %w", err)
	}
	return r.replace(joined, st.Packs)
}

// replace puts one pack into the place of others.
func (r *remote) replace(joined *pack.Pack, old []string) error {
	fresh := pack.NewSet(r.store.objects, r.limits(), joined)
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.state.clone()
	next.Packs, next.Base, next.Stale = []string{joined.Name}, joined.Disk(), false
	err := error(nil)
	if !r.closed {
		err = writeState(r.dir, next)
	}
	if r.closed || err != nil {
		fresh.Release()
		return errors.Join(err, pack.Remove(r.store.root, r.key+"/"+joined.Name))
	}
	r.set.Release()
	r.set, r.state = fresh, next
	for _, name := range old {
		if err := pack.Remove(r.dir, name); err != nil {
			return fmt.Errorf("remove %q: %w", name, err)
		}
	}
	return nil
}
