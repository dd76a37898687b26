package plan_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

var (
	us   = gitops.OwnerRef{Group: "owners.example.test", Kind: "Owner", Namespace: "flux", Name: "us", UID: "1"}
	them = gitops.OwnerRef{Group: "owners.example.test", Kind: "Owner", Namespace: "flux", Name: "them"}
)

// object makes a ref of "Kind name" in namespace ns; cluster kinds have none.
func object(text string) gitops.ObjectRef {
	kind, name, _ := strings.Cut(text, " ")
	ref := gitops.ObjectRef{Kind: kind, Namespace: "ns", Name: name}
	switch kind {
	case "Namespace", "PersistentVolume":
		ref.Namespace = ""
	case "CustomResourceDefinition":
		ref.Group, ref.Namespace = "apiextensions.k8s.io", ""
	case "ClusterRole", "ClusterRoleBinding":
		ref.Group, ref.Namespace = "rbac.authorization.k8s.io", ""
	case "StorageClass":
		ref.Group, ref.Namespace = "storage.k8s.io", ""
	case "Deployment", "StatefulSet":
		ref.Group = "apps"
	}
	return ref
}

func digest(text string) gitops.Digest { return sha256.Sum256([]byte(text)) }

func manifest(text, content string) gitops.Manifest {
	return gitops.Manifest{Ref: object(text), Version: "v1", Digest: digest(content), Origin: gitops.Origin{File: "all.yaml", Line: len(text)}}
}

func manifests(texts ...string) []gitops.Manifest {
	var out []gitops.Manifest
	for _, text := range texts {
		out = append(out, manifest(text, "content"))
	}
	return out
}

func inventory(texts ...string) gitops.Inventory {
	var entries []gitops.InventoryEntry
	for _, text := range texts {
		entries = append(entries, gitops.InventoryEntry{Ref: object(text), Version: "v1"})
	}
	return gitops.NewInventory(entries)
}

// ours is an object as our last apply left it.
func ours() gitops.Live {
	return gitops.Live{UID: "uid", ResourceVersion: "1", Fields: digest("fields"), Owner: us.Key()}
}

func left() plan.Applied {
	return plan.Applied{Digest: digest("content"), UID: "uid", Fields: digest("fields")}
}

func with(change func(*gitops.Live)) gitops.Live {
	live := ours()
	change(&live)
	return live
}

