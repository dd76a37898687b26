package bucket

import (
	"maps"
	"slices"
)

// Settle waits until all is removed that was given up.
func (s *Store) Settle() {
	s.mu.Lock()
	remotes := slices.Collect(maps.Values(s.remotes))
	s.mu.Unlock()
	for _, r := range remotes {
		r.settle()
	}
}

func (r *remote) settle() {
	for {
		r.mu.Lock()
		clearing := r.clearing
		r.mu.Unlock()
		if clearing == nil {
			return
		}
		<-clearing
	}
}
