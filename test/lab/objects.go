package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// Context ends with the test, or when patience does.
func (l *Lab) Context() context.Context {
	ctx, cancel := context.WithTimeout(l.T.Context(), Patience)
	l.Cleanup(cancel)
	return ctx
}

// Wait watches an object, given by its name, until it is as it should be, and
// returns it.
func Wait[T client.Object](l *Lab, obj T, what string, done func(T) bool) T {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.T.Context(), Patience)
	defer cancel()
	last := "it does not exist"
	for ctx.Err() == nil {
		stream := l.watch(ctx, obj)
		for e := range stream.ResultChan() {
			switch e.Type {
			case watch.Error:
				l.Fatalf("watch %T %s: %v", obj, obj.GetName(), apierrors.FromObject(e.Object))
			case watch.Deleted:
				last = "it was deleted"
				continue
			}
			seen := e.Object.(*unstructured.Unstructured)
			got := obj.DeepCopyObject().(T)
			l.Check(runtime.DefaultUnstructuredConverter.FromUnstructured(seen.Object, got))
			if done(got) {
				stream.Stop()
				return got
			}
			text, err := yaml.Marshal(seen.Object)
			l.Check(err)
			last = string(text)
		}
		stream.Stop()
	}
	l.Fatalf("%T %s/%s was not seen %s; at last:\n%s", obj, obj.GetNamespace(), obj.GetName(), what, last)
	return obj
}

func (l *Lab) watch(ctx context.Context, obj client.Object) watch.Interface {
	l.Helper()
	gvk, err := apiutil.GVKForObject(obj, l.Client.Scheme())
	l.Check(err)
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk)
	list.SetKind(gvk.Kind + "List")
	stream, err := l.Client.Watch(ctx, list, client.InNamespace(obj.GetNamespace()), client.MatchingFields{"metadata.name": obj.GetName()})
	l.Check(err)
	return stream
}

// Vanished waits until an object does not exist.
func (l *Lab) Vanished(obj client.Object) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.T.Context(), Patience)
	defer cancel()
	for ctx.Err() == nil {
		stream := l.watch(ctx, obj)
		now := obj.DeepCopyObject().(client.Object)
		err := l.Client.Get(ctx, client.ObjectKeyFromObject(obj), now)
		if apierrors.IsNotFound(err) {
			stream.Stop()
			return
		}
		l.Check(err)
		for e := range stream.ResultChan() {
			if e.Type == watch.Deleted {
				break
			}
		}
		stream.Stop()
	}
	l.Fatalf("%T %s/%s is still there", obj, obj.GetNamespace(), obj.GetName())
}

// Push commits files to branch main, has the source look at once, and returns
// the revision.
func (l *Lab) Push(files testenv.Files) (revision string) {
	l.Helper()
	commit := l.Repo.Commit(l, "main", files)
	err := l.Client.Get(l.Context(), l.Key("repo"), &sourcev1.GitRepository{})
	if err == nil {
		l.Request(l.SourceNamed())
	}
	l.Check(client.IgnoreNotFound(err))
	return "main@sha1:" + commit
}

// Request asks for a reconciliation, as `flux reconcile` does, and returns the
// value that is to be handled.
func (l *Lab) Request(obj client.Object) string {
	l.Helper()
	value := fmt.Sprintf("request %d", l.requests.Add(1))
	l.Merge(obj, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, meta.ReconcileRequestAnnotation, value))
	return value
}

// Merge changes an object by a JSON merge patch, as field manager "test".
func (l *Lab) Merge(obj client.Object, patch string, options ...client.PatchOption) {
	l.Helper()
	options = append([]client.PatchOption{client.FieldOwner("test")}, options...)
	l.Check(l.Client.Patch(l.Context(), obj, client.RawPatch(types.MergePatchType, []byte(patch)), options...))
}

// Key names an object in the lab's namespace.
func (l *Lab) Key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: l.Namespace, Name: name}
}

// SourceNamed is the GitRepository, to be read or waited for.
func (l *Lab) SourceNamed() *sourcev1.GitRepository {
	return &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: "repo"}}
}

// Named is a Kustomization, to be read or waited for.
func (l *Lab) Named(name string) *kustomizev1.Kustomization {
	return &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: name}}
}

// Source creates the GitRepository "repo". Its interval is an hour: a commit is
// noticed by Push only.
func (l *Lab) Source() *sourcev1.GitRepository {
	l.Helper()
	source := l.SourceNamed()
	source.Spec = sourcev1.GitRepositorySpec{
		URL: l.Server.URL("repo"), Interval: metav1.Duration{Duration: time.Hour},
		Reference: &sourcev1.GitRepositoryRef{Branch: "main"},
	}
	l.Check(l.Client.Create(l.Context(), source))
	return source
}

