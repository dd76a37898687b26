package crds_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// row is what clients rely on besides the schema.
type row struct {
	Version, Short, Category, Columns, Component string
	NoDefaultStatus                              bool
	NoStatus                                     bool
}

func TestDefinitionsAreThoseOfFlux(t *testing.T) {
	t.Parallel()
	want := map[string]row{
		"Bucket.source.toolkit.fluxcd.io":               {Version: "v1", Category: "fluxcd-sources", Columns: "Endpoint,Age,Ready,Status", Component: "source-controller"},
		"ExternalArtifact.source.toolkit.fluxcd.io":     {Version: "v1", Short: "ea", Category: "fluxcd-sources", Columns: "Age,Ready,Status,Source", Component: "source-controller", NoDefaultStatus: true},
		"GitRepository.source.toolkit.fluxcd.io":        {Version: "v1", Short: "gitrepo", Category: "fluxcd-sources", Columns: "URL,Age,Ready,Status", Component: "source-controller"},
		"HelmChart.source.toolkit.fluxcd.io":            {Version: "v1", Short: "hc", Category: "fluxcd-sources", Columns: "Chart,Version,Source Kind,Source Name,Age,Ready,Status", Component: "source-controller"},
		"HelmRepository.source.toolkit.fluxcd.io":       {Version: "v1", Short: "helmrepo", Category: "fluxcd-sources", Columns: "URL,Age,Ready,Status", Component: "source-controller"},
		"OCIRepository.source.toolkit.fluxcd.io":        {Version: "v1", Short: "ocirepo", Category: "fluxcd-sources", Columns: "URL,Ready,Status,Age", Component: "source-controller"},
		"ArtifactGenerator.source.extensions.fluxcd.io": {Version: "v1beta1", Short: "ag", Category: "fluxcd-sources", Columns: "Age,Ready,Status", Component: "source-watcher", NoDefaultStatus: true},
		"Kustomization.kustomize.toolkit.fluxcd.io":     {Version: "v1", Short: "ks", Category: "fluxcd-appliers", Columns: "Age,Ready,Status", Component: "kustomize-controller"},
		"HelmRelease.helm.toolkit.fluxcd.io":            {Version: "v2", Short: "hr", Category: "fluxcd-appliers", Columns: "Age,Ready,Status", Component: "helm-controller"},
		"Alert.notification.toolkit.fluxcd.io":          {Version: "v1beta3", Category: "fluxcd-notifications", Columns: "Age", Component: "notification-controller", NoDefaultStatus: true, NoStatus: true},
		"Provider.notification.toolkit.fluxcd.io":       {Version: "v1beta3", Category: "fluxcd-notifications", Columns: "Age", Component: "notification-controller", NoDefaultStatus: true, NoStatus: true},
		"Receiver.notification.toolkit.fluxcd.io":       {Version: "v1", Category: "fluxcd-notifications", Columns: "Age,Ready,Status", Component: "notification-controller"},
		"ImagePolicy.image.toolkit.fluxcd.io":           {Version: "v1", Short: "imgpol,imagepol", Category: "fluxcd-images", Columns: "Image,Tag,Ready,Status,Age", Component: "image-reflector-controller"},
		"ImageRepository.image.toolkit.fluxcd.io":       {Version: "v1", Short: "imgrepo,imagerepo", Category: "fluxcd-images", Columns: "Image,Tags,Ready,Status,Last scan,Age", Component: "image-reflector-controller"},
		"ImageUpdateAutomation.image.toolkit.fluxcd.io": {Version: "v1", Short: "iua,imgupd,imgauto", Category: "fluxcd-images", Columns: "Ready,Status,Last run,Age", Component: "image-automation-controller"},
	}
	all, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]row{}
	for _, d := range all {
		got[d.Kind.Kind+"."+d.Kind.Group] = describe(t, d)
		labels := d.Object.GetLabels()
		if labels["app.kubernetes.io/part-of"] != "flux" || labels["app.kubernetes.io/version"] != crds.FluxVersion || labels["app.kubernetes.io/instance"] == "" {
			t.Errorf("%s: labels %v do not let the flux command line find it", d.Name(), labels)
		}
		if got := d.Object.GetAnnotations()["kustomize.toolkit.fluxcd.io/substitute"]; got != "disabled" {
			t.Errorf("%s: annotation substitute is %q: its ${…} in descriptions would be substituted", d.Name(), got)
		}
		if d.Object.GetName() != d.Name() {
			t.Errorf("name is %q, want %q", d.Object.GetName(), d.Name())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("definitions differ (-want +got):\n%s", diff)
	}
}

