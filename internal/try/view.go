package try

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// rediscoverEvery bounds how often the cluster is asked for its kinds anew.
const rediscoverEvery = time.Second

// view follows what is in the cluster: Flux's custom resources, the objects in
// inventories, and the operator's events. It only reads.
type view struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
	// definitions are those of Flux's kinds.
	definitions map[gitops.GroupKind]crds.Definition
	// changed gets a value when something has changed.
	changed chan struct{}
	running sync.WaitGroup

	// mu guards what is below.
	mu        sync.Mutex
	followers map[gitops.GroupKind]*follower
	// happened are the newest events, the oldest first.
	happened []Happened
	// discovered is when the cluster was last asked for its kinds.
	discovered time.Time
	// head is the revision that this program serves, empty for a URL.
	head string
}

// follower follows the objects of one kind.
type follower struct {
	objects map[types.NamespacedName]*seen
	synced  func() bool
	stop    context.CancelFunc
}

func newView(config *rest.Config, client dynamic.Interface) (*view, error) {
	discover, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	definitions, err := crds.All()
	if err != nil {
		return nil, err
	}
	v := &view{
		client:      client,
		mapper:      restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discover)),
		definitions: map[gitops.GroupKind]crds.Definition{},
		changed:     make(chan struct{}, 1),
		followers:   map[gitops.GroupKind]*follower{},
	}
	for _, d := range definitions {
		v.definitions[gitops.GroupKind{Group: d.Kind.Group, Kind: d.Kind.Kind}] = d
	}
	return v, nil
}

// start begins to follow; it goes on until the context ends and wait returns.
func (v *view) start(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for kind, d := range v.definitions {
		v.follow(ctx, kind, d.Resource())
	}
	v.followEvents(ctx)
}

// wait waits until nothing is followed any more.
func (v *view) wait() { v.running.Wait() }

func (v *view) notify() {
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

// follow follows a kind. The caller holds mu.
func (v *view) follow(ctx context.Context, kind gitops.GroupKind, resource schema.GroupVersionResource) {
	ctx, stop := context.WithCancel(ctx)
	informer := dynamicinformer.NewFilteredDynamicInformer(v.client, resource, "", 0, cache.Indexers{}, nil).Informer()
	f := &follower{objects: map[types.NamespacedName]*seen{}, synced: informer.HasSynced, stop: stop}
	v.followers[kind] = f
	// Both fail only on an informer that was started.
	_ = informer.SetTransform(func(object any) (any, error) {
		if u, ok := object.(*unstructured.Unstructured); ok {
			return reduce(u), nil
		}
		return object, nil
	})
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(object any, initial bool) { v.saw(f, object, initial) },
		UpdateFunc: func(_, object any) { v.saw(f, object, false) },
		DeleteFunc: func(object any) { v.lost(f, object) },
	})
	v.running.Go(func() { informer.RunWithContext(ctx) })
}

func (v *view) saw(f *follower, object any, initial bool) {
	s, ok := object.(*seen)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
	v.mu.Lock()
	before := f.objects[key]
	switch {
	case before != nil && before.mark == s.mark:
		s.changed = before.changed
	case initial:
		s.changed = s.CreationTimestamp.Time
	default:
		s.changed = time.Now()
	}
	f.objects[key] = s
	v.mu.Unlock()
	v.notify()
}

func (v *view) lost(f *follower, object any) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	s, ok := object.(*seen)
	if !ok {
		return
	}
	v.mu.Lock()
	delete(f.objects, types.NamespacedName{Namespace: s.Namespace, Name: s.Name})
	v.mu.Unlock()
	v.notify()
}

// served tells whether a kind is worked on.
func (v *view) served(group, kind string) bool {
	return v.definitions[gitops.GroupKind{Group: group, Kind: kind}].Served
}

// state is all that is known now. It begins to follow the kinds that have come
// into an inventory and leaves those that are in none any more; complete is false
// while the objects of one are not known yet.
func (v *view) state(ctx context.Context) (s State, complete bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s = State{Sources: []Source{}, Kustomizations: []Kustomization{}, Objects: []Object{}, NotServed: []Object{}}
	complete = true
	needed := map[gitops.GroupKind]bool{}
	for kind, d := range v.definitions {
		needed[kind] = true
		f := v.followers[kind]
		complete = complete && f.synced()
		for _, object := range f.objects {
			switch {
			case kind.Group == kustomizeGroup:
				k := object.kustomization(v.served)
				complete = v.inventory(ctx, &s, &k, object.inventory(), needed) && complete
				s.Kustomizations = append(s.Kustomizations, k)
			case d.Served:
				s.Sources = append(s.Sources, object.source())
			default:
				ref := gitops.ObjectRef{Group: kind.Group, Kind: kind.Kind, Namespace: object.Namespace, Name: object.Name}
				s.NotServed = append(s.NotServed, Object{Ref: ref, Name: ref.String(), Health: gitops.HealthUnknown, Changed: object.changed, NotServed: true})
			}
		}
	}
	for kind, f := range v.followers {
		if !needed[kind] {
			f.stop()
			delete(v.followers, kind)
		}
	}
	s.sort()
	return s, complete
}

// inventory adds the objects of a Kustomization.
func (v *view) inventory(ctx context.Context, s *State, k *Kustomization, inventory gitops.Inventory, needed map[gitops.GroupKind]bool) (complete bool) {
	complete = true
	for _, entry := range inventory {
		kind := entry.Ref.GroupKind()
		needed[kind] = true
		o := Object{Ref: entry.Ref, Name: entry.Ref.String(), Owner: k.ID(), Health: gitops.HealthUnknown}
		if d, flux := v.definitions[kind]; flux && !d.Served {
			o.NotServed = true
		}
		f, err := v.follower(ctx, kind, entry.Version)
		switch {
		case errors.Is(err, errUndefined):
			o.Undefined, o.Message = true, err.Error()
		case err != nil:
			complete, o.Message = false, err.Error()
		case !f.synced():
			complete, o.Message = false, "not read yet"
		default:
			o.Health, o.Message = gitops.HealthNotFound, "it does not exist"
			if object := f.objects[types.NamespacedName{Namespace: entry.Ref.Namespace, Name: entry.Ref.Name}]; object != nil {
				o.Health, o.Message, o.Changed = object.health.Status, object.health.Message, object.changed
			}
		}
		if !o.NotServed {
			k.Total++
			if o.Health == gitops.HealthCurrent {
				k.Current++
			}
		}
		s.Objects = append(s.Objects, o)
	}
	return complete
}

// errUndefined is the error for a kind that the cluster does not know.
var errUndefined = errors.New("the cluster does not know kind")

// follower gives that of a kind, and starts it where there is none. The caller
// holds mu.
func (v *view) follower(ctx context.Context, kind gitops.GroupKind, version string) (*follower, error) {
	if f := v.followers[kind]; f != nil {
		return f, nil
	}
	mapping, err := v.mapper.RESTMapping(schema.GroupKind{Group: kind.Group, Kind: kind.Kind}, version)
	if meta.IsNoMatchError(err) && time.Since(v.discovered) > rediscoverEvery {
		v.discovered = time.Now()
		v.mapper.Reset()
		mapping, err = v.mapper.RESTMapping(schema.GroupKind{Group: kind.Group, Kind: kind.Kind}, version)
	}
	if meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("%w %s", errUndefined, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("find kind %s: %w", kind, err)
	}
	v.follow(ctx, kind, mapping.Resource)
	return v.followers[kind], nil
}
