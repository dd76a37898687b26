package generate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/generate"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files, pattern string
		template       generate.Template
		want           []string // name, captures and first rule of each artifact
	}{
		"one placeholder": {"apps/auth/a\napps/pay/a\napps/file\nother/x/a", "@s/apps/{app}", generate.Template{Name: "app-{app}"},
			[]string{"app-auth map[app:auth]", "app-pay map[app:pay]"}},
		"two placeholders": {"apps/auth/envs/dev/a\napps/auth/envs/prod/a\napps/pay/a\napps/x/envs/dev", "@s/apps/{app}/envs/{env}", generate.Template{Name: "{app}-{env}"},
			[]string{"auth-dev map[app:auth env:dev]", "auth-prod map[app:auth env:prod]"}},
		"two in one element": {"web-dev/a\nweb/a", "@s/{app}-{env}", generate.Template{Name: "{env}.{app}"}, []string{"dev.web map[app:web env:dev]"}},
		"names in lower case, paths as they are": {"apps/Auth/a", "@s/apps/{app}", generate.Template{Name: "{app}", Copy: []generate.Copy{rule("@s/apps/{app}/**", "@artifact/{app}/", "*.md")}},
			[]string{"auth map[app:auth] {@s/apps/Auth/** @artifact/Auth/ [*.md] }"}},
		"no placeholder":              {"apps/auth/a", "@s/apps/auth", generate.Template{Name: "x"}, []string{"x map[]"}},
		"other signs mean themselves": {"a.b/x\naxb/x", "@s/a.b", generate.Template{Name: "x"}, []string{"x map[]"}},
		"nothing found":               {"apps/auth/a", "@s/teams/{t}", generate.Template{Name: "{t}"}, nil},
		"a slash at the end":          {"apps/auth/a", "@s/apps/{app}/", generate.Template{Name: "{app}"}, nil},
		"the root is no directory":    {"a", "@s/", generate.Template{Name: "x"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outputs, err := generate.New(sources(map[string]string{"s": tt.files}), nil).Expand(t.Context(), tt.pattern, []generate.Template{tt.template})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range outputs {
				text := fmt.Sprint(o.Name, " ", o.Captures)
				for _, rule := range o.Copy {
					text += fmt.Sprint(" ", rule)
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("artifacts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExpandWithoutPattern(t *testing.T) {
	t.Parallel()
	rules := []generate.Copy{rule("@s/{a}", "@artifact/")}
	got, err := generate.New(nil, nil).Expand(t.Context(), "", []generate.Template{{Name: "a", Copy: rules}, {Name: "b"}})
	want := []generate.Output{{Name: "a", Copy: rules}, {Template: 1, Name: "b"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("artifacts (-want +got), %v:\n%s", err, diff)
	}
}

func TestExpandRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64)
	tests := map[string]struct{ files, pattern, name, want string }{
		"an unknown source":                      {"a/b", "@t/{x}", "{x}", `no source has the alias "t"`},
		"a pattern without a source":             {"a/b", "s/{x}", "{x}", "has to be @alias/path"},
		"a placeholder without a name":           {"a/b", "@s/{}", "x", "{} is no placeholder"},
		"a placeholder with a dash":              {"a/b", "@s/{a-b}", "x", "{a-b} is no placeholder"},
		"a placeholder that begins with a digit": {"a/b", "@s/{1a}", "x", "{1a} is no placeholder"},
		"a placeholder that is no key":           {"a/b", "@s/{_a}", "x", "{_a} is no key of a label"},
		"a placeholder that is twice in it":      {"a/b", "@s/{a}/{a}", "x", "{a} is in it twice"},
		"a brace that is not closed":             {"a/b", "@s/{a", "x", "opening brace without a closing one"},
		"a brace that is not opened":             {"a/b", "@s/a}", "x", "closing brace without an opening one"},
		"a placeholder that is not found":        {"a/b", "@s/{a}", "{b}", "has no placeholder {b}"},
		"names that differ in case only":         {"A/b\na/b", "@s/{a}", "{a}", `two directories make an artifact "a"`},
		"a name for all directories":             {"x/b\ny/b", "@s/{a}", "one", `two directories make an artifact "one"`},
		"a directory that is no label":           {".hidden/b", "@s/{a}", "x-{a}", `in directory ".hidden", {a} stands for ".hidden", which is no value of a label`},
		"a directory that is too long":           {long + "/b", "@s/{a}", "x-{a}", "which is no value of a label"},
		"a directory with a star":                {"a*/b", "@s/{a}", "{a}", "which is no value of a label"},
		"a directory that goes up":               {"..a/b", "@s/{a}", "{a}", "which is no value of a label"},
		"a name that is none":                    {"a_b/b", "@s/{a}", "{a}", `the artifact "a_b" would have a name that is none`},
		"a name with a slash":                    {"a/b", "@s/{a}", "../{a}", `the artifact "../a" would have a name that is none`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := generate.New(sources(map[string]string{"s": tt.files}), nil)
			_, err := c.Expand(t.Context(), tt.pattern, []generate.Template{{Name: tt.name}})
			var e *gitops.Error
			if !errors.As(err, &e) || e.Kind != gitops.Stalled || e.Reason != "BuildFailed" {
				t.Fatalf("the error is %#v", err)
			}
			if want := fmt.Sprintf("path pattern %q: ", tt.pattern); !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %q, want it to begin with %q and to say %q", err, want, tt.want)
			}
		})
	}
}

// TestExpandIsBounded finds more directories than there may be artifacts.
func TestExpandIsBounded(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("apps/a%d/x", i)] = ""
	}
	from := map[string]generate.Source{"s": {ID: "s", Files: sourcetest.Memory(files)}}
	_, err := generate.New(from, nil).Expand(t.Context(), "@s/apps/{app}", []generate.Template{{Name: "{app}"}})
	if err == nil || !strings.Contains(err.Error(), "it finds directories for more than 2000 artifacts") {
		t.Errorf("the error is %v", err)
	}
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"@s/{a}", "@s/apps/{a}/{b}", "@s/x{a}-{b}y/*", "@s/{", "@s/}", "@s/{a}{b}", "@s//..", "@s/(?P<x>.)", "@s/\x00/{a}"} {
		f.Add(seed, "{a}")
	}
	from := sources(map[string]string{"s": "apps/a/b\napps/B/c\nx1-2y/z\n..x/y"})
	f.Fuzz(func(t *testing.T, pattern, name string) {
		outputs, err := generate.New(from, nil).Expand(t.Context(), pattern, []generate.Template{{Name: name, Copy: []generate.Copy{rule("@s/{a}", "@artifact/{a}")}}})
		for _, o := range outputs {
			if err != nil || pattern != "" && strings.ContainsAny(o.Name, "/\\{} ") {
				t.Fatalf("%q is found with the error %v", o.Name, err)
			}
			for _, value := range o.Captures {
				if strings.ContainsAny(value, "/*?[]") || strings.HasPrefix(value, ".") {
					t.Fatalf("%q is captured", value)
				}
			}
		}
	})
}
