package source_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// counted counts how often it is asked for a sum.
type counted struct {
	gitops.Tree
	sums *atomic.Int64
}

func (c counted) Sum(name string) (string, error) {
	c.sums.Add(1)
	return c.Tree.Sum(name)
}

// nest joins a Tree with a number of others, filtered as those of sources are.
func nest(t *testing.T, base, inner gitops.Tree, times int) gitops.Tree {
	t.Helper()
	var mounts []source.Mount
	for i := range times {
		mounts = append(mounts, source.Mount{At: fmt.Sprint("deep/er/", i), Tree: inner})
	}
	joined, err := source.Overlay(base, mounts...)
	if err != nil {
		t.Fatal(err)
	}
	if joined, err = source.Filter(joined, ""); err != nil {
		t.Fatal(err)
	}
	return joined
}

// TestNestedOverlays: what is joined again and again of what is joined itself costs no more
// for each level than its own parts, and it is known of how many parts it is.
func TestNestedOverlays(t *testing.T) {
	t.Parallel()
	const each, levels = 10, 4
	sums := &atomic.Int64{}
	joined := gitops.Tree(counted{tree("a"), sums})
	for range levels {
		joined = nest(t, tree("b"), joined, each)
	}
	if got, want := source.Parts(joined), 11_111; got != want {
		t.Errorf("%d parts, want %d", got, want)
	}
	first, err := joined.Sum(".")
	if err != nil {
		t.Fatal(err)
	}
	second, err := joined.Sum(".")
	if err != nil || first != second {
		t.Errorf("the sum is %q and then %q, error %v", first, second, err)
	}
	if got := sums.Load(); got != each {
		t.Errorf("the innermost was asked %d times for its sum, want %d", got, each)
	}
	if data, err := joined.ReadFile("deep/er/1/deep/er/2/deep/er/3/deep/er/4/a"); err != nil || string(data) != "a" {
		t.Errorf("%q, error %v", data, err)
	}
}
