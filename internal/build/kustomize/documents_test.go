package kustomize

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDocuments(t *testing.T) {
	t.Parallel()
	config := func(line int, name string) document {
		return document{line: line, apiVersion: "v1", kind: "ConfigMap", name: name}
	}
	tests := map[string]struct {
		text string
		want []document
	}{
		"nothing":              {"", nil},
		"only comments":        {"# a\n# b\n", nil},
		"one document":         {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n", []document{config(1, "a")}},
		"a separator at first": {"---\n# head\n\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n", []document{config(4, "a")}},
		"empty documents between": {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n---\n---\n# x\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n",
			[]document{config(1, "a"), config(9, "b")}},
		"quotes, comments and other names": {"apiVersion: \"v1\" # x\nkind: 'ConfigMap'\nmetadata:\n  labels:\n    name: wrong\n  name: a # b\nspec:\n  name: wrong\n",
			[]document{config(1, "a")}},
		"flow style":                     {"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n", []document{config(1, "a")}},
		"JSON":                           {"{\n \"apiVersion\": \"v1\",\n \"kind\": \"ConfigMap\",\n \"metadata\": {\"name\": \"a\"}\n}\n", []document{config(1, "a")}},
		"flow metadata":                  {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", []document{config(1, "a")}},
		"an alias":                       {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  labels: {x: &n a}\n  name: *n\n", []document{config(1, "a")}},
		"a separator in a block of text": {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: |\n    --- no\n    kind: Pod\n", []document{config(1, "a")}},
		"Windows lines":                  {"apiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: a\r\n---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: b\r\n", []document{config(1, "a"), config(6, "b")}},
		"a list":                         {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b}\n", []document{config(4, "a"), config(7, "b")}},
		"not YAML":                       {"a: [\n", nil},
		"a namespace":                    {"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n    namespace: n\n    name: a\n", []document{{line: 1, apiVersion: "apps/v1", kind: "Deployment", namespace: "n", name: "a"}}},
		"unindented list":                {"kind: ConfigMap\nxs:\n- a\n- b: c\napiVersion: v1\nmetadata:\n  name: a\n", []document{config(1, "a")}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, documents([]byte(test.text)), cmp.AllowUnexported(document{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzDocuments checks that every line is one of the file, that lines only
// grow, and that skimming finds what parsing finds.
func FuzzDocuments(f *testing.F) {
	f.Add("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n---\n{}\n")
	f.Add("---\nkind: List\nitems: [{kind: A}]\n")
	f.Add("{\"kind\": \"A\"}")
	f.Fuzz(func(t *testing.T, text string) {
		if checkYAML([]byte(text), Limits{}.withDefaults()) != nil {
			return // Refused before anything else looks at it.
		}
		lines, last := strings.Count(text, "\n")+1, 0
		for _, doc := range documents([]byte(text)) {
			if doc.line < last || doc.line < 1 || doc.line > lines {
				t.Errorf("line %d after %d of %d", doc.line, last, lines)
			}
			last = doc.line
		}
		for _, p := range split([]byte(text)) {
			skimmed, ok := skim(p)
			parsed := parseDocument(p)
			if ok && len(parsed) == 1 && !strings.HasSuffix(parsed[0].kind, "List") && (skimmed.kind != parsed[0].kind || skimmed.name != parsed[0].name) {
				t.Errorf("skimmed %+v, parsed %+v", skimmed, parsed[0])
			}
		}
	})
}

func TestCheckYAML(t *testing.T) {
	t.Parallel()
	limits := Limits{}.withDefaults()
	tests := map[string]struct {
		text string
		want string
	}{
		"nothing":                {"", ""},
		"a normal anchor":        {"a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n", ""},
		"many aliases of little": {"a: &x b\nl: [" + strings.Repeat("*x, ", 5000) + "]\n", ""},
		"long text many times": {"a: &x \"" + strings.Repeat("y", 100_000) + "\"\nl: [" + strings.Repeat("*x, ", 5000) + "]\n",
			"aliases expand 6568 YAML nodes to more than 100000: write them out or split the file"},
		"an anchor in itself":         {"a: &x [*x]\n", `alias "*x" stands inside of what it names`},
		"an anchor that is not there": {"a: *x\nb: &y c\n", ""},
		"as deep as allowed":          {strings.Repeat("[", 199) + strings.Repeat("]", 199), ""},
		"too deep in brackets":        {strings.Repeat("[", 202) + strings.Repeat("]", 202), "collections are nested more than 200 deep"},
		"too deep in dashes":          {strings.Repeat("- ", 300) + "a\n", "collections are nested more than 200 deep"},
		"deeper than the parser goes": {strings.Repeat("[", 20_000), "collections are nested more than 200 deep"},
		"many brackets side by side":  {strings.Repeat("- [a]\n", 1000), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := checkYAML([]byte(test.text), limits); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzCheckYAML checks that what passes can be expanded within bounds.
func FuzzCheckYAML(f *testing.F) {
	f.Add("a: &x [1, 2]\nb: &y [*x, *x]\nc: [*y, *y]\n")
	f.Add("a: &x [*x]\n")
	f.Add("? &a [b]\n: *a\n")
	limits := Limits{Nodes: 1000}.withDefaults()
	f.Fuzz(func(t *testing.T, text string) {
		if checkYAML([]byte(text), limits) != nil {
			return
		}
		for _, p := range split([]byte(text)) {
			if size := expanded(p.text, 1_000_000); size > 10*len(p.text)+limits.Nodes+10 {
				t.Errorf("%d bytes expand to %d nodes", len(p.text), size)
			}
		}
	})
}

func TestRemote(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ file, base bool }{
		"a.yaml":                            {false, false},
		"../base":                           {false, false},
		"./github.com/org/repo":             {false, false},
		"/github.com/org/repo":              {false, false},
		"https://example.com/a.yaml":        {true, true},
		"HTTP://example.com/a":              {true, true},
		"ssh://git@example.com/org/repo":    {false, true},
		"file:///srv/repo":                  {false, true},
		"git::https://example.com/org/repo": {false, true},
		"git@example.com:org/repo.git":      {false, true},
		"git@example.com:repo.git":          {false, true},
		"someone@example.com/org/repo":      {false, true},
		"github.com/org/repo/base?ref=v1":   {false, true},
		"GitHub.com/org/repo":               {false, true},
		"github.com:org/repo":               {false, true},
		"github.com/only":                   {false, false},
		"name@host":                         {false, false},
		"bitbucket.org/org/repo":            {false, false},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := isRemoteFile(name); got != want.file {
				t.Errorf("file: %v", got)
			}
			if got := isRemoteBase(name); got != want.base {
				t.Errorf("base: %v", got)
			}
		})
	}
}
