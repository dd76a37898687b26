package flux

import (
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// longestQuiet is for how long the status of an object says nothing of a source that advertises
// an artifact of which there is no snapshot in the process. After a start there will be one in a
// moment: of a suspended source too, which is made of what is stored. Where there is none after
// that it may never come, such as of a suspended source whose file is lost; so the one who
// waits says so, and answers those who asked.
const longestQuiet = time.Minute

// missing is for how long somebody has asked in vain for the snapshot of a source: since the
// first one did, whoever that was. It is 0 where there is one.
func (s *sources) missing(source gitops.OwnerRef, now time.Time) time.Duration {
	key := source.Key()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current[key] != nil {
		return 0
	}
	since, known := s.missed[key]
	if !known {
		since = now
		s.missed[key] = since
	}
	return now.Sub(since)
}

// hush has the status say nothing of a source that has been missing for a time, unless that is
// longer than longestQuiet.
func (b *blocked) hush(missing time.Duration) {
	b.waited, b.quiet = missing, missing < longestQuiet
}
