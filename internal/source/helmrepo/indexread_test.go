package helmrepo_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// indexOf is an index with entries in YAML.
func indexOf(entries string) []byte { return []byte("apiVersion: v1\nentries:\n" + entries) }

// served reads what an index serves: the versions of each chart.
func served(t testing.TB, index helmrepo.Index) map[string][]string {
	t.Helper()
	var content struct {
		APIVersion string
		Entries    map[string][]struct{ Version string }
	}
	if err := json.Unmarshal(readAll(t, index.Open), &content); err != nil {
		t.Fatal(err)
	}
	if content.APIVersion != "v1" {
		t.Errorf("apiVersion %q", content.APIVersion)
	}
	charts := map[string][]string{}
	for name, versions := range content.Entries {
		for _, v := range versions {
			charts[name] = append(charts[name], v.Version)
		}
	}
	return charts
}

// TestIndexReads: the forms in which an index may be written, and bad entries in it.
func TestIndexReads(t *testing.T) {
	t.Parallel()
	one := "  a:\n  - name: a\n    version: 1.0.0\n"
	long := "1.0.0+" + strings.Repeat("x", 4096)
	bad := " that cannot be used"
	for name, test := range map[string]struct {
		index   string
		want    map[string][]string
		warning string
	}{
		"versions are served newest first": {
			index: string(indexOf(one + "  - name: a\n    version: 2.0.0-rc.1\n  - name: a\n    version: 1.10.0\n  - name: a\n    version: 1.9.0\n")),
			want:  map[string][]string{"a": {"2.0.0-rc.1", "1.10.0", "1.9.0", "1.0.0"}},
		},
		"charts are found whatever their order": {
			index: string(indexOf("  b:\n  - name: b\n    version: 1.0.0\n" + one)), want: map[string][]string{"a": {"1.0.0"}, "b": {"1.0.0"}},
		},
		"lists may be indented": {
			index: string(indexOf("  a:\n    # the first\n    - name: a\n      version: 1.0.0\n\n    - version: 2.0.0\n      name: a\n")),
			want:  map[string][]string{"a": {"2.0.0", "1.0.0"}},
		},
		"a text may have lines that look like entries": {
			index: string(indexOf("  a:\n  - name: a\n    description: |\n      entries:\n        b:\n        - name: b\n    version: 1.0.0\n")),
			want:  map[string][]string{"a": {"1.0.0"}},
		},
		"names in quotes, versions that look like numbers, and windows line ends": {
			index: strings.ReplaceAll(string(indexOf("  \"a\":\n  - name: a\n    version: 1.10\n")), "\n", "\r\n"), want: map[string][]string{"a": {"1.10"}},
		},
		"a document mark, a byte order mark, and the head behind": {
			index: "\ufeff---\n# made by hand\nentries:\n" + one + "apiVersion: v1\npublicKeys:\n- x\n", want: map[string][]string{"a": {"1.0.0"}},
		},
		"charts without versions": {
			index: string(indexOf("  b: []\n" + one + "  c: null\n  d:\n")), want: map[string][]string{"a": {"1.0.0"}},
		},
		"no charts":                 {index: "apiVersion: v1\nentries: {}\n", want: map[string][]string{}},
		"no entries":                {index: "apiVersion: v1\n", want: map[string][]string{}},
		"JSON":                      {index: `{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1.0.0","description":"\ud83d\ude00"}]}}`, want: map[string][]string{"a": {"1.0.0"}}},
		"YAML in flow style":        {index: `{apiVersion: v1, entries: {a: [{name: a, version: 1.0.0}]}}`, want: map[string][]string{"a": {"1.0.0"}}},
		"a list of a chart in flow": {index: string(indexOf("  a: [{name: a, version: 1.0.0}]\n")), want: map[string][]string{"a": {"1.0.0"}}},
		"YAML with an alias": {
			index: "apiVersion: v1\nx: &d some text\nentries:\n  a:\n  - name: a\n    description: *d\n    version: 1.0.0\n", want: map[string][]string{"a": {"1.0.0"}},
		},
		"an empty entry": {
			index: string(indexOf(one + "  -\n  - null\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has 2 entries` + bad + `, the first is an entry of chart "a": it is empty`,
		},
		"an empty entry in JSON": {
			index: `{"apiVersion":"v1","entries":{"a":[null,{"name":"a","version":"1.0.0"}, {}],"b":null}}`, want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has 2 entries` + bad + `, the first is an entry of chart "a": it is empty`,
		},
		"a version twice": {
			index: string(indexOf(one + "  - name: a\n    version: 1.0.0\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: version "1.0.0" of chart "a": it is in the index twice`,
		},
		"a missing name": {
			index: string(indexOf(one + "  - version: 2.0.0\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: version "2.0.0" of chart "a": validation: chart.metadata.name is required`,
		},
		"the name of another chart": {
			index: string(indexOf(one + "  - name: b\n    version: 2.0.0\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: version "2.0.0" of chart "a": its name is "b"`,
		},
		"a name that is a path": {
			index:   string(indexOf(one + "  ../b:\n  - name: ../b\n    version: 2.0.0\n")),
			want:    map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: version "2.0.0" of chart "../b": validation: chart.metadata.name "../b" is invalid`,
		},
		"a version that is none": {
			index: string(indexOf(one + "  - name: a\n    version: latest\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: version "latest" of chart "a": validation: chart.metadata.version "latest" is invalid`,
		},
		"a version of four kilobytes": {
			index: string(indexOf(one + "  - name: a\n    version: " + long + "\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: version "` + long[:100] + `…" of chart "a": `,
		},
		"a key twice": {
			index: string(indexOf(one + "  - name: a\n    version: 2.0.0\n    version: 3.0.0\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: an entry of chart "a": mapping key "version" already defined`,
		},
		"a key twice in JSON": {
			index: `{"apiVersion":"v1","entries":{"a":[{"name":"a","version":"1.0.0"},{"name":"a","version":"2.0.0","version":"3.0.0"}]}}`, want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: an entry of chart "a": key "version" is there twice`,
		},
		"another shape": {
			index: string(indexOf(one + "  - name: [a]\n    version: 2.0.0\n  - x\n  - - y\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has 3 entries` + bad + `, the first is an entry of chart "a": cannot unmarshal !!seq into string`,
		},
		"a bad alias of a dependency": {
			index: string(indexOf(one + "  - name: a\n    version: 2.0.0\n    dependencies:\n    - name: b\n      alias: ../../b\n")), want: map[string][]string{"a": {"1.0.0"}},
			warning: `the index has an entry` + bad + `: version "2.0.0" of chart "a": validation: dependency "b" has disallowed characters in the alias`,
		},
		"a text in quotes against the rules of indentation": {
			index:   string(indexOf("  a:\n  - name: a\n    version: 1.0.0\n  - name: a\n    version: 2.0.0\n    description: \"x\n  b:\n  - y\"\n")),
			want:    map[string][]string{"a": {"1.0.0"}},
			warning: `the index has 2 entries` + bad + `, the first is an entry of chart "a": `,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			server.Index([]byte(test.index))
			index := getIndex(t, openStore(t, helmrepo.Options{}), helmrepo.Repository{URL: server.URL()}, "")
			if diff := cmp.Diff(test.want, served(t, index)); diff != "" {
				t.Errorf("charts (-want +got):\n%s", diff)
			}
			if test.warning == "" && index.Warning != "" || !strings.HasPrefix(index.Warning, test.warning) {
				t.Errorf("warning %q, want %q", index.Warning, test.warning)
			}
		})
	}
}

// TestIndexRefuses: what is wrong with an index as a whole is one error that is the same
// each time, and leaves the last index.
func TestIndexRefuses(t *testing.T) {
	t.Parallel()
	one := "  a:\n  - name: a\n    version: 1.0.0\n"
	for name, test := range map[string]struct {
		index, want string
		reason      string
	}{
		"nothing":             {"", "the index has no apiVersion", helmrepo.ReasonIndexation},
		"no version":          {"entries:\n" + one, "the index has no apiVersion", helmrepo.ReasonIndexation},
		"a chart twice":       {string(indexOf(one + one)), `chart "a" is in the index twice`, helmrepo.ReasonIndexation},
		"entries twice":       {string(indexOf(one)) + "entries:\n" + one, "the index has entries twice", helmrepo.ReasonIndexation},
		"a head key twice":    {string(indexOf(one)) + "apiVersion: v2\n", "already defined", helmrepo.ReasonIndexation},
		"a long key twice":    {string(indexOf(one)) + strings.Repeat(strings.Repeat("x", 1000)+": y\n", 2), "mapping key", helmrepo.ReasonIndexation},
		"a long chart twice":  {string(indexOf(strings.Repeat("  "+strings.Repeat("x", 100_000)+": []\n", 2))), "is in the index twice", helmrepo.ReasonIndexation},
		"in JSON twice":       {`{"apiVersion":"v1","entries":{},"entries":{}}`, `the index has "entries" twice`, helmrepo.ReasonIndexation},
		"a JSON chart twice":  {`{"apiVersion":"v1","entries":{"a":[],"a":[]}}`, `chart "a" is in the index twice`, helmrepo.ReasonIndexation},
		"JSON that ends":      {`{"apiVersion":"v1","entries":{"a":[`, "the index is no JSON that can be read: EOF", helmrepo.ReasonIndexation},
		"JSON with more":      {`{"apiVersion":"v1","entries":{}} {}`, "the index has something behind its end", helmrepo.ReasonIndexation},
		"a page":              {"<html><body>Sign in</body></html>", "the index is no YAML that can be read", helmrepo.ReasonIndexation},
		"entries in a list":   {"apiVersion: v1\nentries:\n- a\n", "the entries of the index are no map", helmrepo.ReasonIndexation},
		"versions in a map":   {"apiVersion: v1\nentries:\n  a:\n    b: c\n", `the versions of chart "a" are no list`, helmrepo.ReasonIndexation},
		"too long":            {string(indexOf(one)) + "# " + strings.Repeat("x", 8<<20), "the index has", helmrepo.ReasonFailed},
		"an alias bomb":       {bomb(), "the head of the index: its aliases make more than 1048576 bytes of it", helmrepo.ReasonIndexation},
		"a long text often":   {"apiVersion: v1\nserverInfo: {a: " + longOften(300_000, 50) + "}\nentries: {}\n", "the head of the index: its aliases make more than 1048576 bytes of it", helmrepo.ReasonIndexation},
		"often in flow style": {"{apiVersion: v1, serverInfo: {a: " + longOften(300_000, 50) + "}, entries: {}}", "its aliases make more than 8388608 bytes of it", helmrepo.ReasonIndexation},
		"a list without end":  {"apiVersion: v1\nx: " + strings.Repeat("[", 20000), "the head of the index", helmrepo.ReasonIndexation},
		"irregular and long":  {"apiVersion: v1\nentries: {\n" + strings.Repeat("# "+strings.Repeat("x", 1000)+"\n", 4200) + "}\n", "is read only up to 4194304 bytes", helmrepo.ReasonIndexation},
		"a head without end":  {"apiVersion: v1\nserverInfo:\n" + strings.Repeat("  a: "+strings.Repeat("x", 1000)+"\n", 1100), "bytes beside its entries", helmrepo.ReasonIndexation},
		"a head of one line":  {"apiVersion: v1\nserverInfo: " + strings.Repeat("x", 2<<20) + "\n", "bytes beside its entries", helmrepo.ReasonIndexation},
		"JSON nested without": {`{"apiVersion":"v1","x":` + strings.Repeat("[", 20000), "depth", helmrepo.ReasonIndexation},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			server.Index(indexOf(one))
			s := openStore(t, helmrepo.Options{IndexBytes: 6 << 20})
			repository := helmrepo.Repository{URL: server.URL()}
			first := getIndex(t, s, repository, "")
			server.Index([]byte(test.index))
			_, err := s.Index(t.Context(), repository, first.Revision)
			e := refused(t, err)
			if !strings.Contains(e.Error(), test.want) || e.Reason != test.reason || e.Kind != gitops.Invalid {
				t.Errorf("got %s, %s: %.300s, want %q", e.Kind, e.Reason, e, test.want)
			}
			if len(e.Error()) > 1000 {
				t.Errorf("a text of %d bytes: %.300s", len(e.Error()), e)
			}
			if _, again := s.Index(t.Context(), repository, first.Revision); again == nil || again.Error() != err.Error() {
				t.Errorf("two texts: %.300s, %.300s", err, again)
			}
			if got := served(t, first); len(got) != 1 {
				t.Errorf("the last index has %v", got)
			}
			if last, err := s.LastIndex(t.Context(), repository); err != nil || last.Revision != first.Revision {
				t.Errorf("the last index is %q: %v", last.Revision, err)
			}
		})
	}
}

// bomb is an index with aliases of aliases.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nx0: &x0 [a,a,a,a,a,a,a,a,a]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s*x%d]\n", i, i, strings.Repeat(fmt.Sprintf("*x%d,", i-1), 8), i-1)
	}
	b.WriteString("annotations: {a: *x8}\nserverInfo: {a: *x8}\nentries: {}\n")
	return b.String()
}

// longOften is a list that names a long text often.
func longOften(length, often int) string {
	return "[&a " + strings.Repeat("x", length) + strings.Repeat(", *a", often) + "]"
}

// TestIndexEntryWithAliases: an entry whose aliases make much of it is left out.
func TestIndexEntryWithAliases(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Index(indexOf("  a:\n  - name: a\n    keywords: " + longOften(100_000, 50) + "\n    version: 2.0.0\n  - name: a\n    keywords: [&b x, *b]\n    version: 1.0.0\n"))
	index := getIndex(t, openStore(t, helmrepo.Options{}), helmrepo.Repository{URL: server.URL()}, "")
	if diff := cmp.Diff(map[string][]string{"a": {"1.0.0"}}, served(t, index)); diff != "" || !strings.Contains(index.Warning, "its aliases make more than 1048576 bytes of it") {
		t.Errorf("warning %q, charts (-want +got):\n%s", index.Warning, diff)
	}
}

// TestIndexLongEntry: an entry without end is left out, and does not have to be held.
func TestIndexLongEntry(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	long := strings.Repeat("x", 3<<20)
	for _, text := range []string{
		"  a:\n  - name: a\n    description: " + long + "\n    version: 2.0.0\n  - name: a\n    version: 1.0.0\n",
		"  a:\n  - name: a\n    description: |\n" + strings.Repeat("      "+long[:1000]+"\n", 2000) + "    version: 2.0.0\n  - name: a\n    version: 1.0.0\n",
	} {
		server.Index(indexOf(text))
		index := getIndex(t, openStore(t, helmrepo.Options{}), helmrepo.Repository{URL: server.URL()}, "")
		if diff := cmp.Diff(map[string][]string{"a": {"1.0.0"}}, served(t, index)); diff != "" || !strings.Contains(index.Warning, "it has more than 1048576 bytes") {
			t.Errorf("warning %q, charts (-want +got):\n%s", index.Warning, diff)
		}
	}
}
