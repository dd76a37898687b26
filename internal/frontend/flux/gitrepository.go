package flux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// GitRepositoryOptions are the settings of the GitRepository reconciler.
type GitRepositoryOptions struct {
	// MinRetryDelay and MaxRetryDelay bound the pauses after failures.
	MinRetryDelay, MaxRetryDelay time.Duration
	// RequeueDependency is the pause after which an include that is not ready
	// is looked at again.
	RequeueDependency time.Duration
	// IntervalJitter is the share, from 0 to 1, by which intervals vary.
	IntervalJitter float64
}

// gitRepositories reconciles GitRepositories.
type gitRepositories struct {
	objects    *objects[*sourcev1.GitRepository]
	selector   labels.Selector
	git        Git
	packed     packed
	sources    *sources
	references *references
	triggers   *triggers
	events     *events
	metrics    Metrics
	clock      clock.PassiveClock
	options    GitRepositoryOptions
	pauses     *pauses
	// work is the packing under way.
	work sync.WaitGroup

	mu sync.Mutex
	// fetched is what was published last of each object; guarded by mu, as is
	// requests, what each object follows.
	fetched  map[types.UID]fetched
	requests map[types.UID]GitRequest
}

// fetched is what an object's newest snapshot was made from.
type fetched struct {
	revision string
	// content identifies all else that decides on the files: ignore rules,
	// sparse paths and included revisions.
	content  string
	artifact gitops.Artifact
	// includes are the included artifacts, in the order of the spec.
	includes []gitops.Artifact
	// metadata describes the revision, and rewritten says that the one before
	// is not its predecessor; both are told with the first status.
	metadata  map[string]string
	rewritten bool
	// failure is why the artifact could not be packed.
	failure error
}

// reconcile brings one GitRepository up to date with its remote.
func (g *gitRepositories) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj, err := g.objects.get(ctx, req.NamespacedName)
	switch {
	case apierrors.IsNotFound(err):
		g.forget(gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.GitRepositoryKind, Namespace: req.Namespace, Name: req.Name}, "")
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	case !serves(g.selector, obj):
		return ctrl.Result{}, nil
	case !obj.DeletionTimestamp.IsZero():
		g.forget(gitRepositoryRef(obj), obj.UID)
		if err := g.packed.store.Remove(gitRepositoryRef(obj)); err != nil {
			return ctrl.Result{}, fmt.Errorf("remove artifacts: %w", err)
		}
		_, err := g.objects.setFinalizer(ctx, obj, sourcev1.SourceFinalizer, false)
		return ctrl.Result{}, err
	case obj.Spec.Suspend:
		ctrl.LoggerFrom(ctx).Info("Reconciliation is suspended for this object")
		return g.rest(ctx, obj), nil
	}
	if refusal := refuseGitRepository(obj); refusal != nil {
		// It follows nothing, which must not keep others' data from being cleaned.
		if err := g.follows(ctx, obj.UID, &GitRequest{}); err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "Cleaning the data folder failed")
		}
		return g.fail(ctx, obj, refusal)
	}
	if obj, err = g.objects.setFinalizer(ctx, obj, sourcev1.SourceFinalizer, true); err != nil {
		return ctrl.Result{}, err
	}
	return g.advance(ctx, obj)
}

// advance fetches, publishes and packs.
func (g *gitRepositories) advance(ctx context.Context, obj *sourcev1.GitRepository) (ctrl.Result, error) {
	fetchCtx, cancel := context.WithTimeout(ctx, timeoutOf(obj))
	defer cancel()
	request, err := g.request(obj)
	if err != nil {
		return g.fail(ctx, obj, err)
	}
	if err := g.follows(ctx, obj.UID, &request); err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Cleaning the data folder failed")
	}
	includes, err := g.includes(obj)
	if err != nil {
		return g.fail(ctx, obj, err)
	}
	defer includes.release()

	last := g.last(obj.UID)
	content := contentKey(obj, includes)
	if last.revision == "" {
		last = g.resume(ctx, obj, request, includes)
	}
	known := ""
	if last.content == content {
		known = last.revision
	}
	result, err := g.git.Fetch(fetchCtx, request, known)
	if err != nil {
		if ctx.Err() != nil {
			return ctrl.Result{}, nil
		}
		return g.fail(ctx, obj, fetchError(obj, fetchCtx, err))
	}
	if result.Unchanged {
		result.Release()
		g.refreshIncludes(obj.UID, includes)
		return g.settle(ctx, obj)
	}
	next, err := g.publish(obj, result, includes)
	if err != nil {
		return g.fail(ctx, obj, err)
	}
	next.content = content
	// Consumers in the process are at work by now; the file is for others.
	g.startPacking(ctx, obj, next)
	return ctrl.Result{RequeueAfter: g.interval(obj)}, nil
}

