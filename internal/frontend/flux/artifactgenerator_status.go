package flux

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// generatorConditions are the conditions of a generator at its present specification.
func generatorConditions(obj *swapi.ArtifactGenerator) conditioned {
	return conditioned{list: &obj.Status.Conditions, generation: obj.Generation}
}

// succeed writes what has been made.
func (g *generators) succeed(ctx context.Context, started *swapi.ArtifactGenerator, made outcome) (ctrl.Result, error) {
	g.firstLook(ctx, started)
	before, err := g.objects.get(ctx, client.ObjectKeyFromObject(started))
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	after := before.DeepCopy()
	c := conditioned{list: &after.Status.Conditions, generation: started.Generation}
	recovered := c.is(meta.ReadyCondition, metav1.ConditionFalse)
	c.set(meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, fmt.Sprintf("reconciliation succeeded, generated %d artifact(s)", len(made.inventory)))
	c.remove(meta.ReconcilingCondition, meta.StalledCondition)
	after.Status.Inventory = made.inventory
	if made.observed != "" {
		after.Status.ObservedSourcesDigest = made.observed
	}
	setHandled(&after.Status.ReconcileRequestStatus, started)
	if _, err := g.objects.patchStatus(ctx, before, after); err != nil {
		return ctrl.Result{}, err
	}
	var news []string
	for _, entry := range made.inventory {
		if !before.HasArtifactInInventory(entry.Name, entry.Namespace, entry.Digest) {
			news = append(news, fmt.Sprintf("%s/%s (%s)", entry.Namespace, entry.Name, entry.Digest))
		}
	}
	if len(news) > 0 || recovered {
		message := "external artifacts reconciled"
		if len(news) > 0 {
			message += ": " + strings.Join(news[:min(len(news), maxListed)], "\n")
		}
		g.events.generator(after, gitops.Event{Severity: gitops.SeverityInfo, Reason: meta.ReadyCondition, Message: message})
	}
	g.pauses.succeeded(started.UID)
	g.pauses.over(started.UID)
	return ctrl.Result{RequeueAfter: jittered(started.GetRequeueAfter(), g.options.IntervalJitter)}, nil
}

// firstLook remembers that a generator has been looked at, and has old files removed.
func (g *generators) firstLook(ctx context.Context, obj *swapi.ArtifactGenerator) {
	g.mu.Lock()
	looked := g.looked[obj.UID]
	g.looked[obj.UID] = true
	g.mu.Unlock()
	if looked {
		return
	}
	if err := g.retain(ctx); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cleaning the data folder failed")
	}
}

// describeDisabled says of a generator that was never worked on why it is not.
func (g *generators) describeDisabled(ctx context.Context, obj *swapi.ArtifactGenerator) error {
	g.firstLook(ctx, obj)
	after := obj.DeepCopy()
	if c := generatorConditions(after); c.get(meta.ReadyCondition).Type == "" {
		c.set(meta.ReadyCondition, metav1.ConditionTrue, swapi.ReconciliationDisabledReason, "nothing is generated while the annotation "+swapi.ReconcileAnnotation+" is "+swapi.DisabledValue)
	}
	setHandled(&after.Status.ReconcileRequestStatus, obj)
	_, err := g.objects.patchStatus(ctx, obj, after)
	return err
}

// fail writes why nothing is made. The artifacts that are there stay in force.
func (g *generators) fail(ctx context.Context, obj *swapi.ArtifactGenerator, err error) (ctrl.Result, error) {
	g.firstLook(ctx, obj)
	b := &blocked{}
	var e *gitops.Error
	switch {
	case errors.As(err, &b):
	case errors.As(err, &e):
		b = &blocked{reason: e.Reason, stalled: e.Kind == gitops.Stalled}
	default:
		b = &blocked{reason: meta.ReconciliationFailedReason}
	}
	if b.quiet || b.waiting && !requested(obj.Annotations, obj.Status.ReconcileRequestStatus) {
		if due := g.pauses.due(obj.UID, err.Error(), g.clock.Now()); due > 0 {
			return ctrl.Result{RequeueAfter: due}, nil
		}
	}
	g.resume(ctx, obj)
	if !b.quiet || b.waited >= longestLost {
		if err := g.withdraw(ctx, obj); err != nil {
			return ctrl.Result{}, err
		}
	}
	if b.quiet {
		return ctrl.Result{RequeueAfter: min(b.retry, b.change())}, nil
	}
	after := obj.DeepCopy()
	news := g.describeFailure(after, b, err.Error())
	setHandled(&after.Status.ReconcileRequestStatus, obj)
	if _, patchErr := g.objects.patchStatus(ctx, obj, after); patchErr != nil {
		return ctrl.Result{}, patchErr
	}
	if news {
		g.events.generator(after, gitops.Event{Severity: gitops.SeverityError, Reason: b.reason, Message: err.Error()})
	}
	if b.stalled {
		return ctrl.Result{}, nil
	}
	pause := b.retry
	if pause <= 0 {
		pause = g.pauses.backoff(obj.UID, g.options.MinRetryDelay, g.options.MaxRetryDelay)
	}
	return ctrl.Result{RequeueAfter: pause}, nil
}

// describeFailure writes an error into the status, and returns whether it is another one
// than before.
func (g *generators) describeFailure(after *swapi.ArtifactGenerator, b *blocked, message string) bool {
	c := generatorConditions(after)
	ready := c.get(meta.ReadyCondition)
	news := ready.Status != metav1.ConditionFalse || ready.Message != clip(message, maxConditionMessage)
	c.set(meta.ReadyCondition, metav1.ConditionFalse, b.reason, message)
	if b.stalled {
		c.set(meta.StalledCondition, metav1.ConditionTrue, b.reason, message)
		c.remove(meta.ReconcilingCondition)
	} else {
		c.set(meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason, "Retrying to generate artifacts")
		c.remove(meta.StalledCondition)
	}
	return news
}

func (e *events) generator(obj *swapi.ArtifactGenerator, event gitops.Event) {
	e.send(watcherManager, generatorGroup, swapi.GroupVersion.String()+"/"+swapi.ArtifactGeneratorKind, obj, event)
}
