package operator_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// patience is how long anything may take that should happen at once: many tests
// share the machine.
const patience = time.Minute

// world is what one test has to itself: a namespace, a Git server with one
// repository, and a client.
type world struct {
	t         *testing.T
	cluster   *testenv.Cluster
	namespace string
	client    client.WithWatch
	server    *testenv.GitServer
	repo      *testenv.GitRepository
	requests  int
	// own is set where the test's custom resources are for an operator of its own.
	own bool
	// tenants is set where that operator has the rights of an installation between tenants.
	tenants bool
	// clouds stands in for clouds in an operator of the test's own; nil for none.
	clouds http.RoundTripper
	// through is what that operator has between itself and the API server; nil for nothing.
	through *testenv.Proxy
}

// newWorld starts what a test needs, and the operator for the first test. When
// the test fails it prints what the operator logged of its namespace.
func newWorld(t *testing.T) *world {
	t.Helper()
	cluster := testenv.Get(t)
	startOperator(t, cluster)
	w := &world{t: t, cluster: cluster, namespace: cluster.Namespace(t)}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kustomizev1.AddToScheme, sourcev1.AddToScheme, swapi.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if w.client, err = client.NewWithWatch(cluster.REST, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	w.served()
	w.server = testenv.NewGitServer(t, testenv.GitServerOptions{})
	w.repo = w.server.Repository(t, "repo")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(append([]string{"the operator's log:"}, operator.log.lines(w.namespace)...), "\n"))
		}
	})
	return w
}

// served waits until the operator has installed its definitions.
func (w *world) served() {
	w.t.Helper()
	for _, name := range []string{"kustomizations.kustomize.toolkit.fluxcd.io", "gitrepositories.source.toolkit.fluxcd.io",
		"externalartifacts.source.toolkit.fluxcd.io", "artifactgenerators.source.extensions.fluxcd.io"} {
		w.established(name)
	}
}

// established waits until a definition is in force.
func (w *world) established(name string) {
	w.t.Helper()
	definition := &unstructured.Unstructured{}
	definition.SetAPIVersion("apiextensions.k8s.io/v1")
	definition.SetKind("CustomResourceDefinition")
	definition.SetName(name)
	waitFor(w, definition, "to be established", func(d *unstructured.Unstructured) bool {
		conditions, _, _ := unstructured.NestedSlice(d.Object, "status", "conditions")
		return slices.ContainsFunc(conditions, func(c any) bool {
			condition := c.(map[string]any)
			return condition["type"] == "Established" && condition["status"] == "True"
		})
	})
}

func (w *world) context() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// watchOne watches one object.
func (w *world) watchOne(ctx context.Context, obj client.Object) watch.Interface {
	w.t.Helper()
	gvk, err := apiutil.GVKForObject(obj, w.client.Scheme())
	w.check(err)
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk)
	list.SetKind(gvk.Kind + "List")
	stream, err := w.client.Watch(ctx, list, client.InNamespace(obj.GetNamespace()), client.MatchingFields{"metadata.name": obj.GetName()})
	w.check(err)
	return stream
}

// waitFor watches an object, given by its name, until it is as it should be,
// and returns it.
func waitFor[T client.Object](w *world, obj T, what string, done func(T) bool) T {
	w.t.Helper()
	return waitWithin(w, patience, obj, what, done)
}

func waitWithin[T client.Object](w *world, within time.Duration, obj T, what string, done func(T) bool) T {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	stream := w.watchOne(ctx, obj)
	defer stream.Stop()
	last := "it does not exist"
	for e := range stream.ResultChan() {
		switch e.Type {
		case watch.Error:
			w.t.Fatalf("watch %T %s: %v", obj, obj.GetName(), apierrors.FromObject(e.Object))
		case watch.Deleted:
			last = "it was deleted"
			continue
		}
		seen := e.Object.(*unstructured.Unstructured)
		got := obj.DeepCopyObject().(T)
		w.check(runtime.DefaultUnstructuredConverter.FromUnstructured(seen.Object, got))
		if done(got) {
			return got
		}
		unstructured.RemoveNestedField(seen.Object, "metadata", "managedFields")
		text, err := yaml.Marshal(seen.Object)
		w.check(err)
		last = string(text)
	}
	w.t.Fatalf("%T %s/%s was not seen %s; at last:\n%s", obj, obj.GetNamespace(), obj.GetName(), what, last)
	return obj
}

// gone waits until an object does not exist.
func (w *world) gone(obj client.Object) {
	w.t.Helper()
	w.goneWithin(patience, obj)
}

