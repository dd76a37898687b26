package flux

import (
	"errors"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAnIncludedOneThatIsLost: an object that is made from a suspended source whose file is lost
// says so, and answers who asks, after a while. An artifact that is lost with it is not
// advertised for so long.
func TestAnIncludedOneThatIsLost(t *testing.T) {
	t.Parallel()
	l := newLife(t, repository("app", "lib"), repository("lib"))
	l.push("lib", "1", map[string]string{"a": "1"})
	l.push("app", "1", map[string]string{"a": "1"})
	l.look("lib")
	l.look("app")
	l.expect("in the beginning", "app", "1", "1", metav1.ConditionTrue, "'main@sha1:1'")
	l.edit("lib", func(obj *sourcev1.GitRepository) { obj.Spec.Suspend = true })
	l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.Interval.Duration *= 2 })
	l.request("app", "now")
	before := l.get("app").ResourceVersion
	l.lose()
	l.restart()
	l.look("lib")
	if result := l.look("app"); result.RequeueAfter != l.options.RequeueDependency || l.get("app").ResourceVersion != before {
		t.Errorf("at once it is said, or not looked at again: %+v", result)
	}
	l.wait(10*time.Second, "lib", "app")
	l.expect("after a moment", "app", "", "", metav1.ConditionUnknown, "fetching 'main@sha1:1' anew: the stored file is not there")
	l.wait(longestQuiet, "lib", "app")
	l.expect("in the end", "app", "", "", metav1.ConditionFalse, "no artifact available for include 'lib'")
	status := l.get("app").Status
	if !apimeta.IsStatusConditionTrue(status.Conditions, sourcev1.IncludeUnavailableCondition) || status.LastHandledReconcileAt != "now" {
		t.Errorf("in the end the status is %+v", status)
	}
	l.edit("lib", func(obj *sourcev1.GitRepository) { obj.Spec.Suspend = false })
	l.look("lib")
	l.look("app")
	l.expect("when it is resumed", "app", "1", "1", metav1.ConditionTrue, "'main@sha1:1'")
}

// TestQuietForAWhile: who waits for a source that was there before says nothing of it after a
// start, and does in the end.
func TestQuietForAWhile(t *testing.T) {
	t.Parallel()
	l := newLife(t, repository("lib"))
	l.push("lib", "1", map[string]string{"a": "1"})
	l.look("lib")
	l.lose()
	l.restart()
	k := &kustomizations{sources: l.sources, clock: l.clock, options: KustomizationOptions{RequeueDependency: time.Second}}
	k.objects = newObjects(l.client, kustomizeStatusManager, func() *kustomizev1.Kustomization { return &kustomizev1.Kustomization{} })
	charts := helmCharts{client: l.client, sources: l.sources, clock: l.clock}
	for name, ask := range map[string]func() error{
		"a Kustomization": func() error {
			obj := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: "a"}}
			obj.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "lib"}
			obj.Status.LastAppliedRevision = "main@sha1:1"
			_, err := k.snapshot(obj)
			return err
		},
		"an including GitRepository": func() error {
			_, err := l.kind.follow(repository("app", "lib"))
			return err
		},
		"a HelmChart": func() error {
			obj := &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Namespace: "a"}}
			obj.Spec.SourceRef = sourcev1.LocalHelmChartSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "lib"}
			return charts.take(obj, l.get("lib"), &pursuit[HelmChartRequest]{})
		},
	} {
		l.sources.remove(l.ref(repository("lib"))) // each counts anew
		for _, step := range []struct {
			after time.Duration
			quiet bool
		}{{0, true}, {longestQuiet - time.Second, true}, {time.Second, false}, {time.Hour, false}} {
			l.clock.Step(step.after)
			var b *blocked
			if err := ask(); !errors.As(err, &b) || b.quiet != step.quiet || b.reason == meta.ProgressingReason {
				t.Errorf("%s, %s later: %+v, want quiet %t", name, step.after, b, step.quiet)
			}
		}
	}
}
