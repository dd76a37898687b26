package helmrepo_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
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
			if chart.Version != test.want || chart.Revision != test.want || chart.File() != "app-"+test.want+".tgz" || chart.Packaged {
				t.Errorf("got %q, revision %q, file %q, packaged %v", chart.Version, chart.Revision, chart.File(), chart.Packaged)
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

// TestChartRefuses: what is not the chart that was looked for, and what passes the limits.
func TestChartRefuses(t *testing.T) {
	t.Parallel()
	regular := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	metadata := "apiVersion: v2\nname: app\nversion: 1.0.0\n"
	// with packs a chart with other members.
	with := func(members ...tar.Header) []byte {
		contents := map[string]string{"app/Chart.yaml": metadata}
		all := append([]tar.Header{{Typeflag: tar.TypeReg, Name: "app/Chart.yaml", Mode: 0o644, Size: int64(len(metadata))}}, members...)
		return testenv.Tarball(t, all, contents)
	}
	many := make([]tar.Header, 20_001)
	for i := range many {
		many[i] = regular(fmt.Sprintf("app/%d", i))
	}
	nested := testenv.HelmChart(t, "x", "1.0.0", nil)
	for range 10 {
		nested = testenv.HelmChart(t, "x", "1.0.0", map[string]string{"charts/x.tgz": string(nested)})
	}
	zeros := strings.Repeat("\x00", 4<<20)
	big := map[string]string{}
	for i := range 30 {
		big[fmt.Sprintf("f%d", i)] = zeros
	}
	inner := testenv.HelmChart(t, "x", "1.0.0", map[string]string{"a": zeros, "b": zeros, "c": zeros, "d": zeros})
	bombs := map[string]string{}
	for i := range 10 {
		bombs[fmt.Sprintf("charts/x%d.tgz", i)] = string(inner)
	}
	for name, test := range map[string]struct {
		packed []byte
		want   string
	}{
		"another name":           {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: other\nversion: 1.0.0\n"}), `says that it is chart "other"`},
		"another version":        {testenv.HelmChart(t, "app", "1.0.1", nil), `says that it has version "1.0.1" instead of "1.0.0"`},
		"other build metadata":   {testenv.HelmChart(t, "app", "1.0.0+x", nil), `says that it has version "1.0.0+x" instead of "1.0.0"`},
		"the name .":             {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: .\nversion: 1.0.0\n"}), `"." is not allowed`},
		"the name ..":            {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: ..\nversion: 1.0.0\n"}), `".." is not allowed`},
		"the name a/b":           {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: a/b\nversion: 1.0.0\n"}), `"a/b" is invalid`},
		"an alias with a path":   {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": metadata + "dependencies:\n- name: x\n  alias: ../x\n"}), "disallowed characters in the alias"},
		"an empty dependency":    {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": metadata + "dependencies:\n- null\n"}), "must not contain empty or null nodes"},
		"no Chart.yaml":          {testenv.Tarball(t, []tar.Header{regular("app/x")}, nil), "it has no Chart.yaml"},
		"a Chart.yaml in chief":  {testenv.Tarball(t, []tar.Header{regular("Chart.yaml")}, nil), "outside of the chart's folder"},
		"a long Chart.yaml":      {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": metadata + "# " + strings.Repeat("x", 1<<20)}), "Chart.yaml has more than 1048576 bytes"},
		"no archive":             {[]byte("<html>"), "it is no packed chart"},
		"an archive that ends":   {with()[:100], "it is no packed chart"},
		"nothing":                {testenv.Tarball(t, nil, nil), "it has no files"},
		"a parent folder":        {with(regular("app/../../x")), "outside of the chart's folder"},
		"an absolute name":       {with(regular("/app/x")), "outside of the chart's folder"},
		"a doubled slash":        {with(regular("app//etc/x")), "outside of the chart's folder"},
		"a windows parent":       {with(regular(`app\..\..\x`)), "outside of the chart's folder"},
		"a drive":                {with(regular(`app/c:/x`)), "outside of the chart's folder"},
		"a file twice":           {with(regular("app/Chart.yaml")), `"Chart.yaml" is twice in the chart`},
		"a file in two folders":  {with(regular("other/Chart.yaml")), `"Chart.yaml" is twice in the chart`},
		"a file and a folder":    {with(regular("app/x"), regular("app/x/y")), `"x" is a file and a folder`},
		"a folder and a file":    {with(regular("app/x/y"), regular("app/x")), `"x" is twice in the chart`},
		"a long name":            {with(regular("app/" + strings.Repeat("x", 256))), "an element of more than 255 bytes"},
		"a very long name":       {with(regular("app/" + strings.Repeat("x/", 5000) + "x")), "a name has more than 1024 bytes"},
		"a control character":    {with(regular("app/x\ny")), "characters that no name of a file may have"},
		"no UTF-8":               {with(regular("app/x\xff")), "outside of the chart's folder"},
		"many files":             {with(many...), "more than 20000 files"},
		"a long file":            {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": zeros + zeros}), `"x" has 8388608 bytes, at most 5242880 are read of a file`},
		"much together":          {testenv.HelmChart(t, "app", "1.0.0", big), "more than 104857600 bytes together"},
		"packed charts in depth": {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"charts/x.tgz": string(nested)}), "more than 8 deep in one another"},
		"much in packed charts":  {testenv.HelmChart(t, "app", "1.0.0", bombs), "more than 104857600 bytes together"},
		"a packed chart is none": {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"charts/x.tgz": "x"}), `"charts/x.tgz": it is no packed chart`},
		"a packed chart escapes": {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"charts/x.tgz": string(with(regular("app/../../x")))}), "outside of the chart's folder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			server.Put(t, "app", "1.0.0", test.packed)
			folder := t.TempDir()
			s := reopenStore(t, folder, helmrepo.Options{})
			t.Cleanup(func() { _ = s.Close() })
			request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
			e := refuseChart(t, s, request)
			if e.Kind != gitops.Invalid || e.Reason != helmrepo.ReasonPull || !strings.Contains(e.Error(), test.want) {
				t.Errorf("got %s, %s: %.300s, want %q", e.Kind, e.Reason, e, test.want)
			}
			if again := refuseChart(t, s, request); again.Error() != e.Error() {
				t.Errorf("two texts: %.300s, %.300s", e, again)
			}
			for _, pattern := range []string{"charts/*/new-*", "charts/*/chart-*", "unpacked/*"} {
				if left, _ := filepath.Glob(filepath.Join(folder, pattern)); len(left) > 0 {
					t.Errorf("%v is left", left)
				}
			}
		})
	}
}

// TestChartLinks: what is no regular file is left out.
func TestChartLinks(t *testing.T) {
	t.Parallel()
	metadata := "apiVersion: v2\nname: app\nversion: 1.0.0\n"
	members := []tar.Header{
		{Typeflag: tar.TypeSymlink, Name: "app/link", Linkname: "/etc"},
		{Typeflag: tar.TypeLink, Name: "app/hard", Linkname: "../../x"},
		{Typeflag: tar.TypeChar, Name: "app/zero", Devmajor: 1, Devminor: 5},
		{Typeflag: tar.TypeFifo, Name: "app/fifo"},
		{Typeflag: tar.TypeDir, Name: "app/folder/", Mode: 0o7777},
		{Typeflag: tar.TypeReg, Name: "app/link/passwd", Mode: 0o7777, Size: 1},
		{Typeflag: tar.TypeReg, Name: "app/Chart.yaml", Mode: 0o4644, Size: int64(len(metadata))},
	}
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.Tarball(t, members, map[string]string{"app/Chart.yaml": metadata, "app/link/passwd": "x"}))
	chart := getChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}, "")
	sourcetest.CheckTree(t, chart.Files, map[string]string{"app/Chart.yaml": metadata, "app/link/passwd": "x"})
}

