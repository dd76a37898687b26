package crash_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// killAt has the operator killed when the API server has made a write of an
// object. The function that is returned waits for that.
func killAt(l *lab.Lab, path string) (wait func()) {
	killed := make(chan struct{})
	var once sync.Once
	l.Proxy.Inject(func(c testenv.Call) testenv.Fault {
		if c.Write == 0 || !strings.HasSuffix(c.URL.Path, path) || c.Method == http.MethodGet {
			return testenv.Fault{}
		}
		return testenv.Fault{Lose: true, After: func() {
			once.Do(func() {
				l.Kill()
				close(killed)
			})
		}}
	})
	return func() {
		l.Helper()
		select {
		case <-killed:
			l.Proxy.Inject(nil)
			l.Proxy.Settle()
		case <-time.After(lab.Patience):
			l.Fatalf("nothing was written at %s", path)
		}
	}
}

// A commit is applied and the operator killed before it can say so; by the time
// of the next start the commit has been reverted. What the status says of the last
// success is then true of the build, and not of the object.
func TestRevertedWhileDown(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.Push(testenv.Files{"app/a.yaml": configMap("a", "one"), "app/b.yaml": configMap("b", "one")})
	l.Source()
	l.Kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = l.Namespace })
	l.Start()
	l.Ready("app", l.Push(testenv.Files{"README.md": "something\n"}))

	wait := killAt(l, "/configmaps/a")
	l.Push(testenv.Files{"app/a.yaml": configMap("a", "two")})
	wait()
	a := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: "a"}}
	lab.Wait(l, a, "written", func(c *corev1.ConfigMap) bool { return c.Data["key"] == "two" })

	// The times do not tell: they are whole seconds, of two clocks.
	k := l.Named("app")
	l.Check(l.Client.Get(l.Context(), client.ObjectKeyFromObject(k), k))
	k.Status.History[0].LastReconciled = metav1.NewTime(time.Now().Add(time.Minute))
	history, err := json.Marshal(map[string]any{"status": map[string]any{"history": k.Status.History}})
	l.Check(err)
	l.Check(l.Client.Status().Patch(l.Context(), k, client.RawPatch(types.MergePatchType, history), client.FieldOwner("test")))

	revision := l.Push(testenv.Files{"app/a.yaml": configMap("a", "one")})
	l.Start()
	l.Ready("app", revision)
	l.Check(l.Client.Get(l.Context(), client.ObjectKeyFromObject(a), a))
	if a.Data["key"] != "one" {
		t.Errorf("the object still has %q of the commit that was reverted", a.Data["key"])
	}
}
