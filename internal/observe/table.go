package observe

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// name tells the objects of one kind apart.
type name struct {
	namespace, name string
}

// record is what is kept of an object.
type record struct {
	live gitops.Live
	// own is our own Apply entry for NamesExactly; nil once it was asked for, or
	// we wrote the object or somebody changed our fields since it was first seen.
	own *ownFields
	// rule is by which live.Health was assessed; nil for the rules of kstatus.
	rule *health.Rule
	// others are the object's health by other rules, in the watch of one object
	// that several owners look at, ordered as the rules are.
	others []judged
}

// judged is the health of an object by a rule.
type judged struct {
	rule   *health.Rule
	health gitops.Health
}

// by is the record with its health by a rule; without health where it has not been
// assessed by that rule.
func (r *record) by(rule *health.Rule) gitops.Live {
	live := r.live
	if r.rule.Same(rule) {
		return live
	}
	live.Health = gitops.Health{}
	for _, other := range r.others {
		if other.rule.Same(rule) {
			live.Health = other.health
		}
	}
	return live
}

// sameOthers tells whether an object's health by the rules of others is the same.
func sameOthers(a, b []judged) bool {
	return slices.EqualFunc(a, b, func(a, b judged) bool { return a.rule.Same(b.rule) && a.health == b.health })
}

// table holds what one watch has seen, corrected by what we wrote ourselves. The
// watch's goroutine fills it; everybody may read it.
type table struct {
	kind  gitops.GroupKind
	named bool
	// notify receives the changes that others made, one at a time and in order.
	notify func(Observation)
	// moves has every change told, also one of what is not kept of an object.
	moves atomic.Bool

	// turns is held while a change is made and told, so that changes are told in
	// the order in which they were made. It is taken before mu.
	turns sync.Mutex

	// mu guards what follows.
	mu      sync.RWMutex
	objects map[name]*record
	// gone are the uids of objects that we deleted and whose DELETED event is
	// still to come.
	gone map[name]string
	held map[name]*holding
	// seen are the objects of the initial set that is being received.
	seen map[name]struct{}
	// state says whether objects is the cluster's state.
	state state
}

// state says how far a table can be trusted.
type state struct {
	synced bool
	// full is set if the objects' health has been assessed from the whole object.
	full bool
	// err is why the table is not in step; nil while it is.
	err error
	// lasting is set for an err that will not go away by itself soon.
	lasting bool
}

// holding is the state before a write of our own that is under way.
type holding struct {
	writers int
	before  gitops.Live
}

func newTable(kind gitops.GroupKind, named bool, notify func(Observation)) *table {
	return &table{
		kind: kind, named: named, notify: notify,
		objects: map[name]*record{}, gone: map[name]string{}, held: map[name]*holding{},
	}
}

// begin starts an initial set.
func (t *table) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = make(map[name]struct{}, len(t.objects))
}

// put stores an object that the watch has told of.
func (t *table) put(n name, seen record) {
	t.turns.Lock()
	defer t.turns.Unlock()
	if o, changed := t.store(n, seen); changed {
		t.notify(o)
	}
}

func (t *table) store(n name, seen record) (Observation, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	live := seen.live
	if t.seen != nil {
		t.seen[n] = struct{}{}
	}
	if uid, ok := t.gone[n]; ok {
		if uid == live.UID && !live.Deleting {
			return Observation{}, false
		}
		delete(t.gone, n)
	}
	r := t.objects[n]
	// What comes late, because it could not be watched at first, may not be waited
	// for by anybody any more.
	late := t.state.lasting || (t.named && t.state.err != nil)
	discovered := r == nil && !t.state.synced && !late
	if r == nil {
		r = &record{own: seen.own}
		t.objects[n] = r
	} else if older(live.ResourceVersion, r.live.ResourceVersion) {
		return Observation{}, false
	}
	before := r.live
	if live.Health.Status == "" && live.ResourceVersion == before.ResourceVersion {
		live.Health, seen.rule, seen.others = before.Health, r.rule, r.others
	}
	// Another rule is a change also where it finds the same: who waits for it has
	// to know that it was asked.
	anew := before.Health.Status != "" && live.Health.Status != "" && !r.rule.Same(seen.rule) || !sameOthers(r.others, seen.others)
	r.live, r.rule, r.others = live, seen.rule, seen.others
	if !discovered && (before.UID != live.UID || before.Fields != live.Fields) {
		r.own = nil
	}
	if live.Health.Status == "" || (t.seen != nil && before.Health.Status == "") {
		before.Health = live.Health // to begin or to cease looking at health is no change
	}
	if discovered || (t.unchanged(before, live) && !anew) || t.held[n] != nil {
		return Observation{}, false
	}
	return t.observation(n, before, live), true
}

