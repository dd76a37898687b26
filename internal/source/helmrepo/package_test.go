package helmrepo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

const (
	appChart = "apiVersion: v2\nname: app\nversion: 1.2.3\n"
	revision = "main@sha1:0123456789abcdef0123456789abcdef01234567"
)

// packageOf packages the chart of a source.
func packageOf(t testing.TB, s *helmrepo.Store, files map[string]string, request helmrepo.PackageRequest, known string) (helmrepo.Chart, error) {
	t.Helper()
	if request.Source == "" {
		request.Source = "GitRepository/apps/app"
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chart, err := s.Package(ctx, sourcetest.Memory(files), request, known)
	if err == nil {
		t.Cleanup(chart.Release)
	}
	return chart, err
}

// loaded is what Helm makes of a packed chart: the names of the charts inside.
func loaded(t testing.TB, chart helmrepo.Chart) []string {
	t.Helper()
	c, err := loader.LoadArchive(bytes.NewReader(readAll(t, chart.Packed)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name() != chart.Name || c.Metadata.Version != chart.Version {
		t.Errorf("Helm loads %q with version %q, not %q with %q", c.Name(), c.Metadata.Version, chart.Name, chart.Version)
	}
	var names []string
	for _, d := range c.Dependencies() {
		names = append(names, d.Name()+"@"+d.Metadata.Version)
	}
	slices.Sort(names)
	return names
}

func TestPackage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files   map[string]string
		request helmrepo.PackageRequest
		want    map[string]string
		version string
		merged  []string
	}{
		"a folder": {
			files:   map[string]string{"charts/app/Chart.yaml": appChart, "charts/app/values.yaml": "a: 1 # one\n", "charts/app/templates/x.yaml": "x", "other": "y"},
			request: helmrepo.PackageRequest{Path: "./charts/app/"}, version: "1.2.3",
			want: map[string]string{"app/Chart.yaml": appChart, "app/values.yaml": "a: 1 # one\n", "app/templates/x.yaml": "x"},
		},
		"the root": {
			files:   map[string]string{"Chart.yaml": appChart, "README.md": "r", "values.schema.json": "{}"},
			request: helmrepo.PackageRequest{Path: "."}, version: "1.2.3",
			want: map[string]string{"app/Chart.yaml": appChart, "app/README.md": "r", "app/values.schema.json": "{}"},
		},
		"a packed chart as it is": {
			files:   map[string]string{"app.tgz": string(testenv.HelmChart(t, "app", "1.2.3", map[string]string{"x": "y"}))},
			request: helmrepo.PackageRequest{Path: "app.tgz"}, version: "1.2.3",
			want: map[string]string{"app/Chart.yaml": appChart, "app/x": "y"},
		},
		"what .helmignore names stays out": {
			files: map[string]string{
				"c/Chart.yaml": appChart, "c/.helmignore": "# comment\n*.md\n/secret/\n", "c/a.md": "a", "c/sub/b.md": "b", "c/secret/x": "x",
				"c/sub/secret/y": "y", "c/templates/.hidden": "h", ".helmignore": "*", "c/templates/t.yaml": "t",
			},
			request: helmrepo.PackageRequest{Path: "c"}, version: "1.2.3",
			want: map[string]string{"app/Chart.yaml": appChart, "app/.helmignore": "# comment\n*.md\n/secret/\n", "app/sub/secret/y": "y", "app/templates/t.yaml": "t"},
		},
		"values files are of the source": {
			files:   map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: 1\nb: 1\n", "env/eu.yaml": "b: 2\n"},
			request: helmrepo.PackageRequest{Path: "c", ValuesFiles: []string{"c/values.yaml", "/env/eu.yaml"}, Generation: 5}, version: "1.2.3+5",
			want:   map[string]string{"app/Chart.yaml": strings.Replace(appChart, "1.2.3", "1.2.3+5", 1), "app/values.yaml": "a: 1\nb: 2\n"},
			merged: []string{"c/values.yaml", "/env/eu.yaml"},
		},
		"values of a chart without any": {
			files:   map[string]string{"c/Chart.yaml": appChart, "eu.yaml": "b: 2\n"},
			request: helmrepo.PackageRequest{Path: "c", ValuesFiles: []string{"eu.yaml", "none"}, IgnoreMissingValuesFiles: true}, version: "1.2.3+0",
			want:   map[string]string{"app/Chart.yaml": strings.Replace(appChart, "1.2.3", "1.2.3+0", 1), "app/values.yaml": "b: 2\n"},
			merged: []string{"eu.yaml"},
		},
		"only values.yaml changes nothing": {
			files:   map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: 1 # one\n"},
			request: helmrepo.PackageRequest{Path: "c", ValuesFiles: []string{"values.yaml"}}, version: "1.2.3",
			want: map[string]string{"app/Chart.yaml": appChart, "app/values.yaml": "a: 1 # one\n"},
		},
		"each revision": {
			files:   map[string]string{"c/Chart.yaml": appChart},
			request: helmrepo.PackageRequest{Path: "c", Strategy: helmrepo.EachRevision, Revision: revision}, version: "1.2.3+0123456789ab",
			want: map[string]string{"app/Chart.yaml": strings.Replace(appChart, "1.2.3", "1.2.3+0123456789ab", 1)},
		},
		"each revision of a bucket, with values": {
			files:   map[string]string{"c/Chart.yaml": strings.Replace(appChart, "1.2.3", "v1.2.3+old", 1), "c/values.yaml": "a: 1\n", "x.yaml": "{}"},
			request: helmrepo.PackageRequest{Path: "c", Strategy: helmrepo.EachRevision, Revision: "sha256:" + strings.Repeat("ab", 32), ValuesFiles: []string{"x.yaml"}, Generation: 9}, version: "1.2.3+abababababab.9",
			want:   map[string]string{"app/Chart.yaml": strings.Replace(appChart, "1.2.3", "1.2.3+abababababab.9", 1), "app/values.yaml": ""},
			merged: []string{"x.yaml"},
		},
		"a packed chart with values": {
			files:   map[string]string{"app.tgz": string(testenv.HelmChart(t, "app", "1.2.3", map[string]string{"values.yaml": "a: 1\n"})), "x.yaml": "a: 2\n"},
			request: helmrepo.PackageRequest{Path: "app.tgz", ValuesFiles: []string{"x.yaml"}, Generation: 1}, version: "1.2.3+1",
			want:   map[string]string{"app/Chart.yaml": strings.Replace(appChart, "1.2.3", "1.2.3+1", 1), "app/values.yaml": "a: 2\n"},
			merged: []string{"x.yaml"},
		},
		"a chart of the first version": {
			files:   map[string]string{"c/Chart.yaml": "name: app\nversion: 1.2.3\n", "c/requirements.yaml": "dependencies: []\n"},
			request: helmrepo.PackageRequest{Path: "c"}, version: "1.2.3",
			want: map[string]string{"app/Chart.yaml": strings.Replace(appChart, "v2", "v1", 1), "app/requirements.yaml": "dependencies: []\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, helmrepo.Options{})
			chart, err := packageOf(t, s, test.files, test.request, "")
			if err != nil {
				t.Fatal(err)
			}
			sourcetest.CheckTree(t, chart.Files, test.want)
			if chart.Version != test.version || chart.Revision != test.version || chart.Name != "app" {
				t.Errorf("got %q with version %q, revision %q", chart.Name, chart.Version, chart.Revision)
			}
			if diff := cmp.Diff(test.merged, chart.ValuesFiles); diff != "" {
				t.Errorf("values files (-want +got):\n%s", diff)
			}
			loaded(t, chart)
			other, err := packageOf(t, openStore(t, helmrepo.Options{}), test.files, test.request, "")
			if err != nil || other.Digest != chart.Digest {
				t.Errorf("the same source makes other bytes: %v", err)
			}
			known, err := packageOf(t, s, test.files, test.request, chart.Version)
			if err != nil || !known.Unchanged || known.Digest != chart.Digest || !cmp.Equal(known.ValuesFiles, chart.ValuesFiles) {
				t.Errorf("unchanged %v: %v", known.Unchanged, err)
			}
		})
	}
}

// TestPackageByVersion: as in Flux, a chart of a version that is known is not packaged
// again; each revision is, where that is asked for; and so is one that nobody knows.
func TestPackageByVersion(t *testing.T) {
	t.Parallel()
	s := openStore(t, helmrepo.Options{})
	one := map[string]string{"c/Chart.yaml": appChart, "c/x": "1"}
	two := map[string]string{"c/Chart.yaml": appChart, "c/x": "2"}
	for name, test := range map[string]struct {
		strategy helmrepo.Strategy
		known    bool
		version  string
		want     string
	}{
		"the version is known":   {helmrepo.ChartVersion, true, "1.2.3", "1"},
		"nobody knows a version": {helmrepo.ChartVersion, false, "1.2.3", "2"},
		"each revision":          {helmrepo.EachRevision, true, "1.2.3+bbbbbbbbbbbb", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.PackageRequest{Source: name, Path: "c", Strategy: test.strategy, Revision: "main@sha1:" + strings.Repeat("a", 40)}
			first, err := packageOf(t, s, one, request, "")
			if err != nil {
				t.Fatal(err)
			}
			known := ""
			if test.known {
				known = first.Version
			}
			request.Revision = "main@sha1:" + strings.Repeat("b", 40)
			second, err := packageOf(t, s, two, request, known)
			if err != nil {
				t.Fatal(err)
			}
			if files := sourcetest.Contents(t, second.Files); second.Version != test.version || files["app/x"] != test.want || second.Unchanged != (second.Version == known) {
				t.Errorf("version %q, unchanged %v, files %q", second.Version, second.Unchanged, files)
			}
			if files := sourcetest.Contents(t, first.Files); files["app/x"] != "1" {
				t.Errorf("the first has files %q", files)
			}
			last, err := s.LastPackage(t.Context(), request)
			if err != nil || last.Digest != second.Digest {
				t.Errorf("the last is %q: %v", last.Version, err)
			}
		})
	}
	if _, err := s.LastPackage(t.Context(), helmrepo.PackageRequest{Source: "none", Path: "c"}); refused(t, err).Kind != gitops.Transient {
		t.Errorf("got %v", err)
	}
}

