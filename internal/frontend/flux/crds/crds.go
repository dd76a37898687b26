// Package crds holds the custom resource definitions of all Flux kinds, as
// controller-gen makes them from the API modules that Flux publishes.
//
// The files in yaml/ are generated ("make generate") and never edited; a test
// fails when they are out of date. What controller-gen does not know, the labels
// by which Flux's command line finds its definitions, is added when they are
// loaded. The operator installs them on request, `plumb crds` prints them and
// tests start from them.
package crds

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

//go:embed yaml/*.yaml
var files embed.FS

// FluxVersion is the newest Flux release whose kinds these definitions hold. The
// flux command line reads it from the label app.kubernetes.io/version.
const FluxVersion = "v2.9.5"

// Definition is one custom resource definition.
type Definition struct {
	// Kind is the group, the only served version, and the kind.
	Kind schema.GroupVersionKind
	// Plural is the name of the kind in URLs.
	Plural string
	// ShortNames are the names that kubectl knows the kind by, besides its own.
	ShortNames []string
	// Served tells whether the operator reconciles the kind. Objects of the
	// others can be created and stay as they are.
	Served bool
	// Object is the whole definition, to be applied or printed. It belongs to
	// the caller.
	Object *unstructured.Unstructured
}

// Name is the definition's own name, plural.group.
func (d Definition) Name() string { return d.Plural + "." + d.Kind.Group }

// Resource is the group, version and plural, as dynamic clients want them.
func (d Definition) Resource() schema.GroupVersionResource {
	return d.Kind.GroupVersion().WithResource(d.Plural)
}

// HasSuspend tells whether objects of the kind have the field spec.suspend.
func (d Definition) HasSuspend() bool {
	versions, _, _ := unstructured.NestedSlice(d.Object.Object, "spec", "versions")
	if len(versions) == 0 {
		return false
	}
	version, _ := versions[0].(map[string]any)
	_, found, _ := unstructured.NestedMap(version, "schema", "openAPIV3Schema", "properties", "spec", "properties", "suspend")
	return found
}

// All gives the definitions of all Flux kinds, ordered by group and kind. An error
// is a defect of the build: the definitions are part of the binary.
func All() ([]Definition, error) {
	names, err := fs.Glob(files, "yaml/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list definitions: %w", err)
	}
	definitions := make([]Definition, 0, len(names))
	for _, name := range names {
		data, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read definition: %w", err)
		}
		d, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("definition %q: %w", name, err)
		}
		definitions = append(definitions, d)
	}
	slices.SortFunc(definitions, func(a, b Definition) int {
		return bytes.Compare([]byte(a.Kind.Group+" "+a.Kind.Kind), []byte(b.Kind.Group+" "+b.Kind.Kind))
	})
	return definitions, nil
}

// Served gives the definitions of the kinds that the operator reconciles.
func Served() ([]Definition, error) {
	all, err := All()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(d Definition) bool { return !d.Served }), nil
}

// WriteYAML writes the definitions as one stream of YAML documents, ready for
// kubectl apply.
func WriteYAML(w io.Writer, definitions []Definition) error {
	for _, d := range definitions {
		data, err := yaml.Marshal(d.Object.Object)
		if err != nil {
			return fmt.Errorf("encode %q: %w", d.Name(), err)
		}
		if _, err := fmt.Fprintf(w, "---\n%s", data); err != nil {
			return err
		}
	}
	return nil
}

func parse(data []byte) (Definition, error) {
	var object map[string]any
	if err := yaml.Unmarshal(data, &object); err != nil {
		return Definition{}, fmt.Errorf("decode: %w", err)
	}
	var spec struct {
		Spec struct {
			Group string `json:"group"`
			Names struct {
				Kind       string   `json:"kind"`
				Plural     string   `json:"plural"`
				ShortNames []string `json:"shortNames"`
			} `json:"names"`
			Versions []struct {
				Name string `json:"name"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(data, &spec); err != nil {
		return Definition{}, fmt.Errorf("decode: %w", err)
	}
	if len(spec.Spec.Versions) != 1 {
		return Definition{}, fmt.Errorf("%d versions, want one", len(spec.Spec.Versions))
	}
	kind := schema.GroupVersionKind{Group: spec.Spec.Group, Version: spec.Spec.Versions[0].Name, Kind: spec.Spec.Names.Kind}
	d := Definition{
		Kind:       kind,
		Plural:     spec.Spec.Names.Plural,
		ShortNames: spec.Spec.Names.ShortNames,
		Served:     served(kind),
		Object:     &unstructured.Unstructured{Object: object},
	}
	d.Object.SetLabels(labels(kind))
	return d, nil
}

// served lists the kinds that have a reconciler.
func served(kind schema.GroupVersionKind) bool {
	switch kind.Kind {
	case "ArtifactGenerator", "ExternalArtifact", "GitRepository", "Kustomization":
		return true
	}
	return false
}

// labels are those by which the flux command line finds its definitions, tells
// their version, and sees that it is not Flux's own manifests that installed them.
func labels(kind schema.GroupVersionKind) map[string]string {
	return map[string]string{
		"app.kubernetes.io/component":  component(kind),
		"app.kubernetes.io/instance":   "flux-system",
		"app.kubernetes.io/managed-by": "plumb",
		"app.kubernetes.io/part-of":    "flux",
		"app.kubernetes.io/version":    FluxVersion,
	}
}

// component is the controller of Flux that the kind belongs to.
func component(kind schema.GroupVersionKind) string {
	switch kind.Group {
	case "helm.toolkit.fluxcd.io":
		return "helm-controller"
	case "image.toolkit.fluxcd.io":
		if kind.Kind == "ImageUpdateAutomation" {
			return "image-automation-controller"
		}
		return "image-reflector-controller"
	case "kustomize.toolkit.fluxcd.io":
		return "kustomize-controller"
	case "notification.toolkit.fluxcd.io":
		return "notification-controller"
	case "source.extensions.fluxcd.io":
		return "source-watcher"
	default:
		return "source-controller"
	}
}
