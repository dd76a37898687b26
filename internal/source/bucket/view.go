package bucket

import (
	"errors"
	"sync"

	"github.com/plumb-gitops/plumb/internal/source"
)

// view is what is kept of a bucket for a prefix and its patterns.
type view struct {
	remote *remote
	name   string
	// turn is held by a fetch. It is a channel so that waiting for it can end with a
	// context.
	turn chan struct{}

	// All below is guarded by the remote's mutex.

	// forgotten is set when nobody wants the view any more: nothing is kept for it.
	forgotten bool
	// current is what the last fetch brought; nil where there was none.
	current *tree
	// ignore is the .sourceignore file at the root; nil where there is none.
	ignore *entry
	// partial is what fetches brought that failed since.
	partial []entry

	// clock counts calls and fetches; asked is when the last fetch began that has
	// ended, with err.
	clock, asked uint64
	err          error
}

// stamp is the time of the view's clock.
func (v *view) stamp() uint64 {
	v.remote.mu.Lock()
	defer v.remote.mu.Unlock()
	v.clock++
	return v.clock
}

// since gives what a fetch found that began after a time, so that all who wait at the
// same moment share one listing, and nobody sees a state from before their call.
func (v *view) since(arrived uint64) (t *tree, err error, shared bool) { //nolint:revive // the error is a value that is shared
	r := v.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.asked <= arrived || v.err == nil && (v.current == nil || v.current.damagedLocked()) {
		return nil, nil, false
	}
	if v.err != nil {
		return nil, v.err, true
	}
	v.current.useLocked()
	return v.current, nil, true
}

// end says how a fetch ended, to be shared.
func (v *view) end(asked uint64, err error) {
	v.remote.mu.Lock()
	defer v.remote.mu.Unlock()
	v.asked, v.err = asked, err
}

// last gives what the last fetch brought, if it is all there.
func (v *view) last() *tree {
	v.remote.mu.Lock()
	defer v.remote.mu.Unlock()
	if v.current == nil || v.current.damagedLocked() {
		return nil
	}
	v.current.useLocked()
	return v.current
}

// at gives the current tree if it is of a revision.
func (v *view) at(revision string) *tree {
	t := v.last()
	if t != nil && t.revision != revision {
		t.release()
		return nil
	}
	return t
}

func (v *view) entriesLocked() []entry {
	var all []entry
	if v.current != nil {
		all = append(all, v.current.entries...)
	}
	if v.ignore != nil {
		all = append(all, *v.ignore)
	}
	return append(all, v.partial...)
}

// forgetLocked gives up all that the view keeps.
func (v *view) forgetLocked() {
	r := v.remote
	v.forgotten = true
	if v.current != nil {
		v.current.giveLocked()
		v.current = nil
	}
	if v.ignore != nil {
		r.dropLocked([]entry{*v.ignore})
		v.ignore = nil
	}
	r.dropLocked(v.partial)
	v.partial = nil
}

// keep keeps what a fetch brought before it failed, instead of what earlier ones did.
func (v *view) keep(entries []entry) {
	r := v.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.forgotten {
		r.dropLocked(entries)
		return
	}
	before := v.partial
	v.partial = entries
	r.dropLocked(before)
}

// setIgnore takes over a .sourceignore file; nil for none.
func (v *view) setIgnore(e *entry) error {
	r := v.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	if e != nil && v.forgotten {
		r.dropLocked([]entry{*e})
		return unfollowed()
	}
	before := v.ignore
	v.ignore = e
	if before != nil {
		r.dropLocked([]entry{*before})
	}
	return nil
}

// ignoreAt is the .sourceignore file if it is kept as it is listed.
func (v *view) ignoreAt(o object) *entry {
	v.remote.mu.Lock()
	defer v.remote.mu.Unlock()
	if v.ignore == nil || v.ignore.etag != o.etag || o.etag == "" || v.remote.damaged[v.ignore.sum] {
		return nil
	}
	return v.ignore
}

func unfollowed() error { return &fault{code: codeClosed, text: "the bucket is not followed any more"} }

// publish makes a tree the current one, on disk first. The caller keeps its own use of
// it.
func (v *view) publish(t *tree) error {
	r := v.remote
	r.mu.Lock()
	dir, ignore := r.dir, v.ignore
	name := r.incomingLocked()
	r.mu.Unlock()
	if dir == nil {
		return unfollowed()
	}
	if err := writeState(dir, name, t, ignore); err != nil {
		return errors.Join(err, r.discard(name))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || v.forgotten {
		_ = dir.Remove(name) // else it goes when the folder is opened next
		return unfollowed()
	}
	if err := dir.Rename(name, viewPrefix+v.name); err != nil {
		_ = dir.Remove(name)
		return err
	}
	before := v.current
	v.current = t
	t.users++
	if before != nil {
		before.giveLocked()
	}
	r.dropLocked(v.partial)
	v.partial = nil
	return nil
}

// result shows a tree that the caller uses.
func (t *tree) result(known string) source.Result {
	return source.Result{
		Revision: t.revision, Unchanged: t.revision == known, Files: t,
		Release: sync.OnceFunc(t.release),
	}
}
