package source_test

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source"
)

// TestFilterRefusesTooManyPatterns: each file is compared with each pattern.
func TestFilterRefusesTooManyPatterns(t *testing.T) {
	t.Parallel()
	half, long := strings.Repeat("x\n", 5000), strings.Repeat("#"+strings.Repeat("-", 1022)+"\n", 600)
	for name, test := range map[string]struct {
		files   []string
		ignore  string
		refused string
	}{
		"as many patterns as are allowed": {files: []string{".sourceignore=" + half, "a/.sourceignore=" + half}},
		"too many in the files together":  {files: []string{".sourceignore=" + half, "a/.sourceignore=" + half + "y"}, refused: "more than 10000 ignore patterns"},
		"too many with the given ones":    {files: []string{".sourceignore=" + half, "a/.sourceignore=" + half}, ignore: "y", refused: "more than 10000 ignore patterns"},
		"as many bytes as are allowed":    {files: []string{"a/.sourceignore=" + long}},
		"too many bytes together":         {files: []string{"a/.sourceignore=" + long, "b/.sourceignore=" + long}, refused: "bytes together"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := source.Filter(tree(test.files...), test.ignore)
			if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
				t.Errorf("got error %v, want %q", err, test.refused)
			}
		})
	}
}
