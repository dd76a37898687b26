package flux

import (
	"maps"
	"net/url"
	"sync"
	"time"
)

const (
	// workerWait is how long a worker stays with a fetch before that goes on without it.
	workerWait = time.Second
	// lanePause is how soon it is looked again for a place on the lane.
	lanePause = 2 * time.Second
	// mostLanePause is how soon at the latest: a quarter of the time that it has waited for
	// one, so that many who wait are not looked at all the time.
	mostLanePause = 30 * time.Second
	// lanePlaces is how many fetches may go on without a worker, namespacePlaces for one
	// namespace, and serverPlaces for one server: each may hold a listing of 32 MiB, for as
	// long as its server sends it slowly.
	lanePlaces      = 32
	namespacePlaces = 8
	serverPlaces    = 6
	// provenPlaces are more of each kind, for fetches whose last one has brought something:
	// servers that never answer must not keep those out that are slow.
	provenPlaces = 2
	// longestPatience is how long a worker stays at most with a fetch that has no place.
	longestPatience = time.Minute
)

// lane is where slow fetches go on without a worker: servers that do not answer must not
// keep the workers from all other sources.
type lane struct {
	// workers are those of the kind that has the fewest, patience is longestPatience but in tests.
	workers  int
	patience time.Duration

	mu sync.Mutex
	// all, byNamespace and byServer are how many places are taken; guarded by mu.
	all         int
	byNamespace map[string]int
	byServer    map[server]int
	// patient are the namespaces for which a worker waits; guarded by mu.
	patient map[string]bool
	// quiet is until when servers have asked to be left alone; guarded by mu.
	quiet map[asker]time.Time
}

// server is one as the objects of a namespace name it: what others do with it is their own.
type server struct{ namespace, host string }

// asker is a server as it is asked with one credential: what it asks of that is nothing that
// it asks of others, or of those who have none.
type asker struct {
	server
	credential string
}

// newLane is for kinds that have a number of workers each, or more.
func newLane(workers int) *lane {
	return &lane{
		workers: workers, patience: longestPatience,
		byNamespace: map[string]int{}, byServer: map[server]int{}, patient: map[string]bool{}, quiet: map[asker]time.Time{},
	}
}

// take gives a function that gives the place back; nil where there is none. A namespace that
// has no fetch on the lane all the same may keep a worker, until patient gives it back: one
// at a time, and one worker is kept by nobody, so that a full lane is not the end of all else.
// Proven is for a fetch whose last one has brought something.
func (l *lane) take(of server, proven bool) (place, patient func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	more := 0
	if proven {
		more = provenPlaces
	}
	if l.all >= lanePlaces+more || l.byNamespace[of.namespace] >= namespacePlaces+more || l.byServer[of] >= serverPlaces+more {
		if l.byNamespace[of.namespace] > 0 || l.patient[of.namespace] || len(l.patient) >= l.workers-1 {
			return nil, nil
		}
		l.patient[of.namespace] = true
		return nil, sync.OnceFunc(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.patient, of.namespace)
		})
	}
	l.all++
	l.byNamespace[of.namespace]++
	l.byServer[of]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all--
		if l.byNamespace[of.namespace]--; l.byNamespace[of.namespace] == 0 {
			delete(l.byNamespace, of.namespace)
		}
		if l.byServer[of]--; l.byServer[of] == 0 {
			delete(l.byServer, of)
		}
	}), nil
}

// left notes that a server asks to be left alone for a time, which may be 0, and gives for how
// long it does. A look that several objects share is told to one of them.
func (l *lane) left(of asker, asked time.Duration, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := now.Add(asked); until.After(l.quiet[of]) && asked > 0 {
		l.quiet[of] = until
	}
	maps.DeleteFunc(l.quiet, func(_ asker, until time.Time) bool { return !until.After(now) })
	if until, ok := l.quiet[of]; ok {
		return until.Sub(now)
	}
	return 0
}

// welcome notes that a server has answered: it does not ask to be left alone any more.
func (l *lane) welcome(of asker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.quiet, of)
}

// hostOf is the server of an address; the address itself where that is no URL.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return address
}