// settle writes the status of the revision that was fetched last, once its file
// can be served.
func (g *gitRepositories) settle(ctx context.Context, obj *sourcev1.GitRepository) (ctrl.Result, error) {
	last := g.last(obj.UID)
	switch {
	case last.packing():
		return ctrl.Result{RequeueAfter: g.interval(obj)}, nil
	case last.failure != nil:
		// What could not be packed is fetched, published and packed again.
		g.mu.Lock()
		delete(g.fetched, obj.UID)
		g.mu.Unlock()
		return g.fail(ctx, obj, last.failure)
	}
	last, known := g.withIncludes(last)
	if !known {
		// The packing of the included one has the object reconciled.
		return ctrl.Result{RequeueAfter: g.interval(obj)}, nil
	}
	return g.succeed(ctx, obj, last)
}

// refreshIncludes takes over the revisions of included repositories that have moved
// without a change of the files that are included.
func (g *gitRepositories) refreshIncludes(uid types.UID, in includes) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, ok := g.fetched[uid]
	if !ok || len(last.includes) != len(in) {
		return
	}
	last.includes = slices.Clone(last.includes)
	for i, snapshot := range in {
		if last.includes[i].Revision != snapshot.Artifact.Revision {
			last.includes[i] = snapshot.Artifact
		}
	}
	g.fetched[uid] = last
}

// withIncludes completes included artifacts that were not packed when they were
// included; false where one of them is still being packed.
func (g *gitRepositories) withIncludes(f fetched) (fetched, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.includes = slices.Clone(f.includes)
	for i, included := range f.includes {
		if included.Digest != "" {
			continue
		}
		for _, other := range g.fetched {
			if other.artifact.Source.Key() == included.Source.Key() && other.revision == included.Revision {
				f.includes[i] = other.artifact
			}
		}
		if f.includes[i].Digest == "" {
			return f, false
		}
	}
	return f, true
}

func (g *gitRepositories) interval(obj *sourcev1.GitRepository) time.Duration {
	return jittered(obj.GetRequeueAfter(), g.options.IntervalJitter)
}

// rest leaves a suspended object as it is: nothing is fetched or written. What an
// earlier process fetched is given to the consumers, which are not suspended.
func (g *gitRepositories) rest(ctx context.Context, obj *sourcev1.GitRepository) ctrl.Result {
	if refuseGitRepository(obj) != nil || g.last(obj.UID).revision != "" {
		return ctrl.Result{}
	}
	request, err := g.request(obj)
	if err != nil {
		return ctrl.Result{RequeueAfter: g.options.RequeueDependency}
	}
	if err := g.follows(ctx, obj.UID, &request); err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Cleaning the data folder failed")
	}
	includes, err := g.includes(obj)
	if err != nil {
		return ctrl.Result{RequeueAfter: g.options.RequeueDependency}
	}
	defer includes.release()
	g.resume(ctx, obj, request, includes)
	return ctrl.Result{}
}

// followed are the requests of all objects that follow anything. It is called
// with the lock held.
func (g *gitRepositories) followed() []GitRequest {
	return slices.DeleteFunc(slices.Collect(maps.Values(g.requests)), func(r GitRequest) bool { return r.URL == "" })
}

// resume gives the consumers at once what an earlier process fetched, so that
// they keep it in order while the remote is asked, however long that takes. It is
// only done for the revision that the status still names; where there is
// nothing, the consumers wait and the result is empty.
func (g *gitRepositories) resume(ctx context.Context, obj *sourcev1.GitRepository, request GitRequest, in includes) fetched {
	if obj.Status.Artifact == nil || g.sources.revision(gitRepositoryRef(obj)) != "" {
		return fetched{}
	}
	result, err := g.git.Last(ctx, request)
	if err != nil {
		return fetched{}
	}
	if result.Revision != obj.Status.Artifact.Revision {
		result.Release()
		return fetched{}
	}
	next, err := g.publish(obj, result, in)
	if err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Using the last artifact failed")
		return fetched{}
	}
	next.content = contentKey(obj, in)
	g.startPacking(ctx, obj, next)
	return next
}