// TestChartOfTheIndex: what the index says about a chart, and does not keep.
func TestChartOfTheIndex(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("a", 64)
	for name, test := range map[string]struct {
		change func(*testenv.HelmEntry)
		kind   gitops.ErrorKind
		want   string
	}{
		"another digest":        {func(e *testenv.HelmEntry) { e.Digest = sum }, gitops.Transient, "instead of " + sum},
		"a digest with a name":  {func(e *testenv.HelmEntry) { e.Digest = "sha256:" + sum }, gitops.Transient, "instead of " + sum},
		"no digest":             {func(e *testenv.HelmEntry) { e.Digest = "" }, "", ""},
		"an older digest":       {func(e *testenv.HelmEntry) { e.Digest = "abc" }, "", ""},
		"no URL":                {func(e *testenv.HelmEntry) { e.URL = "" }, gitops.Invalid, "the index has no URL for it"},
		"no such file":          {func(e *testenv.HelmEntry) { e.URL = "none.tgz" }, gitops.Transient, `none.tgz": the server answers 404 Not Found`},
		"a file on the machine": {func(e *testenv.HelmEntry) { e.URL = "file:///etc/passwd" }, gitops.Invalid, `scheme "file", which is not supported`},
		"a registry":            {func(e *testenv.HelmEntry) { e.URL = "oci://example.com/x" }, gitops.Invalid, `scheme "oci", which is not supported`},
		"metadata of the cloud": {func(e *testenv.HelmEntry) { e.URL = "http://169.254.169.254/latest/x?secret=1" }, gitops.Invalid, `"http://169.254.169.254/latest/x": connections to 169.254.169.254 are refused`},
		"no URL at all":         {func(e *testenv.HelmEntry) { e.URL = "http://[::1" }, gitops.Invalid, "a URL for it that cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			entry := server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
			test.change(&entry)
			server.Add(entry)
			s := openStore(t, helmrepo.Options{})
			request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
			if test.want == "" {
				getChart(t, s, request, "")
				return
			}
			if e := refuseChart(t, s, request); e.Kind != test.kind || e.Reason != helmrepo.ReasonPull || !strings.Contains(e.Error(), test.want) || strings.Contains(e.Error(), "secret") {
				t.Errorf("got %s, %s: %s", e.Kind, e.Reason, e)
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

// TestChartLimits: flags change the limits.
func TestChartLimits(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	packed := testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": strings.Repeat("some text ", 100)})
	server.Put(t, "app", "1.0.0", packed)
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
	for name, test := range map[string]struct {
		options helmrepo.Options
		want    string
	}{
		"the packed chart": {helmrepo.Options{ChartBytes: int64(len(packed)) - 1}, "at most"},
		"a file":           {helmrepo.Options{FileBytes: 999}, `"x" has 1000 bytes, at most 999 are read of a file`},
		"neither":          {helmrepo.Options{ChartBytes: int64(len(packed)), FileBytes: 1000}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, test.options)
			if test.want == "" {
				getChart(t, s, request, "")
			} else if e := refuseChart(t, s, request); e.Kind != gitops.Invalid || !strings.Contains(e.Error(), test.want) {
				t.Errorf("got %s: %s", e.Kind, e)
			}
		})
	}
}

// TestChartWithoutEnd: a chart without end is cut at the limit.
func TestChartWithoutEnd(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	packed := testenv.HelmChart(t, "app", "1.0.0", nil)
	server.Put(t, "app", "1.0.0", packed)
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tgz") {
				for r.Context().Err() == nil {
					if _, err := w.Write(packed); err != nil {
						return
					}
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	if e := refuseChart(t, openStore(t, helmrepo.Options{ChartBytes: 1 << 20}), request); e.Kind != gitops.Invalid || !strings.Contains(e.Error(), "the packed chart has more than 1048576 bytes") {
		t.Errorf("got %s: %s", e.Kind, e)
	}
}

// TestChartCredentials: who gets the credential of a repository.
func TestChartCredentials(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tls, pass bool
		want      bool
	}{
		"another host gets none":                        {},
		"another host gets it where that is asked for":  {pass: true, want: true},
		"another scheme gets none":                      {tls: true},
		"another scheme gets none, also when asked for": {tls: true, pass: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packed := testenv.HelmChart(t, "app", "1.0.0", nil)
			var mu sync.Mutex
			var seen []string
			elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				seen = append(seen, r.Header.Get("Authorization"))
				mu.Unlock()
				_, _ = w.Write(packed)
			}))
			t.Cleanup(elsewhere.Close)
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: "s3cret-word", TLS: test.tls})
			entry := server.Put(t, "app", "1.0.0", packed)
			entry.URL = elsewhere.URL + "/app.tgz"
			server.Add(entry)
			getChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Name: "app", Repository: helmrepo.Repository{
				URL: server.URL(), Auth: helmrepo.Auth{Username: "ann", Password: "s3cret-word"}, PassCredentials: test.pass,
				TLS: egress.TLS{CA: server.CA},
			}}, "")
			if len(seen) != 1 || (seen[0] != "") != test.want {
				t.Errorf("the other host got %q", seen)
			}
		})
	}
}

