package source_test

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source"
)

func TestPatternsExcludeByName(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		texts []string
		name  string
		want  bool
	}{
		"nothing is built in":              {nil, ".git/config", false},
		"nor beside others":                {[]string{"*.md"}, "a.jpg", false},
		"a file is excluded":               {[]string{"*.md"}, "docs/a.md", true},
		"a later text brings it back":      {[]string{"*.md", "!a.md"}, "docs/a.md", false},
		"an earlier one does not":          {[]string{"!a.md", "*.md"}, "docs/a.md", true},
		"a folder with all below it":       {[]string{"/docs/"}, "docs/x/a", true},
		"a folder of that name elsewhere":  {[]string{"/docs/"}, "y/docs/a", false},
		"an object called like the folder": {[]string{"/docs/"}, "docs", false},
		"comments are no patterns":         {[]string{"#a\n\n"}, "#a", false},
		"a name that is no path":           {[]string{"x"}, "../x", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			patterns, err := source.ParsePatterns(tt.texts...)
			if err != nil {
				t.Fatal(err)
			}
			if got := patterns.Exclude(tt.name); got != tt.want {
				t.Errorf("%q: excluded %v, want %v", tt.name, got, tt.want)
			}
		})
	}
	if _, err := source.ParsePatterns(strings.Repeat("a\n", 10_001)); err == nil {
		t.Error("too many patterns: no error")
	}
}