// unchanged tells whether nothing is to be told of a change.
func (t *table) unchanged(before, live gitops.Live) bool {
	return same(before, live) && (!t.moves.Load() || before.ResourceVersion == live.ResourceVersion)
}

// remove forgets an object that the watch says is gone or has lost our label.
func (t *table) remove(n name, uid, resourceVersion string) {
	t.turns.Lock()
	defer t.turns.Unlock()
	t.mu.Lock()
	if t.gone[n] == uid {
		delete(t.gone, n)
	}
	r := t.objects[n]
	if r == nil || older(resourceVersion, r.live.ResourceVersion) {
		t.mu.Unlock()
		return
	}
	o, held := t.observation(n, r.live, gitops.Live{}), t.held[n] != nil
	delete(t.objects, n)
	t.mu.Unlock()
	if !held {
		t.notify(o)
	}
}

// complete ends an initial set: what it did not hold is gone, but for what we have
// written after it was taken.
func (t *table) complete(resourceVersion string, full bool) {
	t.turns.Lock()
	defer t.turns.Unlock()
	t.mu.Lock()
	var vanished []Observation
	for _, n := range t.names() {
		r := t.objects[n]
		if _, ok := t.seen[n]; ok || older(resourceVersion, r.live.ResourceVersion) {
			continue
		}
		if t.held[n] == nil {
			vanished = append(vanished, t.observation(n, r.live, gitops.Live{}))
		}
		delete(t.objects, n)
	}
	for n := range t.gone {
		if _, ok := t.seen[n]; !ok {
			delete(t.gone, n)
		}
	}
	t.seen = nil
	t.state = state{synced: true, full: full}
	t.mu.Unlock()
	for _, o := range vanished {
		t.notify(o)
	}
}

func (t *table) names() []name {
	return slices.SortedFunc(maps.Keys(t.objects), func(a, b name) int {
		return gitops.CompareRefs(t.ref(a), t.ref(b))
	})
}

// fail says why the table is not being filled. A lasting failure makes what it
// holds unknown; through a passing one it stays what is known.
func (t *table) fail(err error, lasting bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = nil
	t.state.err, t.state.lasting = err, lasting
	if lasting {
		t.state.synced, t.state.full = false, false
	}
}

// rewind lets an initial set replace what is known whatever its age: the cluster's
// own clock has gone back, as after a restored backup.
func (t *table) rewind() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.objects {
		r.live.ResourceVersion = ""
	}
}

// recovered says that the watch is in step again without a new initial set.
func (t *table) recovered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state.err, t.state.lasting = nil, false
}

func (t *table) stateNow() state {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.state
}

// live is what is known of an object, with its health by the rule that its owner
// has now.
func (t *table) live(n name, ruleOf func(gitops.OwnerRef) *health.Rule) (gitops.Live, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if !t.state.synced {
		return gitops.Live{}, false
	}
	r := t.objects[n]
	if r == nil {
		return gitops.Live{}, true
	}
	rule := ruleOf(r.live.Owner)
	live := r.by(rule)
	if live.Health.Status == "" && rule == nil && !health.NeedsStatus(t.kind) {
		live.Health = health.OfMetadata(live.Deleting)
	}
	return live, true
}

