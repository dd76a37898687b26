package flux

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// eventPrefix marks the annotations of an object that are copied into the
// metadata of its events.
const eventPrefix = "event.toolkit.fluxcd.io/"

// recorder hands events on; it does not block.
type recorder interface {
	Record(component string, object corev1.ObjectReference, e gitops.Event)
}

// events tells people and other systems what happened to custom resources, in
// events and, at info level, in the log.
type events struct {
	recorder recorder
	log      logr.Logger
}

// send records an event about an object. Group is the prefix of the metadata's keys.
func (e *events) send(component, group string, gvk string, obj client.Object, event gitops.Event) {
	metadata := map[string]string{}
	for key, value := range obj.GetAnnotations() {
		if name, ok := strings.CutPrefix(key, eventPrefix); ok {
			metadata[group+"/"+name] = value
		}
	}
	maps.Copy(metadata, event.Metadata)
	if event.Revision != "" {
		metadata[group+"/revision"] = event.Revision
	}
	event.Metadata = metadata
	kind := gvk[strings.LastIndexByte(gvk, '/')+1:]
	e.recorder.Record(component, corev1.ObjectReference{
		APIVersion: strings.TrimSuffix(gvk, "/"+kind), Kind: kind,
		Namespace: obj.GetNamespace(), Name: obj.GetName(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(),
	}, event)
	log := e.log.WithValues("controller", strings.ToLower(kind), "controllerGroup", group, "controllerKind", kind,
		"namespace", obj.GetNamespace(), "name", obj.GetName(), "revision", event.Revision)
	if event.Severity == gitops.SeverityError {
		log.Error(fmt.Errorf("%s", event.Message), "Reconciliation failed", "reason", event.Reason)
		return
	}
	log.Info(event.Message, "reason", event.Reason)
}

// kustomization tells of a Kustomization. What is about the revision that was applied last
// names its origin too.
func (e *events) kustomization(obj *kustomizev1.Kustomization, event gitops.Event) {
	const key = kustomizeGroup + "/originRevision"
	origin := obj.Status.LastAppliedOriginRevision
	if _, set := event.Metadata[key]; !set && origin != "" && event.Revision == obj.Status.LastAppliedRevision {
		event.Metadata = maps.Clone(event.Metadata)
		if event.Metadata == nil {
			event.Metadata = map[string]string{}
		}
		event.Metadata[key] = origin
	}
	e.send(kustomizeManager, kustomizeGroup, kustomizev1.GroupVersion.String()+"/"+kustomizev1.KustomizationKind, obj, event)
}

// blocked tells why a Kustomization cannot be worked on.
func (e *events) blocked(obj *kustomizev1.Kustomization, b *blocked) {
	severity := gitops.SeverityError
	if b.waiting {
		severity = gitops.SeverityInfo
	}
	e.kustomization(obj, gitops.Event{Severity: severity, Reason: b.reason, Message: b.Error(), Revision: obj.Status.LastAttemptedRevision})
}

// failed tells of a failure.
func (e *events) failed(obj *kustomizev1.Kustomization, reason, message, revision string) {
	e.kustomization(obj, gitops.Event{Severity: gitops.SeverityError, Reason: reason, Message: message, Revision: revision})
}

// changeLines says what a run did to objects, a line for each.
func changeLines(changes gitops.ChangeSet) []string {
	var lines []string
	for _, done := range changes {
		switch done.Action {
		case gitops.ActionCreate, gitops.ActionConfigure, gitops.ActionRecreate, gitops.ActionDelete:
			lines = append(lines, done.Ref.String()+" "+string(done.Action))
		}
	}
	return lines
}

// announceChanges tells what has been done to objects and was not told yet.
func (k *kustomizations) announceChanges(obj *kustomizev1.Kustomization, revision string) {
	if lines := k.told.take(obj.UID); len(lines) > 0 {
		k.events.kustomization(obj, gitops.Event{
			Severity: gitops.SeverityInfo, Reason: meta.ProgressingReason,
			Message: strings.Join(lines, "\n"), Revision: revision,
		})
	}
}

// disputeDelay is how long an object has belonged to another owner before that is
// told: one that moves in a commit does so for a moment, and for ten seconds at most
// (the engine's limit of a hand-over).
const disputeDelay = 11 * time.Second

// announceDisputes tells, once each, of objects and fields that others want too. It
// gives the disputes about objects that have lasted, and the time after which there may
// be more to tell; 0 where there is none.
func (k *kustomizations) announceDisputes(obj *kustomizev1.Kustomization, report gitops.Report, now time.Time) ([]string, time.Duration) {
	if !report.Planned { // what was found before is as true as it was
		return nil, 0
	}
	tell := func(what, reason, message string) {
		if k.told.first(obj.UID, what) {
			k.events.kustomization(obj, gitops.Event{Severity: gitops.SeverityError, Reason: reason, Message: message, Revision: report.Attempted})
		}
	}
	key := func(foreign gitops.ForeignObject) string {
		return "foreign " + foreign.Ref.ID() + " " + foreign.Owner.String()
	}
	disputes := make([]string, 0, len(report.Foreign))
	for _, foreign := range report.Foreign {
		disputes = append(disputes, key(foreign))
	}
	old, next := k.told.lasting(obj.UID, disputes, disputeDelay, now)
	var lasting []string
	told := conditionsOf(obj).get(OwnedByOtherCondition).Message
	for _, foreign := range report.Foreign {
		if !old[key(foreign)] {
			continue
		}
		dispute := fmt.Sprintf("%s (%s)", foreign.Ref, foreign.Owner)
		lasting = append(lasting, dispute)
		if !strings.Contains(told, dispute) { // it may have been told before a restart
			tell(key(foreign), "OwnedByOther", fmt.Sprintf(
				"%s is left alone: it belongs to %s, which declares it too; remove it from one of the two", foreign.Ref, foreign.Owner))
		}
	}
	for _, contest := range report.Contested {
		fields := strings.Join(contest.Fields, ", ")
		tell("contest "+contest.Ref.ID()+" "+fields, contestedCondition, fmt.Sprintf(
			"%s: %s is changed again and again by %s", contest.Ref, fields, contest.By))
	}
	return lasting, next
}

// announceOutcome tells how a run ended, in one event with what it did where it
// ended well.
func (k *kustomizations) announceOutcome(obj *kustomizev1.Kustomization, artifact gitops.Artifact, report gitops.Report, next time.Duration) {
	ready := conditionsOf(obj).get(meta.ReadyCondition)
	event := gitops.Event{Revision: artifact.Revision, Reason: ready.Reason, Metadata: map[string]string{}}
	if origin := artifact.Metadata[originRevisionKey]; origin != "" {
		event.Metadata[kustomizeGroup+"/originRevision"] = origin
	}
	if report.Err != nil {
		k.announceChanges(obj, artifact.Revision)
		event.Severity, event.Message = gitops.SeverityError, report.Err.Error()
	} else {
		event.Severity = gitops.SeverityInfo
		event.Metadata[kustomizeGroup+"/commit_status"] = "update"
		lines := append(k.told.take(obj.UID), fmt.Sprintf("Reconciliation finished in %s, next run in %s",
			report.Finished.Sub(report.Started).Round(time.Millisecond), next.Round(time.Second)))
		event.Message = strings.Join(lines, "\n")
	}
	k.events.kustomization(obj, event)
}

// sortedKeys are the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
