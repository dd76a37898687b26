package flux

import (
	"errors"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// conditionTexts are type=status:reason of an object's conditions.
func conditionTexts(list []metav1.Condition) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.Type+"="+string(c.Status)+":"+c.Reason)
	}
	return out
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ready := func(k *kustomizev1.Kustomization) {
		c := conditionsOf(k)
		c.set(meta.ReadyCondition, metav1.ConditionTrue, meta.ReconciliationSucceededReason, "Applied revision: main@sha1:a")
		k.Status.LastAppliedRevision, k.Status.LastAttemptedRevision = "main@sha1:a", "main@sha1:a"
		k.Status.ObservedGeneration = 1
	}
	asked := func(k *kustomizev1.Kustomization) {
		k.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
	}
	failure := &gitops.Error{Stage: gitops.StageBuild, Kind: gitops.Invalid, Cause: errors.New("app.yaml:3: bad indent")}
	for name, test := range map[string]struct {
		before     []func(*kustomizev1.Kustomization)
		revision   string
		report     gitops.Report
		conditions []string
		news       bool
		unchanged  bool
		history    int
		handled    string
		applied    string
	}{
		"a first success is news and enters the history": {
			revision: "main@sha1:a", conditions: []string{"Ready=True:ReconciliationSucceeded"},
			news: true, history: 1, applied: "main@sha1:a",
		},
		"an interval that finds nothing to do changes nothing": {
			before: []func(*kustomizev1.Kustomization){ready}, revision: "main@sha1:a",
			conditions: []string{"Ready=True:ReconciliationSucceeded"}, unchanged: true, applied: "main@sha1:a",
		},
		"a new revision that changes no object is recorded without news": {
			before: []func(*kustomizev1.Kustomization){ready}, revision: "main@sha1:b",
			conditions: []string{"Ready=True:ReconciliationSucceeded"}, history: 1, applied: "main@sha1:b",
		},
		"a request is answered even where nothing changed": {
			before: []func(*kustomizev1.Kustomization){ready, asked}, revision: "main@sha1:a",
			conditions: []string{"Ready=True:ReconciliationSucceeded"}, news: true, history: 1, handled: "now", applied: "main@sha1:a",
		},
		"a build failure keeps the last applied revision and answers the request": {
			before: []func(*kustomizev1.Kustomization){ready, asked}, revision: "main@sha1:b",
			report:     gitops.Report{Err: failure},
			conditions: []string{"Ready=False:BuildFailed", "Reconciling=True:ProgressingWithRetry"},
			news:       true, handled: "now", applied: "main@sha1:a",
		},
		"a wait says that it waits and answers no request": {
			before: []func(*kustomizev1.Kustomization){ready, asked}, revision: "main@sha1:b",
			report:     gitops.Report{Waiting: true, Checked: 2},
			conditions: []string{"Ready=Unknown:Progressing", "Healthy=Unknown:Progressing", "Reconciling=True:Progressing"},
			applied:    "main@sha1:a",
		},
		"a health failure is the reason of both conditions": {
			before: []func(*kustomizev1.Kustomization){ready}, revision: "main@sha1:b",
			report: gitops.Report{Checked: 1, Digest: gitops.Digest{1}, Err: &gitops.Error{
				Stage: gitops.StageHealth, Kind: gitops.Waiting, Cause: errors.New("timeout waiting for: [Deployment/a/b status: 'InProgress']")}},
			conditions: []string{"Ready=False:HealthCheckFailed", "Healthy=False:HealthCheckFailed", "Reconciling=True:ProgressingWithRetry"},
			news:       true, history: 1, applied: "main@sha1:a",
		},
		"a contested field has a condition of its own beside Ready": {
			before: []func(*kustomizev1.Kustomization){ready}, revision: "main@sha1:a",
			report: gitops.Report{Planned: true, Contested: []gitops.Contest{{
				Ref: gitops.ObjectRef{Group: "apps", Kind: "Deployment", Namespace: "a", Name: "b"}, Fields: []string{".spec.replicas"}, By: "scaler"}}},
			conditions: []string{"Ready=True:ReconciliationSucceeded", "Contested=True:FieldConflict"}, applied: "main@sha1:a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", Generation: 1}}
			for _, f := range test.before {
				f(before)
			}
			after := before.DeepCopy()
			test.report.Started, test.report.Finished = now, now.Add(time.Second)
			news := describe(after, before, gitops.Artifact{Revision: test.revision}, test.report, nil, false)
			if diff := cmp.Diff(test.conditions, conditionTexts(after.Status.Conditions)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			if news != test.news {
				t.Errorf("news is %t, want %t", news, test.news)
			}
			if got := len(after.Status.History); got != test.history {
				t.Errorf("history has %d entries, want %d", got, test.history)
			}
			if after.Status.LastHandledReconcileAt != test.handled {
				t.Errorf("handled %q, want %q", after.Status.LastHandledReconcileAt, test.handled)
			}
			if after.Status.LastAppliedRevision != test.applied {
				t.Errorf("applied %q, want %q", after.Status.LastAppliedRevision, test.applied)
			}
			patch, err := statusPatch(before, after)
			if err != nil {
				t.Fatal(err)
			}
			if (patch == nil) != test.unchanged {
				t.Errorf("patch is %s, want none: %t", patch, test.unchanged)
			}
		})
	}
}

