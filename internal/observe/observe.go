// Package observe watches the objects that inventories name and keeps of each no
// more than a marker: enough to see that somebody else changed what we applied,
// and, where an owner waits for it, how the object is.
//
// There is one watch per kind for all owners. It asks for objects with the owner
// label and for their metadata only; where an owner needs the health of a kind whose
// health is in its status, it asks for whole objects instead. Either way each object
// is reduced on arrival and none is kept: its health is assessed by the rule that its
// owner has declared for the kind. Objects that an owner names for their health
// without applying them are watched one by one, by name, for all who look at them,
// each by a rule of its own. A rule that changes has the objects read once again.
// While nothing changes, nothing is asked of the API server beside the watches.
//
// What we write ourselves is no news: whoever writes holds the object meanwhile and
// records the answer, so that neither the echo of the write nor an older event that
// arrives later looks like a change by somebody else.
//
// The engine uses it to find drift, to plan without reading objects, and to wait for
// health without polling.
package observe

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
	"github.com/plumb-gitops/plumb/internal/ownership"
)

// Options are what an Observer works with. All fields are needed but those that
// say otherwise.
type Options struct {
	// Config is the client configuration of the identity that watches. Its rate
	// limit and timeout are not used: there are few requests, and they last.
	Config *rest.Config
	// Resources finds the resource that serves a kind in a version, and whether it
	// is namespaced. It may ask the API server.
	Resources func(ctx context.Context, kind gitops.GroupKind, version string) (resource schema.GroupVersionResource, namespaced bool, err error)
	// Keys name the owner labels and our field manager.
	Keys gitops.Keys
	// Clock measures pauses; the real one where it is nil.
	Clock clock.WithDelayedExecution
	// Logger receives what goes wrong with a watch, at debug level; none where it
	// is nil. What lasts can be asked by Err.
	Logger *slog.Logger
	// MaxObjects is how many objects of a kind are kept at most, 0 for any number: a
	// kind of which there are more is not watched. It is for clusters of strangers.
	MaxObjects int
	// Grace is how long a watch outlives the last owner that needs it, default
	// 5 min.
	Grace time.Duration
}

// Need is a kind of which an owner has objects in its inventory.
type Need struct {
	Kind gitops.GroupKind
	// Version is the API version that the owner uses; of several owners the newest
	// is watched.
	Version string
	// Health asks for the health of the objects too.
	Health bool
	// Moves asks to be told of every change of the objects, for an owner that reads
	// their health with rights of its own.
	Moves bool
	// Rule is by which the health of the owner's objects is assessed; nil for the
	// rules of kstatus. Another rule than before costs one list of the kind.
	Rule *health.Rule
}

// Object is an object outside of inventories whose health an owner waits for.
type Object struct {
	Ref     gitops.ObjectRef
	Version string
	// Moves asks to be told of every change instead of for the object's health.
	Moves bool
	// Rule is by which the owner looks at the object; nil for those of kstatus.
	Rule *health.Rule
}

// Observation is a change that somebody else made.
type Observation struct {
	Ref gitops.ObjectRef
	// Before and After are what was known and what is; the zero Live for an object
	// that did not or does not exist. An object that loses the owner label leaves
	// the watch like one that is deleted: After is zero though it exists, so the
	// object has to be read to tell the two apart.
	Before, After gitops.Live
	// Named is set if the object is watched by name. One that is also in an
	// inventory is told of twice.
	Named bool
}

// Observer keeps the markers of all objects of all owners in one cluster. Its
// methods may be called by many goroutines.
type Observer struct {
	options Options
	client  *client
	logger  *slog.Logger
	clock   clock.WithDelayedExecution

	// ctx ends with Close; running are the goroutines of the watches.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	// mu guards what follows, and the demands of watchers.
	mu       sync.RWMutex
	watchers map[key]*watcher
	handlers []func(Observation)
	// progress is closed and made anew whenever the state of a watch changes.
	progress chan struct{}
}

