package plan_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	many := func(n int) []string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf("ConfigMap c%02d", i))
		}
		return out
	}
	type want struct {
		Deleted, Held int
		Reason        gitops.HoldReason
	}
	on := plan.Guard{Enabled: true}
	before := func(texts ...string) plan.Guard {
		g := plan.Guard{Enabled: true, Before: gitops.Hold{Reason: gitops.HoldManyDeletions}}
		for _, text := range texts {
			g.Before.Refs = append(g.Before.Refs, object(text))
		}
		return g
	}
	for name, tc := range map[string]struct {
		guard     plan.Guard
		declared  []string
		inventory []string
		unguarded []string
		want      want
	}{
		"an empty build holds everything":                     {guard: on, inventory: many(2), want: want{0, 2, gitops.HoldEmptyBuild}},
		"an empty build may delete a single object":           {guard: on, inventory: many(1), want: want{1, 0, ""}},
		"ten deletions are done":                              {guard: on, declared: many(1), inventory: many(11), want: want{10, 0, ""}},
		"eleven that are more than half are held":             {guard: on, declared: many(10), inventory: many(21), want: want{0, 11, gitops.HoldManyDeletions}},
		"eleven that are half are done":                       {guard: on, declared: many(11), inventory: many(22), want: want{11, 0, ""}},
		"a namespace is held and the rest done":               {guard: on, declared: many(1), inventory: append(many(2), "Namespace n"), want: want{1, 1, gitops.HoldProtectedKind}},
		"a definition is held":                                {guard: on, declared: many(1), inventory: append(many(1), "CustomResourceDefinition c"), want: want{0, 1, gitops.HoldProtectedKind}},
		"volumes and claims are held":                         {guard: on, declared: many(1), inventory: append(many(1), "PersistentVolume p", "PersistentVolumeClaim c"), want: want{0, 2, gitops.HoldProtectedKind}},
		"an empty build deletes everything without the guard": {inventory: many(30), want: want{30, 0, ""}},
		"an empty build deletes everything once confirmed":    {guard: plan.Guard{Enabled: true, Confirmed: true}, inventory: append(many(30), "Namespace n"), want: want{31, 0, ""}},
		"an empty build of an empty inventory has nothing":    {guard: on},
		"what is declared is no deletion":                     {guard: on, declared: many(30), inventory: many(30)},
		"a namespace that asks for no guard is deleted":       {guard: on, declared: many(1), inventory: append(many(1), "Namespace n"), unguarded: []string{"Namespace n"}, want: want{1, 0, ""}},
		"what asks for no guard is not counted": {
			guard: on, declared: many(10), inventory: many(21), unguarded: []string{"ConfigMap c15"}, want: want{11, 0, ""},
		},
		"what asks for no guard is deleted where the rest is held": {
			guard: on, declared: many(9), inventory: many(21), unguarded: []string{"ConfigMap c15"}, want: want{1, 11, gitops.HoldManyDeletions},
		},
		"what was held stays held when others deleted a part of it": {
			guard: before("ConfigMap c10", "ConfigMap c11"), declared: many(10), inventory: many(12), want: want{0, 2, gitops.HoldManyDeletions},
		},
		"what was held before is deleted once confirmed": {
			guard: plan.Guard{Enabled: true, Confirmed: true, Before: before("ConfigMap c10").Before}, declared: many(10), inventory: many(11), want: want{1, 0, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unguarded := map[gitops.ObjectRef]bool{}
			for _, text := range tc.unguarded {
				unguarded[object(text)] = true
			}
			in := plan.Input{
				Owner: us, Manifests: manifests(tc.declared...), Inventory: inventory(tc.inventory...),
				Live: func(ref gitops.ObjectRef) (gitops.Live, bool) {
					live := ours()
					live.Policy.Unguarded = unguarded[ref]
					return live, true
				},
				Options: plan.Options{Prune: true},
			}
			p, err := plan.Compute(in)
			if err != nil {
				t.Fatal(err)
			}
			p = tc.guard.Hold(p, len(in.Manifests), in.Inventory)
			got := want{Held: len(p.Held.Refs), Reason: p.Held.Reason}
			for _, s := range p.Stages {
				if s.Name == plan.StagePrune {
					got.Deleted = len(s.Changes)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, ref := range p.Held.Refs {
				if !p.Inventory.Has(ref) {
					t.Errorf("%s is held and not in the inventory", ref)
				}
			}
		})
	}
}
