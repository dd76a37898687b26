package helmrepo_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestChartVersions(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	for _, version := range []string{"1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1", "0.9", "v3.0.0-alpha", "1.5.0+a", "1.5.0+b"} {
		server.Put(t, "app", version, testenv.HelmChart(t, "app", version, nil))
	}
	s := openStore(t, helmrepo.Options{})
	for name, test := range map[string]struct{ version, want, refused string }{
		"the newest stable one":            {version: "", want: "1.10.0"},
		"a star":                           {version: "*", want: "1.10.0"},
		"a range":                          {version: "~1.2", want: "1.2.0"},
		"of equal ones the one made last":  {version: "1.5.x", want: "1.5.0+b"},
		"a name":                           {version: "1.5.0+a", want: "1.5.0+a"},
		"a name with too few numbers":      {version: "0.9", want: "0.9"},
		"pre-releases where they are said": {version: ">= 1.0.0-0", want: "v3.0.0-alpha"},
		"none":                             {version: ">= 4", refused: `no version of chart "app" in the range ">= 4"`},
		"no range":                         {version: "newest", refused: `version "newest"`},
		"a range without end":              {version: strings.Repeat("1.x || ", 100) + "1.x", refused: "more than 512 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app", Version: test.version}
			if test.refused != "" {
				if e := refuseChart(t, s, request); e.Reason != helmrepo.ReasonReference || !strings.Contains(e.Error(), test.refused) {
					t.Errorf("got %s: %s", e.Reason, e)
				}
				return
			}
			chart := getChart(t, s, request, "")
			if chart.Version != test.want || chart.Revision != test.want || chart.Packaged {
				t.Errorf("got %q, revision %q, packaged %v", chart.Version, chart.Revision, chart.Packaged)
			}
		})
	}
}

// TestChartIsServedAsItCame: without values files a chart is not changed by a byte.
func TestChartIsServedAsItCame(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	packed := testenv.HelmChart(t, "app", "1.0.0", map[string]string{"values.yaml": "a: 1", "templates/x.yaml": "x"})
	server.Put(t, "app", "1.0.0", packed)
	s := openStore(t, helmrepo.Options{})
	for _, files := range [][]string{nil, {"values.yaml"}, {"./values.yaml"}} {
		chart := getChart(t, s, helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app", ValuesFiles: files, Generation: 3}, "")
		if got := readAll(t, chart.Packed); !bytes.Equal(got, packed) || chart.Version != "1.0.0" || chart.Size != int64(len(packed)) {
			t.Errorf("%v: %d bytes instead of %d, version %q", files, len(got), len(packed), chart.Version)
		}
		sourcetest.CheckTree(t, chart.Files, map[string]string{
			"app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n", "app/values.yaml": "a: 1", "app/templates/x.yaml": "x",
		})
	}
	if n := server.Requests("app-1.0.0.tgz"); n != 1 {
		t.Errorf("the chart was got %d times", n)
	}
}

// TestChartValuesFiles: files of the chart are merged in order into its values.
func TestChartValuesFiles(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", map[string]string{
		"values.yaml": "a: {b: 1, c: 1}\nd: 1\n", "prod.yaml": "a: {c: 2}\n", "env/eu.yaml": "a: 3\ne: 12345678\n", "bad.yaml": "a: [",
		"templates/x.yaml": "x", "README.md": "r",
	}))
	for name, test := range map[string]struct {
		files   []string
		ignore  bool
		want    string
		merged  []string
		refused string
	}{
		"in order":                {files: []string{"values.yaml", "prod.yaml"}, want: "a:\n  b: 1\n  c: 2\nd: 1\n", merged: []string{"values.yaml", "prod.yaml"}},
		"later ones win":          {files: []string{"prod.yaml", "./env/../env/eu.yaml"}, want: "a: 3\ne: 12345678\n", merged: []string{"prod.yaml", "./env/../env/eu.yaml"}},
		"missing ones left out":   {files: []string{"none.yaml", "prod.yaml"}, ignore: true, want: "a:\n  c: 2\n", merged: []string{"prod.yaml"}},
		"all missing":             {files: []string{"none.yaml"}, ignore: true, want: "", merged: []string{}},
		"missing":                 {files: []string{"none.yaml"}, refused: `there is no values file "none.yaml"`},
		"no YAML":                 {files: []string{"bad.yaml"}, refused: `values file "bad.yaml"`},
		"outside":                 {files: []string{"../values.yaml"}, refused: "is not the path of a file inside"},
		"outside after all":       {files: []string{"a/../../values.yaml"}, ignore: true, refused: "is not the path of a file inside"},
		"a URL":                   {files: []string{"file:///etc/passwd"}, ignore: true, refused: "is not the path of a file inside"},
		"a name like a URL":       {files: []string{"http:../values.yaml"}, refused: "there is no values file"},
		"a template is no values": {files: []string{"templates/x.yaml"}, refused: "there is no values file"},
		"windows":                 {files: []string{`..\values.yaml`}, refused: "is not the path of a file inside"},
		"many":                    {files: strings.Split(strings.Repeat("values.yaml ", 101), " ")[:101], refused: "more than 100 values files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, helmrepo.Options{})
			request := helmrepo.ChartRequest{
				Repository: helmrepo.Repository{URL: server.URL()}, Name: "app", ValuesFiles: test.files, IgnoreMissingValuesFiles: test.ignore, Generation: 7,
			}
			if test.refused != "" {
				if e := refuseChart(t, s, request); e.Reason != helmrepo.ReasonValues || !strings.Contains(e.Error(), test.refused) {
					t.Errorf("got %s: %s", e.Reason, e)
				}
				return
			}
			chart := getChart(t, s, request, "")
			files := sourcetest.Contents(t, chart.Files)
			if files["app/values.yaml"] != test.want || files["app/README.md"] != "r" || files["app/templates/x.yaml"] != "x" {
				t.Errorf("got %q", files)
			}
			if diff := cmp.Diff(test.merged, chart.ValuesFiles); diff != "" || chart.Version != "1.0.0+7" || !chart.Packaged {
				t.Errorf("version %q, packaged %v, values files (-want +got):\n%s", chart.Version, chart.Packaged, diff)
			}
			again := getChart(t, openStore(t, helmrepo.Options{}), request, "")
			if again.Digest != chart.Digest {
				t.Error("the same chart makes other bytes")
			}
			if known := getChart(t, s, request, chart.Version); !known.Unchanged || known.Digest != chart.Digest {
				t.Errorf("unchanged %v", known.Unchanged)
			}
			request.Generation = 8
			if next := getChart(t, s, request, chart.Version); next.Unchanged || next.Version != "1.0.0+8" {
				t.Errorf("unchanged %v, version %q", next.Unchanged, next.Version)
			}
		})
	}
}