// New returns an Observer that watches nothing yet. It has to be closed.
func New(options Options) (*Observer, error) {
	c, err := newClient(options.Config)
	if err != nil {
		return nil, err
	}
	o := &Observer{
		options: options, client: c, logger: options.Logger, clock: options.Clock,
		watchers: map[key]*watcher{}, progress: make(chan struct{}),
	}
	if o.logger == nil {
		o.logger = slog.New(slog.DiscardHandler)
	}
	if o.clock == nil {
		o.clock = clock.RealClock{}
	}
	if o.options.Grace == 0 {
		o.options.Grace = 5 * time.Minute
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o, nil
}

// Close ends all watches and waits for them. Nothing is told afterwards.
func (o *Observer) Close() {
	o.mu.Lock()
	o.cancel()
	o.mu.Unlock()
	o.running.Wait()
}

// Subscribe adds a handler of the changes that others make. Changes of one object
// come in order; what the first list of a kind finds is no change. A handler must
// return at once and may call Live and its like, but nothing that declares, holds or
// records.
func (o *Observer) Subscribe(handler func(Observation)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handlers = append(o.handlers, handler)
}

func (o *Observer) tell(observation Observation) {
	o.mu.RLock()
	handlers := o.handlers
	o.mu.RUnlock()
	for _, handler := range handlers {
		handler(observation)
	}
}

// Live is what is known of an object in an inventory. It is not known while its
// kind is not watched, not synced, or may not be watched. A known zero Live says
// that there is no such object with the owner label. Health is empty where nobody
// needs it, and until it has been assessed by the rule that the object's owner has
// declared.
func (o *Observer) Live(ref gitops.ObjectRef) (live gitops.Live, known bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	w := o.watchers[key{kind: ref.GroupKind()}]
	if w == nil {
		return gitops.Live{}, false
	}
	return w.table.live(nameOf(ref), func(owner gitops.OwnerRef) *health.Rule { return w.owners[owner.Key()].rule })
}

// Named is what is known of an object that an owner watches by name, whatever its
// labels, with its health by that owner's rule.
func (o *Observer) Named(owner gitops.OwnerRef, ref gitops.ObjectRef) (live gitops.Live, known bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	w := o.watchers[key{kind: ref.GroupKind(), object: nameOf(ref)}]
	if w == nil {
		return gitops.Live{}, false
	}
	return w.table.live(nameOf(ref), func(gitops.OwnerRef) *health.Rule { return w.owners[owner.Key()].rule })
}

// NamesExactly tells whether we have not written an object and nobody has changed our
// fields of it since it was first seen, and whether our own Apply entry then named
// exactly the fields of the manifest: if so it is as a former run of the program left
// it. What that needs is
// kept until the answer is true, so it is true once only; the Live is the one that
// the answer holds for.
func (o *Observer) NamesExactly(ref gitops.ObjectRef, manifest []byte) (gitops.Live, bool) {
	t := o.table(key{kind: ref.GroupKind()})
	if t == nil {
		return gitops.Live{}, false
	}
	n := nameOf(ref)
	live, own := t.ownEntry(n)
	if own == nil || !ownership.EntryNamesExactly(own.entry(), manifest) {
		return live, false
	}
	t.dropOwn(n)
	return live, true
}

// Record stores what a write of our own left, unless something newer is known. Its
// health is that by the rule that its owner has declared; a Live without health gets
// it from the watch, where the kind's health is needed. One without owner labels is
// not stored: no watch would tell of it.
func (o *Observer) Record(ref gitops.ObjectRef, live gitops.Live) {
	if live.Owner == (gitops.OwnerRef{}) {
		return
	}
	k := key{kind: ref.GroupKind()}
	o.mu.RLock()
	w := o.watchers[k]
	var rule *health.Rule
	if w != nil {
		rule = w.owners[live.Owner.Key()].rule
	}
	o.mu.RUnlock()
	if w == nil {
		return
	}
	if rule == nil && !health.NeedsStatus(k.kind) {
		live.Health = health.OfMetadata(live.Deleting)
	}
	w.table.wrote(nameOf(ref), interned(live), rule)
}

// RecordDeleted stores that a deletion of our own was accepted. An object that
// finalizers keep comes back when the watch tells that it is being deleted.
func (o *Observer) RecordDeleted(ref gitops.ObjectRef, uid string) {
	if t := o.table(key{kind: ref.GroupKind()}); t != nil {
		t.deleted(nameOf(ref), uid)
	}
}

// Hold is a set of objects that are being written.
type Hold struct {
	objects map[held]struct{}
	once    sync.Once
}

type held struct {
	table *table
	name  name
}

// Hold puts off the telling of changes of objects that are about to be written, so
// that the echo of a write, which may arrive before its answer, is no change. The
// answers are to be recorded before Release.
func (o *Observer) Hold(refs ...gitops.ObjectRef) *Hold {
	h := &Hold{objects: make(map[held]struct{}, len(refs))}
	for _, ref := range refs {
		object := held{table: o.table(key{kind: ref.GroupKind()}), name: nameOf(ref)}
		if _, twice := h.objects[object]; twice || object.table == nil {
			continue
		}
		object.table.hold(object.name)
		h.objects[object] = struct{}{}
	}
	return h
}

// Release tells what others changed since Hold, or since the write that was
// recorded. It may be called again and then does nothing.
func (h *Hold) Release() {
	h.once.Do(func() {
		for object := range h.objects {
			object.table.release(object.name)
		}
	})
}

func (o *Observer) table(k key) *table {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if w := o.watchers[k]; w != nil {
		return w.table
	}
	return nil
}

func nameOf(ref gitops.ObjectRef) name { return name{namespace: ref.Namespace, name: ref.Name} }