// Kustomization creates a Kustomization that builds the folder of its name, with
// prune and an interval of an hour.
func (l *Lab) Kustomization(name string, change ...func(*kustomizev1.Kustomization)) *kustomizev1.Kustomization {
	l.Helper()
	k := l.Named(name)
	k.Spec = kustomizev1.KustomizationSpec{
		Interval:      metav1.Duration{Duration: time.Hour},
		RetryInterval: &metav1.Duration{Duration: 2 * time.Second},
		SourceRef:     kustomizev1.CrossNamespaceSourceReference{Kind: "GitRepository", Name: "repo"},
		Path:          "./" + name,
		Prune:         true,
	}
	for _, f := range change {
		f(k)
	}
	l.Check(l.Client.Create(l.Context(), k))
	return k
}

// Ready waits until a Kustomization is Ready at a revision.
func (l *Lab) Ready(name, revision string) *kustomizev1.Kustomization {
	l.Helper()
	return Wait(l, l.Named(name), "Ready at "+revision, func(k *kustomizev1.Kustomization) bool {
		return apimeta.IsStatusConditionTrue(k.Status.Conditions, meta.ReadyCondition) &&
			k.Status.LastAppliedRevision == revision && k.Status.ObservedGeneration == k.Generation &&
			apimeta.FindStatusCondition(k.Status.Conditions, meta.ReconcilingCondition) == nil
	})
}

// Owned are the objects of some resources that bear the labels of a
// Kustomization and are not being deleted.
func (l *Lab) Owned(owner string, resources []schema.GroupVersionKind) []unstructured.Unstructured {
	l.Helper()
	var all []unstructured.Unstructured
	for _, gvk := range resources {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk)
		list.SetKind(gvk.Kind + "List")
		err := l.Client.List(l.Context(), list, client.MatchingLabels{
			"kustomize.toolkit.fluxcd.io/name": owner, "kustomize.toolkit.fluxcd.io/namespace": l.Namespace,
		})
		if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			continue // its definition has not been applied
		}
		l.Check(err)
		all = append(all, list.Items...)
	}
	return slices.DeleteFunc(all, func(u unstructured.Unstructured) bool { return u.GetDeletionTimestamp() != nil })
}

// InventoryID is the id under which an object stands in an inventory.
func InventoryID(obj client.Object) string {
	gvk := obj.GetObjectKind().GroupVersionKind()
	return fmt.Sprintf("%s_%s_%s_%s", obj.GetNamespace(), obj.GetName(), gvk.Group, gvk.Kind)
}

// Unlisted are those of a Kustomization's objects that its stored inventory does
// not name.
func (l *Lab) Unlisted(owner string, resources []schema.GroupVersionKind) []string {
	l.Helper()
	k := l.Named(owner)
	l.Check(client.IgnoreNotFound(l.Client.Get(l.Context(), client.ObjectKeyFromObject(k), k)))
	named := map[string]bool{}
	if k.Status.Inventory != nil {
		for _, e := range k.Status.Inventory.Entries {
			named[e.ID] = true
		}
	}
	var missing []string
	for _, obj := range l.Owned(owner, resources) {
		if id := InventoryID(&obj); !named[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// Either watches an object until it is as it should be; false where stop is
// closed before.
func Either[T client.Object](l *Lab, stop <-chan struct{}, obj T, done func(T) bool) bool {
	l.Helper()
	return l.either(stop, obj, func(e watch.Event) bool {
		if e.Type != watch.Added && e.Type != watch.Modified {
			return false
		}
		got := obj.DeepCopyObject().(T)
		l.Check(runtime.DefaultUnstructuredConverter.FromUnstructured(e.Object.(*unstructured.Unstructured).Object, got))
		return done(got)
	})
}

// GoneOr waits until an object is not there; false where stop is closed before.
func GoneOr(l *Lab, stop <-chan struct{}, obj client.Object) bool {
	l.Helper()
	return l.either(stop, obj, func(e watch.Event) bool { return e.Type == watch.Deleted })
}

func (l *Lab) either(stop <-chan struct{}, obj client.Object, done func(watch.Event) bool) bool {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.T.Context(), Patience)
	defer cancel()
	stream := l.watch(ctx, obj)
	defer stream.Stop()
	// It may have gone before the watch began, and that tells of what is there only.
	err := l.Client.Get(ctx, client.ObjectKeyFromObject(obj), obj.DeepCopyObject().(client.Object))
	if apierrors.IsNotFound(err) && done(watch.Event{Type: watch.Deleted}) {
		return true
	}
	for {
		select {
		case <-stop:
			return false
		case e, ok := <-stream.ResultChan():
			if !ok {
				l.Fatalf("%T %s: neither finished nor killed within %s", obj, obj.GetName(), Patience)
			}
			if done(e) {
				return true
			}
		}
	}
}

// SourceReady waits until the source has stored a revision.
func (l *Lab) SourceReady(revision string) {
	l.Helper()
	Wait(l, l.SourceNamed(), "Ready at "+revision, func(s *sourcev1.GitRepository) bool {
		return apimeta.IsStatusConditionTrue(s.Status.Conditions, meta.ReadyCondition) && s.Status.Artifact != nil &&
			s.Status.Artifact.Revision == revision && s.Status.LastHandledReconcileAt == s.Annotations[meta.ReconcileRequestAnnotation]
	})
}
