package try

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// State is all that is shown, at one moment. It is a value.
type State struct {
	Sources        []Source        `json:"sources"`
	Kustomizations []Kustomization `json:"kustomizations"`
	// Objects are those in the inventories of all Kustomizations.
	Objects []Object `json:"objects"`
	// NotServed are the objects of Flux's kinds that this version does not work on.
	NotServed []Object `json:"notServed"`
}

// Ready is what a custom resource says of itself.
type Ready struct {
	// Status is True, False, Unknown, or empty where nobody has said anything of
	// the present generation yet.
	Status  string `json:"ready"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Stalled tells that nothing will be tried until the object is changed.
	Stalled   bool `json:"stalled,omitempty"`
	Suspended bool `json:"suspended,omitempty"`
	// Changed is when something of it was last seen to change.
	Changed time.Time `json:"changed,omitzero"`
}

// Source is a source of a served kind.
type Source struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Revision is that of its artifact.
	Revision string `json:"revision"`
	Ready
	// urls are those at which its servers are. They may have credentials in them.
	urls []string
}

// ID is the kind with namespace/name.
func (s Source) ID() string { return strings.ToLower(s.Kind) + " " + s.Namespace + "/" + s.Name }

// Kustomization is one, with the count of its objects.
type Kustomization struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Revision is the one that was applied last.
	Revision string `json:"revision"`
	// Source names what it follows.
	Source SourceRef `json:"source"`
	// DependsOn are namespace/name of those that it waits for.
	DependsOn []string `json:"dependsOn,omitempty"`
	// Current is how many of Total objects are so; objects that are not served
	// do not count.
	Current int `json:"current"`
	Total   int `json:"total"`
	Ready
}

// ID is namespace/name.
func (k Kustomization) ID() string { return k.Namespace + "/" + k.Name }

// SourceRef names a source.
type SourceRef struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Served tells whether its kind is worked on.
	Served bool `json:"served"`
}

// Object is a managed object.
type Object struct {
	Ref gitops.ObjectRef `json:"-"`
	// Name is the ref, as people read it.
	Name string `json:"object"`
	// Owner is namespace/name of the Kustomization that has it, empty for none.
	Owner   string              `json:"owner,omitempty"`
	Health  gitops.HealthStatus `json:"health"`
	Message string              `json:"message,omitempty"`
	Changed time.Time           `json:"changed,omitzero"`
	// NotServed marks an object of one of Flux's kinds that is not worked on.
	NotServed bool `json:"notServed,omitempty"`
	// Undefined marks an object of a kind that the cluster does not know.
	Undefined bool `json:"undefined,omitempty"`
}

// sort puts everything in the order in which it is shown.
func (s *State) sort() {
	slices.SortFunc(s.Sources, func(a, b Source) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	slices.SortFunc(s.Kustomizations, func(a, b Kustomization) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	byName := func(a, b Object) int {
		return cmp.Or(strings.Compare(a.Owner, b.Owner), gitops.CompareRefs(a.Ref, b.Ref))
	}
	slices.SortFunc(s.Objects, byName)
	slices.SortFunc(s.NotServed, byName)
}

// notServedBy gives the Kustomizations that cannot be ready because a kind is not
// served: those whose source is of such a kind, those with objects of kinds that nobody
// has defined while there are releases of charts that would, and those that wait for one
// of them. Keys are namespace/name.
func (s State) notServedBy() map[string]bool {
	blocked := map[string]bool{}
	for _, k := range s.Kustomizations {
		if k.Status == "False" && k.Stalled && k.Reason == "FeatureGateDisabled" && !k.Source.Served {
			blocked[k.ID()] = true
		}
	}
	undefined := s.undefined()
	for _, k := range s.Kustomizations {
		if k.Status == "False" && undefined[k.ID()] {
			blocked[k.ID()] = true
		}
	}
	if len(blocked) == 0 {
		return blocked
	}
	for again := true; again; {
		again = false
		for _, k := range s.Kustomizations {
			if !blocked[k.ID()] && k.Status != "True" && s.waitsFor(k, blocked) {
				blocked[k.ID()] = true
				again = true
			}
		}
	}
	return blocked
}

// undefined gives the Kustomizations with objects of kinds that the cluster does not know,
// where a release that is not served may be what defines them.
func (s State) undefined() map[string]bool {
	owners := map[string]bool{}
	if slices.ContainsFunc(s.NotServed, func(o Object) bool { return o.Ref.Kind == "HelmRelease" }) {
		for _, o := range s.Objects {
			if o.Undefined {
				owners[o.Owner] = true
			}
		}
	}
	return owners
}

// waitsFor tells whether all that a Kustomization lacks are blocked ones.
func (s State) waitsFor(k Kustomization, blocked map[string]bool) bool {
	switch k.Reason {
	case "DependencyNotReady":
		return slices.ContainsFunc(k.DependsOn, func(id string) bool { return blocked[id] })
	case "HealthCheckFailed":
		found := false
		for _, o := range s.Objects {
			if o.Owner != k.ID() || o.NotServed || o.Health == gitops.HealthCurrent {
				continue
			}
			if o.Ref.Group != kustomizeGroup || !blocked[o.Ref.Namespace+"/"+o.Ref.Name] {
				return false
			}
			found = true
		}
		return found
	default:
		return false
	}
}
