package cluster

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// missFor is how long a question without an answer is not asked again by
	// itself; Learn and Invalidate do not wait for it.
	missFor = time.Second
	// maxMisses bounds what is remembered of such questions.
	maxMisses = 1024
	// discoverTimeout bounds one discovery, which many may wait for and which
	// therefore does not end with the context of any of them.
	discoverTimeout = 30 * time.Second
	// discoverQPS and discoverBurst bound discovery as a whole, in requests.
	discoverQPS   = 20
	discoverBurst = 100
)

// Resource is where the objects of a kind are found.
type Resource struct {
	GVR        schema.GroupVersionResource
	Kind       string
	Namespaced bool
}

// Resource tells where objects of a kind are found in a version, or in the one
// that the server prefers where version is empty. A known kind costs neither a
// request nor a lock. The error is a NotServedError, a DiscoveryError or that of
// the context.
func (c *Client) Resource(ctx context.Context, kind gitops.GroupKind, version string) (Resource, error) {
	return c.kinds.resource(ctx, kind, version)
}

// Invalidate has everything that is known of kinds asked for again when it is
// needed next, because definitions have changed.
func (c *Client) Invalidate() { c.kinds.invalidated.Add(1) }

// Learn asks the server at once, with one request, which kinds a group has in a
// version, and remembers the answer. The error is a NotServedError, without a
// kind, where the server does not know the group and version.
func (c *Client) Learn(ctx context.Context, group, version string) error {
	return c.kinds.learn(ctx, schema.GroupVersion{Group: group, Version: version})
}

// mapper remembers which kinds are served. Readers take a table that is never
// changed; whoever learns something puts a new one in its place.
type mapper struct {
	source *discoverer
	clock  clock.PassiveClock
	limit  *rate.Limiter
	flight singleflight.Group

	table       atomic.Pointer[table]
	invalidated atomic.Uint64

	mu sync.Mutex // guards replacing table, and misses
	// misses are the questions that had no answer lately; the zero group and
	// version stands for a failed discovery of everything.
	misses map[schema.GroupVersion]miss
}

type miss struct {
	at  time.Time
	err error
}

type table struct {
	// asOf is the value of mapper.invalidated when the discovery began.
	asOf uint64
	// at is when everything was discovered last; the zero time for a table that
	// holds only what was learned.
	at        time.Time
	kinds     map[gitops.GroupKind]map[string]Resource
	preferred map[string]string // by group
	failed    map[schema.GroupVersion]error
}

func newMapper(source *discoverer, clk clock.PassiveClock) *mapper {
	return &mapper{
		source: source,
		clock:  clk,
		limit:  rate.NewLimiter(discoverQPS, discoverBurst),
		misses: map[schema.GroupVersion]miss{},
	}
}

func (m *mapper) resource(ctx context.Context, kind gitops.GroupKind, version string) (Resource, error) {
	t := m.table.Load()
	if t != nil && t.asOf == m.invalidated.Load() {
		if res, ok := t.find(kind, version); ok {
			return res, nil
		}
		return m.missing(ctx, kind, version)
	}
	err := m.discover(ctx)
	if t = m.table.Load(); t == nil {
		return Resource{}, err
	}
	// What was known before serves as long as nothing better can be had.
	if res, ok := t.find(kind, version); ok {
		return res, nil
	}
	if err != nil {
		return Resource{}, err
	}
	return Resource{}, t.why(kind, version)
}

// missing asks again for what a valid table does not have.
func (m *mapper) missing(ctx context.Context, kind gitops.GroupKind, version string) (Resource, error) {
	if version == "" {
		t := m.table.Load()
		if m.clock.Since(t.at) < missFor {
			return Resource{}, t.why(kind, version)
		}
		if err := m.discover(ctx); err != nil {
			return Resource{}, err
		}
		t = m.table.Load()
		if res, ok := t.find(kind, version); ok {
			return res, nil
		}
		return Resource{}, t.why(kind, version)
	}
	gv := schema.GroupVersion{Group: kind.Group, Version: version}
	if err, recent := m.recent(gv); recent {
		return Resource{}, named(err, kind)
	}
	err := m.learn(ctx, gv)
	if res, ok := m.table.Load().find(kind, version); ok {
		return res, nil
	}
	if err == nil {
		err = &NotServedError{Group: kind.Group, Version: version, Kind: kind.Kind}
		m.remember(gv, err)
	}
	return Resource{}, named(err, kind)
}

// named says which kind a group and version that is not served was asked for.
func named(err error, kind gitops.GroupKind) error {
	var notServed *NotServedError
	if errors.As(err, &notServed) {
		return &NotServedError{Group: kind.Group, Version: notServed.Version, Kind: kind.Kind}
	}
	return err
}

func (m *mapper) recent(gv schema.GroupVersion) (error, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, ok := m.misses[gv]
	return last.err, ok && m.clock.Since(last.at) < missFor
}

