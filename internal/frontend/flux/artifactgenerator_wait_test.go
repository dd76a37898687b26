package flux

import (
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// untold drops events.
type untold struct{}

func (untold) Record(string, corev1.ObjectReference, gitops.Event) {}

// waitingGenerator is a generator "gen" of a suspended source "lib" of which there is no
// snapshot, and of an artifact "a" whose file is lost, in a process that has just begun. Both
// objects advertise what was there before.
func waitingGenerator(t *testing.T) (*generators, *clocktesting.FakeClock) {
	t.Helper()
	scheme := kruntime.NewScheme()
	for _, add := range []func(*kruntime.Scheme) error{sourcev1.AddToScheme, swapi.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	size := int64(1)
	named := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID(name), Generation: 2}
	}
	told := func(at string) *meta.Artifact {
		return &meta.Artifact{URL: "http://operator/" + at, Path: at, Revision: "main@sha1:1", Digest: "sha256:" + strings.Repeat("1", 64), Size: &size}
	}
	ready := []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Reason: meta.SucceededReason, ObservedGeneration: 1}}
	lib := &sourcev1.GitRepository{ObjectMeta: named("lib")}
	lib.Spec.Suspend, lib.Status.Artifact = true, told("gitrepository/n/lib/1.tar.gz")
	gen := &swapi.ArtifactGenerator{ObjectMeta: named("gen")}
	gen.Finalizers, gen.Annotations = []string{swapi.Finalizer}, map[string]string{meta.ReconcileRequestAnnotation: "now"}
	gen.Spec.Sources = []swapi.SourceReference{{Alias: "lib", Kind: sourcev1.GitRepositoryKind, Name: "lib"}}
	gen.Spec.OutputArtifacts = []swapi.OutputArtifact{{Name: "a", Copy: []swapi.CopyOperation{{From: "@lib/", To: "@artifact/"}}}}
	gen.Status.Conditions = ready
	a := &sourcev1.ExternalArtifact{ObjectMeta: named("a")}
	a.Labels = map[string]string{swapi.ArtifactGeneratorLabel: "gen"}
	a.Spec.SourceRef, a.Status.Artifact, a.Status.Conditions = generatorRef(gen), told("externalartifact/n/a/1.tar.gz"), ready
	gen.Status.Inventory = []swapi.ExternalArtifactReference{{Name: "a", Namespace: "n", Digest: a.Status.Artifact.Digest, Filename: "1.tar.gz"}}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(lib, gen, a).WithStatusSubresource(lib, gen, a).Build()
	clock := clocktesting.NewFakeClock(time.Unix(1_700_000_000, 0))
	store, err := artifact.Open(t.TempDir(), artifact.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := artifact.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &generators{
		objects:  newObjects(c, watcherManager, func() *swapi.ArtifactGenerator { return &swapi.ArtifactGenerator{} }),
		external: newObjects(c, watcherManager, func() *sourcev1.ExternalArtifact { return &sourcev1.ExternalArtifact{} }),
		client:   c, live: c, packed: packed{store: store, baseURL: "http://operator"}, cache: cache, sources: newSources(), triggers: &triggers{},
		events: &events{recorder: untold{}, log: logr.Discard()}, clock: clock,
		options: SourceOptions{MinRetryDelay: time.Second, MaxRetryDelay: time.Minute, RequeueDependency: time.Hour},
		pauses:  newPauses(), made: map[types.UID]map[string]made{}, looked: map[types.UID]bool{}, makers: newMakers(), gone: func(gitops.OwnerRef) {},
	}, clock
}

// TestGeneratorOfALostSource: who waits for a source that was there before says nothing of it
// after a start, and does in the end. What is lost with it is not advertised for so long.
func TestGeneratorOfALostSource(t *testing.T) {
	t.Parallel()
	g, clock := waitingGenerator(t)
	begin := clock.Now()
	gen, a := &swapi.ArtifactGenerator{}, &sourcev1.ExternalArtifact{}
	reconcile := func() ctrl.Result {
		t.Helper()
		result, err := g.reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "n", Name: "gen"}})
		for name, obj := range map[string]client.Object{"gen": gen, "a": a} {
			if getErr := g.client.Get(t.Context(), client.ObjectKey{Namespace: "n", Name: name}, obj); getErr != nil {
				t.Fatal(getErr)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	for _, step := range []struct {
		what              string
		until             time.Duration
		advertised, quiet bool
	}{
		{"in the beginning", 0, true, true},
		{"for a while", longestLost - time.Second, true, true},
		{"after that", longestLost, false, true},
		{"before a minute is over", longestQuiet - time.Second, false, true},
		{"in the end", longestQuiet, false, false},
	} {
		for {
			result := reconcile()
			rest := begin.Add(step.until).Sub(clock.Now())
			if rest <= 0 {
				break
			}
			if result.RequeueAfter <= 0 {
				t.Fatalf("%s: it is not looked at again", step.what)
			}
			clock.Step(min(result.RequeueAfter, rest))
		}
		ready := generatorConditions(gen).get(meta.ReadyCondition)
		said := ready.Status == metav1.ConditionFalse && ready.Reason == swapi.SourceFetchFailedReason && ready.ObservedGeneration == 2 &&
			strings.Contains(ready.Message, "source 'GitRepository/n/lib' is not ready: ") && gen.Status.LastHandledReconcileAt == "now"
		silent := ready.Status == metav1.ConditionTrue && ready.ObservedGeneration == 1 && gen.Status.LastHandledReconcileAt == ""
		if advertised := a.Status.Artifact != nil; advertised != step.advertised || silent != step.quiet || said == step.quiet {
			t.Errorf("%s: advertised is %t, want %t; quiet is %t, want %t: %+v", step.what, advertised, step.advertised, silent, step.quiet, gen.Status)
		}
	}
	lib := gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.GitRepositoryKind, Namespace: "n", Name: "lib"}
	g.sources.publish(lib, gitops.Snapshot{Artifact: gitops.Artifact{Source: lib, Revision: "main@sha1:1"}, Files: sourcetest.Memory(map[string]string{"x": "1"}), Release: func() {}})
	reconcile()
	if ready := generatorConditions(gen).get(meta.ReadyCondition); ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != 2 || a.Status.Artifact == nil {
		t.Errorf("when it is there: %+v, %+v", gen.Status, a.Status)
	}
}
