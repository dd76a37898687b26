package flux

import (
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWhatTheStatusNamesIsKept: while a newer revision is in use that the status does not name,
// for whatever reason, the one that it names is served; and the newer one is named as soon as
// it can be.
func TestWhatTheStatusNamesIsKept(t *testing.T) {
	t.Parallel()
	suspend := func(l *life) { l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.Suspend = true }) }
	mistype := func(l *life) { l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.Reference.Branch = "mian" }) }
	for name, test := range map[string]struct {
		// meanwhile happens while revision 2 is being packed, after the consumers got it.
		meanwhile func(l *life)
		ready     metav1.ConditionStatus
		words     [2]string // before and after it is packed
	}{
		"it is suspended": {suspend, metav1.ConditionTrue, [2]string{"'main@sha1:1'", "'main@sha1:2'"}},
		"its declaration becomes wrong": {mistype, metav1.ConditionFalse,
			[2]string{"; revision 'main@sha1:2' stays in force", "; revision 'main@sha1:2' stays in force"}},
		"it is suspended with a wrong declaration": {func(l *life) { mistype(l); suspend(l) }, metav1.ConditionTrue, [2]string{"'main@sha1:1'", "'main@sha1:2'"}},
		"it is suspended after its declaration was refused": {func(l *life) {
			l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.URL = "ftp://app" })
			l.look("app")
			suspend(l)
		}, metav1.ConditionFalse, [2]string{"ftp", "ftp"}},
		"somebody asks while the remote is away": {func(l *life) { l.away(true); l.request("app", "now") }, metav1.ConditionFalse,
			[2]string{"; revision 'main@sha1:2' stays in force", "; revision 'main@sha1:2' stays in force"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLife(t, repository("app"))
			l.push("app", "1", map[string]string{"a": "1"})
			l.look("app")
			l.expect("in the beginning", "app", "1", "1", metav1.ConditionTrue, "'main@sha1:1'")
			l.hold()
			l.push("app", "2", map[string]string{"a": "2"})
			l.look("app")
			test.meanwhile(l)
			l.look("app")
			l.expect("while it waits to be packed", "app", "1", "2", test.ready, test.words[0])
			l.wait(5*time.Minute, "app")
			l.expect("when it has waited for long", "app", "1", "2", test.ready, test.words[0])
			l.letGo()
			l.look("app")
			l.expect("when it is packed", "app", "2", "2", test.ready, test.words[1])
			if n := l.events.count("app", "2"); n != 1 {
				t.Errorf("when it is packed that is told %d times", n)
			}
			before, asked := l.get("app").ResourceVersion, l.asked("app")
			l.wait(5*time.Minute, "app")
			if more := l.asked("app") - asked; (more > 0) == l.get("app").Spec.Suspend {
				t.Errorf("the remote is asked %d times, suspended: %t", more, l.get("app").Spec.Suspend)
			}
			l.expect("later", "app", "2", "2", test.ready, test.words[1])
			if after := l.get("app").ResourceVersion; after != before {
				t.Errorf("the status is written again: %s after %s", after, before)
			}
			l.restart()
			l.look("app")
			l.expect("after a restart", "app", "2", "2", test.ready, test.words[1])
		})
	}
}