func (w *world) goneWithin(within time.Duration, obj client.Object) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	for {
		stream := w.watchOne(ctx, obj)
		err := w.client.Get(ctx, client.ObjectKeyFromObject(obj), obj)
		if apierrors.IsNotFound(err) {
			stream.Stop()
			return
		}
		w.check(err)
		for e := range stream.ResultChan() {
			if e.Type == watch.Deleted {
				break
			}
		}
		stream.Stop()
		if ctx.Err() != nil {
			w.t.Fatalf("%T %s/%s is still there: %+v", obj, obj.GetNamespace(), obj.GetName(), obj)
		}
	}
}

// push commits files to branch main and has the source look at once.
func (w *world) push(files testenv.Files) (revision string) {
	w.t.Helper()
	commit := w.repo.Commit(w.t, "main", files)
	w.fetch()
	return "main@sha1:" + commit
}

// fetch has the source, if it exists, look at its remote at once.
func (w *world) fetch() {
	w.t.Helper()
	source := &sourcev1.GitRepository{}
	if err := w.client.Get(w.context(), w.key("repo"), source); err == nil {
		w.request(source)
	}
}

// request asks for a reconciliation, as `flux reconcile` does, and returns the
// value that is to be handled.
func (w *world) request(obj client.Object) string {
	w.t.Helper()
	w.requests++
	value := fmt.Sprintf("request %d", w.requests)
	w.annotate(obj, meta.ReconcileRequestAnnotation, value)
	return value
}

// annotate sets an annotation, or takes it away where value is empty.
func (w *world) annotate(obj client.Object, key, value string) {
	w.t.Helper()
	quoted := fmt.Sprintf("%q", value)
	if value == "" {
		quoted = "null"
	}
	w.patch(obj, fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, quoted))
}

// patch changes an object by a JSON merge patch.
func (w *world) patch(obj client.Object, merge string) {
	w.t.Helper()
	w.check(w.client.Patch(w.context(), obj, client.RawPatch(types.MergePatchType, []byte(merge)), client.FieldOwner("test")))
}

func (w *world) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: w.namespace, Name: name}
}

// source creates the GitRepository "repo".
func (w *world) source(change ...func(*sourcev1.GitRepository)) *sourcev1.GitRepository {
	w.t.Helper()
	source := &sourcev1.GitRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "repo"},
		Spec: sourcev1.GitRepositorySpec{
			URL: w.server.URL("repo"), Interval: metav1.Duration{Duration: time.Hour},
			Reference: &sourcev1.GitRepositoryRef{Branch: "main"},
		},
	}
	for _, f := range change {
		f(source)
	}
	w.check(w.client.Create(w.context(), source))
	return source
}

// kustomization creates a Kustomization that builds the folder of its name, in
// the test's namespace, with prune.
func (w *world) kustomization(name string, change ...func(*kustomizev1.Kustomization)) *kustomizev1.Kustomization {
	w.t.Helper()
	k := &kustomizev1.Kustomization{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: kustomizev1.KustomizationSpec{
			Interval:        metav1.Duration{Duration: time.Hour},
			SourceRef:       kustomizev1.CrossNamespaceSourceReference{Kind: "GitRepository", Name: "repo"},
			Path:            "./" + name,
			Prune:           true,
			TargetNamespace: w.namespace,
		},
	}
	for _, f := range change {
		f(k)
	}
	w.check(w.client.Create(w.context(), k))
	return k
}

