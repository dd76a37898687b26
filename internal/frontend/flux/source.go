package flux

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// SourceOptions are the settings of the reconcilers of sources.
type SourceOptions struct {
	// MinRetryDelay and MaxRetryDelay bound the pauses after failures.
	MinRetryDelay, MaxRetryDelay time.Duration
	// RequeueDependency is the pause after which another object that is not ready is
	// looked at again.
	RequeueDependency time.Duration
	// IntervalJitter is the share, from 0 to 1, by which intervals vary.
	IntervalJitter float64
	// ServiceAccountLogins lets service accounts log in at clouds.
	ServiceAccountLogins bool
	// DefaultServiceAccount is who logs in at clouds where an object names nobody and
	// service accounts log in; empty for the operator itself.
	DefaultServiceAccount string
	// NoCrossNamespaceRefs refuses references to objects of other namespaces.
	NoCrossNamespaceRefs bool
	// Rewrites say where sources are that cannot be reached where their objects say;
	// the first that fits a URL holds.
	Rewrites []Rewrite
}

// Fetcher gets what the objects of one kind of source follow. The composition root
// hands in the adapters that do it.
type Fetcher[R any] interface {
	// Fetch is that of source.Fetcher, for a request.
	Fetch(ctx context.Context, request R, known string) (source.Result, error)
	// Last gives what an earlier Fetch brought, from disk and without asking anybody;
	// an error where there is nothing.
	Last(ctx context.Context, request R) (source.Result, error)
	// Retain removes what none of the requests needs.
	Retain(requests []R) error
}

// sourceObject is a custom resource that stands for a source.
type sourceObject interface {
	client.Object
	GetRequeueAfter() time.Duration
	GetArtifact() *meta.Artifact
}

// sourceStatus are those parts of a status that all kinds of sources have.
type sourceStatus struct {
	artifact   **meta.Artifact
	conditions *[]metav1.Condition
	generation *int64
	request    *meta.ReconcileRequestStatus
	// url is the lasting address of the newest artifact; nil for GitRepository.
	url *string
}

// sourceSettings are those parts of a spec that all kinds of sources have.
type sourceSettings struct {
	suspended bool
	timeout   *metav1.Duration
	// address is where the source is, for messages: without credentials.
	address string
	// static is an object that others read and that is not worked on itself.
	static bool
}

// sourceKind is what one kind of sources, whose requests are of type R, has of its own.
type sourceKind[T sourceObject, R any] interface {
	name() string
	empty() T
	status(obj T) sourceStatus
	settings(obj T) sourceSettings
	// refuse names the first thing that the spec asks for and that is not done.
	refuse(obj T) *blocked
	// follow translates what is to be fetched, with the credentials that the object
	// refers to. The caller releases the pursuit.
	follow(obj T) (pursuit[R], error)
	// settled tells whether, as in Flux, an object that is Ready needs no look at the remote to
	// stay so: there can be nothing newer for it in what it follows.
	settled(obj T, following pursuit[R]) bool
	// credential identifies with which credential a request asks its server.
	credential(request R) string
	// observe writes what only this kind has into the status of a success.
	observe(after, started T, f fetched)
	// words say what has been fetched: for the condition, and for the event of a new
	// artifact.
	words(started T, f fetched) (condition, news string)
	// reasons are those of a success, and of a failure that has none of its own.
	reasons(f fetched) (success, failure string)
	// annotations are those of a revision that belong to its artifact.
	annotations(metadata map[string]string) map[string]string
	// file names the file that holds a revision.
	file(revision string, metadata map[string]string) string
	// latest is the lasting name of the newest file.
	latest() string
	// dependents are the objects of this kind that are made from another source.
	dependents(of gitops.OwnerRef) []client.ObjectKey
}

