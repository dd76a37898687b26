package flux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/time/rate"
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
	// mendPause is how long a file that is damaged again is left so: a disk that keeps
	// nothing must not be filled all the time.
	mendPause = time.Minute
)

// mend stores the artifact of an object again where its file is gone or is not what was
// stored. It asks no remote: what the consumers have is packed. It works for objects that
// are suspended, or that cannot be followed now, too.
func (r *sourceReconciler[T, R]) mend(ctx context.Context, obj T) {
	last, known := r.lastOf(obj.GetUID())
	if !known || last.artifact.Digest == "" || r.clock.Since(last.mended) < mendPause {
		return
	}
	err := r.packed.store.Check(ctx, last.artifact, r.kind.file(last.revision, last.metadata))
	var damaged *artifact.Damaged
	if !errors.As(err, &damaged) {
		return
	}
	r.announceDamage(obj, last.revision, err)
	last.mended, last.artifact.Digest, last.artifact.Size = r.clock.Now(), "", 0
	r.startPacking(ctx, obj, last)
}

// announceDamage tells that a stored file is not as it was.
func (r *sourceReconciler[T, R]) announceDamage(obj T, revision string, err error) {
	r.send(obj, gitops.Event{
		Severity: gitops.SeverityError, Reason: artifactVerificationFailed, Revision: revision,
		Message: fmt.Sprintf("failed to verify integrity of artifact: %s; it is not served before it is stored again", err),
	})
}

// verifyStored looks after the stored files until the context ends: a source whose file is
// not as it was is reconciled. What was generated is looked after by its generator.
func (w *wiring) verifyStored(ctx context.Context) error {
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
			if t := w.triggers[of.Kind]; t != nil && !known {
				told[of] = now
				t.add(types.NamespacedName{Namespace: of.Namespace, Name: of.Name}, urgent)
			}
		})
		if err != nil && ctx.Err() == nil {
			w.mgr.GetLogger().Error(err, "Verifying stored artifacts failed")
		}
	}
}
