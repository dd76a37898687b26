package auth

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// pause is how long a failed login is not tried again.
	pause = 10 * time.Second
	// spare is what a token must have left to be used after its renewal failed.
	spare = time.Minute
	// shortest is the life of a token that does not say when it ends.
	shortest = 5 * time.Minute
)

// cache keeps values until four fifths of their life are over. It is bounded: where there
// are more than most, those go first that were used longest ago. Callers that ask for the
// same at the same time share one making, which goes on when one of them leaves.
type cache struct {
	most  int
	life  time.Duration
	clock clock.PassiveClock
	stop  context.CancelFunc
	under context.Context

	running sync.WaitGroup
	mu      sync.Mutex // guards all below
	entries map[string]*list.Element
	// order has the entries, that used last first.
	order *list.List
}

// entry is one value, or the making of it.
type entry struct {
	key string
	// ready is closed when the making has ended; the rest is not read before.
	ready chan struct{}
	value any
	err   error
	// until is for how long it is used, and expires when it ends.
	until, expires time.Time
}

func newCache(most int, life time.Duration, c clock.PassiveClock) *cache {
	under, stop := context.WithCancel(context.Background())
	return &cache{most: most, life: life, clock: c, under: under, stop: stop, entries: map[string]*list.Element{}, order: list.New()}
}

// close ends what is being made. Nothing is made afterwards.
func (c *cache) close() {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	c.running.Wait()
}

// get gives the value for a key and makes it where it is not there or not fresh.
func (c *cache) get(ctx context.Context, key string, fill func(context.Context) (value any, expires time.Time, err error)) (any, error) {
	c.mu.Lock()
	if c.under.Err() != nil {
		c.mu.Unlock()
		return nil, context.Canceled
	}
	var before *entry
	e := c.find(key)
	if e != nil && e.done() && !c.fresh(e.until) {
		before, e = e, nil
	}
	if e == nil {
		e = &entry{key: key, ready: make(chan struct{})}
		c.put(e)
		c.running.Go(func() { c.fill(context.WithoutCancel(ctx), e, before, fill) })
	}
	c.mu.Unlock()
	select {
	case <-e.ready:
		return e.value, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fill makes a value. Where that fails, the one before is used as long as it can be.
func (c *cache) fill(ctx context.Context, e, before *entry, fill func(context.Context) (any, time.Time, error)) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(c.under, cancel)()
	value, expires, err := fill(ctx)
	now := c.clock.Now()
	e.value, e.err, e.expires = value, err, expires
	switch {
	case err == nil:
		e.until = now.Add(c.lifeOf(expires, now))
	case before != nil && before.err == nil && !before.expires.IsZero() && now.Add(spare).Before(before.expires):
		e.value, e.err, e.expires, e.until = before.value, nil, before.expires, now.Add(pause)
	default:
		e.until = now.Add(pause)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(e.ready)
	c.shrink()
}

// lifeOf is for how long a value is used that ends at a time.
func (c *cache) lifeOf(expires, now time.Time) time.Duration {
	life := min(c.life, shortest)
	if !expires.IsZero() {
		life = min(c.life, expires.Sub(now)*4/5)
	}
	return life
}

// fresh tells whether a time is to come, by the clock and, should it have been set or the
// machine have slept, by the calendar.
func (c *cache) fresh(until time.Time) bool {
	now := c.clock.Now()
	return now.Before(until) && now.Round(0).Before(until.Round(0))
}

func (e *entry) done() bool {
	select {
	case <-e.ready:
		return true
	default:
		return false
	}
}

// find is called with mu held, as are put and shrink.
func (c *cache) find(key string) *entry {
	at := c.entries[key]
	if at == nil {
		return nil
	}
	c.order.MoveToFront(at)
	return at.Value.(*entry)
}

func (c *cache) put(e *entry) {
	if at := c.entries[e.key]; at != nil {
		c.order.Remove(at)
	}
	c.entries[e.key] = c.order.PushFront(e)
	c.shrink()
}

// shrink removes what is too much. What is being made stays: somebody waits for it.
func (c *cache) shrink() {
	for at := c.order.Back(); at != nil && c.order.Len() > c.most; {
		e, next := at.Value.(*entry), at.Prev()
		if e.done() {
			c.order.Remove(at)
			delete(c.entries, e.key)
		}
		at = next
	}
}

// keyOf tells texts apart without showing them.
func keyOf(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s\n", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
