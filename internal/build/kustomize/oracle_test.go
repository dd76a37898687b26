package kustomize_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	flux "github.com/fluxcd/pkg/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/kustomize"
	"github.com/plumb-gitops/plumb/internal/build/substitute"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// asBuilt is a Normaliser that keeps what the build made, so that it can be
// compared with what Flux builds before it normalises.
type asBuilt struct{}

func (asBuilt) Normalise(object map[string]any) (map[string]any, error) { return object, nil }

// newComparable makes a Builder whose results can be compared with the oracle.
func newComparable() *build.Builder {
	return build.New(build.Steps{Renderer: kustomize.New(kustomize.Options{}), Substituter: substitute.New(0), Normaliser: asBuilt{}})
}

// checkout writes a tree to a folder on disk.
func checkout(t testing.TB, tree *memoryTree, dir string) {
	t.Helper()
	for name, content := range tree.files {
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// oracle builds a checkout with Flux's own package, in the steps of
// kustomize-controller, and gives the objects by id.
func oracle(ctx context.Context, dir string, spec build.Spec) (objects map[string]string, err error) {
	kustomize.AloneWithSchema(func() { objects, err = oracleAlone(ctx, dir, spec) })
	return objects, err
}

func oracleAlone(ctx context.Context, dir string, spec build.Spec) (map[string]string, error) {
	object := fluxObject(spec)
	path := filepath.Join(dir, filepath.Join("/", spec.Path))
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	if _, err := flux.NewGenerator(dir, object).WriteFile(path); err != nil {
		return nil, err
	}
	resources, err := flux.SecureBuild(dir, path, false)
	if err != nil {
		return nil, err
	}
	for _, res := range resources.Resources() {
		if res.GetName() == "" || res.GetKind() == "" || res.GetApiVersion() == "" {
			return nil, fmt.Errorf("no identity")
		}
		if spec.Substitute == nil {
			continue
		}
		changed, err := flux.SubstituteVariables(ctx, nil, object, res, flux.SubstituteWithDryRun(true),
			flux.SubstituteWithStrict(spec.Substitute.Strict), flux.SubstituteWithAlways(spec.Substitute.Always))
		if err != nil {
			return nil, err
		}
		if changed != nil {
			if _, err := resources.Replace(res); err != nil {
				return nil, err
			}
		}
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, err
	}
	return fluxObjects(text, spec)
}

// fluxObjects reads a build's YAML and marks each object as the controller does.
func fluxObjects(text []byte, spec build.Spec) (map[string]string, error) {
	found := map[string]string{}
	for _, doc := range strings.Split("\n"+string(text), "\n---\n") {
		asJSON, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return nil, err
		}
		var value map[string]any
		if err := utiljson.Unmarshal(asJSON, &value); err != nil {
			return nil, err
		}
		if len(value) == 0 {
			continue
		}
		u := &unstructured.Unstructured{Object: value}
		if u.GroupVersionKind().Group == "kustomize.config.k8s.io" {
			continue
		}
		labels := u.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, spec.CommonLabels)
		labels[keys.OwnerNameLabel], labels[keys.OwnerNamespaceLabel] = spec.Owner.Name, spec.Owner.Namespace
		u.SetLabels(labels)
		annotations := u.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		maps.Copy(annotations, spec.CommonAnnotations)
		if len(annotations) > 0 {
			u.SetAnnotations(annotations)
		}
		printed, err := json.Marshal(u.Object)
		if err != nil {
			return nil, err
		}
		gvk := u.GroupVersionKind()
		ref := gitops.ObjectRef{Group: gvk.Group, Kind: gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}
		found[ref.ID()] = string(printed)
	}
	return found, nil
}

// fluxObject is the custom resource that says what spec says.
func fluxObject(spec build.Spec) unstructured.Unstructured {
	fields := map[string]any{}
	set := func(name, value string) {
		if value != "" {
			fields[name] = value
		}
	}
	set("targetNamespace", spec.TargetNamespace)
	set("namePrefix", spec.NamePrefix)
	set("nameSuffix", spec.NameSuffix)
	var patches, images, components []any
	for _, p := range spec.Patches {
		patch := map[string]any{"patch": p.Patch}
		if p.Target != nil {
			patch["target"] = map[string]any{"group": p.Target.Group, "version": p.Target.Version, "kind": p.Target.Kind, "name": p.Target.Name,
				"namespace": p.Target.Namespace, "labelSelector": p.Target.LabelSelector, "annotationSelector": p.Target.AnnotationSelector}
		}
		patches = append(patches, patch)
	}
	for _, i := range spec.Images {
		images = append(images, map[string]any{"name": i.Name, "newName": i.NewName, "newTag": i.NewTag, "digest": i.Digest})
	}
	for _, c := range spec.Components {
		components = append(components, c)
	}
	for name, list := range map[string][]any{"patches": patches, "images": images, "components": components} {
		if len(list) > 0 {
			fields[name] = list
		}
	}
	if spec.IgnoreMissingComponents {
		fields["ignoreMissingComponents"] = true
	}
	if len(spec.Metadata) > 0 {
		var metadata []any
		for _, option := range spec.Metadata {
			metadata = append(metadata, option)
		}
		fields["buildMetadata"] = metadata
	}
	if spec.Substitute != nil {
		variables := map[string]any{}
		for k, v := range spec.Substitute.Variables {
			variables[k] = v
		}
		fields["postBuild"] = map[string]any{"substitute": variables}
	}
	return unstructured.Unstructured{Object: map[string]any{"spec": fields}}
}

// printed are the objects of a build by id.
func printed(b *gitops.Build) map[string]string {
	found := map[string]string{}
	for _, m := range b.Manifests {
		found[m.Ref.ID()] = string(m.JSON)
	}
	return found
}

// dataFolder finds the published configuration of real projects.
func dataFolder(t testing.TB, name string) string {
	t.Helper()
	data := os.Getenv("PLUMB_DATA")
	if data == "" {
		data = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	dir := filepath.Join(data, name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no data of real projects at %s: set PLUMB_DATA", dir)
	}
	return dir
}

// readFolder reads a folder on disk into a map of files.
func readFolder(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		files[filepath.ToSlash(relative)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
