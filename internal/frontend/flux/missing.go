package flux

import (
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// longestQuiet is for how long the status of an object says nothing of a source that
	// advertises an artifact of which there is no snapshot in the process. After a start there
	// will be one in a moment: of a suspended source too, which is made of what is stored. Where
	// there is none after that it may never come, such as of a suspended source whose file is
	// lost; so the one who waits says so, and answers those who asked.
	longestQuiet = time.Minute
	// longestStart is for how long nothing is said of a source that has not had its first look,
	// while others have theirs. Each may keep a worker for workerWait where servers hang: this is
	// enough for some ten thousand of one kind. One that another operator looks at never has any.
	longestStart = 15 * time.Minute
)

// missing is for how long somebody has asked in vain for the snapshot of a source: since the
// first one did, whoever that was. It is 0 where there is one. Quiet says that there may be one
// in a moment.
func (s *sources) missing(source gitops.OwnerRef, now time.Time) (waited time.Duration, quiet bool) {
	key := source.Key()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current[key] != nil {
		return 0, true
	}
	asked, known := s.missed[key]
	if !known {
		asked = now
		s.missed[key] = asked
	}
	waited, from := now.Sub(asked), asked
	first, looked := s.looks[key]
	if !looked {
		first = s.lastFirst[key.Kind]
	}
	if first.After(from) {
		from = first
	}
	return waited, now.Sub(from) < longestQuiet && (looked || waited < longestStart)
}

// looked notes the first look at a source since the start: it has a snapshot in a moment, or
// may never have one.
func (s *sources) looked(source gitops.OwnerRef, now time.Time) {
	key := source.Key()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks[key], s.lastFirst[key.Kind] = now, now
}

// hush has the status say nothing of a source that has been missing for a time, while there may
// be a snapshot of it in a moment.
func (b *blocked) hush(missing time.Duration, quiet bool) {
	b.waited, b.quiet = missing, quiet
}
