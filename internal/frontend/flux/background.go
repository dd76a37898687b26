package flux

import "sync"

// background is work that goes on without a worker, and that the end of the process waits
// for.
type background struct {
	mu sync.Mutex
	// ended is set when nothing may begin any more; guarded by mu.
	ended   bool
	running sync.WaitGroup
}

// Go runs f. It is false, and f is not run, where the process ends.
func (b *background) Go(f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	b.running.Go(f)
	return true
}

// Wait ends it: nothing more begins, and what has begun is waited for.
func (b *background) Wait() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.running.Wait()
}