// pursuit is what one object follows at present.
type pursuit[R any] struct {
	request R
	// content identifies all that beside the revision decides on the files.
	content string
	// compose makes the files that are shown from those that are fetched; nil for the
	// same ones.
	compose func(files gitops.Tree) (gitops.Tree, error)
	// parts are snapshots of other sources that it is made from.
	parts parts
	// terms identify what is looked at, and with whose rights, without the parts; empty
	// where there are none. While they hold, a look goes on though the parts change.
	terms string
	// timeout takes the place of that of the settings, where it is not 0.
	timeout time.Duration
}

// parts are the snapshots of the sources that another one is made from, in the order of
// its spec.
type parts []gitops.Snapshot

func (p parts) release() {
	for _, snapshot := range p {
		snapshot.Release()
	}
}

// sourceReconciler reconciles the sources of one kind.
type sourceReconciler[T sourceObject, R any] struct {
	kind     sourceKind[T, R]
	fetcher  Fetcher[R]
	objects  *objects[T]
	list     func(ctx context.Context) ([]T, error)
	selector labels.Selector

	packed packed
	// cache unpacks stored files.
	cache      *artifact.Cache
	sources    *sources
	references *references
	triggers   *triggers
	events     *events
	metrics    Metrics
	clock      clock.PassiveClock
	options    SourceOptions
	pauses     *pauses
	flights    *flights[R]
	// packings bounds those of all kinds of sources; nil does not.
	packings *packings
	// lane is that of all kinds of sources.
	lane *lane
	// work is the fetching and packing under way.
	work background

	mu sync.Mutex
	// packers is how many are packing for an object; guarded by mu, as is adopted.
	packers map[types.UID]int
	adopted adopted
	// unstored is the revision of an object that could not be stored, until it is; guarded by mu.
	unstored map[types.UID]string
	// overdue are objects whose status could not be told for a while; guarded by mu.
	overdue map[types.UID]*overdue
	// fetched is what was published last of each object; guarded by mu, as is
	// requests, what each object follows: nil for one that follows nothing.
	fetched  map[types.UID]fetched
	requests map[types.UID]*followed[R]
	// unknown is since when it has not been known of an object what it follows; guarded by
	// mu.
	unknown map[types.UID]time.Time
}

// followed is what an object follows, with a text that tells it from others.
type followed[R any] struct {
	request R
	key     string
}

// fetched is what an object's newest snapshot was made from.
type fetched struct {
	revision string
	// content and terms are those of its pursuit.
	content  string
	terms    string
	artifact gitops.Artifact
	// file opens what is stored, where that is not what the files make when they are
	// packed; it can be called while the snapshot is held.
	file func() (io.ReadCloser, error)
	// stored is the name of the file where that is known from a status alone.
	stored string
	// mended is when the stored file was last found damaged, and stored again, or could not be
	// stored.
	mended time.Time
	// parts are the artifacts that it is made from, in the order of the spec.
	parts []gitops.Artifact
	// metadata describes the revision, verified says who signed it, and rewritten that
	// the one before is not its predecessor; all are told with the first status.
	metadata  map[string]string
	verified  string
	rewritten bool
	// generation and request are those of the object when it was fetched.
	generation int64
	request    string
	// failure is why the artifact could not be packed. Confirmed is set while the last look
	// at the remote has found the revision, and told when the status has it. Started is the
	// object as it was when it was fetched, nil once that is told.
	failure         error
	confirmed, told bool
	started         client.Object
}

// ref names an object as a source.
func (r *sourceReconciler[T, R]) ref(obj client.Object) gitops.OwnerRef {
	return sourceOwner(obj, r.kind.name())
}

