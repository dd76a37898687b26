package flux

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// newTriggersByKind makes the triggers of every kind that is worked on.
func newTriggersByKind() map[string]*triggers {
	byKind := map[string]*triggers{}
	for _, kind := range []string{
		kustomizev1.KustomizationKind, sourcev1.GitRepositoryKind, sourcev1.OCIRepositoryKind,
		sourcev1.BucketKind, sourcev1.HelmRepositoryKind, sourcev1.HelmChartKind, swapi.ArtifactGeneratorKind,
	} {
		byKind[kind] = &triggers{}
	}
	return byKind
}

// wiring is what the reconcilers of sources are put together from.
type wiring struct {
	mgr        manager.Manager
	k          *kustomizations
	sources    *sources
	references *references
	events     *events
	triggers   map[string]*triggers
	lane       *lane
	packings   *packings
	parts      Parts
	options    Options
}

// addAllSources adds what works on sources, on what is generated of them, and on what
// others publish, and gives the kinds that a Kustomization can follow.
func (w *wiring) addAllSources(ctx context.Context) (map[string]bool, error) {
	generators, err := w.addGenerators(ctx)
	if err != nil {
		return nil, err
	}
	others, served := publishedKinds(), map[string]bool{}
	if generators != nil {
		others = generatorKinds()
	}
	if w.options.Controllers.Source {
		if served, err = w.addSources(ctx); err != nil {
			return nil, err
		}
		others = map[string]func() publishedObject{sourcev1.ExternalArtifactKind: others[sourcev1.ExternalArtifactKind]}
	}
	if w.options.Controllers.Source || generators != nil {
		if err := w.mgr.Add(leaderOnly(func(ctx context.Context) error { return w.verifyStored(ctx, generators) })); err != nil {
			return nil, err
		}
	}
	for kind, empty := range others {
		known, err := isServed(w.mgr, sourcev1.GroupVersion.WithKind(kind))
		if err != nil {
			return nil, err
		}
		if !known {
			continue
		}
		if err := w.followPublished(kind, empty, generators); err != nil {
			return nil, err
		}
		served[kind] = publishedKinds()[kind] != nil
	}
	return served, nil
}

// packed is where the artifacts of all kinds are stored.
func (w *wiring) packed() packed {
	return packed{store: w.parts.Artifacts, baseURL: w.parts.ArtifactURL, rooms: w.parts.Artifacts.Rooms()}
}

// addSources adds the reconcilers of those kinds of sources that the cluster knows, and
// gives the kinds that a Kustomization can follow.
func (w *wiring) addSources(ctx context.Context) (map[string]bool, error) {
	c := w.mgr.GetClient()
	options := w.options.Sources
	secrets := sourceSecrets{references: w.references, retry: options.RequeueDependency}
	packed := w.packed()
	repositories := helmRepositories{secrets: secrets, options: options}
	charts := helmCharts{client: c, secrets: secrets, sources: w.sources, repositories: repositories, clock: w.parts.Clock, options: options}
	served := map[string]bool{}
	for kind, add := range map[string]func() error{
		sourcev1.GitRepositoryKind: func() error {
			w.parts.GitNews(func(follower string) {
				namespace, name, _ := strings.Cut(follower, "/")
				w.triggers[sourcev1.GitRepositoryKind].add(client.ObjectKey{Namespace: namespace, Name: name}, urgent)
			})
			kind := gitRepositories{client: c, secrets: secrets, sources: w.sources, packed: packed, clock: w.parts.Clock, options: options}
			return addSource(w, kind, w.parts.Git, lists(c, func(l *sourcev1.GitRepositoryList) []sourcev1.GitRepository { return l.Items }))
		},
		sourcev1.OCIRepositoryKind: func() error {
			kind := ociRepositories{secrets: secrets, options: options}
			return addSource(w, kind, w.parts.OCI, lists(c, func(l *sourcev1.OCIRepositoryList) []sourcev1.OCIRepository { return l.Items }))
		},
		sourcev1.BucketKind: func() error {
			kind := buckets{secrets: secrets, options: options}
			return addSource(w, kind, w.parts.Buckets, lists(c, func(l *sourcev1.BucketList) []sourcev1.Bucket { return l.Items }))
		},
		sourcev1.HelmRepositoryKind: func() error {
			return addSource(w, repositories, w.parts.HelmRepositories, lists(c, func(l *sourcev1.HelmRepositoryList) []sourcev1.HelmRepository { return l.Items }))
		},
		sourcev1.HelmChartKind: func() error {
			if err := indexCharts(ctx, w.mgr.GetFieldIndexer()); err != nil {
				return err
			}
			return addSource(w, charts, w.parts.HelmCharts, lists(c, func(l *sourcev1.HelmChartList) []sourcev1.HelmChart { return l.Items }))
		},
	} {
		known, err := isServed(w.mgr, sourcev1.GroupVersion.WithKind(kind))
		if err != nil {
			return nil, err
		}
		if !known {
			w.mgr.GetLogger().Info("The cluster does not know a kind of sources; it is worked on after its definition and a restart", "kind", kind)
			continue
		}
		if err := add(); err != nil {
			return nil, fmt.Errorf("add controller of %s: %w", kind, err)
		}
		if publishedKinds()[kind] != nil {
			served[kind] = true
		}
	}
	return served, nil
}

