package flux

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/engine"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	s := newSlots(8)
	var a []func()
	for {
		release := s.take(&engine.Remote{Name: "a"})
		if release == nil {
			break
		}
		a = append(a, release)
	}
	if len(a) != 2 {
		t.Errorf("one cluster takes %d of 8 workers, want 2", len(a))
	}
	n := len(a)
	for _, address := range []string{"b", "c", "d", "e", "f"} {
		if s.take(&engine.Remote{Name: address}) != nil {
			n++
		}
	}
	if n != 4 {
		t.Errorf("remote clusters take %d of 8 workers, want 4", n)
	}
	if s.take(nil) == nil {
		t.Error("the own cluster waits for remote ones")
	}
	a[0]()
	if s.take(&engine.Remote{Name: "g"}) == nil {
		t.Error("a slot that was given back is not there")
	}
	if newSlots(1).take(&engine.Remote{Name: "a"}) == nil {
		t.Error("a single worker never goes to a remote cluster")
	}
}
