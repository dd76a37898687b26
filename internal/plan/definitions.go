package plan

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Scope tells whether the objects of a kind are in namespaces.
type Scope uint8

const (
	// ScopeUnknown is a kind that is neither served nor defined in the set.
	ScopeUnknown Scope = iota
	ScopeNamespaced
	ScopeCluster
)

// Definition is what a CustomResourceDefinition in the set defines.
type Definition struct {
	Kind  gitops.GroupKind
	Scope Scope
	// Versions are those that will be served.
	Versions []string
	// Ref is the definition itself.
	Ref gitops.ObjectRef
}

// Serves tells whether the kind will be served in a version.
func (d Definition) Serves(version string) bool { return slices.Contains(d.Versions, version) }

// IsCustomResourceDefinition tells whether objects of a kind define kinds.
func IsCustomResourceDefinition(kind gitops.GroupKind) bool {
	return kind == gitops.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
}

// IsNamespace tells whether objects of a kind are namespaces.
func IsNamespace(kind gitops.GroupKind) bool { return kind == gitops.GroupKind{Kind: "Namespace"} }

// Define reads what a CustomResourceDefinition defines. A manifest of another
// kind, or one that does not say it, defines nothing: the API server explains
// what is wrong with it better than we could.
func Define(m gitops.Manifest) (Definition, bool) {
	if !IsCustomResourceDefinition(m.Ref.GroupKind()) {
		return Definition{}, false
	}
	var crd struct {
		Spec struct {
			Group string `json:"group"`
			Scope string `json:"scope"`
			Names struct {
				Kind string `json:"kind"`
			} `json:"names"`
			Versions []struct {
				Name   string `json:"name"`
				Served bool   `json:"served"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(m.JSON, &crd); err != nil || crd.Spec.Group == "" || crd.Spec.Names.Kind == "" {
		return Definition{}, false
	}
	d := Definition{
		Kind:  gitops.GroupKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind},
		Scope: ScopeNamespaced,
		Ref:   m.Ref,
	}
	if crd.Spec.Scope == "Cluster" {
		d.Scope = ScopeCluster
	}
	for _, v := range crd.Spec.Versions {
		if v.Served {
			d.Versions = append(d.Versions, v.Name)
		}
	}
	return d, true
}

// Definitions are the kinds that the CustomResourceDefinitions among manifests
// define.
func Definitions(manifests []gitops.Manifest) map[gitops.GroupKind]Definition {
	out := map[gitops.GroupKind]Definition{}
	for _, m := range manifests {
		if d, ok := Define(m); ok {
			out[d.Kind] = d
		}
	}
	return out
}

// Resolve gives every manifest the ref under which the cluster knows it: an
// object of a kind without namespaces loses the namespace that a build put into
// it. What the set itself defines counts more than what scope knows. An object
// that needs a namespace and has none is an Invalid error; one of an unknown
// kind stays as it is.
func Resolve(manifests []gitops.Manifest, scope func(gitops.GroupKind) Scope) ([]gitops.Manifest, error) {
	defined := Definitions(manifests)
	out := slices.Clone(manifests)
	for i := range out {
		m := &out[i]
		s := defined[m.Ref.GroupKind()].Scope
		if s == ScopeUnknown {
			s = scope(m.Ref.GroupKind())
		}
		switch {
		case s == ScopeCluster:
			m.Ref.Namespace = ""
		case s == ScopeNamespaced && m.Ref.Namespace == "":
			return nil, &gitops.Error{
				Stage: gitops.StagePlan, Kind: gitops.Invalid, Ref: m.Ref, Origin: m.Origin,
				Cause: fmt.Errorf("namespace not specified: set metadata.namespace, or a target namespace for the whole set"),
			}
		}
	}
	return out, nil
}
