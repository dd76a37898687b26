package flux

import (
	"context"
	"errors"
	"path"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// adopted are the objects that were looked at since the start of the process, and whether
// the stored file of what they advertised then was whole.
type adopted map[types.UID]bool

// advertised is the artifact that an object advertises, with the name of its file; false
// where it advertises none.
func (r *sourceReconciler[T, R]) advertised(obj T) (a gitops.Artifact, file string, ok bool) {
	told := obj.GetArtifact()
	if told == nil || told.Size == nil || told.Digest == "" {
		return gitops.Artifact{}, "", false
	}
	return artifactOf(r.ref(obj), told), path.Base(told.Path), true
}

// adopt has the stored file of the artifact that an object advertises served again, at the
// first look at it after a start: before anything else, because whatever else there is to
// do may fail or last.
func (r *sourceReconciler[T, R]) adopt(ctx context.Context, obj T) {
	r.mu.Lock()
	_, looked := r.adopted[obj.GetUID()]
	r.mu.Unlock()
	if looked {
		return
	}
	whole := false
	if a, file, ok := r.advertised(obj); ok {
		var err error
		if whole, err = r.packed.store.Adopt(a, file); whole {
			r.keep(ctx, a.Source, file)
		}
		var damaged *artifact.Damaged
		if errors.As(err, &damaged) {
			r.announceDamage(obj, a.Revision, err)
		} else if err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "Serving the last artifact failed")
		}
	}
	r.mu.Lock()
	r.adopted[obj.GetUID()] = whole
	r.mu.Unlock()
	r.sources.looked(r.ref(obj), r.clock.Now())
}

// restore gives the consumers the files of the artifact that an object advertises, from its
// stored file: for an object of which nothing is fetched now, and of which the fetcher has
// nothing from an earlier process. It writes nothing to the API.
func (r *sourceReconciler[T, R]) restore(ctx context.Context, obj T) {
	a, file, ok := r.advertised(obj)
	r.mu.Lock()
	whole := r.adopted[obj.GetUID()]
	r.mu.Unlock()
	if !ok || !whole || r.sources.revision(a.Source) != "" {
		return
	}
	snapshot := gitops.Snapshot{Artifact: a}
	// An index of charts has no files: who needs one has it from the fetcher.
	if r.kind.latest() != artifact.LatestIndex {
		unpacked, err := r.packed.load(ctx, r.cache, a, file)
		if err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "Using the last artifact failed")
			return
		}
		snapshot.Files, snapshot.Release = unpacked.Files, unpacked.Release
	}
	r.sources.publish(a.Source, snapshot)
}

// restoreUnlessQuiet restores where an object cannot be followed, unless it will be known in
// a moment what it follows.
func (r *sourceReconciler[T, R]) restoreUnlessQuiet(ctx context.Context, obj T, err error) {
	if !hasQuiet(err) {
		r.restore(ctx, obj)
	}
}

// hasQuiet tells whether an error is one of which nothing is said yet.
func hasQuiet(err error) bool {
	var b *blocked
	return errors.As(err, &b) && b.quiet
}