// misjudged tells whether the health of an owner's objects, or that of the one
// object that is watched by name, has been assessed by another rule than this one.
func (t *table) misjudged(owner gitops.OwnerRef, rule *health.Rule) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, r := range t.objects {
		if (t.named || r.live.Owner.Key() == owner) && r.by(rule).Health.Status == "" {
			return true
		}
	}
	return false
}

// hasRoom tells whether an object is known, or one more would still be within most.
func (t *table) hasRoom(n name, most int) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.objects[n] != nil || len(t.objects) < most
}

// ownEntry gives our own Apply entry of an object as it was first seen.
func (t *table) ownEntry(n name) (gitops.Live, *ownFields) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r := t.objects[n]
	if r == nil || !t.state.synced {
		return gitops.Live{}, nil
	}
	return r.live, r.own
}

// dropOwn forgets our own Apply entry.
func (t *table) dropOwn(n name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.objects[n]; r != nil {
		r.own = nil
	}
}

// wrote stores the answer to a write of our own, with its health by a rule, unless
// something newer is known.
func (t *table) wrote(n name, live gitops.Live, rule *health.Rule) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.objects[n]
	if r == nil {
		if uid, ok := t.gone[n]; ok && uid == live.UID {
			return
		}
		delete(t.gone, n)
		r = &record{}
		t.objects[n] = r
	}
	r.own = nil
	if !older(live.ResourceVersion, r.live.ResourceVersion) {
		if live.Health.Status == "" && live.ResourceVersion == r.live.ResourceVersion {
			live.Health, rule = r.live.Health, r.rule
		}
		r.live, r.rule = live, rule
	}
	if h := t.held[n]; h != nil {
		h.before = live
	}
}

// deleted stores that a deletion of our own was accepted.
func (t *table) deleted(n name, uid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.held[n]; h != nil {
		h.before = gitops.Live{}
	}
	r := t.objects[n]
	if r == nil || r.live.UID != uid {
		return
	}
	if r.live.Deleting {
		if h := t.held[n]; h != nil {
			h.before = r.live
		}
		return
	}
	delete(t.objects, n)
	t.gone[n] = uid
}

// hold puts off the telling of changes of an object until release.
func (t *table) hold(n name) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[n]
	if h == nil {
		h = &holding{}
		if r := t.objects[n]; r != nil {
			h.before = r.live
		}
		t.held[n] = h
	}
	h.writers++
}

// release tells what others changed meanwhile.
func (t *table) release(n name) {
	t.turns.Lock()
	defer t.turns.Unlock()
	t.mu.Lock()
	h := t.held[n]
	if h == nil {
		t.mu.Unlock()
		return
	}
	if h.writers--; h.writers > 0 {
		t.mu.Unlock()
		return
	}
	delete(t.held, n)
	var now gitops.Live
	if r := t.objects[n]; r != nil {
		now = r.live
	}
	o, changed := t.observation(n, h.before, now), !t.unchanged(h.before, now)
	t.mu.Unlock()
	if changed {
		t.notify(o)
	}
}

func (t *table) ref(n name) gitops.ObjectRef {
	return gitops.ObjectRef{Group: t.kind.Group, Kind: t.kind.Kind, Namespace: n.namespace, Name: n.name}
}

func (t *table) observation(n name, before, after gitops.Live) Observation {
	return Observation{Ref: t.ref(n), Before: before, After: after, Named: t.named}
}

// same tells whether two markers say the same. The resource version and the
// generation change for reasons that do not matter to us.
func same(a, b gitops.Live) bool {
	return a.UID == b.UID && a.Deleting == b.Deleting && a.Fields == b.Fields && a.AppliedAt == b.AppliedAt &&
		a.Owner == b.Owner && a.Policy == b.Policy && a.Health == b.Health && slices.Equal(a.TakeOver, b.TakeOver)
}

// older tells whether a is certainly an older resource version than b.
func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}
