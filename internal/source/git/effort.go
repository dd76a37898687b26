package git

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// effort is one fetch that changes a store, beside the one who asked for it. Those who follow
// a repository need not know or trust each other, and where they want the same, one fetches
// and the others wait. It would be easy to keep them from ever having it: by asking again and
// again with a little less time than a fetch takes. So an effort goes on when its asker has
// left, as long as others wait for it; but not for longer than one of them would have tried
// himself, since it may have met a server that hangs.
type effort struct {
	ctx   context.Context //nolint:containedctx // that of the work, which outlives its asker's
	end   context.CancelFunc
	began time.Time

	// What follows is guarded by efforts.mu.

	asker context.Context //nolint:containedctx // nil where the asker has left
	// in are the doors that it is behind, and waits is set while it waits before one.
	in    []*door
	waits bool
	// check ends it where nobody would try for longer; nil while its asker is there.
	check *time.Timer
}

// efforts have doors with names, behind each of which there is one at a time.
type efforts struct {
	mu    sync.Mutex
	doors map[string]*door
}

// door is one that somebody is behind.
type door struct {
	name   string
	holder *effort
	queue  []*entrant
}

// entrant is who waits before a door, until it is opened for him.
type entrant struct {
	effort *effort
	opened chan struct{}
}

// endless is the time of somebody whose context has no deadline.
const endless = 24 * time.Hour

// begin makes an effort for an asker. It is to be finished.
func (g *efforts) begin(asker, life context.Context) *effort {
	e := &effort{began: time.Now(), asker: asker}
	ctx, end := context.WithCancel(context.WithoutCancel(asker))
	stop := context.AfterFunc(life, end)
	e.ctx, e.end = ctx, func() { stop(); end() }
	return e
}

// finish ends an effort that has left all doors.
func (g *efforts) finish(e *effort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.check != nil {
		e.check.Stop()
	}
	e.end()
}

// quit has the asker leave an effort. It tells whether it is over by that, and whether it
// waited for another one.
func (g *efforts) quit(e *effort) (over, waits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.asker = nil
	g.judge(e)
	return e.ctx.Err() != nil, e.waits
}

// judge ends an effort that nobody would go on with. The caller has the mutex.
func (g *efforts) judge(e *effort) {
	if e.asker != nil || e.ctx.Err() != nil {
		return
	}
	left := g.span(e) - time.Since(e.began)
	switch {
	case left <= 0:
		e.end()
	case e.check == nil:
		e.check = time.AfterFunc(left, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.judge(e)
		})
	default:
		e.check.Reset(left)
	}
}

// span is the most time that its asker, or one of those who wait for it, has given to his own
// effort. The caller has the mutex.
func (g *efforts) span(e *effort) time.Duration {
	most := time.Duration(0)
	if e.asker != nil {
		most = endless
		if at, ok := e.asker.Deadline(); ok {
			most = min(most, at.Sub(e.began))
		}
	}
	for _, d := range e.in {
		for _, w := range d.queue {
			most = max(most, g.span(w.effort))
		}
	}
	return most
}

func (g *efforts) spanOf(e *effort) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.span(e)
}

// enter waits until nobody else is behind a door. Who waits for several goes through them in
// the same order as all others. It is left by calling leave.
func (g *efforts) enter(e *effort, name string) (leave func(), err error) {
	g.mu.Lock()
	d := g.doors[name]
	if d == nil {
		if g.doors == nil {
			g.doors = map[string]*door{}
		}
		d = &door{name: name, holder: e}
		g.doors[name] = d
		e.in = append(e.in, d)
		g.mu.Unlock()
		return func() { g.leave(d) }, nil
	}
	w := &entrant{effort: e, opened: make(chan struct{})}
	d.queue = append(d.queue, w)
	e.waits = true
	g.mu.Unlock()
	select {
	case <-w.opened:
		return func() { g.leave(d) }, nil
	case <-e.ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if d.holder == e {
		g.pass(d) // it was opened just now
	} else {
		d.queue = slices.DeleteFunc(d.queue, func(other *entrant) bool { return other == w })
		g.judge(d.holder)
	}
	return nil, waited(e.ctx.Err())
}

func (g *efforts) leave(d *door) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass(d)
}

// pass opens a door for the next one. The caller has the mutex.
func (g *efforts) pass(d *door) {
	d.holder.in = slices.DeleteFunc(d.holder.in, func(other *door) bool { return other == d })
	if len(d.queue) == 0 {
		delete(g.doors, d.name)
		return
	}
	next := d.queue[0]
	d.queue = d.queue[1:]
	d.holder = next.effort
	d.holder.in = append(d.holder.in, d)
	d.holder.waits = false
	close(next.opened)
}

// brought is how an effort ended.
type brought struct {
	tip     tip
	objects *objects
	err     error
	// panicked is what it panicked with, which is for the asker to tell.
	panicked string
}

// endeavour has an effort made, and waits for it until the context ends. The caller releases
// the Set of the objects.
func (r *remote) endeavour(ctx context.Context, work func(*effort) (tip, *objects, error)) (tip, *objects, error) {
	if ctx.Err() != nil {
		return tip{}, nil, endOf(ctx.Err())
	}
	e := r.one.begin(ctx, r.store.life)
	done, left := make(chan brought), make(chan struct{})
	begins := r.store.goes(func() {
		defer r.one.finish(e)
		b := attempt(e, work)
		select {
		case done <- b:
		case <-left:
			if b.objects != nil {
				b.objects.set.Release()
			}
		}
	})
	if !begins {
		r.one.finish(e)
		return tip{}, nil, shut()
	}
	select {
	case b := <-done:
		return b.told()
	case <-ctx.Done():
	}
	over, waits := r.one.quit(e)
	err := endOf(ctx.Err())
	if waits {
		err = waited(ctx.Err())
	}
	if !over {
		close(left)
		return tip{}, nil, err
	}
	// It is for nobody any more: nothing of it goes on when this returns.
	if b := <-done; b.err == nil || b.panicked != "" {
		return b.told()
	}
	return tip{}, nil, err
}

func attempt(e *effort, work func(*effort) (tip, *objects, error)) (b brought) {
	defer func() {
		if p := recover(); p != nil {
			b = brought{panicked: fmt.Sprintf("%v\n%s", p, debug.Stack())}
		}
	}()
	b.tip, b.objects, b.err = work(e)
	return b
}

func (b brought) told() (tip, *objects, error) {
	if b.panicked != "" {
		panic(b.panicked)
	}
	return b.tip, b.objects, b.err
}