// TestChartRelativeURLs: URLs in an index are below the repository, whose query they have.
func TestChartRelativeURLs(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		"app.tgz": "/charts/app.tgz?token=x", "sub/app.tgz": "/charts/sub/app.tgz?token=x", "../app.tgz": "/app.tgz?token=x",
		"/app.tgz": "/app.tgz?token=x", "app.tgz?other=y": "/charts/app.tgz?token=x",
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			server.Add(testenv.HelmEntry{Name: "app", Version: "1.0.0", URL: at})
			packed := testenv.HelmChart(t, "app", "1.0.0", nil)
			asked := make(chan string, 1)
			server.Around(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "index.yaml") {
						next.ServeHTTP(w, r)
						return
					}
					asked <- r.URL.RequestURI()
					_, _ = w.Write(packed)
				})
			})
			getChart(t, openStore(t, helmrepo.Options{}), helmrepo.ChartRequest{Name: "app", Repository: helmrepo.Repository{URL: server.URL() + "?token=x"}}, "")
			if got := <-asked; got != want {
				t.Errorf("asked for %q, want %q", got, want)
			}
		})
	}
}

// TestChartTLS: certificates and credentials that are needed, and those that are wrong.
func TestChartTLS(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{TLS: true, Username: "ann", Password: "word"})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	good := helmrepo.Repository{URL: server.URL(), Auth: helmrepo.Auth{Username: "ann", Password: "word"}, TLS: egress.TLS{CA: server.CA}}
	for name, test := range map[string]struct {
		change func(*helmrepo.Repository)
		reason string
		want   string
	}{
		"the right CA":    {func(*helmrepo.Repository) {}, "", ""},
		"any certificate": {func(r *helmrepo.Repository) { r.TLS = egress.TLS{Insecure: true} }, "", ""},
		"a credential in URL": {func(r *helmrepo.Repository) {
			r.URL = strings.Replace(r.URL, "://", "://ann:word@", 1)
			r.Auth = helmrepo.Auth{}
		}, "", ""},
		"no CA":         {func(r *helmrepo.Repository) { r.TLS.CA = nil }, helmrepo.ReasonFailed, "signed by an unknown authority"},
		"no credential": {func(r *helmrepo.Repository) { r.Auth = helmrepo.Auth{} }, helmrepo.ReasonAuthentication, "the repository needs a credential"},
		"a wrong one":   {func(r *helmrepo.Repository) { r.Auth.Password = "x" }, helmrepo.ReasonAuthentication, "check the credential"},
		"no client key": {func(r *helmrepo.Repository) { r.TLS.Certificate = []byte("x") }, helmrepo.ReasonAuthentication, "the client certificate and its key cannot be used"},
		"plain HTTP refused": {func(r *helmrepo.Repository) {
			r.URL = strings.Replace(r.URL, "https", "http", 1)
			r.Policy.NoPlainCredentials = true
		}, helmrepo.ReasonFailed, "--no-plain-credentials"},
		"private addresses": {func(r *helmrepo.Repository) { r.Policy.NoPrivate = true }, helmrepo.ReasonFailed, "--no-private-sources"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := helmrepo.ChartRequest{Name: "app", Repository: good}
			test.change(&request.Repository)
			s := openStore(t, helmrepo.Options{})
			if test.want == "" {
				getChart(t, s, request, "")
			} else if e := refuseChart(t, s, request); e.Reason != test.reason || !strings.Contains(e.Error(), test.want) {
				t.Errorf("got %s: %s", e.Reason, e)
			}
		})
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

