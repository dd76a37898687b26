package install

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/plumb-gitops/plumb/internal/install"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// The folder install/ is for those who use kustomize; it holds what plumb install
// applies, no more and no less.
func TestKustomizeBuildsWhatInstallExports(t *testing.T) {
	c := testenv.Get(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for folder, profile := range map[string]install.Profile{"install": install.Single, "install/tenants": install.Tenants} {
		t.Run(folder, func(t *testing.T) {
			objects, err := install.Objects(install.Options{
				Namespace: "flux-system", Profile: profile, Version: "unreleased", Image: "ghcr.io/plumb-gitops/plumb:unreleased",
			})
			if err != nil {
				t.Fatal(err)
			}
			var exported bytes.Buffer
			if err := install.Write(&exported, objects); err != nil {
				t.Fatal(err)
			}
			built := c.Kubectl(t, "kustomize", filepath.Join(root, folder))
			if diff := cmp.Diff(byName(t, []byte(built)), byName(t, exported.Bytes())); diff != "" {
				t.Errorf("plumb install exports something else (-kustomize +export):\n%s", diff)
			}
		})
	}
}

func byName(t *testing.T, documents []byte) map[string]any {
	t.Helper()
	objects := map[string]any{}
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(documents), 4096); decoder != nil; {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			break // the end
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		objects[object.GetKind()+"/"+object.GetNamespace()+"/"+object.GetName()] = object.Object
	}
	if len(objects) < 20 {
		t.Fatalf("only %d objects", len(objects))
	}
	return objects
}
