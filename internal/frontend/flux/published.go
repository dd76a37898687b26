package flux

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// publishedObject is a source whose artifact another controller publishes in its
// status.
type publishedObject interface {
	client.Object
	GetArtifact() *meta.Artifact
}

// publishedKinds are the kinds of sources that a Kustomization can follow, each with
// an empty object.
func publishedKinds() map[string]func() publishedObject {
	return map[string]func() publishedObject{
		sourcev1.GitRepositoryKind:    func() publishedObject { return &sourcev1.GitRepository{} },
		sourcev1.OCIRepositoryKind:    func() publishedObject { return &sourcev1.OCIRepository{} },
		sourcev1.BucketKind:           func() publishedObject { return &sourcev1.Bucket{} },
		sourcev1.ExternalArtifactKind: func() publishedObject { return &sourcev1.ExternalArtifact{} },
	}
}

// SourceKinds are the kinds of sources that a Kustomization can follow, whoever works on
// them.
func SourceKinds() map[string]bool {
	kinds := map[string]bool{}
	for kind := range publishedKinds() {
		kinds[kind] = true
	}
	return kinds
}

// placeOf is where Flux's controllers have the artifacts of an object, beside those of all
// others. Whoever may write a status could name any of these in it.
func placeOf(ref gitops.OwnerRef) egress.Place {
	place := egress.Place{Folder: strings.ToLower(ref.Kind) + "/" + ref.Namespace + "/" + ref.Name}
	for _, kind := range []string{
		sourcev1.GitRepositoryKind, sourcev1.OCIRepositoryKind, sourcev1.BucketKind, sourcev1.ExternalArtifactKind,
		sourcev1.HelmRepositoryKind, sourcev1.HelmChartKind,
	} {
		place.Tops = append(place.Tops, strings.ToLower(kind))
	}
	return place
}

// downloadTimeout bounds one try to get an artifact.
const downloadTimeout = 5 * time.Minute

// published follows the sources of one kind that other controllers work on: it gets
// what they publish and gives it to those who follow the source. It writes nothing.
type published struct {
	kind      string
	empty     func() publishedObject
	client    client.Client
	cache     *artifact.Cache
	rooms     *artifact.Rooms
	sources   *sources
	followers func(source gitops.OwnerRef)
	options   SourceOptions
	pauses    *pauses
	// skip tells which objects are somebody's who gives their artifacts to those who
	// follow them himself; nil for none.
	skip       func(publishedObject) bool
	mu         sync.Mutex
	downloaded map[types.NamespacedName]types.UID // guarded by mu
	// A slow server keeps no worker, as with the sources of this operator.
	lane     *lane
	flights  *flights[meta.Artifact]
	triggers *triggers
	clock    clock.PassiveClock
	work     background
}

// reconcile gets the artifact of one source, if it is not there already.
func (p *published) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj := p.empty()
	ref := gitops.OwnerRef{Group: sourceGroup, Kind: p.kind, Namespace: req.Namespace, Name: req.Name}
	err := p.client.Get(ctx, req.NamespacedName, obj)
	switch {
	case apierrors.IsNotFound(err):
		p.gone(ref, req.NamespacedName)
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	if p.skip != nil && p.skip(obj) {
		p.mu.Lock()
		delete(p.downloaded, req.NamespacedName)
		p.mu.Unlock()
		p.flights.forget(obj.GetUID())
		p.recovered(ref)
		return ctrl.Result{}, nil
	}
	ref.UID = string(obj.GetUID())
	a := obj.GetArtifact()
	switch {
	case a == nil:
		p.flights.forget(obj.GetUID())
		p.withdrawn(ref)
		return ctrl.Result{}, nil
	case p.sources.holds(ref, a.Revision, a.Digest):
		p.flights.forget(obj.GetUID())
		p.recovered(ref)
		return ctrl.Result{}, nil
	}
	if errors.Is(p.sources.failure(ref), errNoArtifact) {
		p.sources.failed(ref, nil) // there will be one in a moment
	}
	p.remember(req.NamespacedName, obj.GetUID())
	landed, err := p.fetch(ctx, obj, ref, a)
	if landed == nil {
		return p.wait(ref, err), nil
	}
	return p.take(ctx, obj, ref, landed)
}

// errNoArtifact is why an artifact cannot be had of a source whose status names none, be it
// that none was published so far or that it was withdrawn: that cannot be told after a restart.
var errNoArtifact = errors.New("its status names no artifact")

// withdrawn takes what a source has published from those who follow it. What they have applied
// they keep.
func (p *published) withdrawn(ref gitops.OwnerRef) {
	if errors.Is(p.sources.failure(ref), errNoArtifact) {
		return
	}
	p.sources.failed(ref, errNoArtifact)
	p.sources.remove(ref)
	p.followers(ref)
}

// recovered has those who follow a source go on that could not be had until now.
func (p *published) recovered(ref gitops.OwnerRef) {
	if p.sources.failure(ref) != nil {
		p.sources.failed(ref, nil)
		p.followers(ref)
	}
}

