package try

import (
	"errors"
	"strings"
	"testing"
)

func TestChoosePath(t *testing.T) {
	t.Parallel()
	one := []string{"README.md", "apps/web.yaml", "clusters/a/apps.yaml", "clusters/a/flux-system/gotk-sync.yaml"}
	two := append([]string{"clusters/b/flux-system/gotk-sync.yaml"}, one...)
	tests := map[string]struct {
		asked, inside string
		files         []string
		want, fails   string
	}{
		"the root of a plain repository":          {files: []string{"web.yaml"}, want: ""},
		"the only cluster that was bootstrapped":  {files: one, want: "clusters/a"},
		"a bootstrapped root":                     {files: []string{"flux-system/gotk-sync.yaml", "a.yaml"}, want: ""},
		"one of several clusters has to be named": {files: two, fails: "clusters/a, clusters/b"},
		"what --path says":                        {asked: "./clusters/b/", files: two, want: "clusters/b"},
		"--path over the named folder":            {asked: "apps", inside: "clusters/a", files: one, want: "apps"},
		"--path for the root":                     {asked: ".", files: two, want: ""},
		"the folder that was named":               {inside: "apps", files: two, want: "apps"},
		"a folder that is not there":              {asked: "cluster", files: one, fails: `"cluster"; there are clusters/a`},
		"a folder outside":                        {asked: "../x", files: one, fails: "leaves the repository"},
		"a part of a name is no folder":           {asked: "app", files: one, fails: `"app"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, why, err := choosePath(tt.asked, tt.inside, tt.files)
			if tt.fails != "" {
				if !errors.Is(err, errPath) || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("error is %v, want one with %q", err, tt.fails)
				}
				return
			}
			if err != nil || got != tt.want || why == "" {
				t.Errorf("chosen is %q because %q (%v), want %q", got, why, err, tt.want)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]struct{ url, ok bool }{
		".":                              {false, false},
		"../fleet":                       {false, false},
		"https://example.org/fleet.git":  {true, true},
		"http://127.0.0.1:80/fleet":      {true, true},
		"https://me:secret@example.org/": {true, false},
		"ssh://git@example.org/fleet":    {true, false},
		"git@example.org:fleet.git":      {true, false},
		"file:///srv/fleet.git":          {true, false},
	} {
		if got := isURL(target); got != want.url {
			t.Errorf("%q is a URL: %v", target, got)
		}
		if want.url && (checkURL(target) == nil) != want.ok {
			t.Errorf("%q can be followed: %v", target, checkURL(target))
		}
	}
}
