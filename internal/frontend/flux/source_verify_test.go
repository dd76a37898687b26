package flux

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStoredOnceThereIsRoom: what could not be stored is stored later, also of an object that is
// not looked at any more.
func TestStoredOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	suspend := func(l *life) { l.edit("app", func(obj *sourcev1.GitRepository) { obj.Spec.Suspend = true }) }
	for name, test := range map[string]struct {
		meanwhile func(l *life)
		told      string
	}{
		"its file is lost": {meanwhile: func(l *life) {
			suspend(l)
			if err := os.Remove(filepath.Join(l.folder, l.get("app").Status.Artifact.Path)); err != nil {
				l.t.Fatal(err)
			}
		}, told: "1"},
		"it is suspended while it is packed": {meanwhile: func(l *life) {
			l.hold()
			l.push("app", "2", map[string]string{"a": "2"})
			l.look("app")
			suspend(l)
			l.letGo()
		}, told: "2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLife(t, repository("app"))
			l.push("app", "1", map[string]string{"a": "1"})
			l.look("app")
			l.remote.crowded.Store(true)
			test.meanwhile(l)
			if result := l.look("app"); result.RequeueAfter <= 0 || result.RequeueAfter > mendPause {
				t.Errorf("it is looked at again after %s, want %s", result.RequeueAfter, mendPause)
			}
			l.wait(3*mendPause, "app")
			if last := l.last("app"); last.failure == nil {
				t.Fatalf("it is stored: %+v", last)
			}
			l.remote.crowded.Store(false)
			l.wait(mendPause+10*time.Second, "app")
			l.expect("once there is room", "app", test.told, test.told, metav1.ConditionTrue, "'main@sha1:"+test.told+"'")
		})
	}
}
