package substitute_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/substitute"
)

// The results follow from the rules of bash; that they are also Flux's is
// tested beside the kustomize package.
func TestSubstitute(t *testing.T) {
	t.Parallel()
	variables := map[string]string{"a": "text", "n": "3", "yes": "true", "empty": "", "lines": "x\ny\n", "file": "/usr/bin/x.tar.gz", "yaml": "{k: [1]}",
		"long": strings.Repeat("x", 100_000)}
	tests := map[string]struct{ value, want string }{
		"a value":                          {"${a}", `"text"`},
		"a value that becomes a number":    {"${n}", `3`},
		"a value that becomes true":        {"${yes}", `true`},
		"a value that becomes a mapping":   {"${yaml}", `{"k":[1]}`},
		"a value beside text stays text":   {"v${n}", `"v3"`},
		"newlines are dropped":             {"${lines}", `"xy"`},
		"a length":                         {"${#a}", `4`},
		"upper case":                       {"${a^^}-${a^}", `"TEXT-Text"`},
		"lower case":                       {"${a,,}-${a,}", `"text-text"`},
		"a part":                           {"${a:1:2}", `"ex"`},
		"a part that overflows":            {"${a:1:9223372036854775807}", "error: variable substitution failed: an expression is out of range"},
		"a prefix cut off":                 {"${file##*/}", `"x.tar.gz"`},
		"a suffix cut off":                 {"${file%%.*}", `"/usr/bin/x"`},
		"a default":                        {"${gone:-d}", `"d"`},
		"a default for empty":              {"${empty:=d}", `"d"`},
		"a default that is a variable":     {"${gone:-${a}}", `"text"`},
		"a replacement":                    {"${file/usr/opt}", `"/opt/bin/x.tar.gz"`},
		"all replaced":                     {"${file//x/y}", `"/usr/bin/y.tar.gz"`},
		"a literal":                        {"$${a}", `"${a}"`},
		"a dollar sign":                    {"$a costs 1$", `"$a costs 1$"`},
		"a variable that is not set":       {"${gone}", `error: variable "gone" is not set and has no default: set it in postBuild, or write ${gone:=default}`},
		"an expression that does not end":  {"${a", `error: variable expression cannot be read: missing closing brace; write $${ for a literal ${`},
		"a result that is too long":        {"${long//x/" + strings.Repeat("y", 1000) + "}", `error: variable substitution could make more than 1048576 bytes of one object`},
		"replacements inside replacements": {"${long//x/${long//x/${long}}}", `error: variable substitution could make more than 1048576 bytes of one object`},
		"a long value to cut from":         {"${long%%x*y}", `error: variable "long" is longer than 65536 bytes, too long to cut a pattern off`},
		"too many dollar signs":            {strings.Repeat("$", 30_000), `error: 30000 dollar signs in one object, the limit is 20000: exclude the object from substitution`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			object := `{"apiVersion":"v1","kind":"ConfigMap","value":"` + test.value + `"}`
			got, err := substitute.New(1<<20).Substitute([]byte(object), build.Substitution{Variables: variables, Strict: true})
			text := strings.TrimSuffix(strings.TrimPrefix(string(got), `{"apiVersion":"v1","kind":"ConfigMap","value":`), "}")
			if test.want[0] == '{' {
				text += "}"
				text = strings.TrimSuffix(text, "}}") + "}"
			}
			if err != nil {
				text = "error: " + err.Error()
			}
			if diff := cmp.Diff(test.want, text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSubstituteOptions(t *testing.T) {
	t.Parallel()
	object := []byte(`{"a":"${gone}"}`)
	got, err := substitute.New(0).Substitute(object, build.Substitution{Variables: map[string]string{"x": "y"}})
	if err != nil || string(got) != `{"a":null}` {
		t.Errorf("a missing variable without strict: %s, %v", got, err)
	}
	_, err = substitute.New(0).Substitute(object, build.Substitution{Variables: map[string]string{"b-c": "secret", "a.b": ""}})
	if err == nil || !strings.Contains(err.Error(), `variable name "a.b" is not valid`) {
		t.Errorf("an invalid name: %v", err)
	}
	_, err = substitute.New(0).Substitute(object, build.Substitution{Variables: map[string]string{"gone": "\"secret: ["}})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a value that breaks the YAML: %v", err)
	}
}

// FuzzSubstitute checks that no expression panics, and that the bound on the
// result holds.
func FuzzSubstitute(f *testing.F) {
	f.Add("${a}${b:-${a}}", "value")
	f.Add("${a//x/yy}${a:1:2}${#a}", "xxx")
	f.Add("$${a}${a%%*}", "x")
	s := substitute.New(10_000)
	f.Fuzz(func(t *testing.T, text, value string) {
		object, err := yamlObject(text)
		if err != nil {
			return
		}
		got, err := s.Substitute(object, build.Substitution{Variables: map[string]string{"a": value, "b": ""}, Always: true})
		// JSON may quote each byte of the YAML text in six.
		if err == nil && len(got) > 6*10_000 {
			t.Errorf("%d bytes of a text that may have 10,000", len(got))
		}
	})
}
