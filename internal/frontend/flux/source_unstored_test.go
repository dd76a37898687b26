package flux

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNoOlderRevisionAfterARestart: what the consumers have been given they are given after a
// restart too, where it was never told; and the status says what they have.
func TestNoOlderRevisionAfterARestart(t *testing.T) {
	t.Parallel()
	const unstored = "the disk is full; revision 'main@sha1:2' is in use, but is not stored for others, who are still given 'main@sha1:1'"
	for name, test := range map[string]struct {
		file string // of revision 2
		// before and after is what happens before the restart and then.
		before, after func(l *life)
		told, used    string
		ready         metav1.ConditionStatus
		words         string
	}{
		"it cannot be stored": {file: "full", told: "1", used: "2", ready: metav1.ConditionFalse, words: unstored},
		"it cannot be stored, and then not be looked for": {file: "full", before: func(l *life) { l.away(true) },
			told: "1", used: "2", ready: metav1.ConditionFalse,
			words: "the remote does not answer; revision 'main@sha1:2' is in use, but is not stored for others, who are still given 'main@sha1:1'"},
		"it was being packed": {file: "slow", before: func(l *life) { l.away(true) },
			after: func(l *life) { l.packSlow() },
			told:  "2", used: "2", ready: metav1.ConditionFalse, words: "the remote does not answer; revision 'main@sha1:2' stays in force"},
		"it was being packed, and the remote is back at the one before": {file: "slow",
			before: func(l *life) { l.push("app", "1", map[string]string{"a": "1"}) }, after: func(l *life) { l.packSlow() },
			told: "1", used: "1", ready: metav1.ConditionTrue, words: "'main@sha1:1'"},
		// Somebody else's process may have been at work since this folder was written.
		"the folder is not that of the status": {file: "full", before: func(l *life) {
			l.away(true)
			l.folder = l.t.TempDir()
		}, told: "", used: "", ready: metav1.ConditionFalse, words: "the remote does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLife(t, repository("app"))
			l.push("app", "1", map[string]string{"a": "1"})
			l.look("app")
			l.push("app", "2", map[string]string{"a": "2", test.file: "x"})
			l.look("app")
			if test.file == "full" {
				l.expect("before the restart", "app", "1", "2", metav1.ConditionFalse, unstored)
				if c := l.get("app").Status.Conditions; !apimeta.IsStatusConditionTrue(c, sourcev1.StorageOperationFailedCondition) {
					t.Errorf("before the restart the conditions are %+v", c)
				}
			}
			if test.before != nil {
				test.before(l)
			}
			l.restart()
			if test.after != nil {
				test.after(l)
			}
			l.look("app")
			l.expect("after the restart", "app", test.told, test.used, test.ready, test.words)
		})
	}
}

// TestNoRoomToStore: what was taken and does not fit is not said to be refused.
func TestNoRoomToStore(t *testing.T) {
	t.Parallel()
	l := newLife(t, repository("app"))
	l.room = 10
	l.restart()
	l.push("app", "1", map[string]string{"a": "1"})
	l.look("app")
	l.expect("in the beginning", "app", "", "1", metav1.ConditionFalse, "store artifact of app: it does not fit into the 10 bytes")
	ready := apimeta.FindStatusCondition(l.get("app").Status.Conditions, meta.ReadyCondition)
	if want := "; revision 'main@sha1:1' is in use, but is not stored for others"; ready.Reason != noRoom || !strings.HasSuffix(ready.Message, want) {
		t.Errorf("Ready is %+v, want %q and %q", ready, noRoom, want)
	}
}

// TestNoOlderRevisionAfterAnEdit: a revision in use that is not stored is in use after a restart
// though the object was edited meanwhile. One that is suspended must not get what others have
// fetched since, and says what it has.
func TestNoOlderRevisionAfterAnEdit(t *testing.T) {
	t.Parallel()
	slower := func(obj *sourcev1.GitRepository) { obj.Spec.Interval.Duration *= 2 }
	suspend := func(obj *sourcev1.GitRepository) { obj.Spec.Suspend = true }
	elsewhere := func(obj *sourcev1.GitRepository) { obj.Spec.URL = "https://new" }
	for name, test := range map[string]struct {
		file  string // of revision 2
		edit  func(*sourcev1.GitRepository)
		lose  bool // the data folder
		used  string
		ready metav1.ConditionStatus
		words string
	}{
		"it cannot be stored": {file: "full", edit: slower, used: "2", ready: metav1.ConditionFalse,
			words: "; revision 'main@sha1:2' is in use, but is not stored for others, who are still given 'main@sha1:1'"},
		"it was being packed": {file: "slow", edit: slower, used: "2", ready: metav1.ConditionFalse, words: "; revision 'main@sha1:2' stays in force"},
		"something else is followed, of which there is nothing": {file: "full", edit: elsewhere, used: "1", ready: metav1.ConditionFalse,
			words: "; revision 'main@sha1:1' stays in force"},
		"it cannot be stored, and is suspended": {file: "full", edit: suspend, used: "1", ready: metav1.ConditionFalse,
			words: "the disk is full; revision 'main@sha1:1' stays in force"},
		"it was being packed, and is suspended": {file: "slow", edit: suspend, used: "1", ready: metav1.ConditionTrue, words: "'main@sha1:1'"},
		"the folder is not that of the status": {file: "full", edit: slower, lose: true, used: "", ready: metav1.ConditionFalse,
			words: "the remote does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLife(t, repository("app"))
			l.push("app", "1", map[string]string{"a": "1"})
			l.look("app")
			l.push("app", "2", map[string]string{"a": "2", test.file: "x"})
			l.look("app")
			l.edit("app", test.edit)
			l.away(true)
			told := "1"
			if test.lose {
				l.folder, told = t.TempDir(), ""
			}
			l.restart()
			l.look("app")
			l.expect("after the restart", "app", told, test.used, test.ready, test.words)
			before := l.get("app").ResourceVersion
			l.wait(3*mendPause, "app")
			l.expect("later", "app", told, test.used, test.ready, test.words)
			if after := l.get("app").ResourceVersion; after != before {
				t.Errorf("later the status is written again: %s after %s", after, before)
			}
		})
	}
}

// TestStoredInTheEnd: the failure of a suspended object does not go on to say that what others are
// given is older than it is.
func TestStoredInTheEnd(t *testing.T) {
	t.Parallel()
	l := newLife(t, repository("app"))
	l.push("app", "1", map[string]string{"a": "1"})
	l.look("app")
	l.remote.crowded.Store(true)
	l.hold()
	l.push("app", "2", map[string]string{"a": "2"})
	l.look("app")
	l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.Reference.Branch = "mian" })
	l.look("app")
	l.letGo()
	l.look("app")
	l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.Suspend = true })
	l.look("app")
	l.expect("while it cannot be stored", "app", "1", "2", metav1.ConditionFalse,
		"; revision 'main@sha1:2' is in use, but is not stored for others, who are still given 'main@sha1:1'")
	l.remote.crowded.Store(false)
	l.wait(2*mendPause, "app")
	l.expect("once it is", "app", "2", "2", metav1.ConditionFalse, "; revision 'main@sha1:2' stays in force")
}