// reconcile brings one object up to date with its remote.
func (r *sourceReconciler[T, R]) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj, err := r.objects.get(ctx, req.NamespacedName)
	switch {
	case apierrors.IsNotFound(err):
		markGone(ctx)
		r.forget(gitops.OwnerRef{Group: sourceGroup, Kind: r.kind.name(), Namespace: req.Namespace, Name: req.Name}, "")
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	case !serves(r.selector, obj):
		return ctrl.Result{}, nil
	case !obj.GetDeletionTimestamp().IsZero():
		r.forget(r.ref(obj), obj.GetUID())
		if err := r.packed.store.Remove(r.ref(obj)); err != nil {
			return ctrl.Result{}, fmt.Errorf("remove artifacts: %w", err)
		}
		_, err := r.objects.setFinalizer(ctx, obj, sourcev1.SourceFinalizer, false)
		return ctrl.Result{}, err
	case r.kind.settings(obj).static:
		return r.leave(ctx, obj)
	}
	r.adopt(ctx, obj)
	r.mend(ctx, obj)
	if r.kind.settings(obj).suspended {
		ctrl.LoggerFrom(ctx).Info("Reconciliation is suspended for this object")
		return r.rest(ctx, obj)
	}
	if refusal := r.kind.refuse(obj); refusal != nil {
		r.flights.abandon(obj.GetUID())
		// It follows nothing, which must not keep others' data from being cleaned.
		r.follows(ctx, obj.GetUID(), nil)
		r.restore(ctx, obj)
		return r.fail(ctx, obj, refusal)
	}
	if obj, err = r.objects.setFinalizer(ctx, obj, sourcev1.SourceFinalizer, true); err != nil {
		return ctrl.Result{}, err
	}
	return r.advance(ctx, obj)
}

// leave lets go of an object that is only read by others. What it was before, such as a
// HelmRepository of another type, is taken off it; so is the API's default of a status, for
// whose change everybody would wait.
func (r *sourceReconciler[T, R]) leave(ctx context.Context, obj T) (ctrl.Result, error) {
	r.forget(r.ref(obj), obj.GetUID())
	r.follows(ctx, obj.GetUID(), nil)
	if err := r.packed.store.Remove(r.ref(obj)); err != nil {
		return ctrl.Result{}, fmt.Errorf("remove artifacts: %w", err)
	}
	after := obj.DeepCopyObject().(T)
	status := r.kind.status(after)
	*status.artifact, *status.conditions, *status.generation = nil, nil, 0
	*status.request = meta.ReconcileRequestStatus{}
	if status.url != nil {
		*status.url = ""
	}
	obj, err := r.objects.patchStatus(ctx, obj, after)
	if err != nil {
		return ctrl.Result{}, err
	}
	_, err = r.objects.setFinalizer(ctx, obj, sourcev1.SourceFinalizer, false)
	r.sources.touch(r.ref(obj))
	return ctrl.Result{}, err
}

// advance fetches, publishes and packs.
func (r *sourceReconciler[T, R]) advance(ctx context.Context, obj T) (ctrl.Result, error) {
	following, err := r.kind.follow(obj)
	if err != nil {
		r.followsUnknown(ctx, obj.GetUID(), err)
		r.restoreUnlessQuiet(ctx, obj, err)
		r.flights.abandon(obj.GetUID())
		return r.fail(ctx, obj, err)
	}
	defer func() { following.parts.release() }()
	r.follows(ctx, obj.GetUID(), &following.request)

	last := r.last(obj.GetUID())
	if last.untold(obj, following.content) {
		// Its packing has ended. To ask again before that is told would be one look more
		// than is wanted, and no end where each look finds something else.
		result, err := r.settle(ctx, obj)
		if r.last(obj.GetUID()).told && (r.flights.has(obj.GetUID()) || !last.madeOf(following.parts)) {
			// What else there is has been told while this was packed.
			r.triggers.add(client.ObjectKeyFromObject(obj), urgent)
		}
		return result, err
	}
	if of, ok := r.late(obj, following); ok {
		return r.tellLate(ctx, obj, of)
	}
	if last.revision == "" {
		last = r.resume(ctx, obj, &following)
	}
	known := ""
	if last.content == following.content {
		known = last.revision
	}
	landed, err := r.fetch(ctx, obj, &following, known)
	switch {
	case err != nil:
		r.restoreUnlessQuiet(ctx, obj, err)
		return r.fail(ctx, obj, err)
	case landed == nil:
		return ctrl.Result{}, r.lacking(ctx, obj)
	}
	defer func() { landed.following.parts.release() }()
	if landed.err != nil {
		return r.missed(ctx, obj, landed)
	}
	return r.arrived(ctx, obj, landed)
}

