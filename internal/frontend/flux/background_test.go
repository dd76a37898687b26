package flux

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestBackground: what begins while somebody waits for the end is waited for, or does not
// begin. The race detector has a say in it.
func TestBackground(t *testing.T) {
	t.Parallel()
	var work background
	var begun, ended atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 200 {
				if work.Go(func() { ended.Add(1) }) {
					begun.Add(1)
				}
			}
		})
	}
	work.Wait()
	if work.Go(func() { t.Error("it ran after the end") }) {
		t.Error("something began after the end")
	}
	workers.Wait()
	if begun.Load() != ended.Load() {
		t.Errorf("%d began, %d ended", begun.Load(), ended.Load())
	}
}
