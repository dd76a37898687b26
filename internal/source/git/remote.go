package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// remote is the store of one repository as one credential sees it.
type remote struct {
	store  *Store
	key    string
	client *wire.Client
	lists  *listings

	// turn is had by a fetch that changes the store, or it goes beside the one that has it.
	turn turn
	// one lets fetches of the same thing wait for each other, however long that takes.
	one efforts
	// whole is held while packs are joined, and where a fetch begins that takes for granted
	// what no tip promises: files that older commits left behind.
	whole gate
	// line is who waits for any of these: they have no time to lose for the slot that the one
	// who is in waits for.
	line source.Line
	// broken is set when a reader finds damage; the next fetch begins anew.
	broken atomic.Bool
	// joining is set while packs are joined.
	joining atomic.Bool

	mu     sync.Mutex // guards all below; held only for a moment, or while the store is opened
	dir    *os.Root   // nil until the store was opened
	set    *pack.Set  // nil until the store was opened, and when it was closed
	state  state
	closed bool
	// bases are those of the fetches under way.
	bases map[*base]bool
	// refusals are the revisions that were not taken, by tip.
	refusals map[string]refused
}

func newRemote(s *Store, key string, client *wire.Client) *remote {
	return &remote{store: s, key: key, client: client, turn: turn{gate: newGate(), patience: s.options.Patience}, whole: newGate(), bases: map[*base]bool{}, lists: newListings(s.options.Now, client.Refs, s.options.News), refusals: map[string]refused{}}
}

// enter waits at a gate.
func (r *remote) enter(ctx context.Context, g gate) error {
	defer r.line.Wait(ctx)()
	return g.lock(ctx)
}

// alone waits until no other effort is at something.
func (r *remote) alone(e *effort, name string) (leave func(), err error) {
	defer r.line.Wait(e.ctx)()
	return r.one.enter(e, name)
}

// begins waits for the turn.
func (r *remote) begins(e *effort) (leave func(), err error) {
	defer r.line.Wait(e.ctx)()
	return r.turn.take(e.ctx, r.one.spanOf(e))
}

// acquire gives the objects of a tip, if the store has it. The caller releases
// the Set.
func (r *remote) acquire(key string) (tip, *objects, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.state.Tips[key]
	if !ok || r.set == nil || r.closed || r.broken.Load() {
		return tip{}, nil, false
	}
	r.set.Acquire()
	return t, r.read(r.set), true
}

// read gives decoded access to a Set.
func (r *remote) read(set *pack.Set) *objects {
	return &objects{set: set, owner: r.key, dirs: r.store.dirs, extents: r.store.extents, damaged: func() { r.broken.Store(true) }}
}

// open reads the state from disk once. What cannot be read is dropped.
//
// The mutex is held all the time: once closed, another remote may have the folder, of which
// nothing may be read nor removed here.
func (r *remote) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return unfollowed()
	}
	if r.set != nil && !r.broken.Load() {
		return nil
	}
	if r.set != nil {
		if err := r.drop(); err != nil {
			return err
		}
	}
	root := r.store.folder.Root()
	if err := root.Mkdir(r.key, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := root.OpenRoot(r.key)
	if err != nil {
		return err
	}
	st, packs := r.load(dir)
	if err := clean(dir, st); err != nil {
		pack.NewSet(nil, pack.Limits{}, packs...).Release()
		return errors.Join(err, dir.Close())
	}
	r.dir, r.state = dir, st
	r.set = pack.NewSet(r.store.objects, r.limits(), packs...)
	r.broken.Store(false)
	return nil
}

func (r *remote) limits() pack.Limits {
	o := r.store.options
	// What comes in may be more than a revision: the branch that a commit is on, for one.
	made := saturated(o.TreeBytes, o.TreeBytes)
	return pack.Limits{Bytes: o.PackBytes, Made: made, Objects: o.PackObjects, Object: o.FileBytes, Slots: r.store.slots, Waits: r.line.Stop}
}

