package conformance

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// withoutScript are the fields that no script uses, and why.
var withoutScript = map[string]string{
	"spec.decryption.serviceAccountName": "it needs a cloud: test/operator has it",
}

// TestEveryField fails for a field of a Kustomization's spec that no script uses.
func TestEveryField(t *testing.T) {
	t.Parallel()
	known := fieldsOf(specSchema(t), "spec")
	used := map[string]bool{}
	for name, archive := range scripts(t) {
		for _, o := range documents(t, archive, "kustomization.yaml") {
			for _, path := range pathsIn(o["spec"], "spec") {
				used[path] = true
				if !slices.ContainsFunc(known, func(field string) bool { return below(path, field) || below(field, path) }) {
					t.Errorf("%s: there is no field %s", name, path)
				}
			}
		}
	}
	for _, field := range known {
		switch {
		case !used[field] && withoutScript[field] == "":
			t.Errorf("no script uses %s", field)
		case used[field] && withoutScript[field] != "":
			t.Errorf("%s is in a script, and needs no exception", field)
		}
	}
	for field := range withoutScript {
		if !slices.Contains(known, field) {
			t.Errorf("the exception %s is no field of the schema", field)
		}
	}
}

// specSchema is the schema of a Kustomization's spec.
func specSchema(t *testing.T) map[string]any {
	t.Helper()
	all, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Kind.Kind != "Kustomization" {
			continue
		}
		versions, _, _ := unstructured.NestedSlice(d.Object.Object, "spec", "versions")
		schema, found, err := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec")
		if err != nil || !found {
			t.Fatalf("no schema of the spec: %v", err)
		}
		return schema
	}
	t.Fatal("no definition of Kustomizations")
	return nil
}

// fieldsOf are the paths of the fields of a schema that have no fields themselves, in
// order. Items of a list have the path of the list. A target, of which all members say
// alike what is selected, is one field.
func fieldsOf(schema map[string]any, path string) []string {
	if items, ok := schema["items"].(map[string]any); ok {
		return fieldsOf(items, path)
	}
	properties, _ := schema["properties"].(map[string]any)
	if len(properties) == 0 || strings.HasSuffix(path, ".target") {
		return []string{path}
	}
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		fields = append(fields, fieldsOf(properties[name].(map[string]any), path+"."+name)...)
	}
	return fields
}

// pathsIn are the paths of everything that is set in a value, in the form of fieldsOf.
func pathsIn(value any, path string) []string {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		paths := []string{path}
		for _, item := range v {
			paths = append(paths, pathsIn(item, path)...)
		}
		return paths
	case map[string]any:
		paths := []string{path}
		for name, below := range v {
			paths = append(paths, pathsIn(below, path+"."+name)...)
		}
		return paths
	}
	return []string{path}
}

// below tells whether a path is another one or leads below it.
func below(path, other string) bool { return path == other || strings.HasPrefix(path, other+".") }

// annotations are those that have to be in scripts, with values. Any value will do where
// none is named. A name that ends in a slash is the beginning of names.
func annotations() map[string][]string {
	keys := flux.Keys()
	return map[string][]string{
		keys.Apply:                      {string(gitops.ApplyMerge), string(gitops.ApplyIfNotPresent), string(gitops.ApplyIgnore)},
		keys.Force:                      {"enabled"},
		keys.Prune:                      {"disabled"},
		keys.Reconcile:                  {"disabled"},
		keys.DeletionGuard:              {"disabled"},
		keys.Substitute:                 {"disabled"},
		keys.Decrypt:                    {"disabled"},
		meta.ReconcileRequestAnnotation: nil,
		flux.ApproveAnnotation:          nil,
		"plumb.dev/orphan":              {"true"},
		"plumb.dev/failure-isolation":   {"enabled"},
		"event.toolkit.fluxcd.io/":      nil,
	}
}

// TestEveryAnnotation fails for an annotation of an object or of a Kustomization that no
// script uses.
func TestEveryAnnotation(t *testing.T) {
	t.Parallel()
	asked, keys := annotations(), flux.Keys()
	fields := reflect.ValueOf(keys)
	for i := range fields.NumField() {
		name, isText := fields.Field(i).Interface().(string)
		owner := name == keys.OwnerNameLabel || name == keys.OwnerNamespaceLabel
		if _, known := asked[name]; isText && strings.Contains(name, "/") && !owner && !known {
			t.Errorf("no script is asked for with %s", name)
		}
	}
	used := map[string]map[string]bool{}
	for _, archive := range scripts(t) {
		for _, o := range documents(t, archive, "kustomization.yaml", "objects.yaml", "repo/") {
			for _, where := range []string{"annotations", "labels"} {
				found, _, _ := unstructured.NestedStringMap(o, "metadata", where)
				for name, value := range found {
					if at := strings.Index(name, "/") + 1; asked[name] == nil && hasKey(asked, name[:at]) {
						name = name[:at]
					}
					if used[name] == nil {
						used[name] = map[string]bool{}
					}
					used[name][value] = true
				}
			}
		}
	}
	for name, values := range asked {
		if len(used[name]) == 0 {
			t.Errorf("no script uses %s", name)
		}
		for _, value := range values {
			if !used[name][value] {
				t.Errorf("no script has %s: %s", name, value)
			}
		}
	}
}

func hasKey[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}

// scripts are all scripts by name.
func scripts(t *testing.T) map[string]*txtar.Archive {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	all := map[string]*txtar.Archive{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".txtar")] = archive
	}
	return all
}

// documents are those in files of a script's steps, given by the beginnings of their
// names.
func documents(t *testing.T, archive *txtar.Archive, names ...string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, f := range archive.Files {
		_, name, _ := strings.Cut(f.Name, "/")
		if !strings.HasSuffix(name, ".yaml") || !slices.ContainsFunc(names, func(begin string) bool { return strings.HasPrefix(name, begin) }) {
			continue
		}
		for _, document := range separator.Split(string(f.Data), -1) {
			var o map[string]any
			if err := yaml.Unmarshal([]byte(document), &o); err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			out = append(out, o)
		}
	}
	return out
}
