package source_test

import (
	"bufio"
	"io/fs"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"

	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// linesAsFlux are the patterns of an ignore file as Flux reads them: a line is none where
// it begins with a number sign or has nothing but blanks.
func linesAsFlux(text string) []gitignore.Pattern {
	var patterns []gitignore.Pattern
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := lines.Text(); !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			patterns = append(patterns, gitignore.ParsePattern(line, nil))
		}
	}
	return patterns
}

// FuzzPatterns reads ignore files: those of a tree and the names of a listing are judged
// alike, and as the matcher does that Flux uses.
func FuzzPatterns(f *testing.F) {
	for _, seed := range []string{
		"*.md\n!a.md", "/docs/\r\n#x\n\n  \n", "**/a\nb/**\n/**/c/", "!\n/\n//\n!/", "a\\ \nb \n\\#c\n\\!d", "[a-\n[!a]\n[^b]x", "?/*\n***\na**b", "a/./b\n../c\na//b", "\x00\xff", "**", "**/", "/**",
	} {
		f.Add(seed, "docs/a.md")
		f.Add(seed, "a/b/c")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		if len(text) > 4<<10 || len(name) > 200 || strings.Count(name, "/") > 20 {
			return // patterns and names are bounded elsewhere
		}
		patterns, err := source.ParsePatterns(text)
		if err != nil {
			t.Fatal(err)
		}
		got := patterns.Exclude(name)
		if want := gitignore.NewMatcher(linesAsFlux(text)).Match(strings.Split(name, "/"), false); got != want {
			t.Fatalf("%q: excluded %v, with Flux %v", name, got, want)
		}
		if !fs.ValidPath(name) || name == "." {
			return
		}
		filtered, err := source.Filter(sourcetest.Memory(map[string]string{name: "x"}), text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = filtered.Stat(name)
		if shown := sourcetest.Contents(t, filtered)[name] == "x"; shown != (err == nil) {
			t.Errorf("%q: it is shown %v, but Stat says %v", name, shown, err)
		}
		if len(linesAsFlux(text)) > 0 && !strings.Contains(name, ".git") && got != (err != nil) {
			t.Errorf("%q: excluded %v by its name, and in a tree %v", name, got, err)
		}
	})
}