// lists gives what lists the objects of a kind. They are those of the cache, which nobody
// changes.
func lists[T, L any, P interface {
	*L
	client.ObjectList
}](c client.Reader, items func(P) []T) func(context.Context) ([]*T, error) {
	return func(ctx context.Context) ([]*T, error) {
		list := P(new(L))
		err := c.List(ctx, list, client.UnsafeDisableDeepCopy)
		found := items(list)
		objects := make([]*T, len(found))
		for i := range found {
			objects[i] = &found[i]
		}
		return objects, err
	}
}

// sourceWorkers is how many times the workers of other kinds a kind of sources has: what
// these do is mostly waiting for an answer.
const sourceWorkers = 4

// addSource adds the reconciler of one kind of sources.
func addSource[T sourceObject, R any](w *wiring, kind sourceKind[T, R], fetcher Fetcher[R], list func(context.Context) ([]T, error)) error {
	r := &sourceReconciler[T, R]{
		kind:       kind,
		fetcher:    fetcher,
		objects:    newObjects(w.mgr.GetClient(), sourceManager, kind.empty),
		list:       list,
		selector:   w.options.Selector,
		packed:     w.packed(),
		cache:      w.parts.Cache,
		sources:    w.sources,
		references: w.references,
		triggers:   w.triggers[kind.name()],
		events:     w.events,
		metrics:    w.parts.Metrics,
		clock:      w.parts.Clock,
		options:    w.options.Sources,
		pauses:     newPauses(),
		flights:    newFlights[R](),
		lane:       w.lane,
		packings:   w.packings,
		fetched:    map[types.UID]fetched{},
		requests:   map[types.UID]*followed[R]{},
		packers:    map[types.UID]int{},
		adopted:    adopted{},
	}
	if err := w.mgr.Add(r); err != nil {
		return err
	}
	w.sources.follow(r.published)
	watch := source.Kind(w.mgr.GetCache(), client.Object(kind.empty()), w.k.sourceEvents(r.triggers, kind.name()), selected(w.options.Selector))
	options := w.options
	options.Concurrent *= sourceWorkers
	r.triggers.divide(options.Concurrent, 0, w.parts.Clock)
	return addController(w.mgr, kind.name(), r.reconcile, r.triggers, options, w.parts, watch)
}

// contentOf identifies values of plain data.
func contentOf(values ...any) string {
	data, err := json.Marshal(values)
	if err != nil {
		return "" // never: the values are plain data
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