// missed is for a look at the remote that failed.
func (r *sourceReconciler[T, R]) missed(ctx context.Context, obj T, landed *flight[R]) (ctrl.Result, error) {
	if ctx.Err() != nil {
		return ctrl.Result{}, nil
	}
	r.metrics.Fetched(r.kind.name(), "failed")
	r.doubt(obj.GetUID())
	r.restore(ctx, obj)
	if r.unaffected(ctx, obj, landed.following, landed.err) {
		return r.goOn(ctx, obj, landed.err)
	}
	return r.fail(ctx, obj, landed.err)
}

// arrived gives the consumers what a look at the remote has brought, and then has it packed.
func (r *sourceReconciler[T, R]) arrived(ctx context.Context, obj T, landed *flight[R]) (ctrl.Result, error) {
	if landed.result.Unchanged {
		r.metrics.Fetched(r.kind.name(), "unchanged")
		landed.result.Release()
		r.confirm(obj.GetUID(), landed.result.Verified, landed.following.parts, landed.request)
		return r.settle(ctx, obj)
	}
	r.metrics.Fetched(r.kind.name(), "changed")
	next, err := r.publish(obj, landed.result, &landed.following)
	if err != nil {
		return r.fail(ctx, obj, err)
	}
	next.confirmed, next.request = true, landed.request
	// Consumers in the process are at work by now; the file is for others.
	r.startPacking(ctx, obj, next)
	return ctrl.Result{RequeueAfter: r.interval(obj)}, nil
}

// untold tells whether a revision is packed, was fetched for the object as it is declared
// now, and stands in no status yet.
func (f fetched) untold(obj client.Object, content string) bool {
	return f.confirmed && !f.packing() && !f.told && f.content == content && f.generation == obj.GetGeneration()
}

// madeOf tells whether a revision is made from these snapshots.
func (f fetched) madeOf(snapshots parts) bool {
	return slices.EqualFunc(f.parts, snapshots, func(was gitops.Artifact, is gitops.Snapshot) bool {
		return was.Source == is.Artifact.Source && was.Revision == is.Artifact.Revision
	})
}

// requestOf is the last request for a reconciliation of an object.
func requestOf(obj client.Object) string {
	return obj.GetAnnotations()[meta.ReconcileRequestAnnotation]
}

// settle writes the status of the revision that was fetched last, once its file can be
// served.
func (r *sourceReconciler[T, R]) settle(ctx context.Context, obj T) (ctrl.Result, error) {
	last := r.last(obj.GetUID())
	switch {
	case last.revision == "":
		// It could not be packed, which was told while a look at the same was under way.
		r.triggers.add(client.ObjectKeyFromObject(obj), urgent)
		return ctrl.Result{}, nil
	case last.packing():
		return ctrl.Result{RequeueAfter: r.interval(obj)}, nil
	case last.failure != nil:
		// What could not be packed is fetched, published and packed again.
		r.mu.Lock()
		delete(r.fetched, obj.GetUID())
		r.mu.Unlock()
		return r.fail(ctx, obj, last.failure)
	}
	last, waits := r.withParts(last)
	if waits && !r.tooLong(obj.GetUID()) {
		// The packing of the included one has the object reconciled, unless it lasts.
		return ctrl.Result{RequeueAfter: longestUntold}, nil
	}
	return r.succeed(ctx, obj, last)
}

func (r *sourceReconciler[T, R]) interval(obj T) time.Duration {
	return paced(obj.GetRequeueAfter(), r.options.IntervalJitter)
}

// longestTimeout bounds spec.timeout, of which Flux's API wants no more than that it is a
// duration.
const longestTimeout = time.Hour

