// Package crash_test kills the operator at every point between two writes to the
// API server, and looks at what the next one makes of it.
package crash_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/google/go-cmp/cmp"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// moment is where in a write the operator is killed.
type moment string

const (
	// before is when the operator has sent a write that the API server never gets.
	before moment = "before"
	// after is when the API server has made a write whose answer never comes.
	after moment = "after"
)

// trap kills the operator at a write.
type trap struct {
	lab *lab.Lab
	// killed is closed once the operator is gone and nothing that it sent is
	// under way any more.
	killed chan struct{}

	mu sync.Mutex // guards dead
	// dead is set once the operator is being killed.
	dead bool
}

// arm has the operator killed at a write, counted from now; 0 is none.
func arm(l *lab.Lab, write int, when moment) *trap {
	t := &trap{lab: l, killed: make(chan struct{})}
	l.Proxy.Inject(func(c testenv.Call) testenv.Fault {
		switch {
		case c.Write == 0:
			return testenv.Fault{}
		case c.Write == write && when == before:
			return testenv.Fault{Before: t.kill, Drop: true}
		case c.Write == write:
			return testenv.Fault{After: t.kill, Lose: true}
		default:
			return testenv.Fault{Drop: t.sprung()}
		}
	})
	return t
}

func (t *trap) kill() {
	t.mu.Lock()
	t.dead = true
	t.mu.Unlock()
	t.lab.Kill()
	go func() {
		t.lab.Proxy.Settle()
		close(t.killed)
	}()
}

func (t *trap) sprung() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dead
}

// reach waits until the operator was killed, or done returns because everything
// was done without. It tells whether it was killed; then it checks that nothing
// was written that the inventory does not name, and starts the operator again.
func (t *trap) reach(kinds []schema.GroupVersionKind, done func(stop <-chan struct{}) bool, owners ...string) bool {
	l := t.lab
	l.Helper()
	finished := done(t.killed)
	l.Proxy.Inject(nil)
	l.Proxy.Settle()
	if finished && !t.sprung() {
		return false
	}
	<-t.killed
	for _, owner := range owners {
		if missing := l.Unlisted(owner, kinds); len(missing) > 0 {
			l.Errorf("written and not in the inventory of %s: %s", owner, strings.Join(missing, ", "))
		}
	}
	l.Start()
	return true
}

// state is what a Kustomization's objects are like, by their ids, without what
// the API server adds and what differs between rounds. Names holds what differs.
func state(l *lab.Lab, owner string, kinds []schema.GroupVersionKind, names ...string) map[string]string {
	l.Helper()
	out := map[string]string{}
	for _, obj := range l.Owned(owner, kinds) {
		out[strings.NewReplacer(names...).Replace(lab.InventoryID(&obj))] = strings.NewReplacer(names...).Replace(content(l, obj))
	}
	return out
}

func content(l *lab.Lab, obj unstructured.Unstructured) string {
	l.Helper()
	type owned struct{ Manager, Operation, Subresource, Fields string }
	var entries []owned
	for _, e := range obj.GetManagedFields() {
		if e.Subresource == "" && e.Manager == "kustomize-controller" {
			entries = append(entries, owned{e.Manager, string(e.Operation), e.Subresource, e.FieldsV1.GetRawString()})
		}
	}
	annotations := maps.Clone(obj.GetAnnotations())
	delete(annotations, "deployment.kubernetes.io/revision") // it counts
	copied := maps.Clone(obj.Object)
	delete(copied, "status")
	copied["metadata"] = map[string]any{
		"labels": obj.GetLabels(), "annotations": annotations, "finalizers": obj.GetFinalizers(), "fields": entries,
	}
	text, err := json.MarshalIndent(copied, "", " ")
	l.Check(err)
	return string(text)
}

// uids are those of a Kustomization's objects, by their ids.
func uids(l *lab.Lab, owner string, kinds []schema.GroupVersionKind) map[string]string {
	l.Helper()
	out := map[string]string{}
	for _, obj := range l.Owned(owner, kinds) {
		out[lab.InventoryID(&obj)] = string(obj.GetUID())
	}
	return out
}

// readyOr waits until a Kustomization is Ready at a revision; false where stop is
// closed before.
func readyOr(l *lab.Lab, name, revision string) func(<-chan struct{}) bool {
	return func(stop <-chan struct{}) bool {
		return lab.Either(l, stop, l.Named(name), func(k *kustomizev1.Kustomization) bool {
			return apimeta.IsStatusConditionTrue(k.Status.Conditions, meta.ReadyCondition) && k.Status.LastAppliedRevision == revision
		})
	}
}

// same compares two states and says which kill made them differ.
func same(l *lab.Lab, want, got map[string]string, where string) {
	l.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		l.Errorf("%s: the end state differs from that without a kill:\n%s", where, diff)
	}
}

// points prints how many points were killed at.
func points(l *lab.Lab, counts map[string]int) {
	l.Helper()
	for _, name := range []string{"install", "delete", "update", "revert", "move"} {
		if n := counts[name]; n > 0 {
			l.Logf("%s: killed at %d points", name, n)
		}
	}
	for name, n := range counts {
		if n < 6 {
			l.Errorf("%s: killed at %d points only: the test does not reach the writes", name, n)
		}
	}
}

func where(what string, write int, when moment) string {
	return fmt.Sprintf("%s, killed %s write %d", what, when, write)
}