func TestFailureIsToldOnce(t *testing.T) {
	t.Parallel()
	obj := &kustomizev1.Kustomization{}
	report := gitops.Report{Err: &gitops.Error{Stage: gitops.StageApply, Kind: gitops.Invalid, Cause: errors.New("no")}, Digest: gitops.Digest{1}}
	artifact := gitops.Artifact{Revision: "main@sha1:a"}
	if !describe(obj, obj.DeepCopy(), artifact, report, nil, false) {
		t.Error("the first failure is no news")
	}
	again := obj.DeepCopy()
	if describe(again, obj, artifact, report, nil, false) {
		t.Error("the same failure is news again")
	}
	if patch, err := statusPatch(obj, again); err != nil || patch != nil {
		t.Errorf("the same failure is written again: %s, %v", patch, err)
	}
}

func TestInventoryRoundTrip(t *testing.T) {
	t.Parallel()
	want := gitops.NewInventory([]gitops.InventoryEntry{
		{Ref: gitops.ObjectRef{Group: "apps", Kind: "Deployment", Namespace: "a", Name: "b"}, Version: "v1"},
		{Ref: gitops.ObjectRef{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "system:x"}, Version: "v1"},
	})
	stored := toInventory(want, nil)
	got, err := fromInventory(stored)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if toInventory(nil, nil) != nil {
		t.Error("an inventory that never was is stored")
	}
	if empty := toInventory(nil, stored); empty == nil || len(empty.Entries) != 0 {
		t.Errorf("an inventory that became empty is %v, want no entries", empty)
	}
	stored.Entries[0].ID = "damaged"
	if _, err := fromInventory(stored); err == nil {
		t.Error("a damaged entry is passed over")
	}
}

func TestOnlyMoves(t *testing.T) {
	t.Parallel()
	object := func(change ...func(*kustomizev1.Kustomization)) *kustomizev1.Kustomization {
		k := &kustomizev1.Kustomization{}
		k.Generation, k.Status.ObservedGeneration = 1, 1
		conditionsOf(k).set(meta.ReadyCondition, metav1.ConditionTrue, meta.ReconciliationSucceededReason, "Applied revision: main@sha1:a")
		for _, f := range change {
			f(k)
		}
		return k
	}
	done := func(action gitops.Action) gitops.Report {
		return gitops.Report{Changes: gitops.ChangeSet{{Action: action}}}
	}
	for name, test := range map[string]struct {
		object *kustomizev1.Kustomization
		report gitops.Report
		want   bool
	}{
		"a run that did nothing only moves the revision":    {object: object(), want: true},
		"a comparison that found all as it was does so too": {object: object(), report: done(gitops.ActionUnchanged), want: true},
		"a repair is told at once":                          {object: object(), report: done(gitops.ActionConfigure)},
		"a deletion is told at once":                        {object: object(), report: done(gitops.ActionDelete)},
		"a failure is told at once":                         {object: object(), report: gitops.Report{Err: errors.New("no")}},
		"a contest is told at once":                         {object: object(), report: gitops.Report{Planned: true, Contested: []gitops.Contest{{}}}},
		"a recovery is told at once": {object: object(func(k *kustomizev1.Kustomization) {
			conditionsOf(k).set(meta.ReadyCondition, metav1.ConditionFalse, meta.HealthCheckFailedReason, "no")
		})},
		"a new specification is answered at once": {object: object(func(k *kustomizev1.Kustomization) { k.Generation = 2 })},
		"a request is answered at once": {object: object(func(k *kustomizev1.Kustomization) {
			k.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := onlyMoves(test.object, test.object, test.report); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}

// TestDisputesOutlastFailures: a run that did not come so far as to compare says nothing
// about objects of others and contested fields.
func TestDisputesOutlastFailures(t *testing.T) {
	t.Parallel()
	obj := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", Generation: 1}}
	artifact := gitops.Artifact{Revision: "main@sha1:a"}
	disputed := gitops.Report{
		Planned: true,
		Foreign: []gitops.ForeignObject{{Ref: gitops.ObjectRef{Kind: "Namespace", Name: "shared"}, Owner: gitops.OwnerRef{Kind: "Kustomization", Name: "other"}}},
		Contested: []gitops.Contest{{
			Ref: gitops.ObjectRef{Group: "apps", Kind: "Deployment", Namespace: "a", Name: "b"}, Fields: []string{".spec.replicas"}, By: "scaler"}},
	}
	failed := gitops.Report{Err: &gitops.Error{Stage: gitops.StagePlan, Kind: gitops.Transient, Cause: errors.New("discovery failed")}}
	for i, step := range []struct {
		report gitops.Report
		told   bool
	}{{disputed, true}, {failed, true}, {gitops.Report{Planned: true}, false}} {
		var lasting []string
		if len(step.report.Foreign) > 0 {
			lasting = []string{"Namespace/shared (Kustomization/other)"}
		}
		describe(obj, obj.DeepCopy(), artifact, step.report, lasting, false)
		for _, condition := range []string{OwnedByOtherCondition, contestedCondition} {
			if got := conditionsOf(obj).is(condition, metav1.ConditionTrue); got != step.told {
				t.Errorf("after step %d the condition %s is there: %t, want %t", i, condition, got, step.told)
			}
		}
	}
}
