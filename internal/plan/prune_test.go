package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

func TestPruning(t *testing.T) {
	t.Parallel()
	type want struct {
		Deleted, Kept, Skipped []string // Kept is the inventory afterwards
	}
	for name, tc := range map[string]struct {
		declared  []string
		inventory []string
		live      map[string]gitops.Live // others are ours
		unknown   bool
		off       bool
		want      want
	}{
		"deletes what is not declared any more": {
			declared: []string{"ConfigMap a"}, inventory: []string{"ConfigMap a", "ConfigMap b"},
			want: want{Deleted: []string{"ConfigMap/ns/b"}, Kept: []string{"ConfigMap/ns/a"}},
		},
		"forgets what is gone": {
			inventory: []string{"ConfigMap b"}, live: map[string]gitops.Live{"ConfigMap b": {}}, want: want{},
		},
		"deletes what is not seen, without a uid": {
			inventory: []string{"ConfigMap b"}, unknown: true, want: want{Deleted: []string{"ConfigMap/ns/b without uid"}},
		},
		"forgets everything without deleting when it is off": {
			inventory: []string{"ConfigMap b"}, off: true, want: want{Skipped: []string{"ConfigMap/ns/b: pruning is off"}},
		},
		"leaves what asks to be kept": {
			inventory: []string{"ConfigMap b"}, live: map[string]gitops.Live{"ConfigMap b": with(func(l *gitops.Live) { l.Policy.KeepOnPrune = true })},
			want: want{Skipped: []string{"ConfigMap/ns/b: pruning is disabled for it"}},
		},
		"leaves what is paused": {
			inventory: []string{"ConfigMap b"}, live: map[string]gitops.Live{"ConfigMap b": with(func(l *gitops.Live) { l.Policy.Paused = true })},
			want: want{Skipped: []string{"ConfigMap/ns/b: reconciliation is disabled for it"}},
		},
		"leaves what asks to be ignored": {
			inventory: []string{"ConfigMap b"}, live: map[string]gitops.Live{"ConfigMap b": with(func(l *gitops.Live) { l.Policy.Apply = gitops.ApplyIgnore })},
			want: want{Skipped: []string{"ConfigMap/ns/b: it asks to be ignored"}},
		},
		"leaves what another owner has": {
			inventory: []string{"ConfigMap b"}, live: map[string]gitops.Live{"ConfigMap b": with(func(l *gitops.Live) { l.Owner = them })},
			want: want{Skipped: []string{"ConfigMap/ns/b: it belongs to Owner/flux/them"}},
		},
		"leaves what bears no labels": {
			inventory: []string{"ConfigMap b"}, live: map[string]gitops.Live{"ConfigMap b": with(func(l *gitops.Live) { l.Owner = gitops.OwnerRef{} })},
			want: want{Skipped: []string{"ConfigMap/ns/b: it does not bear the owner's labels any more"}},
		},
		"does not ask twice for a deletion": {
			inventory: []string{"ConfigMap b"}, live: map[string]gitops.Live{"ConfigMap b": with(func(l *gitops.Live) { l.Deleting = true })},
			want: want{Skipped: []string{"ConfigMap/ns/b: it is being deleted already"}},
		},
		"never deletes what is declared, whoever has it": {
			declared: []string{"ConfigMap b"}, inventory: []string{"ConfigMap b"},
			live: map[string]gitops.Live{"ConfigMap b": with(func(l *gitops.Live) { l.Owner = them })},
			want: want{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			live := map[gitops.ObjectRef]gitops.Live{}
			for text, l := range tc.live {
				live[object(text)] = l
			}
			in := plan.Input{
				Owner: us, Manifests: manifests(tc.declared...), Inventory: inventory(tc.inventory...), Options: plan.Options{Prune: !tc.off},
				Live: func(ref gitops.ObjectRef) (gitops.Live, bool) {
					if l, ok := live[ref]; ok {
						return l, !tc.unknown
					}
					return ours(), !tc.unknown
				},
				OwnedBy: func(gitops.OwnerRef, gitops.ObjectRef) bool { return true },
			}
			p, err := plan.Compute(in)
			if err != nil {
				t.Fatal(err)
			}
			got := want{}
			for _, s := range p.Stages {
				for _, c := range s.Changes {
					if c.Action != gitops.ActionDelete {
						continue
					}
					text := c.Ref.String()
					if c.UID == "" {
						text += " without uid"
					}
					got.Deleted = append(got.Deleted, text)
				}
			}
			for _, e := range p.Inventory {
				got.Kept = append(got.Kept, e.Ref.String())
			}
			for _, c := range p.Skipped {
				got.Skipped = append(got.Skipped, c.Ref.String()+": "+c.Reason)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if !p.WriteAhead.Covers(in.Inventory) {
				t.Error("the write-ahead inventory lacks a stored ref")
			}
		})
	}
}

func TestRemaining(t *testing.T) {
	t.Parallel()
	p, err := plan.Compute(plan.Input{
		Owner: us, Manifests: manifests("ConfigMap new"), Inventory: inventory("ConfigMap a", "ConfigMap b", "ConfigMap gone"),
		Live: func(ref gitops.ObjectRef) (gitops.Live, bool) {
			if ref.Name == "gone" || ref.Name == "new" {
				return gitops.Live{}, true
			}
			return ours(), true
		},
		Options: plan.Options{Prune: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := func(action gitops.Action, names ...string) gitops.ChangeSet {
		var out gitops.ChangeSet
		for _, name := range names {
			out = append(out, gitops.Done{Ref: object("ConfigMap " + name), Action: action})
		}
		return out
	}
	for name, tc := range map[string]struct {
		done     gitops.ChangeSet
		complete bool
		want     string
	}{
		"everything done": {append(done(gitops.ActionCreate, "new"), done(gitops.ActionDelete, "a", "b")...), true, "new"},
		"complete, and one deletion did not happen":    {append(done(gitops.ActionCreate, "new"), done(gitops.ActionDelete, "a")...), true, "b new"},
		"complete, and one turned out to be another's": {append(done(gitops.ActionDelete, "a"), done(gitops.ActionSkip, "b")...), true, "new"},
		"nothing done":                             {nil, false, "a b gone new"},
		"failed after the first deletion":          {append(done(gitops.ActionCreate, "new"), done(gitops.ActionDelete, "a")...), false, "b gone new"},
		"a declared object that was skipped stays": {done(gitops.ActionSkip, "new"), false, "a b gone new"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var names []string
			for _, e := range plan.Remaining(p, tc.done, tc.complete) {
				names = append(names, e.Ref.Name)
			}
			if got := strings.Join(names, " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzPlan checks what holds of every plan, whatever the input: each byte says
// what is the case for one of some objects.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, byte(0))
	f.Add([]byte("a complete work of art in bytes that say nothing"), byte(0xff))
	f.Add([]byte{}, byte(1))
	kinds := []string{"ConfigMap", "Namespace", "CustomResourceDefinition", "Deployment", "StorageClass", "ClusterRole", "PersistentVolumeClaim"}
	f.Fuzz(func(t *testing.T, objects []byte, options byte) {
		if len(objects) > 200 {
			return
		}
		in := plan.Input{Owner: us, Applied: map[gitops.ObjectRef]plan.Applied{}, Options: plan.Options{
			Prune: options&1 != 0, Force: options&2 != 0, TrustNone: options&4 != 0,
		}}
		lives := map[gitops.ObjectRef]gitops.Live{}
		unknown, declares := map[gitops.ObjectRef]bool{}, map[gitops.ObjectRef]bool{}
		var stored []gitops.InventoryEntry
		for i, b := range objects {
			m := manifest(fmt.Sprintf("%s o%d", kinds[i%len(kinds)], i), "content")
			m.Policy = gitops.ObjectPolicy{Paused: b&64 != 0 && i%3 == 0, Apply: []gitops.ApplyMode{"", "Merge", "IfNotPresent", "Ignore"}[i%4]}
			if b&1 != 0 {
				in.Manifests = append(in.Manifests, m)
			}
			if b&2 != 0 {
				stored = append(stored, gitops.InventoryEntry{Ref: m.Ref, Version: "v1"})
			}
			if b&4 != 0 {
				lives[m.Ref] = with(func(l *gitops.Live) {
					l.Deleting = b&128 != 0
					if b&8 != 0 {
						l.Owner = them
					}
					l.Policy.Unguarded = i%5 == 0
					if b&64 != 0 {
						l.Fields = digest(fmt.Sprint(i))
						l.Policy.KeepOnPrune = i%2 == 0
					}
				})
			}
			if b&16 != 0 {
				in.Applied[m.Ref] = left()
			}
			unknown[m.Ref], declares[m.Ref] = b&32 != 0, b&128 != 0
		}
		in.Inventory = gitops.NewInventory(stored)
		in.Live = func(ref gitops.ObjectRef) (gitops.Live, bool) {
			if unknown[ref] {
				return gitops.Live{}, false
			}
			return lives[ref], true
		}
		in.OwnedBy = func(_ gitops.OwnerRef, ref gitops.ObjectRef) bool { return declares[ref] }
		p, err := plan.Compute(in)
		if err != nil {
			t.Fatal(err)
		}
		holds(t, in, p)
		guard := plan.Guard{Enabled: options&8 != 0, Confirmed: options&16 != 0}
		holds(t, in, guard.Hold(p, len(in.Manifests), in.Inventory))
		again, err := plan.Compute(in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("equal inputs, different plans: %s", diff)
		}
	})
}

// holds checks the promises of the package.
func holds(t *testing.T, in plan.Input, p gitops.Plan) {
	t.Helper()
	declared := map[gitops.ObjectRef]bool{}
	for _, m := range in.Manifests {
		declared[m.Ref] = true
	}
	seen := map[gitops.ObjectRef]bool{}
	once := func(ref gitops.ObjectRef) {
		if seen[ref] {
			t.Errorf("%s occurs twice", ref)
		}
		seen[ref] = true
	}
	for i, s := range p.Stages {
		if len(s.Changes) == 0 || s.Name == plan.StagePrune && i != len(p.Stages)-1 {
			t.Errorf("stage %q is empty or not the last", s.Name)
		}
		for _, c := range s.Changes {
			once(c.Ref)
			if !p.WriteAhead.Has(c.Ref) {
				t.Errorf("%s is written and not in the write-ahead inventory", c.Ref)
			}
			deletes := c.Action == gitops.ActionDelete
			if deletes == declared[c.Ref] || deletes != (s.Name == plan.StagePrune) || deletes != (c.Manifest == nil) {
				t.Errorf("%s: declared %v, action %q in stage %q", c.Ref, declared[c.Ref], c.Action, s.Name)
			}
			if deletes && !in.Inventory.Has(c.Ref) {
				t.Errorf("%s is deleted and was never ours", c.Ref)
			}
			if live, known := in.Live(c.Ref); known && live.Owner == them && (deletes || in.OwnedBy(them, c.Ref)) {
				t.Errorf("%s belongs to another owner: %q", c.Ref, c.Action)
			}
		}
	}
	for _, c := range p.Skipped {
		once(c.Ref)
	}
	for _, o := range p.Foreign {
		once(o.Ref)
		if p.Inventory.Has(o.Ref) {
			t.Errorf("%s is foreign and in the inventory", o.Ref)
		}
	}
	for _, ref := range p.Held.Refs {
		once(ref)
		if !p.Inventory.Has(ref) {
			t.Errorf("%s is held and not in the inventory", ref)
		}
	}
	for _, l := range p.Left {
		if live, known := in.Live(l.Ref); p.Inventory.Has(l.Ref) || known && (live.Owner == them || live.Deleting) {
			t.Errorf("%s is left, and in the inventory, another owner's or being deleted", l.Ref)
		}
	}
	if !p.WriteAhead.Covers(p.Inventory) || !p.WriteAhead.Covers(in.Inventory) {
		t.Error("the write-ahead inventory is too small")
	}
}
