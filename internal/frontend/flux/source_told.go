package flux

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// unnamed is what is stored of the newest revision of an object, where the status does not name
// that; false where it does, or there is nothing.
func (r *sourceReconciler[T, R]) unnamed(ctx context.Context, obj T) (fetched, bool) {
	last, told := r.last(obj.GetUID()), obj.GetArtifact()
	if last.artifact.Digest == "" || told != nil && told.Revision == last.revision && told.Digest == last.artifact.Digest {
		return last, false
	}
	return last, r.packed.store.Check(ctx, last.artifact, r.fileOf(last)) == nil
}

// name has a status advertise what is stored of a revision, and tells whether that is another
// artifact than before.
func (r *sourceReconciler[T, R]) name(after T, f fetched) (changed bool, err error) {
	next, err := r.packed.describe(f.artifact, r.fileOf(f))
	if err != nil {
		return false, err
	}
	status := r.kind.status(after)
	old := *status.artifact
	changed = old == nil || old.Revision != next.Revision || old.Digest != next.Digest
	if !changed {
		next.LastUpdateTime = old.LastUpdateTime
	}
	*status.artifact = next
	if status.url != nil {
		*status.url = r.packed.lasting(f.artifact.Source, r.kind.latest())
	}
	return changed, nil
}

// catchUp has a status that is written for another reason, such as a failure, advertise what the
// consumers have been given, once that is stored. It does not say that a look was a success.
func (r *sourceReconciler[T, R]) catchUp(ctx context.Context, after T) (fetched, bool) {
	f, behind := r.unnamed(ctx, after)
	if !behind {
		return f, false
	}
	f, _ = r.withParts(f)
	if _, err := r.name(after, f); err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Advertising the stored artifact failed")
		return f, false
	}
	c := conditioned{list: r.kind.status(after).conditions, generation: f.generation}
	started, known := f.started.(T)
	if known {
		r.kind.observe(after, started, f)
	} else {
		started = after
	}
	success, _ := r.kind.reasons(f)
	message, _ := r.kind.words(started, f)
	c.set(sourcev1.ArtifactInStorageCondition, metav1.ConditionTrue, success, message)
	if c.is(meta.ReadyCondition, metav1.ConditionTrue) {
		c.set(meta.ReadyCondition, metav1.ConditionTrue, success, message)
	}
	return f, true
}

// caughtUp notes that a status has caught up, and tells of the artifact that nobody was told of
// before.
func (r *sourceReconciler[T, R]) caughtUp(ctx context.Context, after, before T, f fetched) {
	r.stands(ctx, before, f)
	if f.started != nil {
		r.announce(after, before, f)
	}
}

// stands notes that the status of an object names a revision: its file is kept until the status
// names another one.
func (r *sourceReconciler[T, R]) stands(ctx context.Context, obj T, f fetched) {
	r.told(obj.GetUID())
	r.packedAs(obj.GetUID(), f, func(now *fetched) { now.told, now.started = true, nil })
	r.keep(ctx, f.artifact.Source, r.fileOf(f))
}

func (r *sourceReconciler[T, R]) keep(ctx context.Context, source gitops.OwnerRef, file string) {
	if err := r.packed.store.Keep(source, file); err != nil {
		logr.FromContextOrDiscard(ctx).Error(err, "Removing older artifacts failed")
	}
}

// conclude tells of a suspended object what was packed since, as Flux ends what is under way
// when an object is suspended.
func (r *sourceReconciler[T, R]) conclude(ctx context.Context, obj T) error {
	f, behind := r.unnamed(ctx, obj)
	if !behind {
		return nil
	}
	ready := conditioned{list: r.kind.status(obj).conditions}.get(meta.ReadyCondition)
	// What was said since of a newer declaration is not taken back.
	if started, ok := f.started.(T); ok && f.confirmed && ready.ObservedGeneration <= f.generation {
		f, waits := r.withParts(f)
		if waits {
			return nil // the packing of the included one has the object reconciled
		}
		_, err := r.succeed(ctx, started, f)
		return err
	}
	after := obj.DeepCopyObject().(T)
	f, ok := r.catchUp(ctx, after)
	if !ok {
		return nil
	}
	if _, err := r.objects.patchStatus(ctx, obj, after); err != nil {
		return err
	}
	r.caughtUp(ctx, after, obj, f)
	return nil
}

// restate has the failure of a suspended object, which is not told again, say what the consumers
// have now: after a restart that may be an older revision than it says, and what could not be
// stored may be by now.
func (r *sourceReconciler[T, R]) restate(ctx context.Context, key client.ObjectKey) error {
	before, err := r.objects.get(ctx, key)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	ready := conditioned{list: r.kind.status(before).conditions}.get(meta.ReadyCondition)
	said := forceWords.FindString(ready.Message)
	if said == "" || ready.Status != metav1.ConditionFalse {
		return nil
	}
	after := before.DeepCopyObject().(T)
	list := *r.kind.status(after).conditions
	for i := range list {
		if list[i].Message == ready.Message {
			list[i].Message = strings.TrimSuffix(ready.Message, said) + r.inForce(before)
		}
	}
	_, err = r.objects.patchStatus(ctx, before, after)
	return err
}

// forceWords are those of inForce.
var forceWords = regexp.MustCompile(`; revision '[^']*' (stays in force|is in use, but is not stored for others(, who are still given '[^']*')?)$`)

// inForce says at the end of a failure what the consumers go on with; empty for nothing.
func (r *sourceReconciler[T, R]) inForce(obj T) string {
	told, used := "", r.sources.revision(r.ref(obj))
	if a := obj.GetArtifact(); a != nil {
		told = a.Revision
	}
	// It is not asked whether it is being packed: that it could not be is news once, and not at
	// each try.
	r.mu.Lock()
	stored := r.unstored[obj.GetUID()] != used
	r.mu.Unlock()
	switch {
	case used == "" && told == "":
		return ""
	case used == "" || used == told:
		return fmt.Sprintf("; revision '%s' stays in force", told)
	case stored:
		return fmt.Sprintf("; revision '%s' stays in force", used)
	case told == "":
		return fmt.Sprintf("; revision '%s' is in use, but is not stored for others", used)
	}
	return fmt.Sprintf("; revision '%s' is in use, but is not stored for others, who are still given '%s'", used, told)
}
