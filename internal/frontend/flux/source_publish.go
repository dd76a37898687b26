package flux

import (
	"context"
	"errors"
	"fmt"
	"slices"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// publish gives the consumers in the process what was fetched. Parts that the files are read
// from are taken from the pursuit.
func (r *sourceReconciler[T, R]) publish(obj T, result source.Result, following *pursuit[R]) (fetched, error) {
	files, kept := result.Files, parts(nil)
	if following.compose != nil {
		var err error
		if files, err = following.compose(files); err != nil {
			result.Release()
			return fetched{}, err
		}
	}
	next := fetched{
		revision: result.Revision, content: following.content, terms: following.terms, generation: obj.GetGeneration(), request: requestOf(obj), started: obj,
		artifact: gitops.Artifact{Source: r.ref(obj), Revision: result.Revision, Time: r.clock.Now(), Metadata: r.kind.annotations(result.Metadata)},
		metadata: result.Metadata, verified: result.Verified, rewritten: result.Rewritten, file: result.Packed,
	}
	for _, snapshot := range following.parts {
		next.parts = append(next.parts, snapshot.Artifact)
	}
	if following.compose != nil {
		kept, following.parts = following.parts, nil
	}
	snapshot := gitops.Snapshot{
		Artifact: next.artifact, Files: files,
		Release: func() { result.Release(); kept.release() },
	}
	r.sources.publish(next.artifact.Source, snapshot)
	return next, nil
}

// startPacking stores a published revision behind the consumers' work, and has the
// object reconciled when that is done. A newer revision does not wait for it, but for one of
// the packings: its own ends this one. Where that has kept the status from telling any
// revision for long, it waits.
func (r *sourceReconciler[T, R]) startPacking(ctx context.Context, obj T, next fetched) {
	uid := obj.GetUID()
	r.mu.Lock()
	before := r.fetched[uid]
	r.fetched[uid] = next
	waits := r.packers[uid] > 0 && before.packing() && r.overtaken(uid)
	if waits {
		r.overdue[uid].waiting = func() { r.beginPacking(ctx, obj, next) }
	}
	r.mu.Unlock()
	if !waits {
		r.beginPacking(ctx, obj, next)
	}
}

func (r *sourceReconciler[T, R]) beginPacking(ctx context.Context, obj T, next fetched) {
	key, uid := client.ObjectKeyFromObject(obj), obj.GetUID()
	name := obj.GetName()
	r.mu.Lock()
	r.packers[uid]++
	r.mu.Unlock()
	begins := r.work.Go(func() {
		var packed gitops.Artifact
		leave, err := r.packings.take(ctx, key.Namespace)
		if err == nil {
			packed, err = r.pack(ctx, name, next)
			leave()
		}
		ended := errors.Is(err, artifact.ErrSuperseded) || ctx.Err() != nil
		given := !ended && (r.packedAs(uid, next, func(f *fetched) {
			if f.artifact, f.failure = packed, err; err != nil {
				f.mended = r.clock.Now()
			}
			r.notStored(uid, next.revision, err != nil)
		}) || err == nil && r.packedLate(uid, next, packed))
		if begin := r.afterwards(uid); begin != nil {
			begin()
		}
		if given {
			r.wakeDependents(next.artifact.Source)
		}
		r.packerEnds(key, uid, given)
	})
	if !begins {
		r.packerEnds(key, uid, false)
	}
}

// packerEnds counts, and has an object reconciled that has been given a file. So is one whose
// newest revision is not packed and at which nobody is any more, because an older one came in
// between: it is fetched again.
func (r *sourceReconciler[T, R]) packerEnds(key client.ObjectKey, uid types.UID, given bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stuck := false
	if r.packers[uid]--; r.packers[uid] <= 0 {
		delete(r.packers, uid)
		now, known := r.fetched[uid]
		if stuck = known && now.packing(); stuck {
			delete(r.fetched, uid)
		}
	}
	// Who sees that nobody packs for it sees this as well.
	if given || stuck {
		r.triggers.add(key, urgent)
	}
}

// pack stores the files, or the file as it is, for consumers outside of the process.
func (r *sourceReconciler[T, R]) pack(ctx context.Context, name string, of fetched) (gitops.Artifact, error) {
	snapshot, ok := r.sources.acquire(of.artifact.Source)
	if !ok {
		return of.artifact, context.Canceled // the source has been removed meanwhile
	}
	defer snapshot.Release()
	if snapshot.Artifact.Revision != of.revision {
		return of.artifact, artifact.ErrSuperseded
	}
	target := r.fileOf(of)
	var packed gitops.Artifact
	var err error
	if of.file == nil && snapshot.Files == nil {
		err = errors.New("nothing is there that it could be made of")
	} else if of.file != nil {
		packed, err = r.packed.store.Put(ctx, snapshot.Artifact, target, of.file)
	} else {
		packed, err = r.packed.store.Pack(ctx, snapshot.Artifact, target, snapshot.Files)
	}
	if errors.Is(err, artifact.ErrSuperseded) {
		return of.artifact, err
	}
	var full *artifact.NoRoom
	if errors.As(err, &full) {
		err = full // in fewer words
	}
	if err != nil {
		reason := sourcev1.ArchiveOperationFailedReason
		if full != nil {
			reason = noRoom
		}
		return of.artifact, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Transient, Reason: reason, Cause: fmt.Errorf("store artifact of %s: %w", name, err)}
	}
	return packed, nil
}