// fetchError says that the time of the spec is over where that is what happened.
func fetchError(obj *sourcev1.GitRepository, ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: sourcev1.GitOperationFailedReason,
			Cause: fmt.Errorf("no answer from %q within %s (spec.timeout): %w", redactedURL(obj.Spec.URL), timeoutOf(obj), context.DeadlineExceeded)}
	}
	return err
}

func timeoutOf(obj *sourcev1.GitRepository) time.Duration {
	if obj.Spec.Timeout != nil {
		return obj.Spec.Timeout.Duration
	}
	return time.Minute
}

func (g *gitRepositories) last(uid types.UID) fetched {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fetched[uid]
}

func (g *gitRepositories) remember(uid types.UID, f fetched) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fetched[uid] = f
}

// forget drops all that is remembered of an object that is gone.
func (g *gitRepositories) forget(source gitops.OwnerRef, uid types.UID) {
	g.sources.remove(source)
	g.references.release(source)
	g.pauses.forget(uid)
	g.mu.Lock()
	delete(g.fetched, uid)
	g.mu.Unlock()
	if err := g.follows(context.Background(), uid, nil); err != nil {
		g.events.log.Error(err, "Cleaning the data folder failed")
	}
}

// follows remembers what an object follows, nil for one that is gone, and has
// the stores removed that nobody follows any more. It removes nothing until it
// is known of every object what it follows.
func (g *gitRepositories) follows(ctx context.Context, uid types.UID, request *GitRequest) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, had := g.requests[uid]
	if request == nil {
		delete(g.requests, uid)
	} else {
		g.requests[uid] = *request
	}
	if had && request != nil && reflect.DeepEqual(old, *request) {
		return nil
	}
	var list sourcev1.GitRepositoryList
	if err := g.objects.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	var owners []gitops.OwnerRef
	for i := range list.Items {
		item := &list.Items[i]
		if _, known := g.requests[item.UID]; !known && item.DeletionTimestamp.IsZero() && serves(g.selector, item) {
			return nil
		}
		owners = append(owners, gitRepositoryRef(&list.Items[i]))
	}
	return errors.Join(
		g.git.Retain(g.followed()),
		g.packed.store.Retain(owners),
	)
}

// succeed writes the status of a revision that is stored.
func (g *gitRepositories) succeed(ctx context.Context, obj *sourcev1.GitRepository, f fetched) (ctrl.Result, error) {
	before, err := g.objects.get(ctx, client.ObjectKeyFromObject(obj))
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	after := before.DeepCopy()
	news, err := describeArtifact(after, obj, f, g.packed)
	if err != nil {
		return g.fail(ctx, obj, err)
	}
	if _, err := g.objects.patchStatus(ctx, before, after); err != nil {
		return ctrl.Result{}, err
	}
	if news {
		g.events.stored(after, before, f)
	}
	g.pauses.succeeded(obj.UID)
	return ctrl.Result{RequeueAfter: g.interval(obj)}, nil
}

// fail writes why there is no newer revision. The last one stays in force.
func (g *gitRepositories) fail(ctx context.Context, obj *sourcev1.GitRepository, err error) (ctrl.Result, error) {
	var b *blocked
	isBlocked := errors.As(err, &b)
	if isBlocked && b.quiet {
		return ctrl.Result{RequeueAfter: b.retry}, nil
	}
	after := obj.DeepCopy()
	news := describeFetchFailure(after, err, isBlocked && b.stalled)
	setHandled(&after.Status.ReconcileRequestStatus, obj)
	if _, patchErr := g.objects.patchStatus(ctx, obj, after); patchErr != nil {
		return ctrl.Result{}, patchErr
	}
	if news {
		g.events.failedSource(after)
	}
	if isBlocked && b.stalled {
		return ctrl.Result{}, nil
	}
	pause := g.pauses.backoff(obj.UID, g.options.MinRetryDelay, g.options.MaxRetryDelay)
	if isBlocked && b.retry > 0 {
		pause = b.retry
	}
	return ctrl.Result{RequeueAfter: min(pause, max(obj.GetRequeueAfter(), g.options.MinRetryDelay))}, nil
}
