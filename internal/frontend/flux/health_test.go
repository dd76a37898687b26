package flux

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

func rulesForTest(t *testing.T) *healthRules {
	t.Helper()
	language, err := health.NewLanguage()
	if err != nil {
		t.Fatal(err)
	}
	return newHealthRules(language)
}

func check(apiVersion, kind, current string) kustomize.CustomHealthCheck {
	return kustomize.CustomHealthCheck{APIVersion: apiVersion, Kind: kind, HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: current}}
}

func TestHealthRulesAreReadOnce(t *testing.T) {
	t.Parallel()
	h := rulesForTest(t)
	object := func(name string, checks ...kustomize.CustomHealthCheck) *kustomizev1.Kustomization {
		k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
		k.Spec.HealthCheckExprs = checks
		return k
	}
	of := func(k *kustomizev1.Kustomization) *health.Rules {
		t.Helper()
		rules, err := h.of(k)
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	one := check("x.test/v1", "X", "true")
	first := of(object("one", one))
	if first == nil || of(object("two", one)) != first || of(object("one", one)) != first {
		t.Error("rules of one text are not shared")
	}
	if other := of(object("two", check("x.test/v1", "X", "false"))); other == first {
		t.Error("another text has the same rules")
	}
	if of(object("two")) != nil {
		t.Error("an object without expressions has rules")
	}
	if n := len(h.read); n != 1 {
		t.Errorf("%d texts are kept, want 1", n)
	}
	h.forget(client.ObjectKey{Namespace: "a", Name: "one"})
	h.forget(client.ObjectKey{Namespace: "a", Name: "two"})
	if len(h.read) != 0 || len(h.texts) != 0 {
		t.Errorf("kept after all are gone: %v, %v", h.read, h.texts)
	}
}

func TestHealthRulesThatStall(t *testing.T) {
	t.Parallel()
	many := make([]kustomize.CustomHealthCheck, maxHealthChecks+1)
	for i := range many {
		many[i] = check("x.test/v1", fmt.Sprint("X", i), "true")
	}
	for name, row := range map[string]struct {
		checks []kustomize.CustomHealthCheck
		want   string
	}{
		"two for one kind":       {[]kustomize.CustomHealthCheck{check("x.test/v1", "X", "true"), check("x.test/v2", "X", "true")}, `spec.healthCheckExprs[1]: apiVersion "x.test/v2" and kind "X" have an entry before it`},
		"a version that is none": {[]kustomize.CustomHealthCheck{check("a/b/c", "X", "true")}, `spec.healthCheckExprs[0].apiVersion: "a/b/c" is no group/version`},
		"no version":             {[]kustomize.CustomHealthCheck{check("", "X", "true")}, `spec.healthCheckExprs[0].apiVersion: "" is no group/version`},
		"a wrong expression":     {[]kustomize.CustomHealthCheck{check("v1", "X", "true"), check("v1", "Y", "1")}, `spec.healthCheckExprs[1].current: expression "1" gives no boolean`},
		"too many":               {many, "spec.healthCheckExprs has 101 entries; at most 100 are served"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b"}}
			k.Spec.HealthCheckExprs = row.checks
			_, err := rulesForTest(t).of(k)
			var b *blocked
			if !errors.As(err, &b) || !b.stalled || b.reason != meta.InvalidCELExpressionReason || !strings.HasPrefix(b.Error(), row.want) {
				t.Errorf("of = %#v, want to stall with %q", err, row.want)
			}
		})
	}
}

// TestFailureOfHealthIsQuiet follows one object through runs: how long the outcome of
// each is no news.
func TestFailureOfHealthIsQuiet(t *testing.T) {
	t.Parallel()
	const revision, retry = "main@sha1:a", 10 * time.Minute
	a, b := gitops.ObjectRef{Kind: "X", Name: "a"}, gitops.ObjectRef{Kind: "X", Name: "b"}
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failed := func(text string, refs ...gitops.ObjectRef) gitops.Report {
		return gitops.Report{Checked: 2, Unhealthy: refs, Digest: gitops.Digest{1}, Err: &gitops.Error{
			Stage: gitops.StageHealth, Kind: gitops.Waiting, Cause: errors.New(text)}}
	}
	waiting := gitops.Report{Checked: 2, Waiting: true}
	type run struct {
		after  time.Duration
		report gitops.Report
		change func(*kustomizev1.Kustomization)
		// told is whether an event tells of it, and text what the condition says then.
		told bool
		text string
	}
	first := run{0, failed("one", a), nil, true, "one"}
	for name, runs := range map[string][]run{
		"the same objects with another text":         {first, {time.Minute, failed("two", a), nil, false, "one"}},
		"fewer objects":                              {{0, failed("one", a, b), nil, true, "one"}, {time.Minute, failed("two", b), nil, false, "one"}},
		"one more object":                            {first, {time.Minute, failed("two", a, b), nil, true, "two"}, {2 * time.Minute, failed("three", a), nil, false, "two"}},
		"after the retry interval":                   {first, {retry, failed("two", a), nil, true, "two"}, {retry + time.Minute, failed("three", a), nil, false, "two"}},
		"the same text after the retry interval":     {first, {retry, failed("one", a), nil, false, "one"}},
		"objects that are only waited for meanwhile": {first, {time.Minute, waiting, nil, false, "one"}, {2 * time.Minute, failed("two", a), nil, false, "one"}},
		"a wait after the retry interval":            {first, {retry, waiting, nil, false, "Reconciliation in progress"}},
		"after all was well":                         {first, {time.Minute, gitops.Report{Checked: 2}, nil, true, "Applied revision: " + revision}, {2 * time.Minute, failed("two", a), nil, true, "two"}},
		"a request": {first, {time.Minute, failed("two", a), func(k *kustomizev1.Kustomization) {
			k.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
		}, true, "two"}},
		"another specification": {first, {time.Minute, failed("two", a), func(k *kustomizev1.Kustomization) { k.Generation++ }, true, "two"}},
		"another kind of failure": {first, {time.Minute, gitops.Report{Err: &gitops.Error{Stage: gitops.StageApply, Kind: gitops.Invalid, Cause: errors.New("no")}}, nil, true, "no"},
			{2 * time.Minute, failed("two", a), nil, true, "two"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			memory := newTold()
			k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Generation: 1, UID: "u"}}
			k.Spec.RetryInterval = &metav1.Duration{Duration: retry}
			for i, r := range runs {
				if r.change != nil {
					r.change(k)
				}
				now, before := began.Add(r.after), k.DeepCopy()
				quiet := memory.quiet(k, revision, r.report, now)
				news := false
				// As in finish: a wait that is quiet writes nothing.
				if !r.report.Waiting || quiet == 0 {
					news = describe(k, before, gitops.Artifact{Revision: revision}, r.report, nil, quiet > 0)
				}
				memory.unhealthy(k, revision, r.report, news, now)
				if news != r.told {
					t.Errorf("run %d: news is %t, want %t", i, news, r.told)
				}
				if text := conditionsOf(k).get(meta.ReadyCondition).Message; text != r.text {
					t.Errorf("run %d: the condition says %q, want %q", i, text, r.text)
				}
				patch, err := statusPatch(before, k)
				if err != nil {
					t.Fatal(err)
				}
				if quiet > 0 && patch != nil {
					t.Errorf("run %d is quiet for %v, and writes %s", i, quiet, patch)
				}
				if due := quiet; due > retry {
					t.Errorf("run %d is quiet for %v, longer than the retry interval", i, due)
				}
			}
		})
	}
}