func (m *mapper) remember(gv schema.GroupVersion, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.misses) >= maxMisses {
		clear(m.misses)
	}
	m.misses[gv] = miss{at: m.clock.Now(), err: err}
}

// discover asks for everything. Callers that come while it runs share it.
func (m *mapper) discover(ctx context.Context) error {
	return m.shared(ctx, "", func(ctx context.Context) error {
		asOf := m.invalidated.Load()
		if err, recent := m.recent(schema.GroupVersion{}); recent {
			return err
		}
		found, err := m.source.everything(ctx)
		if err != nil {
			err = &DiscoveryError{Cause: err}
			m.remember(schema.GroupVersion{}, err)
			return err
		}
		found.asOf, found.at = asOf, m.clock.Now()
		m.mu.Lock()
		defer m.mu.Unlock()
		found.keepFailed(m.table.Load())
		m.table.Store(found)
		clear(m.misses)
		return nil
	})
}

// learn asks for one group and version.
func (m *mapper) learn(ctx context.Context, gv schema.GroupVersion) error {
	return m.shared(ctx, gv.String(), func(ctx context.Context) error {
		resources, err := m.source.groupVersion(ctx, gv)
		if err != nil && !IsNotServed(err) {
			err = &DiscoveryError{Group: gv.Group, Version: gv.Version, Cause: err}
			m.remember(gv, err)
			return err
		}
		m.replace(gv, resources)
		if err != nil {
			m.remember(gv, err)
		}
		return err
	})
}

// shared runs one question at a time for all who ask it. It goes on when one of
// them leaves.
func (m *mapper) shared(ctx context.Context, key string, ask func(context.Context) error) error {
	answer := m.flight.DoChan(key, func() (any, error) {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), discoverTimeout)
		defer cancel()
		if err := m.limit.Wait(own); err != nil {
			return nil, &DiscoveryError{Cause: err}
		}
		return nil, ask(own)
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case result := <-answer:
		return result.Err
	}
}

// forget drops a group and version that turned out not to be served any more.
func (m *mapper) forget(gv schema.GroupVersion) { m.replace(gv, nil) }

// replace puts a table in place that has exactly these kinds in a group and version.
func (m *mapper) replace(gv schema.GroupVersion, resources []Resource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := &table{kinds: map[gitops.GroupKind]map[string]Resource{}, preferred: map[string]string{}, failed: map[schema.GroupVersion]error{}}
	old := m.table.Load()
	if old == nil {
		// Nothing was discovered yet: what is stored here is not everything.
		next.asOf = m.invalidated.Load() - 1
	} else {
		next.asOf, next.at = old.asOf, old.at
		next.preferred, next.failed = old.preferred, maps.Clone(old.failed)
		for kind, versions := range old.kinds {
			if _, has := versions[gv.Version]; has && kind.Group == gv.Group {
				versions = maps.Clone(versions)
				delete(versions, gv.Version)
				if len(versions) == 0 {
					continue
				}
			}
			next.kinds[kind] = versions
		}
	}
	for _, res := range resources {
		kind := gitops.GroupKind{Group: gv.Group, Kind: res.Kind}
		versions := maps.Clone(next.kinds[kind])
		if versions == nil {
			versions = map[string]Resource{}
		}
		versions[gv.Version] = res
		next.kinds[kind] = versions
	}
	delete(next.failed, gv)
	delete(m.misses, gv)
	m.table.Store(next)
}

// find looks a kind up; of several versions it takes the group's preferred one,
// or else the one that Kubernetes ranks highest.
func (t *table) find(kind gitops.GroupKind, want string) (Resource, bool) {
	versions := t.kinds[kind]
	if want != "" {
		res, ok := versions[want]
		return res, ok
	}
	if res, ok := versions[t.preferred[kind.Group]]; ok {
		return res, true
	}
	best := ""
	for v := range versions {
		if best == "" || version.CompareKubeAwareVersionStrings(v, best) > 0 {
			best = v
		}
	}
	res, ok := versions[best]
	return res, ok
}

// why explains that the table does not have a kind.
func (t *table) why(kind gitops.GroupKind, want string) error {
	for gv, cause := range t.failed {
		if gv.Group == kind.Group && (want == "" || gv.Version == want) {
			return &DiscoveryError{Group: gv.Group, Version: want, Cause: cause}
		}
	}
	return &NotServedError{Group: kind.Group, Version: want, Kind: kind.Kind}
}

// keepFailed takes over what was known of groups that could not be discovered now.
func (t *table) keepFailed(old *table) {
	if old == nil {
		return
	}
	for gv := range t.failed {
		for kind, versions := range old.kinds {
			res, ok := versions[gv.Version]
			if !ok || kind.Group != gv.Group {
				continue
			}
			if t.kinds[kind] == nil {
				t.kinds[kind] = map[string]Resource{}
			}
			t.kinds[kind][gv.Version] = res
		}
		if t.preferred[gv.Group] == "" && old.preferred[gv.Group] != "" {
			t.preferred[gv.Group] = old.preferred[gv.Group]
		}
	}
}
