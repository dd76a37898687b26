package flux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// write makes the object of an artifact what it should be; there is the one in the
// cluster, nil where it is missing. Where nothing differs nothing is written.
func (g *generators) write(ctx context.Context, obj *swapi.ArtifactGenerator, there *sourcev1.ExternalArtifact, name string, m made) error {
	// What was taken out of the specification is not seen in the object.
	if there == nil || !settled(obj) || !describes(obj, there, m) {
		applied, err := g.apply(ctx, obj, there, name, m)
		if err != nil {
			return err
		}
		there = applied
	}
	after := there.DeepCopy()
	next, err := g.packed.describe(m.artifact, m.file)
	if err != nil {
		return err
	}
	if old := there.Status.Artifact; old != nil && old.Revision == next.Revision && old.Digest == next.Digest {
		next.LastUpdateTime = old.LastUpdateTime
	}
	after.Status.Artifact = next
	c := conditioned{list: &after.Status.Conditions, generation: there.Generation}
	c.set(meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, "Artifact is ready")
	if _, err := g.external.patchStatus(ctx, there, after); err != nil {
		return fmt.Errorf("ExternalArtifact '%s/%s': %w", there.Namespace, there.Name, err)
	}
	if err := g.packed.store.Keep(m.artifact.Source, m.file); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Removing older artifacts failed", "artifact", name)
	}
	return nil
}

// describes tells whether an object has the labels, annotations and reference that it
// should have; it may have more.
func describes(obj *swapi.ArtifactGenerator, ea *sourcev1.ExternalArtifact, m made) bool {
	ref := generatorRef(obj)
	return ea.Spec.SourceRef != nil && *ea.Spec.SourceRef == *ref && within(m.labels, ea.Labels) && within(m.annotations, ea.Annotations)
}

func within(wanted, have map[string]string) bool {
	for key, value := range wanted {
		if now, ok := have[key]; !ok || now != value {
			return false
		}
	}
	return true
}

func generatorRef(obj *swapi.ArtifactGenerator) *meta.NamespacedObjectKindReference {
	return &meta.NamespacedObjectKindReference{
		APIVersion: swapi.GroupVersion.String(), Kind: swapi.ArtifactGeneratorKind, Name: obj.Name, Namespace: obj.Namespace,
	}
}

// apply makes or changes the object of an artifact, as Flux does and under Flux's name, so
// that labels go that are not wanted any more.
func (g *generators) apply(ctx context.Context, obj *swapi.ArtifactGenerator, there *sourcev1.ExternalArtifact, name string, m made) (*sourcev1.ExternalArtifact, error) {
	metadata := map[string]any{"name": name, "namespace": obj.Namespace, "labels": m.labels}
	if len(m.annotations) > 0 {
		metadata["annotations"] = m.annotations
	}
	if there != nil {
		metadata["uid"] = there.UID
	}
	data, err := json.Marshal(map[string]any{
		"apiVersion": sourcev1.GroupVersion.String(), "kind": sourcev1.ExternalArtifactKind,
		"metadata": metadata, "spec": map[string]any{"sourceRef": generatorRef(obj)},
	})
	if err != nil {
		return nil, fmt.Errorf("encode ExternalArtifact: %w", err)
	}
	answer := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: name}}
	if err := g.client.Patch(ctx, answer, client.RawPatch(types.ApplyPatchType, data), client.FieldOwner(watcherManager), client.ForceOwnership); err != nil {
		return nil, &blocked{reason: meta.ReconciliationFailedReason, cause: fmt.Errorf("apply ExternalArtifact '%s/%s': %w", obj.Namespace, name, err)}
	}
	g.external.remember(answer.DeepCopy())
	return answer, nil
}

