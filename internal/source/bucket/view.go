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
	// partial is set where there is a file of what fetches brought that failed since.
	partial bool

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

// file and partialFile are where the state is, and what fetches brought that failed.
func (v *view) file() string        { return viewPrefix + v.name }
func (v *view) partialFile() string { return partialPrefix + v.name }

// forgetLocked gives up all that the view keeps.
func (v *view) forgetLocked() {
	r := v.remote
	if v.current != nil {
		if v.current.users > 1 {
			r.asideLocked(v.current)
		}
		v.current.giveLocked()
		v.current = nil
	}
	if v.ignore != nil {
		r.usesLocked()
		e := *v.ignore
		v.ignore = nil
		r.dropLocked(e)
	}
	v.dropPartialLocked()
	v.forgotten = true
}

func (v *view) dropPartialLocked() {
	if v.partial {
		v.remote.dropFileLocked(v.partialFile(), func() { v.partial = false })
	}
}

// asideLocked gives a tree that readers use another file than that of its view.
func (r *remote) asideLocked(t *tree) {
	if r.dir == nil {
		return
	}
	name := r.incomingLocked()
	err := r.dir.Link(t.file, name)
	if err != nil { // not all file systems have links
		err = r.dir.Rename(t.file, name)
	}
	if err != nil {
		t.broken = true
	}
	t.file = name
}

// keep keeps what a fetch brought before it failed, instead of what earlier ones did. What
// cannot be kept is fetched again.
func (v *view) keep(entries []entry) {
	r := v.remote
	r.mu.Lock()
	dir, name := r.dir, r.incomingLocked()
	r.mu.Unlock()
	if dir == nil || len(entries) == 0 || writeStateFile(dir, name, "", entries, nil) != nil {
		r.drop(entries)
		entries = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir == nil {
		return
	}
	if v.forgotten || r.closed {
		for _, e := range entries {
			r.dropLocked(e)
		}
		_ = r.dir.Remove(name)
		return
	}
	r.usesLocked()
	v.dropPartialLocked()
	if len(entries) == 0 {
		_ = r.dir.Remove(name)
		return
	}
	if r.dir.Rename(name, v.partialFile()) != nil {
		for _, e := range entries {
			r.dropLocked(e)
		}
		return
	}
	v.partial = true
}

// setIgnore takes over a .sourceignore file; nil for none.
func (v *view) setIgnore(e *entry) error {
	r := v.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	if e != nil && v.forgotten {
		r.dropLocked(*e)
		return unfollowed()
	}
	before := v.ignore
	if before != nil {
		r.usesLocked()
	}
	v.ignore = e
	if before != nil {
		r.dropLocked(*before)
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

// publish makes the current tree of entries, on disk first, whose uses it takes over. It gives
// it to a reader.
func (v *view) publish(revision string, entries []entry, made *table) (*tree, error) {
	r := v.remote
	r.mu.Lock()
	dir, ignore := r.dir, v.ignore
	name := r.incomingLocked()
	r.mu.Unlock()
	if dir == nil {
		return nil, unfollowed()
	}
	if err := writeStateFile(dir, name, revision, entries, ignore); err != nil {
		return nil, errors.Join(err, r.discard(name))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || v.forgotten {
		_ = dir.Remove(name) // else it goes when the folder is opened next
		return nil, unfollowed()
	}
	r.usesLocked() // of what there was
	before := v.current
	if before != nil {
		r.asideLocked(before)
	}
	if err := dir.Rename(name, v.file()); err != nil {
		_ = dir.Remove(name)
		return nil, err
	}
	bytes := int64(0)
	for _, e := range entries {
		bytes += e.size
	}
	v.current = r.newTreeLocked(revision, v.file(), bytes, made)
	v.current.useLocked()
	if before != nil {
		before.giveLocked()
	}
	v.dropPartialLocked()
	return v.current, nil
}

// result shows a tree that the caller uses.
func (t *tree) result(known string) source.Result {
	return source.Result{
		Revision: t.revision, Unchanged: t.revision == known, Files: t,
		Release: sync.OnceFunc(t.release),
	}
}
