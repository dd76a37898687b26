package flux

import (
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// sources holds the newest snapshot of every source, so that consumers in the
// process start from it at once and never over HTTP. A source that is not in it
// has not been fetched since the process started.
type sources struct {
	mu sync.Mutex
	// current is guarded by mu.
	current map[gitops.OwnerRef]*held
	// failures say why the newest revision of a source cannot be had; guarded by mu.
	failures map[gitops.OwnerRef]error
	// missed is since when somebody has asked in vain for a snapshot; guarded by mu.
	missed map[gitops.OwnerRef]time.Time
	// looks is when a source had its first look since the start, and lastFirst when the last
	// one of a kind had; guarded by mu.
	looks     map[gitops.OwnerRef]time.Time
	lastFirst map[string]time.Time
	// followers are told of every new snapshot, in the order in which they
	// were added; set before the first publish.
	followers []func(source gitops.OwnerRef, snapshot gitops.Snapshot)
}

// held is a snapshot with the number of its users; the table is one of them.
type held struct {
	snapshot gitops.Snapshot
	users    int
}

func newSources() *sources {
	return &sources{
		current: map[gitops.OwnerRef]*held{}, failures: map[gitops.OwnerRef]error{}, missed: map[gitops.OwnerRef]time.Time{},
		looks: map[gitops.OwnerRef]time.Time{}, lastFirst: map[string]time.Time{},
	}
}

// follow has f called after each publish.
func (s *sources) follow(f func(gitops.OwnerRef, gitops.Snapshot)) {
	s.followers = append(s.followers, f)
}

// publish makes the snapshot the newest one of its source. The former one is
// released once its last user has given it back.
func (s *sources) publish(source gitops.OwnerRef, snapshot gitops.Snapshot) {
	key := source.Key()
	s.drop(s.place(key, snapshot))
	for _, f := range s.followers {
		f(key, snapshot)
	}
}

// renew takes a snapshot of the same revision and content as the newest one of its source,
// of which nobody has to be told: it is made of newer parts.
func (s *sources) renew(source gitops.OwnerRef, snapshot gitops.Snapshot) {
	s.drop(s.place(source.Key(), snapshot))
}

// place makes a snapshot the newest one of its source, and gives the former one.
func (s *sources) place(key gitops.OwnerRef, snapshot gitops.Snapshot) *held {
	if snapshot.Files != nil {
		// Many may be made of it.
		snapshot.Sum = sync.OnceValues(func() (string, error) { return snapshot.Files.Sum(".") })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.missed, key)
	old := s.current[key]
	s.current[key] = &held{snapshot: snapshot, users: 1}
	return old
}

// touch has what is made from a source looked at again, though it has no snapshot: it is
// only read.
func (s *sources) touch(source gitops.OwnerRef) {
	for _, f := range s.followers {
		f(source.Key(), gitops.Snapshot{})
	}
}

// remove forgets a source that is gone.
func (s *sources) remove(source gitops.OwnerRef) {
	key := source.Key()
	s.mu.Lock()
	old := s.current[key]
	delete(s.current, key)
	delete(s.missed, key)
	delete(s.looks, key)
	s.mu.Unlock()
	s.drop(old)
}

// acquire gives the newest snapshot of a source. The caller releases it.
func (s *sources) acquire(source gitops.OwnerRef) (gitops.Snapshot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.current[source.Key()]
	if !ok {
		return gitops.Snapshot{}, false
	}
	h.users++
	snapshot := h.snapshot
	var once sync.Once
	snapshot.Release = func() { once.Do(func() { s.drop(h) }) }
	return snapshot, true
}

// failed remembers why the newest revision of a source cannot be had; nil for none.
func (s *sources) failed(source gitops.OwnerRef, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failures, source.Key())
	} else {
		s.failures[source.Key()] = err
	}
}

// failure is why the newest revision of a source cannot be had; nil where it can.
func (s *sources) failure(source gitops.OwnerRef) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures[source.Key()]
}

// holds tells whether the newest snapshot of a source is a revision with a digest.
func (s *sources) holds(source gitops.OwnerRef, revision, digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.current[source.Key()]
	return ok && h.snapshot.Artifact.Revision == revision && h.snapshot.Artifact.Digest == digest
}

// revision is that of the newest snapshot, empty where there is none.
func (s *sources) revision(source gitops.OwnerRef) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.current[source.Key()]; ok {
		return h.snapshot.Artifact.Revision
	}
	return ""
}

func (s *sources) drop(h *held) {
	if h == nil {
		return
	}
	s.mu.Lock()
	h.users--
	last := h.users == 0
	s.mu.Unlock()
	if last && h.snapshot.Release != nil {
		h.snapshot.Release()
	}
}
