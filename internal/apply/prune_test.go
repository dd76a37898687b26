package apply_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

const three = `
apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: $NS}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: two, namespace: $NS}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: three, namespace: $NS}
`

func (w *world) exists(refs ...gitops.ObjectRef) []bool {
	var out []bool
	for _, ref := range refs {
		out = append(out, w.find(ref) != nil)
	}
	return out
}

func TestPrune(t *testing.T) {
	t.Parallel()
	one := strings.SplitN(three, "---", 2)[0]
	for name, tc := range map[string]struct {
		before func(w *world) // between the install and the plan
		blind  bool
		left   []bool // one, two, three
		stays  int    // entries of the inventory afterwards
	}{
		"deletes what is not declared any more":              {left: []bool{true, false, false}, stays: 1},
		"deletes what the plan could not see":                {blind: true, left: []bool{true, false, false}, stays: 1},
		"is content with what is gone":                       {before: func(w *world) { w.env.Kubectl(w.t, "-n", w.namespace, "delete", "configmap/two") }, left: []bool{true, false, false}, stays: 1},
		"is content with what is gone and could not be seen": {blind: true, before: func(w *world) { w.env.Kubectl(w.t, "-n", w.namespace, "delete", "configmap/two") }, left: []bool{true, false, false}, stays: 1},
		"leaves what lost our labels": {before: func(w *world) {
			w.env.Kubectl(w.t, "-n", w.namespace, "label", "configmap/two", "owners.example.test/name-")
		}, left: []bool{true, true, false}, stays: 1},
		"leaves what lost our labels and could not be seen": {blind: true, before: func(w *world) {
			w.env.Kubectl(w.t, "-n", w.namespace, "label", "configmap/two", "owners.example.test/name-")
		}, left: []bool{true, true, false}, stays: 1},
		"leaves what asks to stay": {before: func(w *world) {
			w.env.Kubectl(w.t, "-n", w.namespace, "annotate", "configmap/two", "owners.example.test/prune=disabled")
		}, left: []bool{true, true, false}, stays: 1},
		"leaves everything when it is off": {before: func(w *world) { w.options.Prune = false }, left: []bool{true, true, true}, stays: 1},
		"holds back what the guard holds": {before: func(w *world) {
			w.guard.Enabled = true
			w.inventory = append(gitops.Inventory{{Ref: gitops.ObjectRef{Kind: "Namespace", Name: w.namespace}, Version: "v1"}}, w.inventory...)
			w.env.Kubectl(w.t, "label", "namespace", w.namespace, "owners.example.test/name=apps", "owners.example.test/namespace="+w.namespace)
		}, left: []bool{true, false, false}, stays: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustApply(three)
			if tc.before != nil {
				tc.before(w)
			}
			w.blind = tc.blind
			w.mustApply(one)
			if diff := cmp.Diff(tc.left, w.exists(w.ref("", "ConfigMap", "one"), w.ref("", "ConfigMap", "two"), w.ref("", "ServiceAccount", "three"))); diff != "" {
				t.Error(diff)
			}
			if len(w.inventory) != tc.stays {
				t.Errorf("inventory is %v", w.inventory)
			}
		})
	}
}

