package apply

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestHideValues(t *testing.T) {
	t.Parallel()
	hidden := func(text string) bool { return strings.Contains(text, "secret") }
	for name, test := range map[string]struct{ before, after, wantBefore, wantAfter string }{
		"a new object":                 {"null", "{a: my secret, b: x}", "null", "{a: '***', b: x}"},
		"the same":                     {"{a: secret}", "{a: secret}", "{a: '***'}", "{a: '***'}"},
		"what was in its place":        {"{a: old, b: x}", "{a: secret, b: y}", "{a: '*** (before)', b: x}", "{a: '*** (after)', b: y}"},
		"what takes its place":         {"{a: secret}", "{a: new}", "{a: '*** (before)'}", "{a: '*** (after)'}"},
		"another kind of value":        {"{a: secret}", "{a: 1}", "{a: '***'}", "{a: 1}"},
		"what is gone stays":           {"{a: {b: x}}", "{a: {c: secret}}", "{a: {b: x}}", "{a: {c: '***'}}"},
		"what is gone":                 {"{a: secret, b: [x, secret]}", "{b: [x]}", "{a: '***', b: [x, '***']}", "{b: [x]}"},
		"in lists":                     {"{a: [x, {b: old}]}", "{a: [x, {b: secret}, secret]}", "{a: [x, {b: '*** (before)'}]}", "{a: [x, {b: '*** (after)'}, '***']}"},
		"a map in the place of a text": {"{a: old}", "{a: {b: secret}}", "{a: old}", "{a: {b: '***'}}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			read := func(text string) (value any) {
				if err := yaml.Unmarshal([]byte(text), &value); err != nil {
					t.Fatal(err)
				}
				return value
			}
			before, after := hideValues(read(test.before), read(test.after), hidden)
			if diff := cmp.Diff([]any{read(test.wantBefore), read(test.wantAfter)}, []any{before, after}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
