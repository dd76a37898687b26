package flux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/generate"
)

// outcome is what a run of a generator has made.
type outcome struct {
	inventory []swapi.ExternalArtifactReference
	// observed identifies the artifacts of the sources that were used; empty while one of
	// them is still being packed.
	observed string
}

// run makes the artifacts of one generator, and removes those that it makes no more.
func (g *generators) run(ctx context.Context, obj *swapi.ArtifactGenerator) (outcome, error) {
	ctx = g.packed.rooms.In(ctx, obj.Namespace)
	taken, err := g.take(ctx, obj)
	if err != nil {
		return outcome{}, err
	}
	defer taken.release()
	composer := generate.New(taken.bySource, g.unpacker(obj.Namespace))
	outputs, err := composer.Expand(ctx, obj.Spec.PathPattern, templates(obj))
	if err != nil {
		return outcome{}, err
	}
	result := outcome{observed: taken.observed}
	for _, output := range outputs {
		m, err := g.make(ctx, obj, taken, composer, output)
		if err != nil {
			return outcome{}, fmt.Errorf("artifact '%s': %w", output.Name, forWantOfRoom(ctx, err))
		}
		result.inventory = append(result.inventory, swapi.ExternalArtifactReference{
			Name: output.Name, Namespace: obj.Namespace, Digest: m.artifact.Digest, Filename: m.file,
		})
	}
	return result, g.collect(ctx, obj, result.inventory)
}

// forWantOfRoom gives an error the reason noRoom where it is that something did not fit. It may
// have become another one on its way, and is known by the context then.
func forWantOfRoom(ctx context.Context, err error) error {
	var full *artifact.NoRoom
	if errors.As(err, &full) {
		return noRoomOr(full, nil)
	}
	return noRoomOr(artifact.Full(ctx), err)
}

// unpacker unpacks archives that are found in sources, for a namespace.
func (g *generators) unpacker(namespace string) generate.Unpack {
	return func(ctx context.Context, digest string, open func() (io.ReadCloser, error)) (gitops.Tree, func(), error) {
		unpacked, err := g.cache.Load(ctx, artifact.Packed{
			Digest: digest, Scope: artifact.NamespaceScope(namespace), Open: func(context.Context) (io.ReadCloser, error) { return open() },
		})
		return unpacked.Files, unpacked.Release, err
	}
}

func templates(obj *swapi.ArtifactGenerator) []generate.Template {
	list := make([]generate.Template, len(obj.Spec.OutputArtifacts))
	for i, a := range obj.Spec.OutputArtifacts {
		list[i].Name = a.Name
		for _, c := range a.Copy {
			list[i].Copy = append(list[i].Copy, generate.Copy{From: c.From, To: c.To, Exclude: c.Exclude, Strategy: generate.Strategy(c.Strategy)})
		}
	}
	return list
}

// taken are the newest snapshots of a generator's sources. They are kept until everything
// that was made of them, and the run itself, has given them back.
type taken struct {
	bySource map[string]generate.Source
	byAlias  map[string]gitops.Artifact
	observed string

	mu        sync.Mutex
	users     int // guarded by mu
	snapshots parts
}

// share counts one more user.
func (t *taken) share() (release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users++
	var once sync.Once
	return func() { once.Do(t.release) }
}

func (t *taken) release() {
	t.mu.Lock()
	t.users--
	last := t.users == 0
	t.mu.Unlock()
	if last {
		t.snapshots.release()
	}
}

// take takes the newest snapshots of all sources. The error says which one is missing.
func (g *generators) take(ctx context.Context, obj *swapi.ArtifactGenerator) (*taken, error) {
	t := &taken{users: 1, bySource: map[string]generate.Source{}, byAlias: map[string]gitops.Artifact{}}
	observed := map[string]swapi.ObservedSource{}
	for i, ref := range generatorSources(obj) {
		alias := obj.Spec.Sources[i].Alias
		published, err := g.look(ctx, ref)
		if err != nil {
			t.release()
			return nil, err
		}
		snapshot, ok := g.sources.acquire(ref)
		if !ok {
			t.release()
			return nil, g.notThere(ref, published)
		}
		t.snapshots = append(t.snapshots, snapshot)
		t.bySource[alias] = generate.Source{ID: ref.String(), Files: snapshot.Files}
		t.byAlias[alias] = snapshot.Artifact
		if published != nil && published.Revision == snapshot.Artifact.Revision {
			observed[alias] = swapi.ObservedSource{Digest: published.Digest, Revision: published.Revision, URL: published.URL}
		}
	}
	if len(observed) == len(t.byAlias) {
		t.observed = swapi.HashObservedSources(observed)
	}
	return t, nil
}

