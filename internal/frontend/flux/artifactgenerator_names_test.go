package flux

import (
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestMakers: of two generators that want a name one has it until it gives it up, however
// what they do is mixed.
func TestMakers(t *testing.T) {
	t.Parallel()
	ref := gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.ExternalArtifactKind, Namespace: "a", Name: "x"}
	none, one, two := maker{}, maker{"1", "one"}, maker{"2", "two"}
	take := func(was, next maker) func(*makers) { return func(m *makers) { m.take(ref, was, next) } }
	leave := func(uid types.UID) func(*makers) { return func(m *makers) { m.leave(ref, uid) } }
	for name, test := range map[string]struct {
		steps []func(*makers)
		want  maker
	}{
		"nobody's":                               {nil, none},
		"the first one has it":                   {[]func(*makers){take(none, one)}, one},
		"of two that saw it free, the first one": {[]func(*makers){take(none, one), take(none, two)}, one},
		"again by the same one":                  {[]func(*makers){take(none, one), take(one, one)}, one},
		"of one that is gone":                    {[]func(*makers){take(none, one), take(one, two)}, two},
		"of one that is gone, for one of two":    {[]func(*makers){take(none, maker{"3", "three"}), take(maker{"3", "three"}, one), take(maker{"3", "three"}, two)}, one},
		"given up by another one":                {[]func(*makers){take(none, one), leave("2")}, one},
		"given up":                               {[]func(*makers){take(none, one), leave("1")}, none},
		"given up and taken":                     {[]func(*makers){take(none, one), leave("1"), take(one, two)}, two},
		"all given up":                           {[]func(*makers){take(none, one), func(m *makers) { m.leaveAll("1") }}, none},
		"all of another one given up":            {[]func(*makers){take(none, one), func(m *makers) { m.leaveAll("2") }}, one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMakers()
			for _, step := range test.steps {
				step(m)
			}
			withUID := ref
			withUID.UID = "of the object"
			if got := m.get(withUID); got != test.want {
				t.Errorf("it is that of %+v, want %+v", got, test.want)
			}
			kept := -1
			if err := m.with(func(refs []gitops.OwnerRef) error { kept = len(refs); return nil }); err != nil || (kept == 1) != (test.want != none) {
				t.Errorf("%d are somebody's: %v", kept, err)
			}
		})
	}
}