// load opens what the state file names. A store with any fault is as good as
// an empty one: everything in it can be fetched again.
func (r *remote) load(dir *os.Root) (state, []*pack.Pack) {
	st, err := readState(dir)
	if err != nil {
		return newState(), nil
	}
	var packs []*pack.Pack
	for _, name := range st.Packs {
		p, err := pack.Open(dir, name, r.store.serial.Add(1))
		if err != nil {
			pack.NewSet(nil, pack.Limits{}, packs...).Release()
			return newState(), nil
		}
		packs = append(packs, p)
	}
	return st, packs
}

// drop forgets everything, on disk too. Readers keep what they have open. The caller has
// the mutex.
func (r *remote) drop() error {
	r.set.Release()
	_ = r.dir.Close()
	r.set, r.dir, r.state = nil, nil, state{}
	return r.store.folder.Root().RemoveAll(r.key)
}

// close lets go of everything in memory. A fetch that is under way finds its folder closed.
func (r *remote) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.set != nil {
		r.set.Release()
		r.set = nil
		_ = r.dir.Close()
	}
	r.client.Close()
}

// add takes packs, which the caller holds in a Set, and a tip into the store. Where it
// fails the files of the packs are gone. The caller has the turn of the tip.
func (r *remote) add(b *base, packs []*pack.Pack, key string, t tip) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	// The folder is gone, with all its files, in both cases.
	switch {
	case r.closed:
		return unfollowed()
	case r.dir != b.dir:
		return &wire.Error{Code: wire.CodeCanceled, Text: "what was stored of the repository is damaged, and fetched again"}
	}
	if b.lost {
		return errors.Join(&wire.Error{Code: wire.CodeTimeout, Text: "it took so long that packs had to be joined without it; it is fetched again"}, remove(b.dir, packs))
	}
	next := r.state.clone()
	next.Tips[key] = t
	for _, p := range packs {
		next.Packs = append(next.Packs, p.Name)
	}
	set := r.set.With(packs...)
	if next.Base == 0 && len(packs) > 0 {
		next.Base = set.Disk()
	}
	if err := writeState(r.dir, next); err != nil {
		set.Release()
		return errors.Join(err, remove(r.dir, packs))
	}
	r.set.Release()
	r.set, r.state = set, next
	return nil
}

// remove deletes the files of packs.
func remove(dir *os.Root, packs []*pack.Pack) error {
	var errs []error
	for _, p := range packs {
		errs = append(errs, pack.Remove(dir, p.Name))
	}
	return errors.Join(errs...)
}

// name gives the name of the next pack.
func (r *remote) name() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Next++
	return fmt.Sprintf("pack-%06d", r.state.Next)
}

// children gives the submodules that a tip was shown with; false where the store is not
// open yet.
func (r *remote) children(tip string) ([]child, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Tips[tip].Children, r.set != nil
}

// setChildren remembers the submodules of a tip, and tells whether they are others than
// before. Where they are only a part, those that are remembered stay, as far as there is
// room: the next fetch may get further.
func (r *remote) setChildren(key string, children []child, part bool) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.state.Tips[key]
	if !ok || r.closed {
		return false, nil
	}
	if part {
		for _, old := range t.Children {
			if len(children) < mostSubmodules && !slices.Contains(children, old) {
				children = append(children, old)
			}
		}
	}
	if slices.Equal(t.Children, children) {
		return false, nil
	}
	next := r.state.clone()
	t.Children = children
	next.Tips[key] = t
	if err := writeState(r.dir, next); err != nil {
		return false, err
	}
	r.state = next
	return true, nil
}

// retain forgets tips. Their objects go when packs are joined next.
func (r *remote) retain(tips map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.refusals, func(key string, _ refused) bool { return !tips[key] })
	next := r.state.clone()
	maps.DeleteFunc(next.Tips, func(key string, _ tip) bool { return !tips[key] })
	if len(next.Tips) == len(r.state.Tips) || r.dir == nil {
		return
	}
	for key, gone := range r.state.Tips {
		next.Stale = next.Stale || !tips[key] && !next.needs(gone)
	}
	if writeState(r.dir, next) == nil {
		r.state = next
	}
}