func TestJudgement(t *testing.T) {
	t.Parallel()
	type want struct {
		Action gitops.Action // empty where there is nothing to do
		Basis  gitops.Basis
		Reason string // a part of it
	}
	applied := left()
	for name, tc := range map[string]struct {
		policy   gitops.ObjectPolicy
		content  string // "content" is what was applied
		applied  *plan.Applied
		live     gitops.Live
		unknown  bool
		trust    bool // TrustNone
		declares bool // the other owner still declares it
		want     want
	}{
		"as the last apply left it": {applied: &applied, live: ours(), want: want{}},
		"as the last apply left it, but everything is to be compared": {applied: &applied, live: ours(), trust: true,
			want: want{gitops.ActionConfigure, gitops.BasisCompare, "asked for"}},
		"not in the cluster": {live: gitops.Live{}, want: want{gitops.ActionCreate, gitops.BasisChanged, "not in the cluster"}},
		"deleted since the last apply": {applied: &applied, live: gitops.Live{},
			want: want{gitops.ActionCreate, gitops.BasisRepair, "deleted in the cluster"}},
		"declared otherwise than applied": {applied: &applied, content: "new", live: ours(),
			want: want{gitops.ActionConfigure, gitops.BasisChanged, "declaration changed"}},
		"declared otherwise and drifted": {applied: &applied, content: "new", live: with(func(l *gitops.Live) { l.Fields = digest("x") }),
			want: want{gitops.ActionConfigure, gitops.BasisChanged, "declaration changed"}},
		"declared otherwise and not seen": {applied: &applied, content: "new", unknown: true,
			want: want{gitops.ActionConfigure, gitops.BasisChanged, "declaration changed"}},
		"a field of ours was changed": {applied: &applied, live: with(func(l *gitops.Live) { l.Fields = digest("x") }),
			want: want{gitops.ActionConfigure, gitops.BasisRepair, "changed in the cluster"}},
		"somebody else applied under our name": {applied: &applied, live: with(func(l *gitops.Live) { l.AppliedAt = 7 }),
			want: want{gitops.ActionConfigure, gitops.BasisRepair, "in our name"}},
		"our entry is gone": {applied: &applied, live: with(func(l *gitops.Live) { l.Fields = gitops.Digest{} }),
			want: want{gitops.ActionConfigure, gitops.BasisRepair, "ownership"}},
		"replaced by another object": {applied: &applied, live: with(func(l *gitops.Live) { l.UID = "other" }),
			want: want{gitops.ActionConfigure, gitops.BasisRepair, "replaced"}},
		"being deleted, which nothing that is written would outlast": {applied: &applied,
			live: with(func(l *gitops.Live) { l.Deleting = true }), want: want{}},
		"touched by kubectl": {applied: &applied, live: with(func(l *gitops.Live) { l.TakeOver = []string{"kubectl-edit"} }),
			want: want{gitops.ActionConfigure, gitops.BasisRepair, "kubectl-edit"}},
		"touched by kubectl and to be merged": {applied: &applied, policy: gitops.ObjectPolicy{Apply: gitops.ApplyMerge},
			live: with(func(l *gitops.Live) { l.TakeOver = []string{"kubectl-edit"} }), want: want{}},
		"touched by kubectl and merged by the live object's wish": {applied: &applied,
			live: with(func(l *gitops.Live) {
				l.TakeOver, l.Policy.Apply = []string{"kubectl-edit"}, gitops.ApplyMerge
			}), want: want{}},
		"changed in what is not ours": {applied: &applied, live: with(func(l *gitops.Live) { l.ResourceVersion, l.Generation = "9", 9 }), want: want{}},
		"after a restart, ours":       {live: ours(), want: want{gitops.ActionConfigure, gitops.BasisCompare, "not known"}},
		"after a restart, not seen":   {unknown: true, want: want{gitops.ActionConfigure, gitops.BasisCompare, "not known"}},
		"not seen, though applied":    {applied: &applied, unknown: true, want: want{gitops.ActionConfigure, gitops.BasisCompare, "not known"}},
		"made by somebody else": {live: gitops.Live{UID: "uid"},
			want: want{gitops.ActionConfigure, gitops.BasisChanged, "not applied from here"}},
		"declared by another owner": {live: with(func(l *gitops.Live) { l.Owner = them }), declares: true, want: want{Action: "foreign"}},
		"declared by another owner, though paused": {policy: gitops.ObjectPolicy{Paused: true}, live: with(func(l *gitops.Live) { l.Owner = them }), declares: true,
			want: want{Action: "foreign"}},
		"left by another owner": {live: with(func(l *gitops.Live) { l.Owner = them }),
			want: want{gitops.ActionConfigure, gitops.BasisChanged, "taken over from Owner/flux/them"}},
		"labelled by hand for another owner": {applied: &applied, live: with(func(l *gitops.Live) { l.Owner = them }),
			want: want{gitops.ActionConfigure, gitops.BasisRepair, "taken over"}},
		"paused in the source":          {policy: gitops.ObjectPolicy{Paused: true}, live: ours(), want: want{Action: gitops.ActionSkip, Reason: "disabled"}},
		"paused in the source and gone": {policy: gitops.ObjectPolicy{Paused: true}, want: want{Action: gitops.ActionSkip, Reason: "disabled"}},
		"paused in the cluster":         {live: with(func(l *gitops.Live) { l.Policy.Paused = true }), want: want{Action: gitops.ActionSkip, Reason: "disabled"}},
		"to be ignored":                 {policy: gitops.ObjectPolicy{Apply: gitops.ApplyIgnore}, want: want{Action: gitops.ActionSkip, Reason: "ignored"}},
		"to be ignored by the live object's wish": {live: with(func(l *gitops.Live) { l.Policy.Apply = gitops.ApplyIgnore }),
			want: want{Action: gitops.ActionSkip, Reason: "ignored"}},
		"to be created only, and there": {policy: gitops.ObjectPolicy{Apply: gitops.ApplyIfNotPresent}, content: "new", applied: &applied, live: ours(),
			want: want{Action: gitops.ActionSkip, Reason: "created only"}},
		"to be created only, and missing": {policy: gitops.ObjectPolicy{Apply: gitops.ApplyIfNotPresent},
			want: want{gitops.ActionCreate, gitops.BasisChanged, "not in the cluster"}},
		"to be created only, and not seen": {policy: gitops.ObjectPolicy{Apply: gitops.ApplyIfNotPresent}, unknown: true,
			want: want{gitops.ActionConfigure, gitops.BasisCompare, "not known"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := manifest("ConfigMap a", "content")
			if tc.content != "" {
				m.Digest = digest(tc.content)
			}
			m.Policy = tc.policy
			in := plan.Input{
				Owner: us, Manifests: []gitops.Manifest{m},
				Live:    func(gitops.ObjectRef) (gitops.Live, bool) { return tc.live, !tc.unknown },
				OwnedBy: func(owner gitops.OwnerRef, _ gitops.ObjectRef) bool { return tc.declares && owner == them },
				Options: plan.Options{TrustNone: tc.trust},
			}
			if tc.applied != nil {
				in.Applied = map[gitops.ObjectRef]plan.Applied{m.Ref: *tc.applied}
			}
			p, err := plan.Compute(in)
			if err != nil {
				t.Fatal(err)
			}
			got := want{}
			reason := ""
			switch {
			case len(p.Foreign) > 0:
				got.Action = "foreign"
				if len(p.Inventory) > 0 {
					t.Error("a foreign object is in the inventory")
				}
			case len(p.Skipped) > 0:
				got.Action, reason = p.Skipped[0].Action, p.Skipped[0].Reason
			case len(p.Stages) > 0:
				c := p.Stages[0].Changes[0]
				got.Action, got.Basis, reason = c.Action, c.Basis, c.Reason
				if c.Manifest == nil || c.Manifest.Ref != m.Ref || c.Version != "v1" {
					t.Errorf("change is not complete: %+v", c)
				}
			}
			if strings.Contains(reason, tc.want.Reason) {
				got.Reason = tc.want.Reason
			} else {
				got.Reason = reason
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if got.Action != "foreign" && !p.Inventory.Has(m.Ref) {
				t.Error("a declared object is not in the inventory")
			}
		})
	}
}

func TestPolicyOfTheOwnerReachesTheChange(t *testing.T) {
	t.Parallel()
	in := plan.Input{Owner: us, Manifests: manifests("ConfigMap a"), Options: plan.Options{Force: true}}
	p, err := plan.Compute(in)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Stages[0].Changes[0].Manifest.Policy.Force {
		t.Error("force is lost")
	}
	if in.Manifests[0].Policy.Force {
		t.Error("the build was changed")
	}
}

func TestStages(t *testing.T) {
	t.Parallel()
	type stage struct {
		Name    string
		Objects []string
	}
	nothing := func(gitops.ObjectRef) (gitops.Live, bool) { return gitops.Live{}, true }
	all := []string{
		"ValidatingWebhookConfiguration z", "MutatingWebhookConfiguration y", "Widget w", "Gadget g", "Deployment d",
		"StatefulSet s", "Service s", "Secret s", "ConfigMap b", "ConfigMap a", "ServiceAccount sa", "ClusterRoleBinding crb", "StorageClass sc",
		"ClusterRole cr", "Namespace n", "CustomResourceDefinition c", "Special x", "Ingress i",
	}
	want := []stage{
		{"definitions", []string{"CustomResourceDefinition/c", "Namespace/n", "ClusterRole/cr"}},
		{"classes", []string{"StorageClass/sc"}},
		{"custom", []string{"Special/ns/x"}},
		{"rest", []string{
			"ClusterRoleBinding/crb", "ServiceAccount/ns/sa", "ConfigMap/ns/a", "ConfigMap/ns/b", "Secret/ns/s", "Service/ns/s", "Deployment/ns/d", "StatefulSet/ns/s",
			"Gadget/ns/g", "Ingress/ns/i", "Widget/ns/w", "MutatingWebhookConfiguration/ns/y", "ValidatingWebhookConfiguration/ns/z",
		}},
	}
	show := func(p gitops.Plan) []stage {
		var out []stage
		for _, s := range p.Stages {
			st := stage{Name: s.Name}
			for _, c := range s.Changes {
				st.Objects = append(st.Objects, c.Ref.String())
			}
			out = append(out, st)
		}
		return out
	}
	custom := []gitops.GroupKind{{Kind: "Special"}}
	p, err := plan.Compute(plan.Input{Owner: us, Manifests: manifests(all...), Live: nothing, Options: plan.Options{CustomKinds: custom}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, show(p)); diff != "" {
		t.Errorf("applying: %s", diff)
	}
	p, err = plan.Compute(plan.Input{
		Owner: us, Inventory: inventory(all...), Options: plan.Options{Prune: true, CustomKinds: custom},
		Live: func(gitops.ObjectRef) (gitops.Live, bool) { return ours(), true },
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]stage{{"prune", []string{
		"ValidatingWebhookConfiguration/ns/z", "MutatingWebhookConfiguration/ns/y", "Widget/ns/w", "Special/ns/x", "Ingress/ns/i", "Gadget/ns/g",
		"StatefulSet/ns/s", "Deployment/ns/d", "Service/ns/s", "Secret/ns/s", "ConfigMap/ns/b", "ConfigMap/ns/a", "ServiceAccount/ns/sa", "ClusterRoleBinding/crb",
		"StorageClass/sc", "ClusterRole/cr", "Namespace/n", "CustomResourceDefinition/c",
	}}}, show(p)); diff != "" {
		t.Errorf("deleting: %s", diff)
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	a, b := manifest("ConfigMap a", "1"), manifest("ConfigMap a", "2")
	a.Origin, b.Origin = gitops.Origin{File: "one.yaml", Line: 3}, gitops.Origin{File: "two.yaml", Line: 7}
	b.Version = "v2"
	for _, list := range [][]gitops.Manifest{{a, b}, {b, a}} {
		_, err := plan.Compute(plan.Input{Owner: us, Manifests: list})
		var e *gitops.Error
		if !errors.As(err, &e) || e.Kind != gitops.Invalid || e.Ref != a.Ref {
			t.Fatalf("got %v", err)
		}
		if want := "ConfigMap/ns/a: declared twice, in one.yaml:3 and in two.yaml:7: remove one of them"; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}
