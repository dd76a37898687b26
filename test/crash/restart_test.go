package crash_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// running is a lab whose operator has applied three ConfigMaps and a Deployment.
func running(t *testing.T) (l *lab.Lab, revision string) {
	t.Helper()
	l = lab.New(t)
	l.Push(updated("a"))
	l.Source()
	l.Kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace, k.Spec.Wait = l.Namespace, true })
	l.Start()
	revision = l.Push(testenv.Files{"README.md": "something\n"})
	l.Ready("app", revision)
	l.SourceReady(revision)
	return l, revision
}

// config is a ConfigMap of the lab's namespace, to be read or changed.
func config(l *lab.Lab, name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: name}}
}

// value waits until a ConfigMap has a value.
func value(l *lab.Lab, name, want string) {
	l.Helper()
	lab.Wait(l, config(l, name), "with key: "+want, func(c *corev1.ConfigMap) bool { return c.Data["key"] == want })
}

// caughtUp proves that the operator has done what it found to do after its start:
// it repairs one object twice and answers a request.
func caughtUp(l *lab.Lab, object, want string) {
	l.Helper()
	for range 2 {
		l.Merge(config(l, object), `{"data":{"key":"drift"}}`)
		value(l, object, want)
	}
	asked := l.Request(l.SourceNamed())
	lab.Wait(l, l.SourceNamed(), "with the request answered", func(s *sourcev1.GitRepository) bool {
		return s.Status.LastHandledReconcileAt == asked
	})
}

// counted are writes by what they are made to.
func counted(writes []testenv.Request) map[string]int {
	out := map[string]int{}
	for _, w := range writes {
		o := w.ObjectRef
		out[strings.TrimSuffix(fmt.Sprintf("%s %s/%s", w.Verb, o.Resource, o.Subresource), "/")+" "+o.Name]++
	}
	return out
}

func TestRestartWritesNothing(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]bool{"with the data folder kept": false, "with the data folder lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := running(t)
			l.Kill()
			if lose {
				l.LoseData()
			}
			before := len(l.Writes())
			l.Start()
			caughtUp(l, "kept", "same")
			l.Kill() // whatever it has sent is in the audit log now
			want := map[string]int{"patch configmaps kept": 2, "patch gitrepositories/status repo": 1}
			if diff := cmp.Diff(want, counted(l.Writes()[before:])); diff != "" {
				t.Errorf("writes beside two repairs and an answer:\n%s", diff)
			}
		})
	}
}

func TestDriftAndCommitWhileDown(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]bool{"with the data folder kept": false, "with the data folder lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := running(t)
			l.Kill()
			if lose {
				l.LoseData()
			}
			l.Merge(config(l, "kept"), `{"data":{"key":"drift"}}`)
			l.Check(l.Client.Delete(l.Context(), config(l, "one")))
			revision := l.Push(testenv.Files{"app/changed.yaml": configMap("changed", "new")})
			start := time.Now()
			l.Start()
			value(l, "changed", "new")
			value(l, "kept", "same")
			value(l, "one", "here")
			t.Logf("repaired and live %s after the start of the process", time.Since(start).Round(time.Millisecond))
			l.Ready("app", revision)
		})
	}
}

// away has the Git server fail every request, or serve again.
func away(l *lab.Lab, is bool) {
	if !is {
		l.Server.Around(nil)
		return
	}
	l.Server.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "gone for lunch", http.StatusServiceUnavailable)
		})
	})
}

// sourceFails waits until the source says that it cannot be fetched.
func sourceFails(l *lab.Lab) {
	l.Helper()
	lab.Wait(l, l.SourceNamed(), "failing", func(s *sourcev1.GitRepository) bool {
		return apimeta.IsStatusConditionTrue(s.Status.Conditions, sourcev1.FetchFailedCondition)
	})
}

func TestRemoteAwayAtRestart(t *testing.T) {
	t.Parallel()
	t.Run("with the data folder kept what was applied is kept in order", func(t *testing.T) {
		t.Parallel()
		l, revision := running(t)
		l.Kill()
		away(l, true)
		l.Merge(config(l, "kept"), `{"data":{"key":"drift"}}`)
		l.Start()
		value(l, "kept", "same")
		l.Merge(config(l, "changed"), `{"data":{"key":"drift"}}`)
		value(l, "changed", "a")
		sourceFails(l)
		l.Ready("app", revision)
		away(l, false)
		l.Ready("app", l.Push(testenv.Files{"app/changed.yaml": configMap("changed", "new")}))
		value(l, "changed", "new")
	})
	t.Run("with the data folder lost everything waits for it", func(t *testing.T) {
		t.Parallel()
		l, revision := running(t)
		l.Kill()
		l.LoseData()
		away(l, true)
		l.Merge(config(l, "kept"), `{"data":{"key":"drift"}}`)
		before := len(l.Writes())
		l.Start()
		sourceFails(l)
		l.Ready("app", revision)
		for what, n := range counted(l.Writes()[before:]) {
			if what != "patch gitrepositories/status repo" {
				t.Errorf("%s %d times while nothing is known", what, n)
			}
		}
		away(l, false)
		value(l, "kept", "same")
		l.Ready("app", revision)
	})
	t.Run("a suspended source does not suspend its followers", func(t *testing.T) {
		t.Parallel()
		l, revision := running(t)
		l.Merge(l.SourceNamed(), `{"spec":{"suspend":true}}`)
		l.Kill()
		l.Merge(config(l, "kept"), `{"data":{"key":"drift"}}`)
		l.Repo.Commit(t, "main", testenv.Files{"app/changed.yaml": configMap("changed", "new")})
		l.Start()
		value(l, "kept", "same")
		l.Ready("app", revision)
		value(l, "changed", "a")
	})
}
