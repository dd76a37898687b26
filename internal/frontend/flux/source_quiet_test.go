package flux

import (
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

// TestUnstoredIsToldOnce: that a revision which is in use cannot be stored is told once, though
// it is tried again and again; and so is that it can be in the end.
func TestUnstoredIsToldOnce(t *testing.T) {
	t.Parallel()
	awayAndRestarted := func(l *life) { l.away(true); l.restart() }
	mistyped := func(l *life) {
		l.hold()
		l.push("app", "2", map[string]string{"a": "2"})
		l.look("app")
		l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.Reference.Branch = "mian" })
		l.look("app")
		l.letGo()
	}
	for name, test := range map[string]struct {
		includes []string
		// early and late happen before and after revision 2 is found to be not storable.
		early, late func(l *life)
	}{
		"the remote answers":                          {},
		"the remote is away after a restart":          {late: awayAndRestarted},
		"its declaration becomes wrong meanwhile":     {early: mistyped},
		"it includes another one that cannot be, too": {includes: []string{"lib"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLife(t, repository("app", test.includes...), repository("lib"))
			push := func(revision string) {
				for _, name := range []string{"lib", "app"} {
					l.push(name, revision, map[string]string{"a": revision})
					l.look(name)
				}
			}
			push("1")
			l.remote.crowded.Store(true)
			if test.early != nil {
				test.early(l)
			}
			push("2")
			if test.late != nil {
				test.late(l)
			}
			l.wait(2*mendPause, "lib", "app")
			before, events := l.get("app").ResourceVersion, l.events.all("app")
			l.wait(10*time.Minute, "lib", "app")
			if after := l.get("app").ResourceVersion; after != before {
				t.Errorf("the status is written again: %s after %s", after, before)
			}
			if more := l.events.all("app") - events; more > 0 {
				t.Errorf("%d more events are sent", more)
			}
			l.remote.crowded.Store(false)
			l.wait(2*mendPause, "lib", "app")
			if a := l.get("app").Status.Artifact; a == nil || a.Revision != "main@sha1:2" {
				t.Errorf("once there is room %+v is advertised", a)
			}
			if n := l.events.count("app", "2"); n != 1 {
				t.Errorf("once there is room that is told %d times", n)
			}
		})
	}
}