// TestChartNames: names that are none are refused before anybody is asked.
func TestChartNames(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	for _, name := range []string{"", ".", "..", "a/../b", "/a", "a/", "A", "a b", "a_b", "a//b", "a\x00", `a\b`, strings.Repeat("a", 300)} {
		e := refuseChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: name})
		if e.Kind != gitops.Stalled || e.Reason != helmrepo.ReasonReference {
			t.Errorf("%q: got %s, %s: %s", name, e.Kind, e.Reason, e)
		}
	}
	e := refuseChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "none"})
	if e.Kind != gitops.Invalid || !strings.Contains(e.Error(), `has no chart "none"`) {
		t.Errorf("got %s: %s", e.Kind, e)
	}
	if n := server.Requests("index.yaml"); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestChartOfTheLastIndex: with Cached the index is asked for only where there is none.
func TestChartOfTheLastIndex(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	s := openStore(t, helmrepo.Options{})
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app", Cached: true}
	for range 2 {
		getChart(t, s, request, "")
	}
	server.Put(t, "app", "2.0.0", testenv.HelmChart(t, "app", "2.0.0", nil))
	if chart := getChart(t, s, request, ""); chart.Version != "1.0.0" || server.Requests("index.yaml") != 1 {
		t.Errorf("version %q after %d requests", chart.Version, server.Requests("index.yaml"))
	}
	getIndex(t, s, request.Repository, "")
	if chart := getChart(t, s, request, "1.0.0"); chart.Version != "2.0.0" || chart.Unchanged || server.Requests("index.yaml") != 2 {
		t.Errorf("version %q after %d requests", chart.Version, server.Requests("index.yaml"))
	}
}

// TestChartReplaced: as in Flux, a version that is known is not got again when the
// repository replaces it, but for whoever knows none.
func TestChartReplaced(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": "1"}))
	s := openStore(t, helmrepo.Options{})
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
	first := getChart(t, s, request, "")
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": "2"}))
	if known := getChart(t, s, request, "1.0.0"); !known.Unchanged || known.Digest != first.Digest {
		t.Errorf("unchanged %v", known.Unchanged)
	}
	fresh := getChart(t, s, request, "")
	if files := sourcetest.Contents(t, fresh.Files); files["app/x"] != "2" {
		t.Errorf("got %q", files)
	}
	if files := sourcetest.Contents(t, first.Files); files["app/x"] != "1" || len(readAll(t, first.Packed)) != int(first.Size) {
		t.Errorf("the first chart has %q", files)
	}
}

// TestChartCanBeStored: what is served is put into the artifact store as it is.
func TestChartCanBeStored(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	chart := getChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}, "")
	store, err := artifact.Open(t.TempDir(), artifact.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	stored, err := store.Put(t.Context(), gitops.Artifact{
		Source: gitops.OwnerRef{Kind: "HelmChart", Namespace: "x", Name: "y"}, Revision: chart.Revision,
	}, "app-1.0.0.tgz", chart.Packed)
	if err != nil || stored.Digest != chart.Digest || stored.Size != chart.Size {
		t.Errorf("got %+v, %v", stored, err)
	}
}
