package flux

import (
	"context"
	"fmt"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// addGenerators adds the reconciler of ArtifactGenerators; nil where they are somebody
// else's, or the cluster does not know them.
func (w *wiring) addGenerators(ctx context.Context) (*generators, error) {
	if !w.options.Controllers.Watcher {
		return nil, nil
	}
	generator, external := swapi.GroupVersion.WithKind(swapi.ArtifactGeneratorKind), sourcev1.GroupVersion.WithKind(sourcev1.ExternalArtifactKind)
	for _, kind := range []schema.GroupVersionKind{generator, external} {
		known, err := isServed(w.mgr, kind)
		if err != nil {
			return nil, err
		}
		if !known {
			w.mgr.GetLogger().Info("The cluster does not know a kind; ArtifactGenerators are worked on after its definition and a restart", "kind", kind.Kind)
			return nil, nil
		}
	}
	if err := indexGenerators(ctx, w.mgr.GetFieldIndexer()); err != nil {
		return nil, fmt.Errorf("index ArtifactGenerators: %w", err)
	}
	c := w.mgr.GetClient()
	g := &generators{
		objects:  newObjects(c, watcherManager, func() *swapi.ArtifactGenerator { return &swapi.ArtifactGenerator{} }),
		external: newObjects(c, watcherManager, func() *sourcev1.ExternalArtifact { return &sourcev1.ExternalArtifact{} }),
		client:   c,
		live:     w.mgr.GetAPIReader(),
		selector: w.options.Selector,
		packed:   w.packed(),
		cache:    w.parts.Cache,
		sources:  w.sources,
		triggers: w.triggers[swapi.ArtifactGeneratorKind],
		events:   w.events,
		clock:    w.parts.Clock,
		options:  w.options.Sources,
		pauses:   newPauses(),
		makers:   newMakers(),
		made:     map[types.UID]map[string]made{},
		looked:   map[types.UID]bool{},
	}
	g.gone = func(of gitops.OwnerRef) {
		w.wakeFollowers(of)
		g.published(of, gitops.Snapshot{})
	}
	w.sources.follow(g.published)
	watches := []source.Source{
		source.Kind(w.mgr.GetCache(), client.Object(&swapi.ArtifactGenerator{}), generatorEvents(g.triggers), selected(w.options.Selector)),
		source.Kind(w.mgr.GetCache(), client.Object(&sourcev1.ExternalArtifact{}), g.externalEvents()),
	}
	for kind, empty := range generatorKinds() {
		known, err := isServed(w.mgr, sourcev1.GroupVersion.WithKind(kind))
		if err != nil {
			return nil, err
		}
		if known {
			watches = append(watches, source.Kind(w.mgr.GetCache(), client.Object(empty()), g.advertised(kind)))
		}
	}
	// A generator packs with its worker, for minutes where there is much.
	g.triggers.divide(w.options.Concurrent, 1, w.parts.Clock)
	return g, addController(w.mgr, swapi.ArtifactGeneratorKind, g.reconcile, g.triggers, w.options, w.parts, watches...)
}
