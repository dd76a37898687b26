package helmrepo_test

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// TestPackageAsHelmLoads: a chart of a real project is packaged to what Helm itself loads
// from the folder.
func TestPackageAsHelmLoads(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(cmp.Or(os.Getenv("PLUMB_DATA"), filepath.Join("..", "..", "..", "..", "shared", "data")), "podinfo")
	want, err := loader.Load(filepath.Join(folder, "charts", "podinfo"))
	if err != nil {
		t.Skipf("no data of real projects at %s: set PLUMB_DATA", folder)
	}
	tree, err := artifact.ReadFolder(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	packed, err := openStore(t, helmrepo.Options{}).Package(t.Context(), tree, helmrepo.PackageRequest{Source: "x", Path: "charts/podinfo"}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(packed.Release)
	got, err := loader.LoadArchive(bytes.NewReader(readAll(t, packed.Packed)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(contentOf(want), contentOf(got)); diff != "" {
		t.Errorf("the chart (-want +got):\n%s", diff)
	}
	if len(want.Templates) == 0 {
		t.Error("the chart has no templates, so that nothing was proven")
	}
}

// contentOf is what a chart holds, without times.
func contentOf(c *chart.Chart) map[string]any {
	content := map[string]any{"metadata": c.Metadata, "values": c.Values, "schema": string(c.Schema)}
	for _, files := range [][]*common.File{c.Templates, c.Files} {
		for _, f := range files {
			content[f.Name] = string(f.Data)
		}
	}
	return content
}
