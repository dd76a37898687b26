package flux

import (
	"context"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/apis/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// fetch downloads an artifact, or takes what a download has brought that was begun before.
// It is nil where there is nothing yet: the object is reconciled when there is, or has to be
// looked at again where the error says so. A download goes on though something newer is
// published meanwhile, which may be faster than it is: the newest comes next.
func (p *published) fetch(ctx context.Context, obj publishedObject, ref gitops.OwnerRef, a *meta.Artifact) (*flight[meta.Artifact], error) {
	uid := obj.GetUID()
	key, terms := contentOf(a.URL, a.Digest, a.Revision), contentOf(obj.GetGeneration())
	landed, err := p.flights.run(p.lane, p.clock.Now, errand[meta.Artifact]{
		uid: uid, of: server{namespace: ref.Namespace, host: hostOf(a.URL)}, key: key, terms: terms, at: a.URL,
		begin: func(place func()) *flight[meta.Artifact] {
			ctx, cancel := context.WithCancel(ctx)
			under := &flight[meta.Artifact]{key: key, terms: terms, following: pursuit[meta.Artifact]{request: *a}, cancel: cancel, done: make(chan struct{}), place: place}
			return p.flights.launch(&p.work, uid, under, func() (source.Result, error) { return p.guarded(ctx, ref, a) },
				func() { p.triggers.add(client.ObjectKeyFromObject(obj), urgent) })
		},
		full: func() error {
			return p.flights.noPlace(uid, p.clock.Now(), downloadTimeout, ref.Namespace, fmt.Sprintf("artifact at %s: no answer within %s", a.URL, workerWait))
		},
	})
	if landed != nil && landed.key != key {
		p.triggers.add(client.ObjectKeyFromObject(obj), urgent)
	}
	return landed, err
}

// guarded downloads. A panic is an error of this object, as it is in a worker.
func (p *published) guarded(ctx context.Context, ref gitops.OwnerRef, a *meta.Artifact) (source.Result, error) {
	return guarded(ctx, fmt.Sprintf("artifact at %s: internal error: downloading", a.URL), func() (source.Result, error) {
		files, release, err := p.download(ctx, ref, a)
		return source.Result{Files: files, Release: release}, err
	})
}

// wait has a source looked at again that has no place for its download; nil is for one whose
// download tells. Those who follow it hear of it where that takes longer than the download
// might.
func (p *published) wait(ref gitops.OwnerRef, err error) ctrl.Result {
	var full *blocked
	if !errors.As(err, &full) {
		return ctrl.Result{}
	}
	if !full.quiet && p.sources.failure(ref) == nil {
		p.sources.failed(ref, full)
		p.followers(ref)
	}
	return ctrl.Result{RequeueAfter: full.retry}
}

// finish waits, when the process ends, for the downloads that are under way.
func (p *published) finish(ctx context.Context) error {
	<-ctx.Done()
	p.work.Wait()
	return nil
}
