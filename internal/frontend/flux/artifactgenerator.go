package flux

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// generateTimeout bounds one run of a generator, Flux's default of its own flag.
const generateTimeout = 10 * time.Minute

// generators reconciles ArtifactGenerators: it composes the files of sources anew, gives
// the results to those who follow them in memory, and packs them for others.
type generators struct {
	objects *objects[*swapi.ArtifactGenerator]
	// external are the objects that are generated.
	external *objects[*sourcev1.ExternalArtifact]
	client   client.Client
	// live reads from the API server.
	live     client.Reader
	selector labels.Selector
	packed   packed
	cache    *artifact.Cache
	sources  *sources
	triggers *triggers
	events   *events
	clock    clock.PassiveClock
	options  SourceOptions
	pauses   *pauses
	makers   *makers
	// gone has those who follow a source look at it, when it is no more.
	gone func(gitops.OwnerRef)

	mu sync.Mutex
	// made is what this process has made for each generator, by the name of the
	// artifact; guarded by mu, as is looked, the generators that were looked at.
	made   map[types.UID]map[string]made
	looked map[types.UID]bool
}

// made is a generated artifact.
type made struct {
	// owner is the name of its generator.
	owner    string
	artifact gitops.Artifact
	file     string
	// sum is that of its files, empty where they were not composed by this process.
	sum string
	// labels and annotations are those of the object.
	labels, annotations map[string]string
	// verified is when its file was last known to be whole.
	verified time.Time
	// mended is when its file was last stored again because it was not as it was, without
	// its sources; unmended is set where that failed.
	mended   time.Time
	unmended bool
}

// reconcile brings the artifacts of one generator up to date with its sources.
func (g *generators) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	obj, err := g.objects.get(ctx, req.NamespacedName)
	switch {
	case apierrors.IsNotFound(err):
		markGone(ctx)
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	case !serves(g.selector, obj):
		return ctrl.Result{}, nil
	case !obj.DeletionTimestamp.IsZero():
		return ctrl.Result{}, g.finalize(ctx, obj)
	}
	if obj, err = g.objects.setFinalizer(ctx, obj, swapi.Finalizer, true); err != nil {
		return ctrl.Result{}, err
	}
	if obj.IsDisabled() {
		ctrl.LoggerFrom(ctx).Info("Reconciliation is disabled for this object")
		g.resume(ctx, obj)
		return ctrl.Result{}, g.describeDisabled(ctx, obj)
	}
	if err := g.validate(obj); err != nil {
		return g.fail(ctx, obj, err)
	}
	runCtx, cancel := context.WithTimeout(ctx, generateTimeout)
	defer cancel()
	outcome, err := g.run(runCtx, obj)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil
	}
	if err != nil {
		return g.fail(ctx, obj, err)
	}
	return g.succeed(ctx, obj, outcome)
}

// validate refuses what only another specification can mend.
func (g *generators) validate(obj *swapi.ArtifactGenerator) error {
	refuse := func(reason, format string, args ...any) error {
		return &blocked{reason: reason, stalled: true, cause: fmt.Errorf(format, args...)}
	}
	aliases := map[string]bool{}
	for _, src := range obj.Spec.Sources {
		if aliases[src.Alias] {
			return refuse(swapi.ValidationFailedReason, "duplicate source alias '%s'", src.Alias)
		}
		aliases[src.Alias] = true
		if g.options.NoCrossNamespaceRefs && src.Namespace != "" && src.Namespace != obj.Namespace {
			return refuse(swapi.AccessDeniedReason, "can't access '%s/%s/%s', cross-namespace references have been blocked", src.Kind, src.Namespace, src.Name)
		}
	}
	names := map[string]bool{}
	for _, a := range obj.Spec.OutputArtifacts {
		if names[a.Name] {
			return refuse(swapi.ValidationFailedReason, "duplicate artifact name '%s'", a.Name)
		}
		names[a.Name] = true
		if errs := validation.IsDNS1123Subdomain(a.Name); obj.Spec.PathPattern == "" && len(errs) > 0 {
			return refuse(swapi.ValidationFailedReason, "artifact name %q is not a name of a Kubernetes object: %s", a.Name, strings.Join(errs, "; "))
		}
		for i, ref := range []string{a.Revision, a.OriginRevision} {
			if ref != "" && !aliases[strings.TrimPrefix(ref, "@")] {
				field := []string{"revision", "originRevision"}[i]
				return refuse(swapi.ValidationFailedReason, "artifact '%s': no source has the alias that its %s '%s' names", a.Name, field, ref)
			}
		}
	}
	if cycle := g.cycle(obj); cycle != "" {
		return refuse(swapi.ValidationFailedReason, "an artifact is made of itself: %s", cycle)
	}
	return nil
}

// generatorSources are the sources of a generator, in the order of its spec.
func generatorSources(obj *swapi.ArtifactGenerator) []gitops.OwnerRef {
	refs := make([]gitops.OwnerRef, len(obj.Spec.Sources))
	for i, src := range obj.Spec.Sources {
		namespace := src.Namespace
		if namespace == "" {
			namespace = obj.Namespace
		}
		refs[i] = gitops.OwnerRef{Group: sourceGroup, Kind: src.Kind, Namespace: namespace, Name: src.Name}
	}
	return refs
}