// collect removes the artifacts that a generator has made and that are not kept: their
// objects, their files, and what those who follow them have in memory. Objects of somebody
// else stay.
func (g *generators) collect(ctx context.Context, obj *swapi.ArtifactGenerator, keep []swapi.ExternalArtifactReference) error {
	kept := map[string]bool{}
	for _, entry := range keep {
		kept[entry.Name] = true
	}
	old := map[string]bool{}
	for _, entry := range obj.Status.Inventory {
		old[entry.Name] = entry.Namespace == obj.Namespace
	}
	g.mu.Lock()
	for name := range g.made[obj.UID] {
		old[name] = true
	}
	g.mu.Unlock()
	// An object that was made just before a crash stands in no inventory.
	var list sourcev1.ExternalArtifactList
	reader := client.Reader(g.client)
	if len(keep) == 0 {
		reader = g.live // it may be the last look, and the cache may be behind
	}
	if err := reader.List(ctx, &list, client.InNamespace(obj.Namespace),
		client.MatchingLabels{swapi.ArtifactGeneratorLabel: string(obj.UID)}, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list ExternalArtifacts: %w", err)
	}
	for i := range list.Items {
		old[list.Items[i].Name] = true
	}
	var errs []error
	for _, name := range sortedKeys(old) {
		if old[name] && !kept[name] {
			errs = append(errs, g.remove(ctx, obj, name))
		}
	}
	return errors.Join(errs...)
}

// remove deletes the object of an artifact, then what its followers have and its files. Until
// that is done nobody else makes an artifact of the name.
func (g *generators) remove(ctx context.Context, obj *swapi.ArtifactGenerator, name string) error {
	ref := externalRef(obj, name)
	if g.hold(obj, ref) != nil {
		g.forget(obj, name)
		return nil // somebody else's by now
	}
	ea, err := g.external.get(ctx, types.NamespacedName{Namespace: obj.Namespace, Name: name})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return err
	case ea.Labels[swapi.ArtifactGeneratorLabel] != string(obj.UID):
		g.forget(obj, name)
		return nil // somebody else's by now
	default:
		err := g.client.Delete(ctx, ea, client.Preconditions{UID: &ea.UID})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return &blocked{reason: meta.ReconciliationFailedReason, cause: fmt.Errorf("delete ExternalArtifact '%s/%s': %w", obj.Namespace, name, err)}
		}
	}
	g.sources.remove(ref)
	g.gone(ref)
	if err := g.packed.store.Remove(ref); err != nil {
		return err
	}
	g.forget(obj, name)
	g.wake(ctx, obj.Namespace, name)
	g.events.generator(obj, gitops.Event{Severity: gitops.SeverityInfo, Reason: meta.ReadyCondition, Message: fmt.Sprintf("ExternalArtifact/%s/%s deleted", obj.Namespace, name)})
	return nil
}

// forget drops what is known of an artifact that a generator makes no more, and lets others
// have the name.
func (g *generators) forget(obj *swapi.ArtifactGenerator, name string) {
	g.mu.Lock()
	delete(g.made[obj.UID], name)
	g.mu.Unlock()
	g.makers.leave(externalRef(obj, name), obj.UID)
}

// retain removes files of artifacts that no generator has made any more, such as those of
// generators that were deleted while no process was running. It removes nothing until
// every generator has been looked at.
func (g *generators) retain(ctx context.Context) error {
	var all swapi.ArtifactGeneratorList
	if err := g.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	owners := []gitops.OwnerRef{}
	for i := range all.Items {
		obj := &all.Items[i]
		if !g.lookedAt(obj.UID) && serves(g.selector, obj) && obj.DeletionTimestamp.IsZero() {
			return nil
		}
		for _, entry := range obj.Status.Inventory {
			owners = append(owners, externalRef(obj, entry.Name))
		}
	}
	return g.makers.with(func(refs []gitops.OwnerRef) error {
		return g.packed.store.Retain(sourcev1.ExternalArtifactKind, append(owners, refs...))
	})
}

func (g *generators) lookedAt(uid types.UID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.looked[uid]
}
