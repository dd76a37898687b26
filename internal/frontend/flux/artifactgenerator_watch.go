package flux

import (
	"context"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// indexGeneratorSource lists ArtifactGenerators by their sources.
const indexGeneratorSource = "plumb.generator-source"

func indexGenerators(ctx context.Context, indexer client.FieldIndexer) error {
	return indexer.IndexField(ctx, &swapi.ArtifactGenerator{}, indexGeneratorSource, func(o client.Object) []string {
		var keys []string
		for _, ref := range generatorSources(o.(*swapi.ArtifactGenerator)) {
			keys = append(keys, ref.String())
		}
		return keys
	})
}

// published has the generators run that use a source.
func (g *generators) published(of gitops.OwnerRef, _ gitops.Snapshot) {
	var list swapi.ArtifactGeneratorList
	err := g.client.List(context.Background(), &list, client.MatchingFields{indexGeneratorSource: of.String()}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		g.triggers.add(client.ObjectKeyFromObject(&list.Items[i]), urgent)
	}
}

// generatorEvents enqueue a generator for its own changes.
func generatorEvents(self *triggers) handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ queue) {
			self.add(client.ObjectKeyFromObject(e.Object), urgent)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			before, after := e.ObjectOld.(*swapi.ArtifactGenerator), e.ObjectNew.(*swapi.ArtifactGenerator)
			if wantsRun(before, after) || before.IsDisabled() != after.IsDisabled() {
				self.add(client.ObjectKeyFromObject(after), urgent)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ queue) {
			self.add(client.ObjectKeyFromObject(e.Object), urgent)
		},
	}
}

// advertised enqueues the generators of a source when the artifact changes that the source
// advertises: what they say of it changes too.
func (g *generators) advertised(kind string) handler.EventHandler {
	text := func(obj client.Object) string {
		a := obj.(publishedObject).GetArtifact()
		if a == nil {
			return ""
		}
		return a.Revision + " " + a.Digest + " " + a.URL
	}
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			if text(e.ObjectOld) != text(e.ObjectNew) {
				g.published(sourceOwner(e.ObjectNew, kind), gitops.Snapshot{})
			}
		},
	}
}

// externalEvents enqueue the generator of an object that somebody else changed or deleted,
// and those that wait for its name.
func (g *generators) externalEvents() handler.EventHandler {
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			if owner, differs := g.differs(e.ObjectNew.(*sourcev1.ExternalArtifact)); differs {
				g.triggers.add(owner, urgent)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) {
			g.wake(ctx, e.Object.GetNamespace(), e.Object.GetName())
		},
	}
}

// differs tells whether an object is not what its generator has made it, and names that. Its
// label or its reference may be what was changed.
func (g *generators) differs(ea *sourcev1.ExternalArtifact) (owner types.NamespacedName, differs bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, known := g.made[types.UID(ea.Labels[swapi.ArtifactGeneratorLabel])][ea.Name]
	if !known {
		for _, all := range g.made {
			if of, ok := all[ea.Name]; ok && of.artifact.Source.Namespace == ea.Namespace {
				m, known = of, true
			}
		}
	}
	a, ref := ea.Status.Artifact, ea.Spec.SourceRef
	same := a != nil && a.Revision == m.artifact.Revision && a.Digest == m.artifact.Digest && strings.HasSuffix(a.URL, "/"+m.file) &&
		ref != nil && ref.Kind == swapi.ArtifactGeneratorKind && ref.Name == m.owner &&
		(conditioned{list: &ea.Status.Conditions}).is(meta.ReadyCondition, "True") &&
		within(m.labels, ea.Labels) && within(m.annotations, ea.Annotations)
	return types.NamespacedName{Namespace: ea.Namespace, Name: m.owner}, known && !same
}
