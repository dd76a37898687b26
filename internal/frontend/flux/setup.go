package flux

import (
	"context"
	"fmt"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// AddToScheme adds the kinds that this front end serves.
func AddToScheme(scheme *runtime.Scheme) {
	utilruntime.Must(kustomizev1.AddToScheme(scheme))
	utilruntime.Must(sourcev1.AddToScheme(scheme))
	utilruntime.Must(swapi.AddToScheme(scheme))
}

// Parts are what the front end works with. All of them are needed.
type Parts struct {
	Manager manager.Manager
	Client  kubernetes.Interface
	// ClientAs makes a client that acts as a user.
	ClientAs func(user string) (typedcorev1.CoreV1Interface, error)
	Recorder recorder
	Metrics  Metrics
	Clock    clock.PassiveClock
	// The adapters for what sources follow.
	Git Fetcher[GitRequest]
	// GitNews has tell called with the Followers of requests for which there is something
	// new, because a server told somebody else.
	GitNews          func(tell func(follower string))
	OCI              Fetcher[OCIRequest]
	Buckets          Fetcher[BucketRequest]
	HelmRepositories Fetcher[HelmRepositoryRequest]
	HelmCharts       Fetcher[HelmChartRequest]
	Artifacts        *artifact.Store
	// Cache unpacks artifacts: those of other controllers, layers and charts of registries,
	// and after a restart those that Artifacts has kept.
	Cache *artifact.Cache
	// Logins log in at clusters of clouds.
	Logins *auth.Logins
	// ArtifactURL is where artifacts are served: scheme and host.
	ArtifactURL string
	// Engine makes the engine, given what is to be called when an owner has to
	// be run and what tells whether an owner exists.
	Engine func(wake func(gitops.OwnerRef), exists func(gitops.OwnerRef) bool) *engine.Engine
}

// Metrics counts reconciliations.
type Metrics interface {
	Reconciled(kind, namespace, name string, took time.Duration)
	Forget(kind, namespace, name string)
	Fetched(kind, outcome string)
}

// Options are the settings of all reconcilers.
type Options struct {
	// Controllers are what this process works on; what it does not is left to others.
	Controllers Controllers
	// Concurrent is how many objects of a kind are worked on at the same time; of a kind of
	// sources that are fetched it is sourceWorkers times as many.
	Concurrent int
	// Selector selects the custom resources that are served; nil for all.
	Selector      labels.Selector
	Kustomization KustomizationOptions
	Sources       SourceOptions
}

// Controllers are parts of Flux by the kinds that they work on.
type Controllers struct {
	// Source is for sources, Kustomize for Kustomizations, Watcher for
	// ArtifactGenerators. Without Source the artifacts that another controller
	// publishes are used; those of ExternalArtifacts are always, but for what Watcher
	// makes.
	Source, Kustomize, Watcher bool
}

// Setup adds the reconcilers to the manager, sources before what follows them.
// It returns the engine that they drive.
func Setup(ctx context.Context, parts Parts, options Options) (*engine.Engine, error) {
	mgr := parts.Manager
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, fmt.Errorf("index custom resources: %w", err)
	}
	language, err := health.NewLanguage()
	if err != nil {
		return nil, err
	}
	events := &events{recorder: parts.Recorder, log: mgr.GetLogger()}
	sources := newSources()
	byKind := newTriggersByKind()
	references := newReferences(parts.Client, parts.ClientAs, func(owner gitops.OwnerRef) {
		byKind[owner.Kind].add(types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name}, urgent)
	})
	if err := mgr.Add(leaderOnly(references.Start)); err != nil {
		return nil, err
	}
	forKustomizations := byKind[kustomizev1.KustomizationKind]

	k := &kustomizations{
		selector:   options.Selector,
		metrics:    parts.Metrics,
		objects:    newObjects(mgr.GetClient(), kustomizeStatusManager, func() *kustomizev1.Kustomization { return &kustomizev1.Kustomization{} }),
		sources:    sources,
		references: references,
		events:     events,
		clock:      parts.Clock,
		options:    options.Kustomization,
		triggers:   forKustomizations,
		pauses:     newPauses(),
		told:       newTold(),
		rules:      newHealthRules(language),
		slots:      newSlots(options.Concurrent),
		logins:     parts.Logins,
	}
	k.engine = parts.Engine(func(owner gitops.OwnerRef) {
		forKustomizations.add(types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name}, urgent)
	}, k.exists)
	if options.Controllers.Kustomize {
		sources.follow(k.published)
	}
	w := &wiring{mgr: mgr, k: k, sources: sources, references: references, events: events, triggers: byKind, lane: newLane(options.Concurrent), packings: newPackings(), parts: parts, options: options}
	if k.options.Sources, err = w.addAllSources(ctx); err != nil {
		return nil, err
	}
	if !options.Controllers.Kustomize {
		return k.engine, nil
	}
	return k.engine, addController(mgr, kustomizev1.KustomizationKind, k.reconcile, forKustomizations, options, parts,
		source.Kind(mgr.GetCache(), client.Object(&kustomizev1.Kustomization{}), k.kustomizationEvents(mgr.GetCache()), selected(options.Selector)))
}

