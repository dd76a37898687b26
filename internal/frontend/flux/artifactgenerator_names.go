package flux

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/fluxcd/pkg/apis/meta"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// makers say which generator an artifact is of in this process: from before its files are
// packed until they, its snapshot and its object are removed. Objects in the cluster cannot
// say that: the next generator sees an object go before the last one has cleaned up behind
// it, and what it packs would be cleaned away too.
type makers struct {
	mu sync.Mutex
	// of is guarded by mu.
	of map[gitops.OwnerRef]maker
}

// maker is a generator in the namespace of what it makes.
type maker struct {
	uid  types.UID
	name string
}

func newMakers() *makers { return &makers{of: map[gitops.OwnerRef]maker{}} }

// take makes an artifact that of a generator, unless it is another one's than that which it
// was, and gives whose it is then.
func (m *makers) take(ref gitops.OwnerRef, was, next maker) maker {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now, ok := m.of[ref.Key()]; ok && now != was {
		return now
	}
	m.of[ref.Key()] = next
	return next
}

// leave gives an artifact up that is a generator's.
func (m *makers) leave(ref gitops.OwnerRef, uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of[ref.Key()].uid == uid {
		delete(m.of, ref.Key())
	}
}

// leaveAll gives up all that is a generator's.
func (m *makers) leaveAll(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.of, func(_ gitops.OwnerRef, of maker) bool { return of.uid == uid })
}

// get is the generator that an artifact is of; the zero value for none.
func (m *makers) get(ref gitops.OwnerRef) maker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.of[ref.Key()]
}

// with calls f with all artifacts that are somebody's; nobody can take one meanwhile.
func (m *makers) with(f func(refs []gitops.OwnerRef) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	refs := make([]gitops.OwnerRef, 0, len(m.of))
	for ref := range m.of {
		refs = append(refs, ref)
	}
	return f(refs)
}

// hold makes an artifact that of a generator. The error names another one that makes it now,
// or is about to remove it.
func (g *generators) hold(obj *swapi.ArtifactGenerator, ref gitops.OwnerRef) error {
	was, mine := g.makers.get(ref), maker{obj.UID, obj.Name}
	if was != mine && g.exists(ref.Namespace, was) {
		return g.heldBy(ref, was)
	}
	if now := g.makers.take(ref, was, mine); now != mine {
		return g.heldBy(ref, now)
	}
	return nil
}

// exists tells whether a generator is there: one without its finalizer may have gone unseen.
func (g *generators) exists(namespace string, m maker) bool {
	obj := &swapi.ArtifactGenerator{}
	return m.uid != "" && g.client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: m.name}, obj) == nil && obj.UID == m.uid
}

func (g *generators) heldBy(ref gitops.OwnerRef, by maker) error {
	return &blocked{reason: meta.ReconciliationFailedReason, waiting: true, retry: g.options.RequeueDependency, cause: fmt.Errorf(
		"%s '%s/%s' is made, or being removed, by %s '%s/%s'; rename one of the two, or delete it",
		ref.Kind, ref.Namespace, ref.Name, swapi.ArtifactGeneratorKind, ref.Namespace, by.name)}
}

// wake has those looked at that make an artifact of a name, or wait for the name.
func (g *generators) wake(ctx context.Context, namespace, name string) {
	var list swapi.ArtifactGeneratorList
	if err := g.client.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		obj := &list.Items[i]
		if g.last(obj.UID, name).file != "" || generatorConditions(obj).get(meta.ReadyCondition).Reason == meta.ReconciliationFailedReason {
			g.triggers.add(client.ObjectKeyFromObject(obj), urgent)
		}
	}
}
