package pack

import (
	"context"
	"sync"
	"time"
)

// Slots bound how many packs are indexed or joined at once: each may take far more memory
// than it has bytes. Small packs have slots of their own, so that a commit does not wait
// for whole repositories.
//
// A slot is for a while only. Whoever takes longer, be it by malice, goes on without one:
// nobody can keep the others from working. Nil Slots are no bound.
type Slots struct {
	large, small chan struct{}
	// slice is how long a slot is held at most.
	slice time.Duration
}

const (
	largeSlots = 2
	smallSlots = 4
	// SlotSlice is how long a slot is held at most.
	SlotSlice = 10 * time.Second
	// smallBytes and smallObjects are the most of a pack that is small.
	smallBytes   = 1 << 20
	smallObjects = 2000
)

// NewSlots makes two slots for large packs, and four for small ones, each for so long.
func NewSlots(slice time.Duration) *Slots {
	return &Slots{large: make(chan struct{}, largeSlots), small: make(chan struct{}, smallSlots), slice: slice}
}

// Take waits for a slot, for a pack of so many bytes and objects, until the context ends.
// Nobody waits for anything else while holding one, least of all for a server. Release
// gives the slot back, and may be called again.
func (s *Slots) Take(ctx context.Context, bytes int64, objects int) (release func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	slots := s.large
	if bytes <= smallBytes && objects <= smallObjects {
		slots = s.small
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	give := sync.OnceFunc(func() { <-slots })
	timer := time.AfterFunc(s.slice, give)
	return func() {
		timer.Stop()
		give()
	}, nil
}

// slot waits for a slot.
func (l Limits) slot(ctx context.Context, bytes int64, objects int) (release func(), err error) {
	if l.Waits != nil {
		defer l.Waits(ctx)()
	}
	return l.Slots.Take(ctx, bytes, objects)
}
