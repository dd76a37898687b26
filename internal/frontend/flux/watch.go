package flux

import (
	"context"
	"maps"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]

const (
	// indexSource lists Kustomizations by the source that they follow.
	indexSource = "plumb.source"
	// indexDependency lists Kustomizations by what they depend on.
	indexDependency = "plumb.dependency"
	// indexInclude lists GitRepositories by what they include.
	indexInclude = "plumb.include"
	// indexChartSource lists HelmCharts by the source that they come from.
	indexChartSource = "plumb.chart-source"
)

// addIndexes prepares the cache for the lookups of this package.
func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	if err := indexer.IndexField(ctx, &kustomizev1.Kustomization{}, indexSource, func(o client.Object) []string {
		return []string{sourceRef(o.(*kustomizev1.Kustomization)).String()}
	}); err != nil {
		return err
	}
	if err := indexer.IndexField(ctx, &kustomizev1.Kustomization{}, indexDependency, func(o client.Object) []string {
		obj := o.(*kustomizev1.Kustomization)
		var keys []string
		for _, ref := range obj.Spec.DependsOn {
			keys = append(keys, dependencyKey(obj, ref).String())
		}
		return keys
	}); err != nil {
		return err
	}
	return indexer.IndexField(ctx, &sourcev1.GitRepository{}, indexInclude, func(o client.Object) []string {
		obj := o.(*sourcev1.GitRepository)
		var keys []string
		for _, include := range obj.Spec.Include {
			keys = append(keys, obj.Namespace+"/"+include.GitRepositoryRef.Name)
		}
		return keys
	})
}

// wantsRun tells whether an update of an object is one that it is to be run
// for: its specification, a request, a deletion or a release changed.
func wantsRun(before, after client.Object) bool {
	if before.GetGeneration() != after.GetGeneration() || before.GetUID() != after.GetUID() ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero() {
		return true
	}
	for _, key := range []string{meta.ReconcileRequestAnnotation, orphanAnnotation, ApproveAnnotation, isolationAnnotation} {
		if before.GetAnnotations()[key] != after.GetAnnotations()[key] {
			return true
		}
	}
	return false
}

// kustomizationEvents enqueues a Kustomization for its own changes, and those
// that depend on it when it becomes ready or moves on.
func (k *kustomizations) kustomizationEvents(cache client.Reader) handler.EventHandler {
	// With curious, only those whose readyExpr may look at any field.
	dependents := func(ctx context.Context, obj client.Object, q queue, curious bool) {
		var list kustomizev1.KustomizationList
		// The cache answers from memory; an error means that it is stopping.
		if err := cache.List(ctx, &list, client.MatchingFields{indexDependency: client.ObjectKeyFromObject(obj).String()}, client.UnsafeDisableDeepCopy); err != nil {
			return
		}
		for i := range list.Items {
			if !curious || hasReadyExpr(&list.Items[i]) {
				enqueue(q, client.ObjectKeyFromObject(&list.Items[i]), following)
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			enqueue(q, client.ObjectKeyFromObject(e.Object), routine)
			dependents(ctx, e.Object, q, false)
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if wantsRun(e.ObjectOld, e.ObjectNew) {
				enqueue(q, client.ObjectKeyFromObject(e.ObjectNew), urgent)
			}
			before, after := e.ObjectOld.(*kustomizev1.Kustomization), e.ObjectNew.(*kustomizev1.Kustomization)
			if after.ResourceVersion != before.ResourceVersion {
				dependents(ctx, e.ObjectNew, q, dependencyState(before) == dependencyState(after))
			}
			// A readyExpr may look at the labels and annotations of its own object, too.
			if hasReadyExpr(after) && (!maps.Equal(before.Labels, after.Labels) || !maps.Equal(before.Annotations, after.Annotations)) {
				enqueue(q, client.ObjectKeyFromObject(after), following)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			enqueue(q, client.ObjectKeyFromObject(e.Object), urgent)
			dependents(ctx, e.Object, q, false)
		},
	}
}

// hasReadyExpr tells whether an object judges a dependency by an expression.
func hasReadyExpr(obj *kustomizev1.Kustomization) bool {
	return slices.ContainsFunc(obj.Spec.DependsOn, func(ref kustomizev1.DependencyReference) bool { return ref.ReadyExpr != "" })
}

// state is what dependents look at.
type state struct {
	ready              bool
	revision           string
	observed, declared int64
	reason             string
}

func dependencyState(obj *kustomizev1.Kustomization) state {
	s := state{revision: obj.Status.LastAppliedRevision, observed: obj.Status.ObservedGeneration, declared: obj.Generation}
	if c := apimeta.FindStatusCondition(obj.Status.Conditions, meta.ReadyCondition); c != nil {
		s.ready, s.reason = c.Status == "True", c.Reason
	}
	return s
}

// sourceEvents enqueues a source for its own changes, and the Kustomizations that follow
// one when it goes.
func (k *kustomizations) sourceEvents(self *triggers, kind string) handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ queue) {
			self.add(client.ObjectKeyFromObject(e.Object), urgent)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			if wantsRun(e.ObjectOld, e.ObjectNew) {
				self.add(client.ObjectKeyFromObject(e.ObjectNew), urgent)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) {
			self.add(client.ObjectKeyFromObject(e.Object), urgent)
			k.followersOf(ctx, sourceOwner(e.Object, kind), func(key client.ObjectKey) {
				k.triggers.add(key, urgent)
			})
		},
	}
}

// indexCharts lists HelmCharts by the source that they come from.
func indexCharts(ctx context.Context, indexer client.FieldIndexer) error {
	return indexer.IndexField(ctx, &sourcev1.HelmChart{}, indexChartSource, func(o client.Object) []string {
		ref := o.(*sourcev1.HelmChart).Spec.SourceRef
		return []string{ref.Kind + "/" + o.GetNamespace() + "/" + ref.Name}
	})
}

// followersOf calls f for each Kustomization that follows a source.
func (k *kustomizations) followersOf(ctx context.Context, source gitops.OwnerRef, f func(client.ObjectKey)) {
	var list kustomizev1.KustomizationList
	if err := k.objects.client.List(ctx, &list, client.MatchingFields{indexSource: source.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		f(client.ObjectKeyFromObject(&list.Items[i]))
	}
}

// published has the followers of a source run: first those that the new
// snapshot may change, then those that only report its revision.
func (k *kustomizations) published(source gitops.OwnerRef, snapshot gitops.Snapshot) {
	var unaffected []client.ObjectKey
	k.followersOf(context.Background(), source, func(key client.ObjectKey) {
		owner := gitops.OwnerRef{Group: kustomizeGroup, Kind: kustomizev1.KustomizationKind, Namespace: key.Namespace, Name: key.Name}
		if k.engine.Affected(owner, snapshot.Files) {
			k.triggers.add(key, urgent)
			return
		}
		unaffected = append(unaffected, key)
	})
	for _, key := range unaffected {
		k.triggers.add(key, routine)
	}
}
