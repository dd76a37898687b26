package source_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/plumb-gitops/plumb/internal/source"
)

func TestWrittenOut(t *testing.T) {
	t.Parallel()
	var levels strings.Builder
	levels.WriteString("x0: &x0 [a,a,a,a,a,a,a,a,a]\n")
	for i := range 40 {
		fmt.Fprintf(&levels, "x%d: &x%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*x%d,", i), 9))
	}
	wide := "\xff\xfe"
	for _, unit := range utf16.Encode([]rune("a: &a " + strings.Repeat("x", 400) + "\nb: [" + strings.Repeat("*a,", 10) + "]\n")) {
		wide += string([]byte{byte(unit), byte(unit >> 8)})
	}
	for name, test := range map[string]struct {
		text, want string
	}{
		"no aliases, and no YAML either":         {"a: {" + strings.Repeat("x", 2000), ""},
		"aliases that make little":               {"a: &a {b: 1}\nc: *a\nd: *a\n", ""},
		"signs that are no aliases":              {"a: b & c * d\n", ""},
		"a long text, named often":               {"a: &a " + strings.Repeat("x", 400) + "\nb: [" + strings.Repeat("*a,", 3) + "]\n", "more than 1000 bytes"},
		"lists of lists":                         {levels.String(), "more than 1000 bytes"},
		"many small nodes":                       {"a: &a [1,1,1,1,1,1,1,1,1,1]\nb: [" + strings.Repeat("*a,", 25) + "]\n", "more than 1000 bytes"},
		"a map that is merged often":             {"a: &a {b: " + strings.Repeat("x", 400) + "}\n" + strings.Repeat("c: {<<: *a}\n", 3), "more than 1000 bytes"},
		"an anchor in itself":                    {"a: &a [*a]\n", "more than 1000 bytes"},
		"little in each of many documents":       {strings.Repeat("a: &a "+strings.Repeat("x", 100)+"\nb: [*a,*a]\n---\n", 4), "more than 1000 bytes"},
		"a bomb in the second document":          {"a: 1\n---\n" + "a: &a " + strings.Repeat("x", 400) + "\nb: [*a,*a]\n", "more than 1000 bytes"},
		"a bomb in other characters":             {wide, "more than 1000 bytes"},
		"what may have aliases and is no YAML":   {"a: &a {\nb: *a\n", "yaml: line"},
		"such a document after one that is YAML": {"a: 1\n---\na: &a {\nb: *a\n", "yaml: line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, err := source.WrittenOut([]byte(test.text), 1000)
			if test.want == "" {
				if err != nil || all.Bytes < int64(len(test.text)) {
					t.Errorf("%d bytes of %d, %v", all.Bytes, len(test.text), err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%d bytes, %v; want an error with %q", all.Bytes, err, test.want)
			}
		})
	}
}

// TestNodesWrittenOut: nodes are counted as often as they are named.
func TestNodesWrittenOut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want int64
	}{
		"no aliases":                 {"a: [1, 2]", 0},
		"a list that is named twice": {"a: &a [1, 2]\nb: [*a, *a]\n", 14},
		"in the second document":     {"a: 1\n---\na: &a [1, 2]\nb: [*a, *a]\n", 18},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, err := source.WrittenOut([]byte(test.text), 1000)
			if err != nil || all.Nodes != test.want {
				t.Errorf("%d nodes, want %d: %v", all.Nodes, test.want, err)
			}
		})
	}
}
