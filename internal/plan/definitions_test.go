package plan_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
)

func crd(spec string) gitops.Manifest {
	m := manifest("CustomResourceDefinition widgets.example.test", "crd")
	m.JSON = []byte(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","spec":` + spec + `}`)
	return m
}

func TestDefine(t *testing.T) {
	t.Parallel()
	ref := object("CustomResourceDefinition widgets.example.test")
	kind := gitops.GroupKind{Group: "example.test", Kind: "Widget"}
	for name, tc := range map[string]struct {
		manifest gitops.Manifest
		want     *plan.Definition
	}{
		"a namespaced kind in its served versions": {
			crd(`{"group":"example.test","scope":"Namespaced","names":{"kind":"Widget"},"versions":[{"name":"v1","served":true},{"name":"v1beta1","served":false}]}`),
			&plan.Definition{Kind: kind, Scope: plan.ScopeNamespaced, Versions: []string{"v1"}, Ref: ref},
		},
		"a cluster kind": {
			crd(`{"group":"example.test","scope":"Cluster","names":{"kind":"Widget"},"versions":[{"name":"v2","served":true}]}`),
			&plan.Definition{Kind: kind, Scope: plan.ScopeCluster, Versions: []string{"v2"}, Ref: ref},
		},
		"nothing without a kind":         {crd(`{"group":"example.test"}`), nil},
		"nothing of an odd shape":        {crd(`{"group":[1]}`), nil},
		"nothing of no JSON":             {crd(`{`), nil},
		"nothing of another kind at all": {manifest("ConfigMap a", "x"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := plan.Define(tc.manifest)
			if ok != (tc.want != nil) {
				t.Fatalf("got %v, %v", got, ok)
			}
			if ok {
				if diff := cmp.Diff(*tc.want, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	scope := func(kind gitops.GroupKind) plan.Scope {
		return map[string]plan.Scope{"ConfigMap": plan.ScopeNamespaced, "ClusterRole": plan.ScopeCluster, "Widget": plan.ScopeNamespaced}[kind.Kind]
	}
	definition := crd(`{"group":"example.test","scope":"Cluster","names":{"kind":"Widget"},"versions":[{"name":"v1","served":true}]}`)
	object := func(group, kind, namespace string) gitops.Manifest {
		return gitops.Manifest{Ref: gitops.ObjectRef{Group: group, Kind: kind, Namespace: namespace, Name: "a"}, Origin: gitops.Origin{File: "a.yaml", Line: 4}}
	}
	for name, tc := range map[string]struct {
		manifest  gitops.Manifest
		namespace string
		fails     bool
	}{
		"a namespaced object keeps its namespace":         {manifest: object("", "ConfigMap", "ns"), namespace: "ns"},
		"a namespaced object without one is an error":     {manifest: object("", "ConfigMap", ""), fails: true},
		"a cluster object loses its namespace":            {manifest: object("rbac.authorization.k8s.io", "ClusterRole", "ns")},
		"an unknown kind stays as it is":                  {manifest: object("x", "Unknown", "ns"), namespace: "ns"},
		"what the set defines counts more than discovery": {manifest: object("example.test", "Widget", "ns")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := []gitops.Manifest{tc.manifest, definition}
			out, err := plan.Resolve(in, scope)
			if tc.fails {
				var e *gitops.Error
				if !errors.As(err, &e) || e.Kind != gitops.Invalid || e.Origin.Line != 4 {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || out[0].Ref.Namespace != tc.namespace {
				t.Errorf("got %q, %v", out[0].Ref.Namespace, err)
			}
			if in[0].Ref != tc.manifest.Ref {
				t.Error("the build was changed")
			}
		})
	}
}
