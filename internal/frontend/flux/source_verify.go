package flux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// artifactVerificationFailed is Flux's reason for a stored file that is not as it was.
	artifactVerificationFailed = "ArtifactVerificationFailed"
	// lookEvery is how often it is looked whether stored files are there and untouched,
	// and readEvery how often all of them are read, with at most readRate bytes a second.
	lookEvery = 10 * time.Second
	readEvery = time.Hour
	readRate  = 16 << 20
	// mendPause is how long a file that is damaged again, or cannot be stored, is left so: a
	// disk that keeps nothing must not be filled all the time.
	mendPause = time.Minute
)

// mend stores the artifact of an object again where its file is gone or is not what was
// stored, or could not be stored a while ago. It asks no remote: what the consumers have is packed. It works for objects that
// are suspended, or that cannot be followed now, too.
func (r *sourceReconciler[T, R]) mend(ctx context.Context, obj T) {
	last, known := r.lastOf(obj.GetUID())
	if !known {
		last, known = r.restored(obj)
	}
	if !known || last.packing() || r.clock.Since(last.mended) < mendPause {
		return
	}
	if last.failure == nil {
		err := r.packed.store.Check(ctx, last.artifact, r.fileOf(last))
		var damaged *artifact.Damaged
		if !errors.As(err, &damaged) {
			return
		}
		r.announceDamage(obj, last.revision, err)
	}
	last.mended, last.failure, last.artifact.Digest, last.artifact.Size = r.clock.Now(), nil, "", 0
	r.startPacking(ctx, obj, last)
}

// restored is what an object's consumers were given from its stored file, and nothing has
// been fetched since. What it is packed of again has to make the file that is advertised.
func (r *sourceReconciler[T, R]) restored(obj T) (fetched, bool) {
	a, file, ok := r.advertised(obj)
	if !ok || !r.sources.holds(a.Source, a.Revision, a.Digest) {
		return fetched{}, false
	}
	return fetched{revision: a.Revision, artifact: a, stored: file}, true
}

// fileOf names the file of what was fetched.
func (r *sourceReconciler[T, R]) fileOf(f fetched) string {
	if f.stored != "" {
		return f.stored
	}
	return r.kind.file(f.revision, f.metadata)
}

// unserved says why the artifact that an object advertises is not served, and is not going to
// be in a moment; nil where it is.
func (r *sourceReconciler[T, R]) unserved(ctx context.Context, obj T) error {
	a, file, ok := r.advertised(obj)
	if !ok {
		return nil
	}
	r.mu.Lock()
	packing := r.packers[obj.GetUID()] > 0
	r.mu.Unlock()
	var damaged *artifact.Damaged
	if err := r.packed.store.Check(ctx, a, file); packing || !errors.As(err, &damaged) {
		return nil
	}
	return damaged
}

// withdraw takes an artifact that nobody can load off a status, as Flux does. Consumers keep
// what they have applied, and those in the process what they were given.
func (r *sourceReconciler[T, R]) withdraw(after T) {
	status := r.kind.status(after)
	if revision := (*status.artifact).Revision; r.sources.revision(r.ref(after)) == revision {
		r.mu.Lock()
		r.notStored(after.GetUID(), revision, true)
		r.mu.Unlock()
	}
	*status.artifact = nil
	if status.url != nil {
		*status.url = ""
	}
	(conditioned{list: status.conditions}).remove(sourcev1.ArtifactInStorageCondition)
}

// announceWithdrawal tells of an artifact that an object had until now.
func (r *sourceReconciler[T, R]) announceWithdrawal(before T, because error) {
	revision := before.GetArtifact().Revision
	r.send(before, gitops.Event{
		Severity: gitops.SeverityError, Reason: artifactVerificationFailed, Revision: revision,
		Message: fmt.Sprintf("revision '%s' is not advertised any more: %s; it will be once it could be fetched again", revision, because),
	})
}

// lacking is for an object whose look at the remote lasts: an artifact that is not served must
// not be advertised for so long.
func (r *sourceReconciler[T, R]) lacking(ctx context.Context, obj T) error {
	because := r.unserved(ctx, obj)
	if because == nil {
		return nil
	}
	after := obj.DeepCopyObject().(T)
	message := fmt.Sprintf("fetching '%s' anew: %s", obj.GetArtifact().Revision, because)
	r.withdraw(after)
	c := conditioned{list: r.kind.status(after).conditions, generation: obj.GetGeneration()}
	c.set(meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingReason, message)
	c.set(meta.ReadyCondition, metav1.ConditionUnknown, meta.ProgressingReason, message)
	if _, err := r.objects.patchStatus(ctx, obj, after); err != nil {
		return err
	}
	r.announceWithdrawal(obj, because)
	return nil
}

// hushed is for an object of whose failure nothing is said yet: what is not served is not
// advertised for longer than a look at a remote may take that keeps a worker.
func (r *sourceReconciler[T, R]) hushed(ctx context.Context, obj T, b *blocked) error {
	if b.waited < workerWait {
		return nil
	}
	return r.lacking(ctx, obj)
}

// announceDamage tells that a stored file is not as it was.
func (r *sourceReconciler[T, R]) announceDamage(obj T, revision string, err error) {
	r.send(obj, gitops.Event{
		Severity: gitops.SeverityError, Reason: artifactVerificationFailed, Revision: revision,
		Message: fmt.Sprintf("failed to verify integrity of artifact: %s; it is not served before it is stored again", err),
	})
}

// verifyStored looks after the stored files until the context ends: a source whose file is
// not as it was is reconciled, or its generator. Generators may be nil.
func (w *wiring) verifyStored(ctx context.Context, generators *generators) error {
	limiter := rate.NewLimiter(readRate, readRate)
	read := func(bytes int) error { return limiter.WaitN(ctx, bytes) }
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	told := map[gitops.OwnerRef]time.Time{}
	for lastRead := w.parts.Clock.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := w.parts.Clock.Now()
		maps.DeleteFunc(told, func(_ gitops.OwnerRef, at time.Time) bool { return now.Sub(at) >= mendPause })
		deep := now.Sub(lastRead) >= readEvery
		if deep {
			lastRead = now
		}
		err := w.parts.Artifacts.Examine(ctx, deep, read, func(of gitops.OwnerRef) {
			_, known := told[of]
			if known {
				return
			}
			told[of] = now
			if t := w.triggers[of.Kind]; t != nil {
				t.add(types.NamespacedName{Namespace: of.Namespace, Name: of.Name}, urgent)
			} else if generators != nil {
				generators.damaged(of)
			}
		})
		if err != nil && ctx.Err() == nil {
			w.mgr.GetLogger().Error(err, "Verifying stored artifacts failed")
		}
	}
}
