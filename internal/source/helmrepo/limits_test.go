package helmrepo_test

import (
	"archive/tar"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

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
		"another name":            {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: other\nversion: 1.0.0\n"}), `says that it is chart "other"`},
		"another version":         {testenv.HelmChart(t, "app", "1.0.1", nil), `says that it has version "1.0.1" instead of "1.0.0"`},
		"other build metadata":    {testenv.HelmChart(t, "app", "1.0.0+x", nil), `says that it has version "1.0.0+x" instead of "1.0.0"`},
		"the name .":              {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: .\nversion: 1.0.0\n"}), `"." is not allowed`},
		"the name ..":             {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: ..\nversion: 1.0.0\n"}), `".." is not allowed`},
		"the name a/b":            {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: a/b\nversion: 1.0.0\n"}), `"a/b" is invalid`},
		"a name without end":      {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": "apiVersion: v2\nname: a/" + strings.Repeat("x", 500_000) + "\nversion: 1.0.0\n"}), "validation: chart.metadata.name"},
		"a file name without end": {with(regular("app/../" + strings.Repeat("x", 50_000))), "outside of the chart's folder"},
		"an alias with a path":    {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": metadata + "dependencies:\n- name: x\n  alias: ../x\n"}), "disallowed characters in the alias"},
		"an empty dependency":     {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": metadata + "dependencies:\n- null\n"}), "must not contain empty or null nodes"},
		"no Chart.yaml":           {testenv.Tarball(t, []tar.Header{regular("app/x")}, nil), "it has no Chart.yaml"},
		"a Chart.yaml in chief":   {testenv.Tarball(t, []tar.Header{regular("Chart.yaml")}, nil), "outside of the chart's folder"},
		"a long Chart.yaml":       {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": metadata + "# " + strings.Repeat("x", 1<<20)}), "Chart.yaml has more than 1048576 bytes"},
		"a Chart.yaml of aliases": {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"Chart.yaml": metadata + "keywords: " + longOften(10_000, 200)}), "its aliases make more than 1048576 bytes of it"},
		"no archive":              {[]byte("<html>"), "it is no packed chart"},
		"an archive that ends":    {with()[:100], "it is no packed chart"},
		"nothing":                 {testenv.Tarball(t, nil, nil), "it has no files"},
		"a parent folder":         {with(regular("app/../../x")), "outside of the chart's folder"},
		"an absolute name":        {with(regular("/app/x")), "outside of the chart's folder"},
		"a doubled slash":         {with(regular("app//etc/x")), "outside of the chart's folder"},
		"a windows parent":        {with(regular(`app\..\..\x`)), "outside of the chart's folder"},
		"a drive":                 {with(regular(`app/c:/x`)), "outside of the chart's folder"},
		"a file twice":            {with(regular("app/Chart.yaml")), `"Chart.yaml" is twice in the chart`},
		"a file in two folders":   {with(regular("other/Chart.yaml")), `"Chart.yaml" is twice in the chart`},
		"a file and a folder":     {with(regular("app/x"), regular("app/x/y")), `"x" is a file and a folder`},
		"a folder and a file":     {with(regular("app/x/y"), regular("app/x")), `"x" is twice in the chart`},
		"a long name":             {with(regular("app/" + strings.Repeat("x", 256))), "an element of more than 255 bytes"},
		"a very long name":        {with(regular("app/" + strings.Repeat("x/", 5000) + "x")), "a name has more than 1024 bytes"},
		"a control character":     {with(regular("app/x\ny")), "characters that no name of a file may have"},
		"no UTF-8":                {with(regular("app/x\xff")), "outside of the chart's folder"},
		"many files":              {with(many...), "more than 20000 files"},
		"a long file":             {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"x": zeros + zeros}), `"x" has 8388608 bytes, at most 5242880 are read of a file`},
		"much together":           {testenv.HelmChart(t, "app", "1.0.0", big), "more than 104857600 bytes together"},
		"packed charts in depth":  {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"charts/x.tgz": string(nested)}), "more than 8 deep in one another"},
		"much in packed charts":   {testenv.HelmChart(t, "app", "1.0.0", bombs), "more than 104857600 bytes together"},
		"a packed chart is none":  {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"charts/x.tgz": "x"}), `"charts/x.tgz": it is no packed chart`},
		"a packed chart escapes":  {testenv.HelmChart(t, "app", "1.0.0", map[string]string{"charts/x.tgz": string(with(regular("app/../../x")))}), "outside of the chart's folder"},
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
			if len(e.Error()) > 1000 {
				t.Errorf("a text of %d bytes: %.300s", len(e.Error()), e)
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