func TestPruneSeesWhatHappenedAfterThePlan(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		between func(w *world)
		exists  bool
		fails   bool
	}{
		"another owner took the object over": {
			between: func(w *world) {
				w.env.Kubectl(w.t, "-n", w.namespace, "label", "--overwrite", "configmap/two", "owners.example.test/name=other")
			},
			exists: true,
		},
		"the object's status was changed": {
			between: func(w *world) {
				w.env.Kubectl(w.t, "-n", w.namespace, "annotate", "configmap/two", "example.test/seen=yes")
			},
		},
		"another object of the same name is there": {
			between: func(w *world) {
				w.env.Kubectl(w.t, "-n", w.namespace, "delete", "configmap/two")
				w.env.Kubectl(w.t, "-n", w.namespace, "create", "configmap", "two")
				w.env.Kubectl(w.t, "-n", w.namespace, "label", "configmap/two", "owners.example.test/name=apps", "owners.example.test/namespace="+w.namespace)
			},
			exists: true, fails: true,
		},
		"the object is gone": {
			between: func(w *world) { w.env.Kubectl(w.t, "-n", w.namespace, "delete", "configmap/two") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustApply(three)
			p := w.compute(w.manifests(strings.SplitN(three, "---", 2)[0]))
			request := w.request(p)
			seen := map[gitops.ObjectRef]gitops.Live{}
			for _, e := range p.WriteAhead {
				seen[e.Ref], _ = w.live(e.Ref)
			}
			request.Live = func(ref gitops.ObjectRef) gitops.Live { return seen[ref] }
			tc.between(w)
			done, err := w.applier.Run(t.Context(), request)
			two := w.ref("", "ConfigMap", "two")
			if got := w.find(two) != nil; got != tc.exists || (err != nil) != tc.fails {
				t.Errorf("exists %v, error %v", got, err)
			}
			left := plan.Remaining(p, done, err == nil)
			if left.Has(two) != tc.fails || !left.Has(w.ref("", "ConfigMap", "one")) {
				t.Errorf("inventory is %v", left)
			}
		})
	}
}

func TestPruneOfARefusedDeletionStaysInTheInventory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(three)
	w.env.Apply(t, strings.ReplaceAll(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: $NS}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NS}}
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [configmaps], operations: [CREATE, DELETE]}]
  validations: [{expression: "request.operation == 'DELETE' ? oldObject.metadata.name != 'two' : object.metadata.name != 'probe'", message: "not to be deleted"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: $NS}
spec: {policyName: $NS, validationActions: [Deny]}
`, "$NS", w.namespace))
	w.awaitDenied("probe")
	out := w.apply("")
	e := failure(t, out.err)
	if e.Stage != gitops.StagePrune || e.Ref != w.ref("", "ConfigMap", "two") || !strings.Contains(e.Error(), "not to be deleted") {
		t.Errorf("got %v in stage %q", e, e.Stage)
	}
	if !w.inventory.Has(w.ref("", "ConfigMap", "two")) || w.inventory.Has(w.ref("", "ConfigMap", "one")) {
		t.Errorf("inventory is %v", w.inventory)
	}
}

func TestMoveBetweenOwners(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	second := *first
	second.owner.Name, second.applied = "second", map[gitops.ObjectRef]plan.Applied{}
	declares := map[gitops.OwnerRef]bool{first.owner: true}
	ownedBy := func(owner gitops.OwnerRef, _ gitops.ObjectRef) bool { return declares[owner] }
	first.ownedBy, second.ownedBy = ownedBy, ownedBy

	first.mustApply(three)
	ref := first.ref("", "ConfigMap", "one")
	uid := first.must(ref).GetUID()
	for _, blind := range []bool{false, true} {
		second.blind = blind
		out := second.mustApply(three)
		for _, action := range out.actions() {
			if action != gitops.ActionSkip {
				t.Errorf("wrote what the first owner has: %v", out.actions())
			}
		}
	}
	second.blind = false

	// The first stops declaring the objects; the second applies before the first prunes.
	declares[first.owner], declares[second.owner] = false, true
	if out := second.mustApply(three); len(out.done) != 3 || len(second.inventory) != 3 {
		t.Errorf("took over %v, inventory %v", out.actions(), second.inventory)
	}
	first.mustApply("")
	if len(first.inventory) != 0 || first.must(ref).GetUID() != uid {
		t.Errorf("inventory of the first is %v", first.inventory)
	}
	if out := second.mustApply(three); !out.plan.Empty() {
		t.Errorf("nothing is left to do, but %v", out.plan.Stages)
	}
}
