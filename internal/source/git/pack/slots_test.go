package pack

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// ended gives a context with which only what is free is taken, if anything.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// free tells whether there is a slot for a pack.
func free(t *testing.T, s *Slots, bytes int64, objects int) bool {
	t.Helper()
	// A free slot and a context that has ended are each taken now and then.
	for range 100 {
		began := false
		err := s.Index(ended(t), bytes, objects, Limits{}, func(context.Context, Limits) error {
			began = true
			return nil
		})
		if began {
			return true
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	return false
}

// occupy begins work that ends when it is told to.
func occupy(t *testing.T, work func(func(context.Context, Limits) error) error) (end func()) {
	t.Helper()
	began, enough, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- work(func(context.Context, Limits) error {
			close(began)
			<-enough
			return nil
		})
	}()
	select {
	case <-began:
	case <-time.After(time.Minute):
		t.Fatal("there is no slot")
	}
	return func() {
		t.Helper()
		close(enough)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	s := NewSlots()
	s.slice, s.joinSlice = time.Nanosecond, time.Nanosecond
	pack := func(bytes int64, objects int) func() {
		t.Helper()
		return occupy(t, func(work func(context.Context, Limits) error) error {
			return s.Index(t.Context(), bytes, objects, Limits{}, work)
		})
	}
	join := occupy(t, func(work func(context.Context, Limits) error) error {
		return s.Join(t.Context(), func(ctx context.Context) error { return work(ctx, Limits{}) })
	})
	vast := occupy(t, func(work func(context.Context, Limits) error) error {
		return s.Hold(t.Context(), Limits{}, func(ctx context.Context, limits Limits) error {
			if limits.Object != 0 {
				return ErrTooLarge
			}
			return work(ctx, limits)
		})
	})
	ends := []func(){join, vast, pack(2<<20, 1), pack(1, 2001)}
	if free(t, s, 1<<20, 2001) {
		t.Error("a slot more than there are for large packs")
	}
	for range smallSlots {
		ends = append(ends, pack(1<<20, 2000))
	}
	// However long they take, nobody else is let in.
	if free(t, s, 1, 1) {
		t.Error("a slot more than there are for small packs")
	}
	if err := s.Join(ended(t), func(context.Context) error { return errors.New("a second join") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, end := range ends {
		end()
	}
	if !free(t, s, 1, 1) || !free(t, s, 2<<20, 1) {
		t.Error("a slot is not given back")
	}
	var none *Slots
	if !free(t, none, 1, 1) {
		t.Error("without slots there is a bound")
	}
}

// TestSlotsForMore: what passes the limits of a slot for many begins anew with the one for
// vast packs, alone and for a while.
func TestSlotsForMore(t *testing.T) {
	t.Parallel()
	full := Limits{Bytes: 7, Object: 64 << 20}
	for name, c := range map[string]struct {
		bytes int64
		work  func(Limits) error
		tries int
		want  error
	}{
		"an object that fits":      {1, func(l Limits) error { return l.fits(narrowObject) }, 1, nil},
		"an object that does not":  {1, func(l Limits) error { return l.fits(narrowObject + 1) }, 2, nil},
		"an object of no slot":     {1, func(l Limits) error { return l.fits(full.Object + 1) }, 2, ErrTooLarge},
		"work for a small pack":    {1, func(l Limits) error { return l.spend(smallWork) }, 1, nil},
		"too much for a small one": {1, func(l Limits) error { return l.spend(smallWork + 1) }, 2, nil},
		"work for a large pack":    {2 << 20, func(l Limits) error { return l.spend(largeWork) }, 1, nil},
		"too much for a large one": {2 << 20, func(l Limits) error { return l.spend(largeWork + 1) }, 2, nil},
		"another failure":          {1, func(Limits) error { return ErrCorrupt }, 1, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, tries := NewSlots(), 0
			err := s.Index(t.Context(), c.bytes, 1, full, func(_ context.Context, limits Limits) error {
				if tries++; tries > 1 && (limits.Object != full.Object || limits.work != full.work || len(s.vast) != 1 || len(s.small)+len(s.large) != 0) {
					t.Errorf("the second time it is done within %+v", limits)
				}
				return c.work(limits)
			})
			if !errors.Is(err, c.want) || tries != c.tries {
				t.Errorf("after %d tries error %v, want %v after %d", tries, err, c.want, c.tries)
			}
		})
	}
	t.Run("a vast pack that takes too long", func(t *testing.T) {
		t.Parallel()
		s := NewSlots()
		s.slice = time.Millisecond
		err := s.Index(t.Context(), 1, 1, full, func(ctx context.Context, limits Limits) error {
			if limits.Object != full.Object || limits.work != full.work {
				return ErrTooLarge
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, ErrTooLarge) || len(s.vast) != 0 {
			t.Errorf("error %v, %d slots held", err, len(s.vast))
		}
	})
}

func (l Limits) fits(bytes int64) error {
	if bytes > l.Object {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, bytes)
	}
	return nil
}
