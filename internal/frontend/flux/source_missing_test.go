package flux

import (
	"errors"
	"fmt"
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

// TestQuietUntilLookedAt: after a start nothing is said of a source that has not had its turn
// yet, while others have theirs; nor for a while after it had. Of one whose turn does not come
// that is said all the same.
func TestQuietUntilLookedAt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		// others have their first look every few seconds for this long, and then lib has where
		// it is looked at.
		others time.Duration
		looked bool
		// quiet is for how long nothing is said.
		quiet time.Duration
	}{
		"nobody is looked at":          {0, false, longestQuiet},
		"it is looked at once":         {10 * time.Second, true, 10*time.Second + longestQuiet},
		"it has its turn late":         {5 * time.Minute, true, 5*time.Minute + longestQuiet},
		"its turn does not come":       {5 * time.Minute, false, 5*time.Minute + longestQuiet},
		"others have theirs for ever":  {time.Hour, false, longestStart},
		"others have, and it has late": {longestStart - 10*time.Second, true, longestStart - 10*time.Second + longestQuiet},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lib := repository("lib")
			l := newLife(t, lib, repository("app", "lib"))
			l.push("lib", "1", map[string]string{"a": "1"})
			l.look("lib")
			l.edit("lib", func(obj *sourcev1.GitRepository) { obj.Spec.Suspend = true })
			l.lose()
			l.restart()
			begun := l.clock.Now()
			for i := 0; ; i++ {
				since := l.clock.Since(begun)
				switch {
				case since == test.others && test.looked:
					l.look("lib")
				case since < test.others:
					other := repository(fmt.Sprintf("other%d", i))
					if err := l.client.Create(t.Context(), other); err != nil {
						t.Fatal(err)
					}
					l.look(other.Name)
				}
				_, err := l.kind.follow(repository("app", "lib"))
				var b *blocked
				// The last of the others is looked at ten seconds before their time is over.
				told := test.quiet
				if !test.looked && test.others > 0 && test.others < longestStart {
					told -= 10 * time.Second
				}
				if !errors.As(err, &b) || b.quiet != (since < told) || b.waited != since {
					t.Fatalf("after %s: %+v, want quiet %t", since, b, since < told)
				}
				if !b.quiet {
					break
				}
				l.clock.Step(10 * time.Second)
			}
		})
	}
}
