package flux

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