// TestLastNeedsNoServer: after a restart charts and indexes are there without asking.
func TestLastNeedsNoServer(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	packed := testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": "1"})
	server.Put(t, "app", "1.0.0", packed)
	folder := t.TempDir()
	s := reopenStore(t, folder, helmrepo.Options{})
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
	if _, err := s.LastChart(t.Context(), request); refused(t, err).Kind != gitops.Transient {
		t.Errorf("got %v", err)
	}
	if _, err := s.LastIndex(t.Context(), request.Repository); refused(t, err).Kind != gitops.Transient {
		t.Errorf("got %v", err)
	}
	first := getChart(t, s, request, "")
	first.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Chart(t.Context(), request, ""); err == nil {
		t.Error("a closed store gives a chart")
	}
	server.Around(func(http.Handler) http.Handler { return http.NotFoundHandler() })
	for _, unpacked := range []bool{true, false} {
		if !unpacked {
			if err := os.RemoveAll(filepath.Join(folder, "unpacked")); err != nil {
				t.Fatal(err)
			}
		}
		s = reopenStore(t, folder, helmrepo.Options{})
		last, err := s.LastChart(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if last.Revision != "1.0.0" || last.Digest != first.Digest || !bytes.Equal(readAll(t, last.Packed), packed) {
			t.Errorf("got %+v", last)
		}
		sourcetest.CheckTree(t, last.Files, map[string]string{"app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n", "app/x": "1"})
		last.Release()
		index, err := s.LastIndex(t.Context(), request.Repository)
		if err != nil {
			t.Fatal(err)
		}
		if got := served(t, index); len(got["app"]) != 1 {
			t.Errorf("got %v", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChartDamaged: a chart whose file was changed on the disk is got again.
func TestChartDamaged(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "app", "1.0.0", testenv.HelmChart(t, "app", "1.0.0", nil))
	folder := t.TempDir()
	s := reopenStore(t, folder, helmrepo.Options{})
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "app"}
	getChart(t, s, request, "").Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(folder, "charts", "*", "chart-*"))
	if len(files) != 1 || os.WriteFile(files[0], []byte("other"), 0o600) != nil || os.RemoveAll(filepath.Join(folder, "unpacked")) != nil {
		t.Fatalf("files %v", files)
	}
	s = reopenStore(t, folder, helmrepo.Options{})
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Chart(t.Context(), request, "1.0.0"); refused(t, err).Kind != gitops.Transient {
		t.Errorf("got %v", err)
	}
	if chart := getChart(t, s, request, "1.0.0"); chart.Version != "1.0.0" || server.Requests("app-1.0.0.tgz") != 2 {
		t.Errorf("got %+v after %d requests", chart, server.Requests("app-1.0.0.tgz"))
	}
}

// TestRetain: what nobody follows any more goes, when its last reader is done.
func TestRetain(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	for _, name := range []string{"a", "b"} {
		server.Put(t, name, "1.0.0", testenv.HelmChart(t, name, "1.0.0", nil))
	}
	folder := t.TempDir()
	s := reopenStore(t, folder, helmrepo.Options{})
	t.Cleanup(func() { _ = s.Close() })
	repository, again := helmrepo.Repository{URL: server.URL()}, helmrepo.Repository{URL: server.URL() + "?x"}
	a, b := helmrepo.ChartRequest{Repository: repository, Name: "a"}, helmrepo.ChartRequest{Repository: repository, Name: "b"}
	tree := sourcetest.Memory(map[string]string{"Chart.yaml": "apiVersion: v2\nname: p\nversion: 1.0.0\n"})
	packages := helmrepo.PackageRequest{Source: "GitRepository/x/y", Path: "."}
	getChart(t, s, a, "").Release()
	held := getChart(t, s, b, "")
	getIndex(t, s, again, "").Release()
	if p, err := s.Package(t.Context(), tree, packages, ""); err != nil {
		t.Fatal(err)
	} else {
		p.Release()
	}
	count := func(pattern string) int {
		files, _ := filepath.Glob(filepath.Join(folder, "charts", "*", pattern))
		return len(files)
	}
	steps := []struct {
		followed        helmrepo.Followed
		charts, indexes int
	}{
		{helmrepo.Followed{Repositories: []helmrepo.Repository{again}, Charts: []helmrepo.ChartRequest{a, b}, Packages: []helmrepo.PackageRequest{packages}}, 3, 2},
		{helmrepo.Followed{Charts: []helmrepo.ChartRequest{a}, Packages: []helmrepo.PackageRequest{packages}}, 3, 1},
		{helmrepo.Followed{Repositories: []helmrepo.Repository{repository}}, 1, 1},
	}
	for i, step := range steps {
		if err := s.Retain(step.followed); err != nil {
			t.Fatal(err)
		}
		if charts, indexes := count("chart-*"), count("index-*"); charts != step.charts || indexes != step.indexes {
			t.Errorf("step %d: %d charts and %d indexes, want %d and %d", i, charts, indexes, step.charts, step.indexes)
		}
	}
	if len(readAll(t, held.Packed)) == 0 {
		t.Error("a chart in use is gone")
	}
	held.Release()
	if n := count("chart-*"); n != 0 {
		t.Errorf("%d charts after the last reader is done", n)
	}
	if err := s.Retain(helmrepo.Followed{}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "charts", "*", "*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	getChart(t, s, a, "")
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
	}, chart.File(), chart.Packed)
	if err != nil || stored.Digest != chart.Digest || stored.Size != chart.Size {
		t.Errorf("got %+v, %v", stored, err)
	}
}
