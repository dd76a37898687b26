package flux

import (
	"maps"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPartsThatAreNotStored: a repository goes on whatever becomes of the files of those that it
// includes: theirs are not in its own.
func TestPartsThatAreNotStored(t *testing.T) {
	t.Parallel()
	lib := map[string]string{"lib/a": "1", "b": "1"}
	with := func(name string) map[string]string {
		files := maps.Clone(lib)
		files[name], files["lib/a"] = "x", "2"
		return files
	}
	for name, meanwhile := range map[string]func(l *life){
		"the included one is being packed": func(l *life) { l.push("lib", "2", with("slow")) },
		"and gets an empty commit": func(l *life) {
			l.push("lib", "2", with("slow"))
			l.look("lib")
			l.push("lib", "3", with("slow"))
		},
		"it cannot be stored": func(l *life) { l.push("lib", "2", with("full")) },
		"it cannot be stored, and gets an empty commit": func(l *life) {
			l.push("lib", "2", with("full"))
			l.look("lib")
			l.push("lib", "3", with("full"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := repository("app", "lib")
			app.Spec.Include[0].FromPath = "lib"
			l := newLife(t, app, repository("lib"))
			l.push("lib", "1", lib)
			l.push("app", "1", map[string]string{"a": "1"})
			l.look("lib")
			l.look("app")
			l.expect("in the beginning", "app", "1", "1", metav1.ConditionTrue, "'main@sha1:1'")
			first := l.get("app").Status
			if len(first.IncludedArtifacts) != 1 {
				t.Fatalf("included are %v", first.IncludedArtifacts)
			}
			meanwhile(l)
			l.look("lib")
			l.wait(time.Minute, "app")
			l.expect("when it is included", "app", "1", "1", metav1.ConditionTrue, "'main@sha1:1'")
			if now := l.get("app").Status.Artifact; now.Digest == first.Artifact.Digest {
				t.Error("what is included now is not in it")
			}
			asked := l.asked("app")
			l.push("app", "2", map[string]string{"a": "2"})
			l.request("app", "now")
			l.wait(time.Minute, "app")
			l.expect("with a new commit", "app", "2", "2", metav1.ConditionTrue, "'main@sha1:2'")
			if l.asked("app") == asked || l.get("app").Status.LastHandledReconcileAt != "now" {
				t.Error("the remote is not asked, or the request is not answered")
			}
			l.packSlow()
			l.push("lib", "4", lib)
			l.look("lib")
			l.wait(20*time.Second, "app")
			l.expect("in the end", "app", "2", "2", metav1.ConditionTrue, "'main@sha1:2'")
			if now := l.get("app").Status.IncludedArtifacts; len(now) != 1 || now[0].Revision != "main@sha1:4" {
				t.Errorf("included are %v in the end", now)
			}
		})
	}
}

// TestPartsArePackedSoon: a revision is told together with what it includes, where that is
// packed a moment later.
func TestPartsArePackedSoon(t *testing.T) {
	t.Parallel()
	app := repository("app", "lib")
	app.Spec.Include[0].FromPath = "lib"
	l := newLife(t, app, repository("lib"))
	l.push("lib", "1", map[string]string{"lib/a": "1", "slow": "x"})
	l.push("app", "1", map[string]string{"a": "1"})
	l.look("lib")
	l.look("app")
	if a := l.get("app").Status.Artifact; a != nil {
		t.Errorf("%q is told before what it includes is packed", a.Revision)
	}
	l.packSlow()
	l.look("lib")
	if s := l.get("app").Status; s.Artifact == nil || len(s.IncludedArtifacts) != 1 || l.asked("app") != 1 {
		t.Errorf("after it is packed %v and %v are told, and the remote was asked %d times", s.Artifact, s.IncludedArtifacts, l.asked("app"))
	}
}