// look reads the artifact that the object of a source advertises, nil where it has none
// yet.
func (g *generators) look(ctx context.Context, ref gitops.OwnerRef) (*meta.Artifact, error) {
	missing := func(cause error) error {
		return &blocked{reason: swapi.SourceFetchFailedReason, retry: g.options.RequeueDependency, cause: cause}
	}
	empty := generatorKinds()[ref.Kind]
	if empty == nil {
		return nil, missing(fmt.Errorf("source '%s/%s' has the kind '%s', of which no artifacts are made", ref.Namespace, ref.Name, ref.Kind))
	}
	object := empty()
	err := g.client.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, object)
	switch {
	case apierrors.IsNotFound(err):
		return nil, missing(fmt.Errorf("source '%s/%s/%s' not found", ref.Kind, ref.Namespace, ref.Name))
	case apimeta.IsNoMatchError(err):
		return nil, missing(fmt.Errorf("the cluster does not know the kind of source '%s/%s/%s'", ref.Kind, ref.Namespace, ref.Name))
	case err != nil:
		return nil, missing(fmt.Errorf("read source '%s/%s/%s': %w", ref.Kind, ref.Namespace, ref.Name, err))
	}
	if err := g.sources.failure(ref); errors.Is(err, errNoArtifact) {
		return nil, g.notThere(ref, nil)
	} else if err != nil {
		return nil, missing(fmt.Errorf("get the artifact of source '%s/%s/%s': %w", ref.Kind, ref.Namespace, ref.Name, err))
	}
	return object.GetArtifact(), nil
}

// notThere says that a source has no artifact. One that advertises an artifact is only
// not fetched yet in this process, which is not worth telling for a while.
func (g *generators) notThere(ref gitops.OwnerRef, published *meta.Artifact) error {
	b := &blocked{reason: swapi.SourceFetchFailedReason, retry: g.options.RequeueDependency, waiting: true,
		cause: fmt.Errorf("source '%s/%s/%s' is not ready: it has no artifact yet", ref.Kind, ref.Namespace, ref.Name)}
	if published != nil {
		b.hush(g.sources.missing(ref, g.clock.Now()))
		b.cause = fmt.Errorf("source '%s/%s/%s' is not ready: the artifact that it advertises has not been got since the operator started; see whether the source fails, or is suspended or disabled",
			ref.Kind, ref.Namespace, ref.Name)
	}
	return b
}

// generatorKinds are the kinds of sources that artifacts are made of, each with an empty
// object.
func generatorKinds() map[string]func() publishedObject {
	kinds := publishedKinds()
	kinds[sourcev1.HelmChartKind] = func() publishedObject { return &sourcev1.HelmChart{} }
	return kinds
}

// verifyEvery is how often the stored file of an artifact that does not change is read, to
// find out whether it still is what it was.
const verifyEvery = 50 * time.Minute

// make composes one artifact, packs it if its files changed, gives it to those who follow
// it, and writes its object.
func (g *generators) make(ctx context.Context, obj *swapi.ArtifactGenerator, from *taken, composer *generate.Composer, output generate.Output) (made, error) {
	ref := externalRef(obj, output.Name)
	there, err := g.claim(ctx, obj, output.Name)
	if err != nil {
		return made{}, err
	}
	composed, err := composer.Compose(ctx, output.Copy)
	if err != nil {
		return made{}, err
	}
	if err := g.hold(obj, ref); err != nil {
		composed.Release()
		return made{}, err
	}
	shared := from.share()
	release := func() { composed.Release(); shared() }
	next, err := g.pack(ctx, obj, output.Name, composed)
	if err != nil {
		release()
		if g.last(obj.UID, output.Name).file == "" {
			g.makers.leave(ref, obj.UID)
		}
		return made{}, err
	}
	template := obj.Spec.OutputArtifacts[output.Template]
	next.owner, next.artifact.Source, next.artifact.Metadata = obj.Name, ref, nil
	next.artifact.Revision = "latest@" + next.artifact.Digest
	if template.Revision != "" {
		next.artifact.Revision = from.byAlias[strings.TrimPrefix(template.Revision, "@")].Revision
	}
	if template.OriginRevision != "" {
		origin := from.byAlias[strings.TrimPrefix(template.OriginRevision, "@")]
		revision := origin.Metadata[swapi.ArtifactOriginRevisionAnnotation]
		if revision == "" {
			revision = origin.Revision
		}
		next.artifact.Metadata = map[string]string{swapi.ArtifactOriginRevisionAnnotation: revision}
	}
	if g.last(obj.UID, output.Name).artifact.Revision != next.artifact.Revision {
		next.artifact.Time = g.clock.Now()
	}
	next.labels, next.annotations = metadataOf(obj, output.Captures)
	g.remember(obj, output.Name, next)

	snapshot := gitops.Snapshot{Artifact: next.artifact, Files: composed.Files, Release: release}
	if g.sources.holds(ref, next.artifact.Revision, next.artifact.Digest) {
		g.sources.renew(ref, snapshot)
	} else {
		g.sources.publish(ref, snapshot)
	}
	if err := g.write(ctx, obj, there, output.Name, next); err != nil {
		return made{}, err
	}
	return next, nil
}

