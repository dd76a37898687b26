package source

import (
	"context"
	"sync"
	"time"
)

// WithTimeout is context.WithTimeout with a clock that can be stopped: while whoever has the
// context waits for the operator itself, by a Line, time does not pass. What it may take is
// for the remote to use up. It can be canceled at any time.
func WithTimeout(parent context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	t := &timed{Context: parent, left: timeout, since: time.Now()}
	t.done, t.close = context.WithCancel(context.WithoutCancel(parent))
	t.mu.Lock()
	t.timer = time.AfterFunc(timeout, t.expire)
	t.mu.Unlock()
	stop := context.AfterFunc(parent, func() { t.end(parent.Err()) })
	return t, func() {
		stop()
		t.end(context.Canceled)
	}
}

// timed is a context whose clock can be stopped.
type timed struct {
	// Context is the parent.
	context.Context
	// done ends when it does; close ends it.
	done  context.Context
	close context.CancelFunc

	mu sync.Mutex // guards all below
	// left is what was left at since, when the clock began to run.
	left  time.Duration
	since time.Time
	// stops is how many want the clock to stand.
	stops int
	timer *time.Timer
	err   error
}

// timedKey is where a context has the timed that it comes from.
type timedKey struct{}

// Deadline is the moment as it looks now; while the clock stands, it moves.
func (t *timed) Deadline() (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := t.since
	if t.stops > 0 {
		from = time.Now()
	}
	ends := from.Add(t.left)
	if other, ok := t.Context.Deadline(); ok && other.Before(ends) {
		return other, true
	}
	return ends, true
}

// Done is closed at the end.
func (t *timed) Done() <-chan struct{} { return t.done.Done() }

// AfterFunc is what the standard library looks for, so as to need no goroutine for a child.
func (t *timed) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(t.done, f) }

// Err says why it ended.
func (t *timed) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Value gives the timed itself, or what the parent has.
func (t *timed) Value(key any) any {
	if key == (timedKey{}) {
		return t
	}
	return t.Context.Value(key)
}

func (t *timed) expire() {
	t.mu.Lock()
	stands := t.stops > 0
	t.mu.Unlock()
	if !stands {
		t.end(context.DeadlineExceeded)
	}
}

func (t *timed) end(err error) {
	t.mu.Lock()
	if t.err == nil {
		t.err = err
	}
	t.timer.Stop()
	t.mu.Unlock()
	t.close()
}

// stop has the clock stand until run is called as often.
func (t *timed) stop() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stops++; t.stops == 1 {
		t.timer.Stop()
		t.left -= time.Since(t.since)
	}
}

func (t *timed) run() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stops--; t.stops == 0 && t.err == nil {
		t.since = time.Now()
		t.timer.Reset(max(t.left, 0))
	}
}

// Line is where those stand who want the same, such as to change one repository, one after
// another. While the first one waits for the operator itself, such as for its turn to index
// a pack, the clocks of all in the line stand. The time that the first one gives to the
// remote counts for all. Its zero value is empty.
type Line struct {
	mu sync.Mutex
	// stopped is how many who are first wait, and waiting who stands behind them; guarded
	// by mu.
	stopped int
	waiting map[*timed]int
}

// Wait puts somebody into the line, until leave is called.
func (l *Line) Wait(ctx context.Context) (leave func()) {
	t, _ := ctx.Value(timedKey{}).(*timed)
	if t == nil {
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = map[*timed]int{}
	}
	if l.waiting[t]++; l.waiting[t] == 1 && l.stopped > 0 {
		t.stop()
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.waiting[t]--; l.waiting[t] > 0 {
			return
		}
		delete(l.waiting, t)
		if l.stopped > 0 {
			t.run()
		}
	})
}

// Stop stops the clock of who is first, and of all in the line, until resume is called.
func (l *Line) Stop(ctx context.Context) (resume func()) {
	t, _ := ctx.Value(timedKey{}).(*timed)
	t.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped++; l.stopped == 1 {
		for other := range l.waiting {
			other.stop()
		}
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.stopped--; l.stopped == 0 {
			for other := range l.waiting {
				other.run()
			}
		}
		t.run()
	})
}
