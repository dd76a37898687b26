package flux

import (
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/engine"
)

// remotePause is how soon a Kustomization is looked at again that found no slot.
const remotePause = time.Second

// slots are the workers that may be with remote clusters at the same time: those can be
// slow, and must not keep the others from their work.
type slots struct {
	// most is how many may be taken, and mostEach how many for one cluster.
	most, mostEach int

	mu sync.Mutex
	// taken is how many are, by cluster; guarded by mu.
	taken map[string]int
	all   int
}

// newSlots leaves half of the workers to the operator's own cluster, and half of the
// rest to other remote clusters than one.
func newSlots(workers int) *slots {
	most := max(1, workers/2)
	return &slots{most: most, mostEach: max(1, most/2), taken: map[string]int{}}
}

// take gives a function that gives the slot back; nil where there is none. The operator's
// own cluster needs none.
func (s *slots) take(remote *engine.Remote) (release func()) {
	if remote == nil {
		return func() {}
	}
	address := remote.Name
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= s.most || s.taken[address] >= s.mostEach {
		return nil
	}
	s.all++
	s.taken[address]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.taken[address]--; s.taken[address] == 0 {
			delete(s.taken, address)
		}
	}
}