// notStored notes whether a revision of an object could not be stored. The caller has mu.
func (r *sourceReconciler[T, R]) notStored(uid types.UID, revision string, failed bool) {
	switch {
	case !failed:
		delete(r.unstored, uid)
	case r.unstored == nil:
		r.unstored = map[types.UID]string{uid: revision}
	default:
		r.unstored[uid] = revision
	}
}

// packedAs changes what is remembered of an object, unless a newer revision has taken
// the place of the given one.
func (r *sourceReconciler[T, R]) packedAs(uid types.UID, of fetched, change func(*fetched)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, ok := r.fetched[uid]
	if !ok || now.revision != of.revision || now.content != of.content {
		return false
	}
	change(&now)
	r.fetched[uid] = now
	return true
}

// packing tells whether the file of a revision is still being written.
func (f fetched) packing() bool { return f.artifact.Digest == "" && f.failure == nil }

// confirm takes over what an unchanged revision was verified by, and the revisions of parts
// that have moved without a change of the files that are used.
func (r *sourceReconciler[T, R]) confirm(uid types.UID, verified string, in parts, request string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.fetched[uid]
	if !ok {
		return
	}
	last.verified, last.confirmed, last.request = verified, true, request
	if len(last.parts) == len(in) {
		last.parts = slices.Clone(last.parts)
		for i, snapshot := range in {
			if last.parts[i].Revision != snapshot.Artifact.Revision {
				last.parts[i] = snapshot.Artifact
			}
		}
	}
	r.fetched[uid] = last
}

// doubt takes it back that the remote has the revision of an object.
func (r *sourceReconciler[T, R]) doubt(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.fetched[uid]; ok {
		last.confirmed = false
		r.fetched[uid] = last
	}
}

// withParts completes artifacts of parts of the same kind that were not packed when they
// were taken. One that has moved on, or cannot be packed, is left as it is: there is none to
// name. Waits is set while one of them is being packed.
func (r *sourceReconciler[T, R]) withParts(f fetched) (with fetched, waits bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.parts = slices.Clone(f.parts)
	for i, part := range f.parts {
		if part.Digest != "" || part.Source.Kind != r.kind.name() {
			continue
		}
		for _, other := range r.fetched {
			if other.artifact.Source.Key() == part.Source.Key() && other.revision == part.Revision {
				f.parts[i] = other.artifact
				waits = waits || other.packing()
			}
		}
	}
	return f, waits
}

// published has the objects that are made from a source look at it again.
func (r *sourceReconciler[T, R]) published(of gitops.OwnerRef, _ gitops.Snapshot) {
	r.wakeDependents(of)
}

func (r *sourceReconciler[T, R]) wakeDependents(of gitops.OwnerRef) {
	for _, key := range r.kind.dependents(of) {
		r.triggers.add(key, following)
	}
}

func (r *sourceReconciler[T, R]) last(uid types.UID) fetched {
	last, _ := r.lastOf(uid)
	return last
}

func (r *sourceReconciler[T, R]) lastOf(uid types.UID) (fetched, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.fetched[uid]
	return last, ok
}
