package git

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

func TestRedacted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://host/app":                    "https://host/app",
		"https://token@host/app?x=secret":     "https://host/app",
		"http://user:secret@host/app":         "http://host/app",
		"ssh://git:secret@host/app":           "ssh://git@host/app",
		"https://user:sec%ret@host/app":       hidden,
		"https://user:p@secret@host:port/app": hidden,
		"https:user:secret@host/app":          hidden,
		"user:secret@host/app":                hidden,
		"secret@host/app":                     hidden,
		"/etc":                                "/etc",
	} {
		got := redacted(text)
		if got != want || strings.Contains(got, "secret") {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func TestSubmodulesStayWithTLS(t *testing.T) {
	t.Parallel()
	parent := Request{URL: "https://host/app"}
	if _, err := submoduleRequest(parent, module{path: "m", url: "http://host/m"}, pack.ID{1}); err == nil {
		t.Error("a submodule leads from https to http")
	}
	for _, url := range []string{"https://host/m", "../m", "ssh://git@host/m"} {
		if _, err := submoduleRequest(parent, module{path: "m", url: url}, pack.ID{1}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}