// download gets an artifact. The caller releases it.
func (p *published) download(ctx context.Context, ref gitops.OwnerRef, a *meta.Artifact) (gitops.Tree, func(), error) {
	downloadCtx, cancel := context.WithTimeout(p.rooms.In(ctx, ref.Namespace), downloadTimeout)
	defer cancel()
	files, release, err := p.cache.Get(egress.At(downloadCtx, placeOf(ref)), a.URL, a.Digest, artifact.NamespaceScope(ref.Namespace))
	if ctx.Err() != nil {
		if err == nil {
			release()
		}
		return nil, nil, ctx.Err()
	}
	return files, release, err
}

// take gives what a download has brought to those who follow the source.
func (p *published) take(ctx context.Context, obj publishedObject, ref gitops.OwnerRef, landed *flight[meta.Artifact]) (ctrl.Result, error) {
	if err := landed.err; err != nil {
		if ctx.Err() != nil {
			return ctrl.Result{}, nil
		}
		p.sources.failed(ref, err)
		p.followers(ref)
		pause := p.pauses.backoff(obj.GetUID(), p.options.MinRetryDelay, p.options.MaxRetryDelay)
		return ctrl.Result{RequeueAfter: pause}, nil
	}
	p.pauses.succeeded(obj.GetUID())
	p.sources.failed(ref, nil)
	p.sources.publish(ref, gitops.Snapshot{Artifact: artifactOf(ref, &landed.following.request), Files: landed.result.Files, Release: landed.result.Release})
	return ctrl.Result{}, nil
}

func (p *published) remember(key types.NamespacedName, uid types.UID) {
	p.mu.Lock()
	old := p.downloaded[key]
	p.downloaded[key] = uid
	p.mu.Unlock()
	if old != uid {
		// Another one of the name has taken its place.
		p.pauses.forget(old)
		p.flights.forget(old)
	}
}

// gone drops a source that does not exist any more.
func (p *published) gone(ref gitops.OwnerRef, key types.NamespacedName) {
	p.mu.Lock()
	uid, ours := p.downloaded[key]
	delete(p.downloaded, key)
	p.mu.Unlock()
	p.pauses.forget(uid)
	p.flights.forget(uid)
	p.sources.failed(ref, nil)
	if ours || p.skip == nil {
		p.sources.remove(ref)
	}
	p.followers(ref)
}

// events enqueue a source when what it publishes may have changed.
func (p *published) events() handler.EventHandler {
	changed := func(before, after client.Object) bool {
		a, b := before.(publishedObject).GetArtifact(), after.(publishedObject).GetArtifact()
		if a == nil || b == nil {
			return (a == nil) != (b == nil)
		}
		asked := before.GetAnnotations()[meta.ReconcileRequestAnnotation] != after.GetAnnotations()[meta.ReconcileRequestAnnotation]
		return asked || a.Revision != b.Revision || a.Digest != b.Digest || a.URL != b.URL ||
			!a.LastUpdateTime.Equal(&b.LastUpdateTime) || before.GetUID() != after.GetUID()
	}
	add := func(q queue, obj client.Object) { enqueue(q, client.ObjectKeyFromObject(obj), urgent) }
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(q, e.Object) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			if changed(e.ObjectOld, e.ObjectNew) {
				add(q, e.ObjectNew)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { add(q, e.Object) },
	}
}

// isServed tells whether the cluster knows a kind. One that is defined later is worked on
// after the next start.
func isServed(mgr manager.Manager, kind schema.GroupVersionKind) (bool, error) {
	_, err := mgr.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	var missing *apimeta.NoKindMatchError
	switch {
	case apimeta.IsNoMatchError(err), errors.As(err, &missing):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("find out whether the cluster knows %s: %w", kind.Kind, err)
	}
	return true, nil
}

// followPublished follows the sources of one kind that other controllers work on; what
// generators make is theirs. Generators may be nil.
func (w *wiring) followPublished(kind string, empty func() publishedObject, generators *generators) error {
	p := &published{
		kind: kind, empty: empty, client: w.mgr.GetClient(), cache: w.parts.Cache, rooms: w.parts.Artifacts.Rooms(), sources: w.sources,
		followers: w.wakeFollowers, options: w.options.Sources, pauses: newPauses(), downloaded: map[types.NamespacedName]types.UID{},
		lane: w.lane, flights: newFlights[meta.Artifact](), triggers: &triggers{}, clock: w.parts.Clock,
	}
	if generators != nil {
		p.skip = generators.makes
		p.followers = func(of gitops.OwnerRef) {
			w.wakeFollowers(of)
			generators.published(of, gitops.Snapshot{})
		}
	}
	if err := w.mgr.Add(leaderOnly(p.finish)); err != nil {
		return err
	}
	return addController(w.mgr, kind, p.reconcile, p.triggers, w.options, w.parts, source.Kind(w.mgr.GetCache(), client.Object(empty()), p.events()))
}

// wakeFollowers has the Kustomizations run that follow a source.
func (w *wiring) wakeFollowers(of gitops.OwnerRef) {
	w.k.followersOf(context.Background(), of, func(key client.ObjectKey) { w.k.triggers.add(key, urgent) })
}