// timeout is how long one look at the remote may take.
func (r *sourceReconciler[T, R]) timeout(obj T, other time.Duration) time.Duration {
	if other > 0 {
		return min(other, longestTimeout)
	}
	if timeout := r.kind.settings(obj).timeout; timeout != nil {
		return min(timeout.Duration, longestTimeout)
	}
	return time.Minute
}

// rest leaves a suspended object as it is: nothing is fetched, and nothing is written but the
// end of what was under way when it was suspended, and what its consumers have. What an earlier
// process fetched is given to the consumers, which are not suspended.
func (r *sourceReconciler[T, R]) rest(ctx context.Context, obj T) (ctrl.Result, error) {
	r.flights.abandon(obj.GetUID())
	if err := r.conclude(ctx, obj); err != nil {
		return ctrl.Result{}, err
	}
	result, known := r.reuse(ctx, obj)
	if !known {
		return result, nil
	}
	return result, r.restate(ctx, client.ObjectKeyFromObject(obj))
}

// reuse gives the consumers of a suspended object what is there, unless they have it. Known is
// not set while it will be known in a moment what that is.
func (r *sourceReconciler[T, R]) reuse(ctx context.Context, obj T) (result ctrl.Result, known bool) {
	if r.kind.refuse(obj) != nil {
		r.follows(ctx, obj.GetUID(), nil)
		r.restore(ctx, obj)
		return ctrl.Result{}, true
	}
	switch last := r.last(obj.GetUID()); {
	case last.failure != nil:
		return ctrl.Result{RequeueAfter: mendPause}, true
	case last.revision != "":
		return ctrl.Result{}, true
	}
	following, err := r.kind.follow(obj)
	if err != nil {
		r.followsUnknown(ctx, obj.GetUID(), err)
		r.restoreUnlessQuiet(ctx, obj, err)
		return ctrl.Result{RequeueAfter: r.options.RequeueDependency}, !hasQuiet(err)
	}
	defer func() { following.parts.release() }()
	r.follows(ctx, obj.GetUID(), &following.request)
	r.resume(ctx, obj, &following)
	r.restore(ctx, obj)
	return ctrl.Result{}, true
}

// resume gives the consumers at once what an earlier process fetched, so that they keep
// it in order while the remote is asked, however long that takes. Where the fetcher has
// nothing of it, they get the stored file of what the status names, and the result is
// empty.
//
// What was fetched last may be newer than what the status names, and in use by the consumers
// already: it is that which they get. Where the file that the status names is not there it may
// be older as well, for another process with another folder may have been at work since: they
// wait then until the remote has answered.
func (r *sourceReconciler[T, R]) resume(ctx context.Context, obj T, following *pursuit[R]) fetched {
	told := obj.GetArtifact()
	if told == nil || r.sources.revision(r.ref(obj)) != "" {
		return fetched{}
	}
	r.mu.Lock()
	ours := r.adopted[obj.GetUID()]
	r.mu.Unlock()
	if obj.GetGeneration() != *r.kind.status(obj).generation && (!ours || r.kind.settings(obj).suspended) {
		// What is stored was made as the object was then. Others who follow the same may have
		// fetched newer ones, which one that is suspended must not get.
		r.restore(ctx, obj)
		return fetched{}
	}
	// Another object's fetch of the same may be under way, for as long as that takes.
	limited, cancel := context.WithTimeout(r.packed.rooms.In(ctx, obj.GetNamespace()), workerWait)
	defer cancel()
	result, err := r.fetcher.Last(limited, following.request)
	if err != nil {
		r.restore(ctx, obj)
		return fetched{}
	}
	if result.Revision != told.Revision && !ours {
		result.Release()
		return fetched{}
	}
	next, err := r.publish(obj, result, following)
	if err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Using the last artifact failed")
		r.restore(ctx, obj)
		return fetched{}
	}
	r.startPacking(ctx, obj, next)
	return next
}
