package pack

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Slots bound how many packs are indexed or joined at once, and what that holds in memory:
// a pack of a few bytes may stand for objects of any size.
//
// A pack begins with a slot that is worth little memory and little work, which nearly all
// packs are content with: what it holds is what counts, not how long it is. Where that does
// not do, it begins again with the slot for vast ones, of which there is one and which is
// held for a while only. So neither those that hold much nor those that take long keep
// anybody else waiting. Small packs have slots of their own, so that a commit does not wait
// for whole repositories.
//
// A slot is held until the work that it was taken for has ended; nothing goes on without
// one. Nobody waits for a server while holding one.
type Slots struct {
	large, small, vast, joins chan struct{}
	// slice and joinSlice are how long the slot for vast packs and that for joins are held.
	slice, joinSlice time.Duration
}

const (
	largeSlots = 2
	smallSlots = 4
	slotSlice  = 2 * time.Minute
	joinSlice  = 10 * time.Minute
	// smallBytes and smallObjects are the most of a pack that is small.
	smallBytes   = 1 << 20
	smallObjects = 2000
	// narrowObject is the largest object that is held with a slot for many.
	narrowObject = 4 << 20
	// smallWork and largeWork are how many bytes of objects and deltas are made with a
	// slot for small and for large packs.
	smallWork = 256 << 20
	largeWork = 1 << 30
)

// NewSlots makes two slots for large packs and four for small ones, one for vast ones, and
// one for joins.
func NewSlots() *Slots {
	return &Slots{
		large: make(chan struct{}, largeSlots), small: make(chan struct{}, smallSlots),
		vast: make(chan struct{}, 1), joins: make(chan struct{}, 1), slice: slotSlice, joinSlice: joinSlice,
	}
}

// Index does the work for a pack of so many bytes and objects within limits. It is done a
// second time where the limits of a slot for many are passed, so that it must begin anew.
func (s *Slots) Index(ctx context.Context, bytes int64, objects int, limits Limits, work func(context.Context, Limits) error) error {
	if s == nil {
		return work(ctx, limits)
	}
	slot, most := s.large, int64(largeWork)
	if bytes <= smallBytes && objects <= smallObjects {
		slot, most = s.small, smallWork
	}
	err := hold(ctx, limits.Waits, slot, func() error { return work(ctx, limits.narrow(most)) })
	return s.widen(ctx, err, limits, work)
}

// Join does the work of joining packs, with the slot for that. The context that it is given
// ends with the time of the slot.
func (s *Slots) Join(ctx context.Context, work func(context.Context) error) error {
	return hold(ctx, nil, s.joins, func() error {
		ctx, cancel := context.WithTimeout(ctx, s.joinSlice)
		defer cancel()
		return work(ctx)
	})
}

// Hold does work that holds objects within the limits that every slot has, or else a second
// time with the slot for vast packs. The caller has the slot for joins.
func (s *Slots) Hold(ctx context.Context, limits Limits, work func(context.Context, Limits) error) error {
	return s.widen(ctx, work(ctx, limits.narrow(0)), limits, work)
}

// widen does again what passed the limits of a slot for many.
func (s *Slots) widen(ctx context.Context, err error, limits Limits, work func(context.Context, Limits) error) error {
	if !errors.Is(err, ErrTooLarge) {
		return err
	}
	return hold(ctx, limits.Waits, s.vast, func() error {
		limited, cancel := context.WithTimeout(ctx, s.slice)
		defer cancel()
		err := work(limited, limits)
		if err != nil && limited.Err() != nil && ctx.Err() == nil {
			return fmt.Errorf("%w: its objects are not unpacked within %s", ErrTooLarge, s.slice)
		}
		return err
	})
}

// hold works with a slot, for which it waits until the context ends.
// Waits may be nil.
func hold(ctx context.Context, waits func(context.Context) (resume func()), slot chan struct{}, work func() error) error {
	resume := func() {}
	if waits != nil {
		resume = waits(ctx)
	}
	select {
	case slot <- struct{}{}:
		resume()
	case <-ctx.Done():
		resume()
		return ctx.Err()
	}
	defer func() { <-slot }()
	return work()
}

// narrow gives the limits of a slot for many. So much work of zero is no bound.
func (l Limits) narrow(work int64) Limits {
	if l.Object == 0 || l.Object > narrowObject {
		l.Object = narrowObject
	}
	if work > 0 {
		l.work = &work
	}
	return l
}

// spend counts bytes that are made of a pack.
func (l Limits) spend(bytes int64) error {
	if l.work == nil {
		return nil
	}
	if *l.work -= bytes; *l.work < 0 {
		return fmt.Errorf("%w: its deltas make too many bytes", ErrTooLarge)
	}
	return nil
}