// addController runs a reconciler on a queue that its watches and its triggers fill.
func addController(mgr manager.Manager, kind string, run func(context.Context, ctrl.Request) (ctrl.Result, error), t *triggers, options Options, parts Parts, watches ...source.Source) error {
	c, err := controller.New(kind, mgr, controller.Options{
		MaxConcurrentReconciles: options.Concurrent,
		UsePriorityQueue:        ptr.To(true),
		Reconciler:              reconcile.Func(t.shares.among(measured(kind, withRoutinePriority(run), parts))),
		SkipNameValidation:      ptr.To(true),
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](
			options.Kustomization.MinRetryDelay, options.Kustomization.MaxRetryDelay),
	})
	if err != nil {
		return fmt.Errorf("add controller of %s: %w", kind, err)
	}
	for _, watch := range watches {
		if err := c.Watch(watch); err != nil {
			return fmt.Errorf("watch for %s: %w", kind, err)
		}
	}
	return c.Watch(source.Func(t.start))
}

// measured counts each reconciliation.
func measured(kind string, run func(context.Context, ctrl.Request) (ctrl.Result, error), parts Parts) func(context.Context, ctrl.Request) (ctrl.Result, error) {
	return func(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
		start, gone := parts.Clock.Now(), false
		result, err := run(context.WithValue(ctx, goneKey{}, &gone), req)
		if gone {
			parts.Metrics.Forget(kind, req.Namespace, req.Name)
			return result, err
		}
		parts.Metrics.Reconciled(kind, req.Namespace, req.Name, parts.Clock.Since(start))
		return result, err
	}
}

// goneKey is that of a *bool, which is set for an object that does not exist any more.
type goneKey struct{}

// markGone has the metrics of an object dropped that does not exist any more.
func markGone(ctx context.Context) {
	if gone, ok := ctx.Value(goneKey{}).(*bool); ok {
		*gone = true
	}
}

func selected(selector labels.Selector) predicate.Predicate {
	return predicate.NewPredicateFuncs(func(obj client.Object) bool { return serves(selector, obj) })
}

// serves tells whether an object is one that this operator works on.
func serves(selector labels.Selector, obj client.Object) bool {
	return selector == nil || selector.Empty() || selector.Matches(labels.Set(obj.GetLabels()))
}

// exists tells whether a Kustomization is in the cluster, whether or not it is
// worked on.
func (k *kustomizations) exists(owner gitops.OwnerRef) bool {
	_, err := k.objects.get(context.Background(), types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name})
	// One that cannot be looked for, such as in a namespace that is not watched,
	// keeps what bears its labels.
	return !apierrors.IsNotFound(err)
}

// sourceExists tells whether a source is in the cluster.
func (k *kustomizations) sourceExists(ref gitops.OwnerRef) bool {
	empty := publishedKinds()[ref.Kind]
	return empty != nil && k.objects.client.Get(context.Background(), types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, empty()) == nil
}

// leaderOnly is a runnable that runs only in the process that works.
type leaderOnly func(context.Context) error

// Start runs it.
func (f leaderOnly) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection says that it waits for leadership.
func (leaderOnly) NeedLeaderElection() bool { return true }