func describe(t *testing.T, d crds.Definition) row {
	t.Helper()
	var spec struct {
		Spec struct {
			Names struct {
				Categories, ShortNames []string
			}
			Versions []struct {
				AdditionalPrinterColumns []struct{ Name string }
				Served, Storage          bool
				Subresources             struct{ Status *struct{} }
				Schema                   struct {
					OpenAPIV3Schema struct {
						Properties struct {
							Status struct {
								Default struct{ ObservedGeneration int }
							}
						}
					}
				}
			}
		}
	}
	data, err := d.Object.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &spec); err != nil {
		t.Fatal(err)
	}
	v := spec.Spec.Versions[0]
	if !v.Served || !v.Storage {
		t.Errorf("%s: its only version is not both served and stored", d.Name())
	}
	categories := spec.Spec.Names.Categories
	if len(categories) != 3 || categories[0] != "all" || categories[1] != "fluxcd" {
		t.Errorf("%s: categories %q, want all, fluxcd and one more", d.Name(), categories)
		return row{}
	}
	columns := make([]string, 0, len(v.AdditionalPrinterColumns))
	for _, c := range v.AdditionalPrinterColumns {
		columns = append(columns, c.Name)
	}
	return row{
		Version:         d.Kind.Version,
		Short:           strings.Join(spec.Spec.Names.ShortNames, ","),
		Category:        categories[2],
		Columns:         strings.Join(columns, ","),
		Component:       d.Object.GetLabels()["app.kubernetes.io/component"],
		NoDefaultStatus: v.Schema.OpenAPIV3Schema.Properties.Status.Default.ObservedGeneration != -1,
		NoStatus:        v.Subresources.Status == nil,
	}
}

func TestServedKinds(t *testing.T) {
	t.Parallel()
	served, err := crds.Served()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range served {
		got = append(got, d.Resource().String())
	}
	want := []string{
		"kustomize.toolkit.fluxcd.io/v1, Resource=kustomizations",
		"source.extensions.fluxcd.io/v1beta1, Resource=artifactgenerators",
		"source.toolkit.fluxcd.io/v1, Resource=buckets",
		"source.toolkit.fluxcd.io/v1, Resource=externalartifacts",
		"source.toolkit.fluxcd.io/v1, Resource=gitrepositories",
		"source.toolkit.fluxcd.io/v1, Resource=helmcharts",
		"source.toolkit.fluxcd.io/v1, Resource=helmrepositories",
		"source.toolkit.fluxcd.io/v1, Resource=ocirepositories",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("served kinds differ (-want +got):\n%s", diff)
	}
}

func TestWrittenYAMLReadsBack(t *testing.T) {
	t.Parallel()
	all, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := crds.WriteYAML(&out, all); err != nil {
		t.Fatal(err)
	}
	documents := strings.Split(out.String(), "---\n")[1:]
	if len(documents) != len(all) {
		t.Fatalf("%d documents, want %d", len(documents), len(all))
	}
	for i, document := range documents {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all[i].Object, &unstructured.Unstructured{Object: object}); diff != "" {
			t.Errorf("%s differs after writing (-want +got):\n%s", all[i].Name(), diff)
		}
	}
}

// TestGeneratedFilesAreUpToDate runs the generator that "make generate" runs and
// compares. It needs the go command and the modules of tools/go.mod.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	command := exec.Command(filepath.Join(root, "tools", "crds.sh"), out)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, output)
	}
	want, got := read(t, out), read(t, "yaml")
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is out of date: run make generate", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not generated any more: run make generate", name)
		}
	}
}

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		contents[e.Name()] = string(data)
	}
	return contents
}
