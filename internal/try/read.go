package try

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/health"
)

// custom is what is read of one of Flux's custom resources.
type custom struct {
	Spec struct {
		Suspend  bool   `json:"suspend"`
		Type     string `json:"type"`
		URL      string `json:"url"`
		Endpoint string `json:"endpoint"`
		STS      struct {
			Endpoint string `json:"endpoint"`
		} `json:"sts"`
		SourceRef struct {
			Kind      string `json:"kind"`
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"sourceRef"`
		KubeConfig map[string]any `json:"kubeConfig"`
		DependsOn  []struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"dependsOn"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration  int64              `json:"observedGeneration"`
		Conditions          []metav1.Condition `json:"conditions"`
		LastAppliedRevision string             `json:"lastAppliedRevision"`
		Artifact            struct {
			Revision string `json:"revision"`
		} `json:"artifact"`
		// Inventory is a map in a Kustomization, and a list in an ArtifactGenerator.
		Inventory any `json:"inventory"`
	} `json:"status"`
}

// seen is an object, reduced to what is shown of it.
type seen struct {
	metav1.ObjectMeta
	kind gitops.GroupKind
	// health is that of any object; custom is set for Flux's own kinds.
	health gitops.Health
	custom *custom
	// mark differs when something has changed that is worth a new time.
	mark    string
	changed time.Time
}

// reduce makes of an object what is shown of it.
func reduce(object *unstructured.Unstructured) *seen {
	s := &seen{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID(),
			ResourceVersion: object.GetResourceVersion(), Generation: object.GetGeneration(),
			CreationTimestamp: object.GetCreationTimestamp(),
		},
		kind:   gitops.GroupKind{Group: object.GroupVersionKind().Group, Kind: object.GetKind()},
		health: health.Assess(object),
	}
	content := fmt.Sprint(s.Generation)
	if s.Generation == 0 {
		content = s.ResourceVersion
	}
	s.mark = strings.Join([]string{string(s.UID), content, string(s.health.Status)}, " ")
	if ours(gitops.ObjectRef{Group: s.kind.Group}) {
		s.custom = &custom{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, s.custom); err != nil {
			s.health = gitops.Health{Status: gitops.HealthUnknown, Message: err.Error()}
		}
		r := s.ready()
		s.mark += fmt.Sprint(r.Status, r.Reason, r.Message, s.custom.Status.LastAppliedRevision, s.custom.Status.Artifact.Revision)
	}
	return s
}

// ready is what a custom resource says of its present generation.
func (s *seen) ready() Ready {
	r := Ready{Suspended: s.custom.Spec.Suspend, Changed: s.changed}
	if s.kind.Kind == "HelmRepository" && s.custom.Spec.Type == "oci" {
		// Nobody works on it: it only says where charts are.
		r.Status, r.Message = string(metav1.ConditionTrue), "a registry, in which charts are found by name"
		return r
	}
	for _, c := range s.custom.Status.Conditions {
		switch {
		case c.Type == "Ready":
			r.Reason, r.Message = c.Reason, c.Message
			if c.ObservedGeneration == s.Generation {
				r.Status = string(c.Status)
			}
		case c.Type == "Stalled" && c.Status == metav1.ConditionTrue && c.ObservedGeneration == s.Generation:
			r.Stalled = true
		}
	}
	return r
}

func (s *seen) source() Source {
	spec := s.custom.Spec
	return Source{
		Kind: s.kind.Kind, Namespace: s.Namespace, Name: s.Name, Revision: s.custom.Status.Artifact.Revision, Ready: s.ready(),
		urls: []string{spec.URL, spec.Endpoint, spec.STS.Endpoint},
	}
}

func (s *seen) kustomization(served func(group, kind string) bool) Kustomization {
	ref := s.custom.Spec.SourceRef
	k := Kustomization{
		Namespace: s.Namespace, Name: s.Name, Revision: s.custom.Status.LastAppliedRevision, Ready: s.ready(),
		Source: SourceRef{Kind: ref.Kind, Namespace: orElse(ref.Namespace, s.Namespace), Name: ref.Name, Served: served(sourceGroup, ref.Kind)},
	}
	for _, d := range s.custom.Spec.DependsOn {
		k.DependsOn = append(k.DependsOn, orElse(d.Namespace, s.Namespace)+"/"+d.Name)
	}
	return k
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// inventory is what a Kustomization has applied to this cluster. An id that cannot be
// read is no object that could be shown.
func (s *seen) inventory() gitops.Inventory {
	if len(s.custom.Spec.KubeConfig) > 0 {
		return nil
	}
	var entries []gitops.InventoryEntry
	inventory, _ := s.custom.Status.Inventory.(map[string]any)
	list, _ := inventory["entries"].([]any)
	for _, one := range list {
		fields, _ := one.(map[string]any)
		id, _ := fields["id"].(string)
		version, _ := fields["v"].(string)
		if ref, err := gitops.ParseID(id); err == nil {
			entries = append(entries, gitops.InventoryEntry{Ref: ref, Version: version})
		}
	}
	return gitops.NewInventory(entries)
}
