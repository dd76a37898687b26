package git

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNamesOfRefs: what is refused is what Git itself refuses, and what is too long.
func TestNamesOfRefs(t *testing.T) {
	t.Parallel()
	oracle, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	for what, name := range map[string]string{
		"a branch":                     "refs/heads/main",
		"a branch in a folder":         "refs/heads/team/main",
		"a pull request":               "refs/pull/1/head",
		"one part":                     "HEAD",
		"a dash at the beginning":      "refs/heads/--output=x",
		"letters of other scripts":     "refs/heads/größe",
		"an at sign in it":             "refs/heads/a@b",
		"an at sign at the end":        "refs/heads/@",
		"an at sign alone":             "@",
		"a brace":                      "refs/heads/a{b}",
		"a brace behind an at sign":    "refs/heads/a@{1}",
		"a quote and a dollar":         "refs/heads/$'a\"",
		"a dot in it":                  "refs/heads/v1.0",
		"a dot at the end":             "refs/heads/v1.",
		"a dot at the end of a part":   "refs/heads/v1./x",
		"a dot at the beginning":       "refs/heads/.x",
		"a part with a dot before it":  "refs/.heads/x",
		"two dots":                     "refs/heads/a..b",
		"a lock":                       "refs/heads/x.lock",
		"a part that is a lock":        "refs/x.lock/y",
		"a slash at the end":           "refs/heads/",
		"a slash at the beginning":     "/refs/heads/x",
		"two slashes":                  "refs//heads",
		"a space":                      "refs/heads/a b",
		"a tab":                        "refs/heads/a\tb",
		"a line":                       "refs/heads/a\nb",
		"delete":                       "refs/heads/a\x7fb",
		"a tilde":                      "refs/heads/a~1",
		"a caret":                      "refs/heads/a^1",
		"a colon":                      "refs/heads/a:b",
		"a question mark":              "refs/heads/a?",
		"a star":                       "refs/heads/*",
		"a bracket":                    "refs/heads/[a]",
		"a backslash":                  `refs/heads/a\b`,
		"as long as is allowed":        "refs/heads/" + strings.Repeat("x", longestName-len("refs/heads/")),
		"a name that is not of UTF-8":  "refs/heads/\xff",
		"nothing but slashes and dots": "/./..",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			want := exec.CommandContext(t.Context(), oracle, "check-ref-format", "--allow-onelevel", name).Run() == nil
			if err := checkRef(name); (err == nil) != want {
				t.Errorf("%.100q: error %v, but Git allows it: %v", name, err, want)
			}
		})
	}
	long := checkRef("refs/heads/" + strings.Repeat("x", longestName))
	if long == nil || len(long.Error()) > 2*longestShown {
		t.Errorf("a name that is too long: %v", long)
	}
}