// cycle names a way from a generator over its sources, and what generates those, back to
// it; "" where there is none. Each generator is looked at once.
func (g *generators) cycle(obj *swapi.ArtifactGenerator) string {
	visited := map[types.UID]bool{}
	var walk func(at *swapi.ArtifactGenerator, path string) string
	walk = func(at *swapi.ArtifactGenerator, path string) string {
		visited[at.UID] = true
		for _, ref := range generatorSources(at) {
			if ref.Kind != sourcev1.ExternalArtifactKind {
				continue
			}
			ea := &sourcev1.ExternalArtifact{}
			if err := g.client.Get(context.Background(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, ea); err != nil {
				continue // a missing source is told of as such
			}
			owner := g.generatorOf(ea)
			switch {
			case owner == nil:
				continue
			case owner.UID == obj.UID:
				return path + " -> " + ref.String()
			case visited[owner.UID]:
				continue
			}
			if cycle := walk(owner, path+" -> "+ref.String()); cycle != "" {
				return cycle
			}
		}
		return ""
	}
	return walk(obj, swapi.ArtifactGeneratorKind+"/"+obj.Namespace+"/"+obj.Name)
}

// generatorOf is the generator that an object was made by, if it exists; nil where that
// was none.
func (g *generators) generatorOf(ea *sourcev1.ExternalArtifact) *swapi.ArtifactGenerator {
	ref := ea.Spec.SourceRef
	if ref == nil || ref.Kind != swapi.ArtifactGeneratorKind || !strings.HasPrefix(ref.APIVersion, generatorGroup+"/") ||
		ref.Namespace != "" && ref.Namespace != ea.Namespace {
		return nil
	}
	obj := &swapi.ArtifactGenerator{}
	if err := g.client.Get(context.Background(), client.ObjectKey{Namespace: ea.Namespace, Name: ref.Name}, obj); err != nil {
		return nil
	}
	return obj
}

// makes tells whether this process makes an object, so that nobody else's artifact is to
// be looked for in it.
func (g *generators) makes(obj publishedObject) bool {
	ea, ok := obj.(*sourcev1.ExternalArtifact)
	if !ok {
		return false
	}
	owner := g.generatorOf(ea)
	return owner != nil && serves(g.selector, owner) && ea.Labels[swapi.ArtifactGeneratorLabel] == string(owner.UID)
}

// externalRef names a generated artifact as a source.
func externalRef(obj *swapi.ArtifactGenerator, name string) gitops.OwnerRef {
	return gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.ExternalArtifactKind, Namespace: obj.Namespace, Name: name}
}

// finalize removes what a generator that goes has made.
func (g *generators) finalize(ctx context.Context, obj *swapi.ArtifactGenerator) error {
	if !slices.Contains(obj.Finalizers, swapi.Finalizer) {
		return nil
	}
	if err := g.collect(ctx, obj, nil); err != nil {
		return err
	}
	if _, err := g.objects.setFinalizer(ctx, obj, swapi.Finalizer, false); err != nil {
		return err
	}
	g.pauses.forget(obj.UID)
	g.makers.leaveAll(obj.UID)
	g.mu.Lock()
	delete(g.made, obj.UID)
	delete(g.looked, obj.UID)
	g.mu.Unlock()
	return nil
}

// resume keeps what a generator has made, where it cannot be made anew now: the generator is
// disabled, or a source is gone. Those who follow the artifacts are given what an earlier
// process has made, and files that are not as they were are stored again.
func (g *generators) resume(ctx context.Context, obj *swapi.ArtifactGenerator) {
	for _, entry := range obj.Status.Inventory {
		ref := externalRef(obj, entry.Name)
		switch {
		case entry.Namespace != obj.Namespace:
			continue
		case g.sources.revision(ref) != "":
			if err := g.mend(ctx, obj, entry.Name); err != nil {
				ctrl.LoggerFrom(ctx).Error(err, "Storing an artifact again failed", "artifact", entry.Name)
			}
			continue
		}
		ea, err := g.external.get(ctx, types.NamespacedName{Namespace: obj.Namespace, Name: entry.Name})
		if err != nil || ea.Status.Artifact == nil || !g.makes(ea) {
			continue
		}
		if err := g.restore(ctx, obj, ea, fileAdvertised(ea)); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Using the last artifact failed", "artifact", entry.Name)
		}
	}
}

// restore publishes the stored file of an artifact; nothing where it is not there.
func (g *generators) restore(ctx context.Context, obj *swapi.ArtifactGenerator, ea *sourcev1.ExternalArtifact, file string) error {
	a := artifactOf(externalRef(obj, ea.Name), ea.Status.Artifact)
	if err := g.hold(obj, a.Source); err != nil {
		return err
	}
	a.Source.UID = string(ea.UID)
	if whole, err := g.packed.store.Adopt(a, file); err != nil || !whole {
		return err
	}
	if err := g.packed.store.Keep(a.Source, file); err != nil {
		return err
	}
	unpacked, err := g.packed.load(ctx, g.cache, a, file)
	if err != nil {
		return err
	}
	g.remember(obj, ea.Name, made{owner: obj.Name, artifact: a, file: file, labels: ea.Labels, annotations: ea.Annotations, verified: g.clock.Now()})
	g.sources.publish(a.Source, gitops.Snapshot{Artifact: a, Files: unpacked.Files, Release: unpacked.Release})
	return nil
}

// fileAdvertised is the name of the file that an object advertises. The inventory of its
// generator has that of the last run that came to its end.
func fileAdvertised(ea *sourcev1.ExternalArtifact) string { return path.Base(ea.Status.Artifact.Path) }

func (g *generators) remember(obj *swapi.ArtifactGenerator, name string, m made) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.made[obj.UID] == nil {
		g.made[obj.UID] = map[string]made{}
	}
	g.made[obj.UID][name] = m
}

func (g *generators) last(uid types.UID, name string) made {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.made[uid][name]
}

// settled tells whether a generator's present specification has been followed to the end.
func settled(obj *swapi.ArtifactGenerator) bool {
	ready := (conditioned{list: &obj.Status.Conditions}).get(meta.ReadyCondition)
	return ready.Status == "True" && ready.ObservedGeneration == obj.Generation && ready.Reason == meta.SucceededReason
}
