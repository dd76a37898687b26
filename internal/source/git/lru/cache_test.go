package lru_test

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/lru"
)

func TestKeepsWhatWasUsedLast(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	c := lru.New[int, string](limit)
	for i := range 100 {
		c.Put(i, "value", 1000)
		c.Get(0)
		if c.Cost() > limit {
			t.Fatalf("cost %d, at most %d are allowed", c.Cost(), limit)
		}
	}
	for key, want := range map[int]bool{0: true, 99: true, 98: true, 1: false, 50: false} {
		if _, got := c.Get(key); got != want {
			t.Errorf("key %d is there: %v, want %v", key, got, want)
		}
	}
}

func TestDoesNotKeepWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	c := lru.New[int, string](10_000)
	c.Put(1, "small", 10)
	c.Put(2, "large", 5000)
	if _, ok := c.Get(2); ok {
		t.Error("half of the cache is one value")
	}
	if _, ok := c.Get(1); !ok {
		t.Error("the small value is gone")
	}
	var none *lru.Cache[int, string]
	none.Put(1, "x", 1)
	if _, ok := none.Get(1); ok || none.Cost() != 0 {
		t.Error("a nil cache keeps something")
	}
}
