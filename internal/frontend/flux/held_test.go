package flux

import (
	"fmt"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestHeldMessage(t *testing.T) {
	t.Parallel()
	obj := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "apps", Namespace: "flux-system"}}
	const revision = "main@sha1:0123"
	many := gitops.Hold{Reason: gitops.HoldManyDeletions}
	for i := range maxHeldNames + 3 {
		many.Refs = append(many.Refs, gitops.ObjectRef{Kind: "ConfigMap", Namespace: "a", Name: fmt.Sprintf("c%03d", i)})
	}
	for name, tc := range map[string]struct {
		hold    gitops.Hold
		summary string
		objects int
		first   string
	}{
		"one object": {
			gitops.Hold{Refs: []gitops.ObjectRef{{Kind: "Namespace", Name: "a"}}, Reason: gitops.HoldProtectedKind},
			"1 deletion is held, because other objects or data would go with it", 1, "Namespace/a",
		},
		"a name with a colon": {
			gitops.Hold{Refs: []gitops.ObjectRef{{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "system:a"}, {Kind: "Secret", Namespace: "a", Name: "b"}}, Reason: gitops.HoldEmptyBuild},
			"2 deletions are held, because the build is empty", 2, "ClusterRole/system:a",
		},
		"more than are named": {many, "103 deletions are held, because they are more than half of the inventory", maxHeldNames, "ConfigMap/a/c000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			message := heldMessage(obj, revision, tc.hold)
			if got := Summary(message); got != tc.summary {
				t.Errorf("summary is %q, want %q", got, tc.summary)
			}
			objects := HeldObjects(message)
			if len(objects) != tc.objects || objects[0] != tc.first {
				t.Errorf("%d objects, the first of %q, want %d and %q", len(objects), objects, tc.objects, tc.first)
			}
			if got := HeldRevision(message); got != revision {
				t.Errorf("revision is %q, want %q", got, revision)
			}
		})
	}
	for name, got := range map[string]any{"objects": len(HeldObjects("")), "summary": len(Summary("")), "revision": len(HeldRevision(""))} {
		if diff := cmp.Diff(0, got); diff != "" {
			t.Errorf("%s of nothing: %s", name, diff)
		}
	}
}

func TestDescribeHeld(t *testing.T) {
	t.Parallel()
	hold := gitops.Hold{Refs: []gitops.ObjectRef{{Kind: "Namespace", Name: "a"}}, Reason: gitops.HoldProtectedKind}
	held := gitops.Report{Judged: true, Held: hold}
	type step struct {
		report gitops.Report
		want   string // reason of the condition, empty where there is none
	}
	for name, steps := range map[string][]step{
		"what is held is named":                         {{held, "ProtectedKind"}},
		"a run that could not judge leaves it as it is": {{held, "ProtectedKind"}, {gitops.Report{}, "ProtectedKind"}},
		"it goes when nothing is held any more":         {{held, "ProtectedKind"}, {gitops.Report{Judged: true}, ""}},
		"nothing held is nothing said":                  {{gitops.Report{Judged: true}, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			obj := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "apps", Namespace: "b"}}
			for i, s := range steps {
				describeHeld(conditionsOf(obj), obj, "main@sha1:a", s.report)
				if got := conditionsOf(obj).get(HeldCondition).Reason; got != s.want {
					t.Errorf("step %d: reason %q, want %q", i, got, s.want)
				}
			}
		})
	}
}