// pack stores the files of an artifact, unless they are those that are stored already.
func (g *generators) pack(ctx context.Context, obj *swapi.ArtifactGenerator, name string, composed generate.Composition) (made, error) {
	failed := func(err error) error {
		return &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.KindOf(err), Reason: meta.BuildFailedReason, Cause: err}
	}
	sum, err := composed.Files.Sum(".")
	if err != nil {
		return made{}, failed(fmt.Errorf("read the sources: %w", err))
	}
	last := g.last(obj.UID, name)
	now := g.clock.Now()
	if last.sum == sum {
		reread := now.Sub(last.verified) >= verifyEvery || requested(obj.Annotations, obj.Status.ReconcileRequestStatus)
		damage := g.intact(ctx, last, reread)
		if damage == nil {
			verified := last.verified
			if reread {
				verified = now
			}
			return made{artifact: last.artifact, file: last.file, sum: sum, verified: verified}, nil
		}
		if ctx.Err() == nil && !last.unmended {
			g.announceDamage(obj, name, damage)
		}
	}
	number, err := composed.Number(ctx, name)
	if err != nil {
		return made{}, failed(fmt.Errorf("read the sources: %w", err))
	}
	file := number + ".tar.gz"
	packed, err := g.packed.store.Pack(ctx, gitops.Artifact{Source: externalRef(obj, name)}, file, composed.Files)
	if errors.Is(err, artifact.ErrSuperseded) {
		return made{}, &blocked{reason: meta.ProgressingReason, quiet: true, retry: g.options.MinRetryDelay, cause: err}
	}
	if err != nil {
		return made{}, failed(err)
	}
	return made{artifact: packed, file: file, sum: sum, verified: now}, nil
}

// metadataOf are the labels and annotations of a generated object.
func metadataOf(obj *swapi.ArtifactGenerator, captures map[string]string) (labels, annotations map[string]string) {
	labels = map[string]string{}
	if common := obj.Spec.CommonMetadata; common != nil {
		maps.Copy(labels, common.Labels)
		annotations = maps.Clone(common.Annotations)
	}
	maps.Copy(labels, captures)
	labels[managedByLabel] = watcherManager
	labels[swapi.ArtifactGeneratorLabel] = string(obj.UID)
	return labels, annotations
}

// claim reads the object of an artifact, nil where it is missing. That of somebody else is
// an error.
func (g *generators) claim(ctx context.Context, obj *swapi.ArtifactGenerator, name string) (*sourcev1.ExternalArtifact, error) {
	ea, err := g.external.get(ctx, client.ObjectKey{Namespace: obj.Namespace, Name: name})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	case ea.Labels[swapi.ArtifactGeneratorLabel] == string(obj.UID):
		return ea, nil
	}
	owner := "somebody else"
	if ref := ea.Spec.SourceRef; ref != nil {
		if ref.Kind == swapi.ArtifactGeneratorKind && strings.HasPrefix(ref.APIVersion, generatorGroup+"/") {
			other := g.generatorOf(ea)
			if other == nil || other.UID == obj.UID {
				return ea, nil // left behind by one that is gone, or by this one under another UID
			}
		}
		owner = fmt.Sprintf("%s '%s/%s'", ref.Kind, orNamespace(ref.Namespace, ea.Namespace), ref.Name)
	}
	return nil, &blocked{reason: meta.ReconciliationFailedReason, retry: g.options.RequeueDependency, cause: fmt.Errorf(
		"ExternalArtifact '%s/%s' exists and belongs to %s; rename one of the two, or delete it", ea.Namespace, ea.Name, owner)}
}

func orNamespace(namespace, fallback string) string {
	if namespace == "" {
		return fallback
	}
	return namespace
}
