package bucket

import (
	"context"
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
	// partial is what fetches brought that failed since; nil for nothing.
	partial *kept

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
	v.remote.mu.Lock()
	asked, err := v.asked, v.err
	v.remote.mu.Unlock()
	if asked <= arrived {
		return nil, nil, false
	}
	if err != nil {
		return nil, err, true
	}
	t = v.last()
	return t, nil, t != nil
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
	t := v.current
	if t == nil {
		v.remote.mu.Unlock()
		return nil
	}
	t.useLocked()
	v.remote.mu.Unlock()
	if t.damaged() {
		t.release()
		return nil
	}
	return t
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

// forgetLocked gives up all that the view keeps. Others may use its files' names from then on.
func (v *view) forgetLocked() {
	r := v.remote
	if v.current != nil {
		r.asideLocked(&v.current.kept, false)
	}
	r.leaveLocked(left{tree: v.current, ignore: v.ignore, partial: v.takePartialLocked()})
	v.current, v.ignore = nil, nil
	v.forgotten = true
}

// asideLocked gives a state another file than that of its view, which may stay for now. One
// whose file cannot be renamed is not found, and so nothing is removed.
func (r *remote) asideLocked(k *kept, stays bool) {
	if r.dir == nil {
		return
	}
	name := r.incomingLocked()
	if !stays || r.dir.Link(k.file, name) != nil { // not all file systems have links
		_ = r.dir.Rename(k.file, name)
	}
	k.file = name
}

// takePartialLocked takes what fetches brought that failed, to be given up. Nobody finds it by
// the view's name any more.
func (v *view) takePartialLocked() *kept {
	p := v.partial
	if p != nil {
		v.remote.asideLocked(p, false)
		v.partial = nil
	}
	return p
}

// keep keeps what a fetch brought before it failed, instead of what earlier ones did. What
// cannot be kept, for which there may be no room, is fetched again.
func (v *view) keep(ctx context.Context, entries []entry) {
	r := v.remote
	r.mu.Lock()
	dir, name, nothing := r.dir, r.incomingLocked(), len(entries) == 0 && v.partial == nil
	r.mu.Unlock()
	if nothing {
		return // as most looks at a bucket end: no state is read for that
	}
	written, bytes := false, int64(0)
	if dir != nil && len(entries) > 0 {
		size, err := writeStateFile(ctx, dir, name, "", entries, nil)
		written, bytes = err == nil, diskSize(entries, size)
	}
	defer r.change()()
	r.count()
	r.mu.Lock()
	before := v.takePartialLocked()
	r.mu.Unlock()
	if before != nil {
		r.dropState(before, func() {})
	}
	r.mu.Lock()
	if written && r.dir != nil && !r.closed && !v.forgotten && r.dir.Rename(name, v.partialFile()) == nil {
		v.partial = &kept{file: v.partialFile()}
		entries = nil
		if v.current != nil {
			bytes += v.current.bytes
		}
		// Nobody else is charged for it, nor is it free.
		r.store.folder.Ask(ctx, r.key, v.name, bytes)
	} else if dir != nil {
		_ = dir.Remove(name) // else it goes when the folder is opened next
	}
	r.mu.Unlock()
	for _, e := range entries {
		r.drop(e)
	}
}

// setIgnore takes over a .sourceignore file; nil for none.
func (v *view) setIgnore(e *entry) error {
	r := v.remote
	r.mu.Lock()
	same := v.ignore == nil && e == nil
	r.mu.Unlock()
	if same {
		return nil
	}
	defer r.change()()
	r.count()
	r.mu.Lock()
	before, forgotten := v.ignore, v.forgotten
	if forgotten {
		before = e
	} else {
		v.ignore = e
	}
	r.mu.Unlock()
	if before != nil {
		r.drop(*before)
	}
	if forgotten && e != nil {
		return unfollowed()
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
func (v *view) publish(ctx context.Context, revision string, entries []entry, made *table) (*tree, error) {
	r := v.remote
	r.mu.Lock()
	dir, ignore := r.dir, v.ignore
	name := r.incomingLocked()
	r.mu.Unlock()
	if dir == nil {
		return nil, unfollowed()
	}
	size, err := writeStateFile(ctx, dir, name, revision, entries, ignore)
	if err != nil {
		return nil, errors.Join(err, r.discard(name))
	}
	defer r.change()()
	r.count() // of what there was
	r.mu.Lock()
	if r.closed || v.forgotten {
		r.mu.Unlock()
		_ = dir.Remove(name) // else it goes when the folder is opened next
		return nil, unfollowed()
	}
	before := v.current
	if before != nil {
		r.asideLocked(&before.kept, true)
	}
	if err := dir.Rename(name, v.file()); err != nil {
		r.mu.Unlock()
		_ = dir.Remove(name)
		return nil, err
	}
	t := r.newTreeLocked(revision, v.file(), diskSize(entries, size), made)
	t.useLocked()
	v.current = t
	partial := v.takePartialLocked()
	r.mu.Unlock()
	if before != nil {
		r.give(before)
	}
	if partial != nil {
		r.dropState(partial, func() {})
	}
	return t, nil
}

// result shows a tree that the caller uses.
func (t *tree) result(known string) source.Result {
	return source.Result{
		Revision: t.revision, Unchanged: t.revision == known, Files: t,
		Release: sync.OnceFunc(t.release),
	}
}