// named is an empty Kustomization with a name, to be read or waited for.
func (w *world) named(name string) *kustomizev1.Kustomization {
	return &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

func (w *world) namedSource(name string) *sourcev1.GitRepository {
	return &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

func (w *world) namedConfig(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

// conditionOf is a condition of an object; the zero value where there is none.
func conditionOf(conditions []metav1.Condition, kind string) metav1.Condition {
	if c := apimeta.FindStatusCondition(conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// ready waits until a Kustomization is Ready at a revision and at its newest
// specification, and says nothing of trouble.
func (w *world) ready(name, revision string) *kustomizev1.Kustomization {
	w.t.Helper()
	return waitFor(w, w.named(name), "Ready at "+revision, func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Ready").Status == "True" &&
			k.Status.LastAppliedRevision == revision && k.Status.ObservedGeneration == k.Generation &&
			apimeta.FindStatusCondition(k.Status.Conditions, "Stalled") == nil &&
			apimeta.FindStatusCondition(k.Status.Conditions, "Reconciling") == nil
	})
}

// sourceReady waits until the source "repo" has stored a revision.
func (w *world) sourceReady(revision string) *sourcev1.GitRepository {
	w.t.Helper()
	return waitFor(w, w.namedSource("repo"), "Ready at "+revision, func(s *sourcev1.GitRepository) bool {
		return conditionOf(s.Status.Conditions, "Ready").Status == "True" && s.Status.Artifact != nil &&
			s.Status.Artifact.Revision == revision && s.Status.ObservedGeneration == s.Generation &&
			apimeta.FindStatusCondition(s.Status.Conditions, "FetchFailed") == nil &&
			apimeta.FindStatusCondition(s.Status.Conditions, "Stalled") == nil
	})
}

// says tells whether a text holds all words, which are separated by |.
func says(text, words string) bool {
	for word := range strings.SplitSeq(words, "|") {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// notReady waits until a Kustomization is not Ready for a reason and with a
// message that holds all words, which are separated by |, and until a warning
// says the same.
func (w *world) notReady(name, reason, words string) *kustomizev1.Kustomization {
	w.t.Helper()
	k := waitFor(w, w.named(name), fmt.Sprintf("not Ready with reason %s and a message with %q", reason, words), func(k *kustomizev1.Kustomization) bool {
		ready := conditionOf(k.Status.Conditions, "Ready")
		return ready.Status == "False" && ready.Reason == reason && says(ready.Message, words)
	})
	w.event("Kustomization", name, reason, words)
	return k
}

// event waits for an event of an object.
func (w *world) event(kind, name, reason, words string) corev1.Event {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	stream, err := w.client.Watch(ctx, &corev1.EventList{}, client.InNamespace(w.namespace),
		client.MatchingFields{"involvedObject.kind": kind, "involvedObject.name": name})
	w.check(err)
	defer stream.Stop()
	var others []string
	for e := range stream.ResultChan() {
		event, ok := e.Object.(*corev1.Event)
		if !ok {
			w.t.Fatalf("watch events: %v", apierrors.FromObject(e.Object))
		}
		if event.Reason == reason && says(event.Message, words) {
			return *event
		}
		others = append(others, event.Type+" "+event.Reason+" "+event.Message)
	}
	w.t.Fatalf("%s %s has no event with reason %s and %q, only:\n%s", kind, name, reason, words, strings.Join(others, "\n"))
	return corev1.Event{}
}

// events are all events of an object so far whose message holds some words.
func (w *world) events(kind, name, words string) []corev1.Event {
	w.t.Helper()
	var list corev1.EventList
	w.check(w.client.List(w.context(), &list, client.InNamespace(w.namespace),
		client.MatchingFields{"involvedObject.kind": kind, "involvedObject.name": name}))
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return !says(e.Message, words) })
}

// data waits until a ConfigMap of the test's namespace has a value for "key".
func (w *world) data(name, value string) *corev1.ConfigMap {
	w.t.Helper()
	return waitFor(w, w.namedConfig(name), "with key: "+value, func(c *corev1.ConfigMap) bool {
		return c.Data["key"] == value && c.DeletionTimestamp.IsZero()
	})
}

// same fails where an object is not there any more, or is another one.
func (w *world) same(before client.Object) {
	w.t.Helper()
	now := before.DeepCopyObject().(client.Object)
	if err := w.client.Get(w.context(), client.ObjectKeyFromObject(before), now); err != nil {
		w.t.Fatalf("%T %s: %v", before, before.GetName(), err)
	}
	if now.GetUID() != before.GetUID() || !now.GetDeletionTimestamp().IsZero() {
		w.t.Errorf("%T %s was deleted, and is another one now", before, before.GetName())
	}
}

// writes are the operator's writes to objects of a resource and, where it is
// given, of a name, in a namespace, so far.
func (w *world) writes(resource, namespace, name string) []testenv.Request {
	w.t.Helper()
	return slices.DeleteFunc(w.cluster.Requests(w.t, userAgent), func(r testenv.Request) bool {
		reads := r.Verb == "get" || r.Verb == "list" || r.Verb == "watch"
		o := r.ObjectRef
		return reads || strings.Contains(r.RequestURI, "dryRun=All") || o.Subresource == "status" ||
			o.Resource != resource || o.Namespace != namespace || (name != "" && o.Name != name)
	})
}

// configMap is a manifest of a ConfigMap with one value.
func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  key: %q\n", name, value)
}

// placed is a manifest of a ConfigMap that names its namespace.
func placed(name, value, namespace string) string {
	return strings.Replace(configMap(name, value), "  name: "+name+"\n", "  name: "+name+"\n  namespace: "+namespace+"\n", 1)
}
