package flux

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// longestLost is for how long a generated artifact that is not served is advertised while its
// sources are got: longer than most looks at remotes last, so that a restart with an empty data
// folder writes nothing.
const longestLost = 10 * time.Second

// change is when there is more to do for a generator that waits in silence.
func (b *blocked) change() time.Duration {
	if b.waited < longestLost {
		return longestLost - b.waited
	}
	return max(longestQuiet-b.waited, time.Second)
}

// damaged has the generator looked at whose stored file is not as it was.
func (g *generators) damaged(of gitops.OwnerRef) {
	if m := g.makers.get(of); of.Kind == sourcev1.ExternalArtifactKind && m.uid != "" {
		g.triggers.add(types.NamespacedName{Namespace: of.Namespace, Name: m.name}, urgent)
	}
}

// intact says what is wrong with the stored file of an artifact; nil where it is whole. It is
// read where somebody has touched it, and in any case where reread is set.
func (g *generators) intact(ctx context.Context, last made, reread bool) error {
	err := g.packed.store.Check(ctx, last.artifact, last.file)
	if err == nil && !reread {
		return nil
	}
	// Somebody may have put the right one there.
	whole, adoptErr := g.packed.store.Adopt(last.artifact, last.file)
	switch {
	case whole:
		return nil
	case adoptErr != nil:
		return adoptErr
	case err != nil:
		return err
	}
	return errors.New("the stored file is not there")
}

// announceDamage tells that a stored file is not as it was.
func (g *generators) announceDamage(obj *swapi.ArtifactGenerator, name string, err error) {
	g.events.generator(obj, gitops.Event{
		Severity: gitops.SeverityError, Reason: artifactVerificationFailed,
		Message: fmt.Sprintf("failed to verify integrity of artifact '%s': %s; it is not served before it is stored again", name, err),
	})
}

// mend stores an artifact again whose file is gone or is not what was stored, of what its
// followers have: for a generator that cannot make it anew now.
func (g *generators) mend(ctx context.Context, obj *swapi.ArtifactGenerator, name string) error {
	last := g.last(obj.UID, name)
	if last.file == "" || g.clock.Since(last.mended) < mendPause {
		return nil
	}
	damage := g.intact(ctx, last, false)
	if damage == nil || ctx.Err() != nil {
		return nil
	}
	if !last.unmended {
		g.announceDamage(obj, name, damage)
	}
	last.mended, last.unmended = g.clock.Now(), true
	defer func() { g.remember(obj, name, last) }()
	snapshot, ok := g.sources.acquire(last.artifact.Source)
	if !ok {
		return nil
	}
	defer snapshot.Release()
	if snapshot.Artifact.Digest != last.artifact.Digest {
		return nil
	}
	_, err := g.packed.store.Pack(ctx, last.artifact, last.file, snapshot.Files)
	last.unmended = err != nil
	return err
}

// withdraw takes those artifacts of a generator that nobody can load off the status of their
// objects: for a generator that cannot make them again now. Consumers keep what they have
// applied, and those in the process what they were given.
func (g *generators) withdraw(ctx context.Context, obj *swapi.ArtifactGenerator) error {
	var errs []error
	for _, entry := range obj.Status.Inventory {
		if entry.Namespace == obj.Namespace {
			errs = append(errs, g.withdrawLost(ctx, obj, entry))
		}
	}
	return errors.Join(errs...)
}

func (g *generators) withdrawLost(ctx context.Context, obj *swapi.ArtifactGenerator, entry swapi.ExternalArtifactReference) error {
	ea, err := g.external.get(ctx, types.NamespacedName{Namespace: obj.Namespace, Name: entry.Name})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case ea.Status.Artifact == nil || ea.Labels[swapi.ArtifactGeneratorLabel] != string(obj.UID):
		return nil
	}
	var damaged *artifact.Damaged
	if !errors.As(g.packed.store.Check(ctx, artifactOf(externalRef(obj, entry.Name), ea.Status.Artifact), fileAdvertised(ea)), &damaged) {
		return nil
	}
	after := ea.DeepCopy()
	after.Status.Artifact = nil
	c := conditioned{list: &after.Status.Conditions, generation: ea.Generation}
	c.set(meta.ReadyCondition, metav1.ConditionFalse, artifactVerificationFailed,
		fmt.Sprintf("%s, and it cannot be made again now; ArtifactGenerator '%s/%s' says why", damaged, obj.Namespace, obj.Name))
	if _, err := g.external.patchStatus(ctx, ea, after); err != nil {
		return fmt.Errorf("ExternalArtifact '%s/%s': %w", ea.Namespace, ea.Name, err)
	}
	ctrl.LoggerFrom(ctx).Info("An artifact is not advertised any more", "artifact", entry.Name)
	g.events.generator(obj, gitops.Event{
		Severity: gitops.SeverityError, Reason: artifactVerificationFailed,
		Message: fmt.Sprintf("artifact '%s' is not advertised any more: %s; it will be once it could be made again", entry.Name, damaged),
	})
	return nil
}
