package flux

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// fetch downloads an artifact, or takes what a download has brought that was begun before.
// It is nil where there is nothing yet: the object is reconciled when there is, or has to be
// looked at again where the error says so.
func (p *published) fetch(ctx context.Context, obj publishedObject, ref gitops.OwnerRef, a *meta.Artifact) (*flight[struct{}], error) {
	uid, name := obj.GetUID(), client.ObjectKeyFromObject(obj)
	key := contentOf(a.URL, a.Digest, a.Revision)
	return p.flights.run(p.lane, p.clock.Now, errand[struct{}]{
		uid: uid, of: server{namespace: ref.Namespace, host: hostOf(a.URL)}, key: key, generation: obj.GetGeneration(),
		begin: func(place func()) *flight[struct{}] {
			ctx, cancel := context.WithCancel(ctx)
			under := &flight[struct{}]{key: key, generation: obj.GetGeneration(), cancel: cancel, done: make(chan struct{}), place: place}
			p.flights.begin(uid, under)
			begins := p.work.Go(func() {
				begun := time.Now()
				files, release, err := p.guarded(ctx, ref, a)
				if time.Since(begun) < workerWait {
					p.flights.quick(uid)
				}
				if p.flights.land(under, source.Result{Files: files, Release: release}, err) {
					p.triggers.add(name, urgent)
				}
			})
			if !begins {
				p.flights.land(under, source.Result{}, context.Canceled)
			}
			return under
		},
		full: func() error {
			waited := p.flights.waited(uid, p.clock.Now(), false)
			return &blocked{
				retry: min(max(lanePause, waited/4), mostLanePause), quiet: waited < downloadTimeout,
				cause: fmt.Errorf("artifact at %s: no answer within %s, and no place to wait longer for one: too many sources of namespace '%s' wait for servers that do not answer; it is tried again when one of these has ended",
					a.URL, workerWait, ref.Namespace),
			}
		},
	})
}

// guarded downloads. A panic is an error of this object, as it is in a worker.
func (p *published) guarded(ctx context.Context, ref gitops.OwnerRef, a *meta.Artifact) (files gitops.Tree, release func(), err error) {
	defer func() {
		if r := recover(); r != nil {
			ctrl.LoggerFrom(ctx).Error(fmt.Errorf("panic: %v", r), "Downloading an artifact panicked", "stack", string(debug.Stack()))
			err = fmt.Errorf("artifact at %s: internal error: downloading panicked; the log of the operator has more", a.URL)
		}
	}()
	return p.download(ctx, ref, a)
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
