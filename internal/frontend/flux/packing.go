package flux

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// startPacking packs a published revision behind the consumers' work, and has
// the object reconciled when that is done. A newer revision does not wait for
// it: its own packing ends this one.
func (g *gitRepositories) startPacking(ctx context.Context, obj *sourcev1.GitRepository, next fetched) {
	g.remember(obj.UID, next)
	key, uid := client.ObjectKeyFromObject(obj), obj.UID
	g.work.Go(func() {
		packed, err := g.pack(ctx, obj, next.artifact)
		if errors.Is(err, artifact.ErrSuperseded) || ctx.Err() != nil {
			return
		}
		if !g.packedAs(uid, next, func(f *fetched) { f.artifact, f.failure = packed, err }) {
			return
		}
		g.triggers.add(key, urgent)
		g.includersOf(next.artifact.Source)
	})
}

// packedAs changes what is remembered of an object, unless a newer revision has
// taken the place of the given one.
func (g *gitRepositories) packedAs(uid types.UID, of fetched, change func(*fetched)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, ok := g.fetched[uid]
	if !ok || now.revision != of.revision || now.content != of.content {
		return false
	}
	change(&now)
	g.fetched[uid] = now
	return true
}

// packing tells whether the file of a revision is still being written.
func (f fetched) packing() bool { return f.artifact.Digest == "" && f.failure == nil }

// Start waits, when the process ends, for the packing that is under way.
func (g *gitRepositories) Start(ctx context.Context) error {
	<-ctx.Done()
	g.work.Wait()
	return nil
}

// NeedLeaderElection says that only the process that works packs.
func (g *gitRepositories) NeedLeaderElection() bool { return true }
