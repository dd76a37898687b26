package bucket

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// kept is a state on disk.
type kept struct {
	file string // guarded by the remote's mutex
}

// left is what a view or a reader has given up: a use of a tree, a .sourceignore file, and what
// fetches brought that failed.
type left struct {
	tree    *tree
	ignore  *entry
	partial *kept
}

// change waits until nobody else changes who uses what. What it gives ends the change, and
// forgets what is counted where no fetch needs it.
func (r *remote) change() (end func()) {
	r.counting <- struct{}{}
	return r.changed
}

func (r *remote) changed() {
	r.mu.Lock()
	if r.fetching == 0 {
		r.uses = nil
	}
	r.mu.Unlock()
	<-r.counting
}

// fetchBegins and fetchEnds say when contents may have uses that no file names.
func (r *remote) fetchBegins() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching++
}

func (r *remote) fetchEnds() {
	r.mu.Lock()
	r.fetching--
	last := r.fetching == 0
	r.mu.Unlock()
	if !last {
		return
	}
	select {
	case r.counting <- struct{}{}:
		r.changed()
	default:
		go func() { r.change()() }() // who only looked does not wait
	}
}

// count counts who needs which content, unless that is known: it is counted when something
// is about to change, and forgotten when nothing does, for it takes much memory. The caller
// has the change.
func (r *remote) count() map[sum]int {
	if r.uses != nil {
		return r.uses
	}
	uses, uncounted := map[sum]int{}, false
	count := func(e entry) error {
		uses[e.sum]++
		return nil
	}
	r.mu.Lock()
	var partial []*kept
	add := func(ignore *entry, p *kept) {
		if ignore != nil {
			uses[ignore.sum]++
		}
		if p != nil {
			partial = append(partial, p)
		}
	}
	for _, v := range r.views {
		add(v.ignore, v.partial)
	}
	for _, l := range r.leaving {
		add(l.ignore, l.partial)
	}
	// None of them goes meanwhile: that would be a change.
	trees := maps.Clone(r.trees)
	r.mu.Unlock()
	for t := range trees {
		if _, err := r.scan(&t.kept, count); err != nil {
			r.mu.Lock()
			t.broken, uncounted = true, true
			r.mu.Unlock()
		}
	}
	for _, p := range partial {
		if _, err := r.scan(p, count); err != nil {
			uncounted = true
		}
	}
	r.uses, r.uncounted = uses, uncounted
	return uses
}

// scan reads a state.
func (r *remote) scan(k *kept, each func(entry) error) (state, error) {
	file, err := r.openState(k)
	if err != nil {
		return state{}, err
	}
	defer file.Close()
	return scan(file, each)
}

// openState opens a state, which may get another name as soon as it is open.
func (r *remote) openState(k *kept) (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil {
		return nil, fs.ErrClosed
	}
	return r.dir.Open(k.file)
}

// drop gives a content up for one user. The caller has the change.
func (r *remote) drop(e entry) {
	uses := r.count()
	if uses[e.sum]--; uses[e.sum] > 0 {
		return
	}
	delete(uses, e.sum)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.damaged, e.sum)
	if r.dir != nil && !r.closed && !r.uncounted {
		_ = r.dir.Remove(e.sum.file()) // what is left is swept when the folder is opened next
	}
}

// dropAll gives up contents that a fetch has brought.
func (r *remote) dropAll(entries []entry) {
	defer r.change()()
	for _, e := range entries {
		r.drop(e)
	}
}

// dropState gives up what a state names, and removes it; gone forgets whose it is. The caller
// has the change.
func (r *remote) dropState(k *kept, gone func()) {
	r.count() // with the state's own
	_, _ = r.scan(k, func(e entry) error {
		r.drop(e)
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	gone()
	if r.dir != nil && !r.closed {
		_ = r.dir.Remove(k.file) // else it goes when the folder is opened next
	}
}

// give counts a user of a tree less. What nobody uses any more is removed. The caller has the
// change.
func (r *remote) give(t *tree) {
	r.mu.Lock()
	t.users--
	used := t.users > 0
	r.mu.Unlock()
	if used {
		return
	}
	t.paged.Forget()
	r.dropState(&t.kept, func() { delete(r.trees, t) })
}

// leaveLocked gives up without waiting, what is removed a little later.
func (r *remote) leaveLocked(l left) {
	if l != (left{}) {
		r.leaving = append(r.leaving, l)
	}
}

// clearLocked begins to remove what is leaving, unless that is under way.
func (r *remote) clearLocked() {
	if r.clearing == nil && len(r.leaving) > 0 && !r.closed {
		r.clearing = make(chan struct{})
		go r.clear()
	}
}

// clear removes what is leaving.
func (r *remote) clear() {
	for {
		r.mu.Lock()
		if len(r.leaving) == 0 || r.closed {
			close(r.clearing)
			r.clearing = nil
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		r.clearOnce()
	}
}

func (r *remote) clearOnce() {
	defer r.change()()
	r.count()
	r.mu.Lock()
	leaving := r.leaving
	r.leaving = nil // they are counted, and nothing is counted again before this ends
	r.mu.Unlock()
	for _, l := range leaving {
		if l.ignore != nil {
			r.drop(*l.ignore)
		}
		if l.partial != nil {
			r.dropState(l.partial, func() {})
		}
		if l.tree != nil {
			r.give(l.tree)
		}
	}
}

// errEnough ends a scan.
var errEnough = errors.New("nothing is missing")

// reuse gives the contents that are there of objects, which are in the order of their keys,
// each for one use, and the objects of which there is none. It looks at what the view has
// first.
func (v *view) reuse(ctx context.Context, objects []object) (entries []entry, missing []object, err error) {
	r := v.remote
	if err := waitFor(ctx, r.counting); err != nil {
		return nil, nil, err
	}
	defer r.changed()
	uses, found := r.count(), make([]bool, len(objects))
	r.mu.Lock()
	damaged := maps.Clone(r.damaged)
	r.mu.Unlock()
	take := func(e entry) error {
		i, ok := slices.BinarySearchFunc(objects, e.key, func(o object, key string) int { return strings.Compare(o.key, key) })
		if !ok || found[i] || e.etag == "" || objects[i].etag != e.etag || uses[e.sum] == 0 || damaged[e.sum] {
			return nil
		}
		uses[e.sum]++
		found[i] = true
		entries = append(entries, entry{key: objects[i].key, etag: objects[i].etag, size: e.size, sum: e.sum})
		if len(entries) == len(objects) {
			return errEnough
		}
		return nil
	}
	for _, other := range r.viewsFrom(v) {
		if len(entries) == len(objects) || ctx.Err() != nil {
			break
		}
		r.mu.Lock()
		current, ignore, partial := other.current, other.ignore, other.partial
		r.mu.Unlock()
		// What cannot be read is fetched again.
		if ignore != nil {
			_ = take(*ignore)
		}
		if current != nil {
			_, _ = r.scan(&current.kept, take)
		}
		if partial != nil {
			_, _ = r.scan(partial, take)
		}
	}
	for i, o := range objects {
		if !found[i] {
			missing = append(missing, o)
		}
	}
	return entries, missing, nil
}

// viewsFrom gives all views, one first.
func (r *remote) viewsFrom(first *view) []*view {
	r.mu.Lock()
	defer r.mu.Unlock()
	views := []*view{first}
	for _, v := range r.views {
		if v != first {
			views = append(views, v)
		}
	}
	slices.SortFunc(views[1:], func(a, b *view) int { return strings.Compare(a.name, b.name) })
	return views
}
