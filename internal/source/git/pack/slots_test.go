package pack

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s := NewSlots(SlotSlice)
	take := func(bytes int64, objects int, want bool) func() {
		t.Helper()
		// With a context that has ended only what is free is taken, if anything.
		for range 100 {
			release, err := s.Take(ended, bytes, objects)
			if err == nil {
				if !want {
					t.Fatalf("a slot more than there are, for %d bytes and %d objects", bytes, objects)
				}
				return release
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		if want {
			t.Fatalf("no slot for %d bytes and %d objects", bytes, objects)
		}
		return nil
	}
	first := take(2<<20, 1, true)
	take(1, 2001, true)
	take(1<<20, 2001, false)
	for range smallSlots {
		take(1<<20, 2000, true)
	}
	take(1, 1, false)
	first()
	first() // once more gives no other one's back
	take(2<<20, 1, true)
	take(2<<20, 1, false)

	// Who takes longer than allowed keeps nobody waiting, and has nothing to give back.
	s = &Slots{large: make(chan struct{}, 1), small: make(chan struct{}, 1), slice: time.Millisecond}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		release, err := s.Take(ctx, 2<<20, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		cancel()
	}
	var none *Slots
	release, err := none.Take(ended, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	release()
}