// chartsServer serves charts that are dependencies.
func chartsServer(t testing.TB) (*testenv.HelmRepository, func(context.Context, string) (helmrepo.Repository, bool, error)) {
	t.Helper()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: "word"})
	for _, version := range []string{"1.0.0", "1.1.0", "2.0.0"} {
		server.Put(t, "lib", version, testenv.HelmChart(t, "lib", version, nil))
	}
	server.Put(t, "bad", "1.0.0", []byte("no chart"))
	server.Put(t, "under_score", "1.0.0", testenv.HelmChart(t, "under_score", "1.0.0", nil))
	return server, func(_ context.Context, url string) (helmrepo.Repository, bool, error) {
		if url != server.URL()+"/" {
			return helmrepo.Repository{}, false, errors.New("it is not there")
		}
		return helmrepo.Repository{URL: url, Auth: helmrepo.Auth{Username: "ann", Password: "word"}}, false, nil
	}
}

func TestPackageDependencies(t *testing.T) {
	t.Parallel()
	server, repositories := chartsServer(t)
	library := "apiVersion: v2\nname: lib\nversion: 1.5.0\ntype: library\n"
	dependency := func(fields ...string) string {
		return appChart + "dependencies:\n- " + strings.Join(fields, "\n  ") + "\n"
	}
	remote := "repository: " + server.URL()
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
		added int
	}{
		"of the same source":              {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: 1.x", "repository: file://../lib"), "lib/Chart.yaml": library}, []string{"lib@1.5.0"}, 1},
		"packed in the same source":       {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: 1.x", "repository: file://../lib.tgz"), "lib.tgz": string(testenv.HelmChart(t, "lib", "1.7.0", nil))}, []string{"lib@1.7.0"}, 1},
		"below the chart":                 {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: '*'", "repository: file:///sub/lib"), "c/sub/lib/Chart.yaml": library}, []string{"lib@1.5.0"}, 1},
		"from a repository":               {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: ^1.0.0", remote)}, []string{"lib@1.1.0"}, 1},
		"from a repository with an alias": {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: 1.0.0", remote, "alias: other")}, []string{"other@1.0.0"}, 1},
		"the same twice": {
			map[string]string{"c/Chart.yaml": dependency("name: lib", "version: 1.0.0", remote, "alias: one") + "- name: lib\n  version: 2.x\n  " + remote + "\n  alias: two\n"},
			[]string{"one@1.0.0", "two@2.0.0"}, 2,
		},
		"with a name that no chart would have today": {map[string]string{"c/Chart.yaml": dependency("name: under_score", "version: 1.x", remote)}, []string{"under_score@1.0.0"}, 1},
		"vendored as a folder":                       {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: 1.x", remote), "c/charts/lib/Chart.yaml": library}, []string{"lib@1.5.0"}, 0},
		"vendored and packed":                        {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: 1.x", remote), "c/charts/lib-1.7.0.tgz": string(testenv.HelmChart(t, "lib", "1.7.0", nil))}, []string{"lib@1.7.0"}, 0},
		"vendored, with an alias":                    {map[string]string{"c/Chart.yaml": dependency("name: lib", "version: 1.x", remote, "alias: other"), "c/charts/lib/Chart.yaml": library}, []string{"lib@1.5.0"}, 0},
		"vendored without being asked for":           {map[string]string{"c/Chart.yaml": appChart, "c/charts/lib/Chart.yaml": library}, []string{"lib@1.5.0"}, 0},
		"vendored twice in two versions": {
			map[string]string{"c/Chart.yaml": appChart, "c/charts/a/Chart.yaml": library, "c/charts/b.tgz": string(testenv.HelmChart(t, "lib", "1.7.0", nil))}, []string{"lib@1.5.0", "lib@1.7.0"}, 0,
		},
		"the lock file decides": {
			map[string]string{"c/Chart.yaml": dependency("name: lib", "version: ^1.0.0", remote), "c/Chart.lock": "dependencies:\n- name: lib\n  version: 1.0.0\n  " + remote + "\ndigest: x\ngenerated: \"2026-01-01T00:00:00Z\"\n"},
			[]string{"lib@1.0.0"}, 1,
		},
		"an old chart's requirements": {
			map[string]string{"c/Chart.yaml": strings.Replace(appChart, "v2", "v1", 1), "c/requirements.yaml": strings.TrimPrefix(dependency("name: lib", "version: 2.0.0", remote), appChart)},
			[]string{"lib@2.0.0"}, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.PackageRequest{Path: "c", RepositoryFor: repositories}
			chart, err := packageOf(t, openStore(t, helmrepo.Options{}), test.files, request, "")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, loaded(t, chart)); diff != "" || chart.Dependencies != test.added {
				t.Errorf("%d were added, charts inside (-want +got):\n%s", chart.Dependencies, diff)
			}
			for range 3 {
				again, err := packageOf(t, openStore(t, helmrepo.Options{}), test.files, request, "")
				if err != nil || again.Digest != chart.Digest {
					t.Errorf("the same source makes other bytes: %v", err)
				}
			}
		})
	}
}

// TestPackageWaitsForNobody: a chart whose dependency does not come keeps no other one from
// being packaged, be it the same one at a newer revision.
func TestPackageWaitsForNobody(t *testing.T) {
	t.Parallel()
	server, repositories := chartsServer(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			once.Do(func() { close(asked) })
			<-answer
			next.ServeHTTP(w, r)
		})
	})
	s := openStore(t, helmrepo.Options{})
	request := helmrepo.PackageRequest{Source: "GitRepository/apps/app", Path: "c", RepositoryFor: repositories}
	type result struct {
		chart helmrepo.Chart
		err   error
	}
	first := make(chan result, 1)
	go func() {
		files := map[string]string{"c/Chart.yaml": appChart + "dependencies:\n- {name: lib, version: 1.x, repository: '" + server.URL() + "'}\n"}
		chart, err := s.Package(t.Context(), sourcetest.Memory(files), request, "")
		first <- result{chart, err}
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	newer, err := s.Package(ctx, sourcetest.Memory(map[string]string{"c/Chart.yaml": strings.Replace(appChart, "1.2.3", "1.2.4", 1)}), request, "")
	close(answer)
	if err != nil {
		t.Error(err)
	} else {
		newer.Release()
	}
	if got := <-first; got.err != nil {
		t.Error(got.err)
	} else {
		got.chart.Release()
	}
}

// TestPackageRefuses: what leads out of the source, and what cannot be packaged.
func TestPackageRefuses(t *testing.T) {
	t.Parallel()
	server, repositories := chartsServer(t)
	dependency := func(fields ...string) map[string]string {
		return map[string]string{"c/Chart.yaml": appChart + "dependencies:\n- " + strings.Join(fields, "\n  ") + "\n", "secret/Chart.yaml": appChart}
	}
	lock := func(text string) map[string]string {
		return map[string]string{"c/Chart.yaml": appChart, "c/Chart.lock": text}
	}
	plain := map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: 1\n"}
	remote := "repository: " + server.URL()
	many := map[string]string{"c/Chart.yaml": appChart}
	for i := range 20_001 {
		many[fmt.Sprintf("c/f%d", i)] = ""
	}
	for name, test := range map[string]struct {
		files   map[string]string
		change  func(*helmrepo.PackageRequest)
		kind    gitops.ErrorKind
		reason  string
		want    string
		options helmrepo.Options
	}{
		"no chart":                                {files: plain, change: func(p *helmrepo.PackageRequest) { p.Path = "none" }, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `the source has no chart at "none"`},
		"no path":                                 {files: plain, change: func(p *helmrepo.PackageRequest) { p.Path = "" }, kind: gitops.Stalled, reason: helmrepo.ReasonReference, want: "is not a path inside of the source"},
		"a path outside":                          {files: plain, change: func(p *helmrepo.PackageRequest) { p.Path = "c/../../c" }, kind: gitops.Stalled, reason: helmrepo.ReasonReference, want: "is not a path inside of the source"},
		"a file that is no chart":                 {files: plain, change: func(p *helmrepo.PackageRequest) { p.Path = "c/values.yaml" }, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "it is no packed chart"},
		"no Chart.yaml":                           {files: map[string]string{"c/x": "y"}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "Chart.yaml file is missing"},
		"a name without end":                      {files: map[string]string{"c/Chart.yaml": strings.Replace(appChart, "app", "a/"+strings.Repeat("x", 500_000), 1)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "chart.metadata.name"},
		"a dependency without end":                {files: dependency("name: "+strings.Repeat("x", 500_000), "alias: ../x"), kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "validation: dependency"},
		"the name ..":                             {files: map[string]string{"c/Chart.yaml": strings.Replace(appChart, "app", "..", 1)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `".." is not allowed`},
		"the name a/b":                            {files: map[string]string{"c/Chart.yaml": strings.Replace(appChart, "app", "a/b", 1)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"a/b" is invalid`},
		"a windows name":                          {files: map[string]string{"c/Chart.yaml": strings.Replace(appChart, "app", `..\b`, 1)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "is no name for a chart"},
		"a version with slashes":                  {files: map[string]string{"c/Chart.yaml": strings.Replace(appChart, "1.2.3", "1.2.3/../x", 1)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "is invalid"},
		"values outside":                          {files: plain, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"../x.yaml"} }, kind: gitops.Stalled, reason: helmrepo.ReasonValues, want: "is not the path of a file inside"},
		"values that are a URL":                   {files: plain, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"https://example.com/x"} }, kind: gitops.Stalled, reason: helmrepo.ReasonValues, want: "is not the path of a file inside"},
		"values that are like a URL":              {files: plain, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"http:../x"} }, kind: gitops.Invalid, reason: helmrepo.ReasonValues, want: "there is no values file"},
		"values that are a folder":                {files: plain, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"c"} }, kind: gitops.Invalid, reason: helmrepo.ReasonValues, want: "it is a folder"},
		"values that are long":                    {files: map[string]string{"c/Chart.yaml": appChart, "x": "# " + strings.Repeat("x", 5<<20)}, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"x"} }, kind: gitops.Invalid, reason: helmrepo.ReasonValues, want: "at most 5242880 are read"},
		"values with an alias bomb":               {files: map[string]string{"c/Chart.yaml": appChart, "x": bomb()}, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"x"} }, kind: gitops.Invalid, reason: helmrepo.ReasonValues, want: `"x": its aliases make more than 8388608 bytes of it`},
		"values that name a long text often":      {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: " + longOften(100_000, 100)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": its aliases make more than 8388608 bytes of it`},
		"values of many documents":                {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": strings.Repeat("---\na: "+longOften(100_000, 20)+"\n", 10)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": its aliases make more than 8388608 bytes of it`},
		"a list of many nodes":                    {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: [" + strings.Repeat("1,", 101_000) + "]"}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": the values and metadata of the chart have more than about 200000 nodes of YAML together`},
		"a map of many keys without values":       {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: {" + strings.Repeat("1,", 101_000) + "}"}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": the values and metadata of the chart have more than about 200000 nodes of YAML together`},
		"a list of many lists":                    {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a:\n" + strings.Repeat("- ", 200_000) + "1"}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": the values and metadata of the chart have more than about 200000 nodes of YAML together`},
		"a map of many keys, each in a question":  {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "? a\r" + strings.Repeat("? a\r", 100_000)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": the values and metadata of the chart have more than about 200000 nodes of YAML together`},
		"nodes that are many with their aliases":  {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: &a [" + strings.Repeat("1,", 1000) + "]\nb: [" + strings.Repeat("*a,", 200) + "]"}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": the values and metadata of the chart have more than about 200000 nodes of YAML together`},
		"many nodes in another encoding":          {files: map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "\xff\xfe" + strings.Repeat("-\x00 \x00", 101_000)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"values.yaml": the values and metadata of the chart have more than about 200000 nodes of YAML together`},
		"nodes that are many in all values files": {files: map[string]string{"c/Chart.yaml": appChart, "x": "a: [" + strings.Repeat("1,", 30_000) + "]"}, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"x", "x", "x", "x"} }, kind: gitops.Invalid, reason: helmrepo.ReasonValues, want: "more than about 200000 nodes of YAML together"},
		"values files that are much together":     {files: map[string]string{"c/Chart.yaml": appChart, "x": "a: " + longOften(100_000, 50)}, change: func(p *helmrepo.PackageRequest) { p.ValuesFiles = []string{"x", "x", "x", "x", "x", "x", "x"} }, kind: gitops.Invalid, reason: helmrepo.ReasonValues, want: "have more than 33554432 bytes together"},
		"a Chart.yaml with aliases":               {files: map[string]string{"c/Chart.yaml": appChart + "keywords: " + longOften(10_000, 200)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"Chart.yaml": its aliases make more than 1048576 bytes of it`},
		"a lock with aliases":                     {files: lock("generated: x\ndependencies: " + longOften(10_000, 200)), kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"Chart.lock": its aliases make more than 1048576 bytes of it`},
		"requirements with aliases":               {files: map[string]string{"c/Chart.yaml": appChart, "c/requirements.yaml": "x: " + longOften(10_000, 200)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"requirements.yaml": its aliases make more than 1048576 bytes of it`},
		"aliases in a chart inside":               {files: map[string]string{"c/Chart.yaml": appChart, "c/charts/a/charts/b/Chart.yaml": appChart + "keywords: " + longOften(10_000, 200)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"charts/a/charts/b/Chart.yaml": its aliases make more`},
		"aliases in a packed chart inside":        {files: map[string]string{"c/Chart.yaml": appChart, "c/charts/d.tgz": string(testenv.HelmChart(t, "d", "1.0.0", map[string]string{"values.yaml": "a: " + longOften(100_000, 100)}))}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"charts/d.tgz/values.yaml": its aliases make more`},
		"a revision that is no metadata":          {files: plain, change: func(p *helmrepo.PackageRequest) { p.Strategy, p.Revision = helmrepo.EachRevision, "main@a_b" }, kind: gitops.Stalled, reason: helmrepo.ReasonMetadata, want: "build metadata"},
		"a lock that is a list":                   {files: lock("- x\n"), kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "cannot load Chart.lock"},
		"a lock that is a text":                   {files: lock("../../../x"), kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "cannot load Chart.lock"},
		"a lock that is binary":                   {files: lock("\x00\x01\xff"), kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "cannot load Chart.lock"},
		"a lock with an empty entry":              {files: lock("dependencies:\n- null\n"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "must not contain empty or null nodes"},
		"a lock with a path as name":              {files: lock("dependencies:\n- name: ../../secret\n  version: '*'\n"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "is no name for a chart"},
		"a lock with a path as alias":             {files: lock("dependencies:\n- name: x\n  alias: ../x\n"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "disallowed characters in the alias"},
		"dependencies that are too much together": {files: bulky(t, 30), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "more than"},
		"a dependency outside":                    {files: dependency("name: x", "version: '*'", "repository: file://../../secret"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "leads out of the source"},
		"a dependency far outside":                {files: dependency("name: x", "version: '*'", "repository: file:///../../../../etc"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "leads out of the source"},
		"a windows dependency":                    {files: dependency("name: x", "version: '*'", `repository: 'file://..\..\secret'`), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "leads out of the source"},
		"a dependency that is missing":            {files: dependency("name: x", "version: '*'", "repository: file://../none"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: `the source has no chart at "none"`},
		"a dependency without a place":            {files: dependency("name: x", "version: '*'"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: `the source has no chart at "c/charts/x"`},
		"a dependency of no version":              {files: dependency("name: app", "version: 2.x", "repository: file://../secret"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: `has version "1.2.3", which is not in the range "2.x"`},
		"a dependency by alias":                   {files: dependency("name: x", "version: '*'", "repository: '@charts'"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "is an alias"},
		"a dependency from elsewhere":             {files: dependency("name: x", "version: '*'", "repository: ftp://example.com"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "none of http, https, oci and file"},
		"a dependency nobody has":                 {files: dependency("name: x", "version: '*'", "repository: https://example.com/a?s3cret"), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: `repository "https://example.com/a/": it is not there`},
		"a dependency without a lookup":           {files: dependency("name: x", "version: '*'", "repository: https://example.com"), change: func(p *helmrepo.PackageRequest) { p.RepositoryFor = nil }, kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "there is no repository"},
		"a dependency not in there":               {files: dependency("name: x", "version: '*'", remote), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: `has no chart "x"`},
		"a dependency not so new":                 {files: dependency("name: lib", "version: '>= 3'", remote), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: `in the range ">= 3"`},
		"a dependency that is no chart":           {files: dependency("name: bad", "version: 1.x", remote), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "it is no packed chart"},
		"a dependency without a name":             {files: dependency("version: 1.x", remote), kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "is no name for a chart"},
		"a dependency with a wrong credential": {
			files: dependency("name: lib", "version: 1.x", remote), kind: gitops.Denied, reason: helmrepo.ReasonAuthentication, want: "check the credential",
			change: func(p *helmrepo.PackageRequest) {
				p.RepositoryFor = func(_ context.Context, url string) (helmrepo.Repository, bool, error) {
					return helmrepo.Repository{URL: url, Auth: helmrepo.Auth{Username: "x"}}, true, nil
				}
			},
		},
		"many dependencies":      {files: map[string]string{"c/Chart.yaml": appChart, "c/Chart.lock": "dependencies:\n" + strings.Repeat("- name: x\n", 201)}, kind: gitops.Invalid, reason: helmrepo.ReasonDependency, want: "more than 200 dependencies"},
		"a bad schema":           {files: map[string]string{"c/Chart.yaml": appChart, "c/values.schema.json": "{"}, kind: gitops.Invalid, reason: helmrepo.ReasonPackage, want: "values.schema.json is no JSON"},
		"a bad .helmignore":      {files: map[string]string{"c/Chart.yaml": appChart, "c/.helmignore": "a/**"}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "double-star"},
		"a long .helmignore":     {files: map[string]string{"c/Chart.yaml": appChart, "c/.helmignore": strings.Repeat("x\n", 1001)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "more than 1000 lines"},
		"a long file":            {files: map[string]string{"c/Chart.yaml": appChart, "c/x": strings.Repeat("x", 6<<20)}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"x" has 6291456 bytes`},
		"many files":             {files: many, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "more than 20000 files"},
		"a long packed chart":    {files: map[string]string{"c/Chart.yaml": appChart, "c/x": "some"}, options: helmrepo.Options{ChartBytes: 100}, kind: gitops.Invalid, reason: helmrepo.ReasonPackage, want: "more than 100 bytes, which is the most that is made"},
		"a packed chart is none": {files: map[string]string{"c/Chart.yaml": appChart, "c/charts/x.tgz": "x"}, kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: "it is no packed chart"},
		"bad charts inside": {
			files: map[string]string{
				"c/Chart.yaml": appChart, "c/charts/a/charts/b/Chart.yaml": "x", "c/charts/a/Chart.yaml": appChart, "c/charts/b/x": "", "c/charts/c/Chart.yaml": "- x",
				"c/charts/d.tgz": string(testenv.HelmChart(t, "d", "1.0.0", map[string]string{"Chart.yaml": "x"})),
			},
			kind: gitops.Invalid, reason: helmrepo.ReasonReference, want: `"charts/a": "charts/b": cannot load Chart.yaml`,
		},
		"a bad packed chart inside": {
			files: map[string]string{"c/Chart.yaml": appChart, "c/charts/d.tgz": string(testenv.HelmChart(t, "d", "1.0.0", map[string]string{"Chart.yaml": "x"}))},
			kind:  gitops.Invalid, reason: helmrepo.ReasonReference, want: `"charts/d.tgz": cannot load Chart.yaml`,
		},
		"the same chart thrice": {files: map[string]string{"c/Chart.yaml": appChart, "c/charts/a/Chart.yaml": appChart, "c/charts/b/Chart.yaml": appChart, "c/charts/d/Chart.yaml": appChart}, kind: gitops.Invalid, reason: helmrepo.ReasonPackage, want: `has chart "app" twice in the same version`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.PackageRequest{Path: "c", RepositoryFor: repositories}
			if test.change != nil {
				test.change(&request)
			}
			s := openStore(t, test.options)
			_, err := packageOf(t, s, test.files, request, "")
			e := refused(t, err)
			if e.Kind != test.kind || e.Reason != test.reason || !strings.Contains(e.Error(), test.want) || strings.Contains(e.Error(), "s3cret") {
				t.Errorf("got %s, %s: %.300s, want %q", e.Kind, e.Reason, e, test.want)
			}
			if len(e.Error()) > 1000 {
				t.Errorf("a text of %d bytes: %.300s", len(e.Error()), e)
			}
			if _, again := packageOf(t, s, test.files, request, "1.0.0"); again == nil || again.Error() != err.Error() {
				t.Errorf("two texts: %.300s, %.300s", err, again)
			}
		})
	}
}

// bulky is a chart that depends on another one again and again, under other names: 4 MB each.
func bulky(t *testing.T, times int) map[string]string {
	t.Helper()
	chart := appChart + "dependencies:\n"
	for i := range times {
		chart += fmt.Sprintf("- {name: lib, version: 1.x, repository: 'file://../lib', alias: a%d}\n", i)
	}
	return map[string]string{
		"c/Chart.yaml": chart, "lib/Chart.yaml": "apiVersion: v2\nname: lib\nversion: 1.0.0\n", "lib/x": strings.Repeat("x", 4<<20),
	}
}

// unread is a tree of which some files cannot be read, though they are there.
type unread struct {
	gitops.Tree
	why map[string]error
}

func (u unread) ReadFile(name string) ([]byte, error) {
	if err := u.why[name]; err != nil {
		return nil, err
	}
	return u.Tree.ReadFile(name)
}

// TestPackageUnread: that a file cannot be read now says nothing about what was pushed, so
// that nothing of it is final, and no file counts as missing.
func TestPackageUnread(t *testing.T) {
	t.Parallel()
	s := openStore(t, helmrepo.Options{})
	files := map[string]string{"c/Chart.yaml": appChart, "c/values.yaml": "a: 1\n", "extra.yaml": "a: 2\n"}
	for name, test := range map[string]struct {
		file string
		err  error
	}{
		"a file of the chart":                     {file: "c/Chart.yaml", err: fmt.Errorf("storage: %w", syscall.EIO)},
		"a values file":                           {file: "extra.yaml", err: fmt.Errorf("storage: %w", syscall.EMFILE)},
		"a values file that the data folder lost": {file: "extra.yaml", err: fmt.Errorf("storage: %w", syscall.ENOENT)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.PackageRequest{Source: "GitRepository/apps/" + test.file, Path: "c", ValuesFiles: []string{"c/values.yaml", "extra.yaml"}, IgnoreMissingValuesFiles: true}
			chart, err := s.Package(t.Context(), unread{Tree: sourcetest.Memory(files), why: map[string]error{test.file: test.err}}, request, "")
			if err == nil {
				chart.Release()
				t.Fatal("a file that cannot be read was left out")
			}
			var failure *gitops.Error
			if !errors.As(err, &failure) || failure.Kind != gitops.Transient || failure.Reason != helmrepo.ReasonPackage || !strings.Contains(err.Error(), test.file) {
				t.Errorf("it is not tried again, or not said which file it is: %v", err)
			}
		})
	}
}
