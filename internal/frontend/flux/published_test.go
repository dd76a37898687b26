package flux

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/source"
)

// TestNobodysDownload: what was brought for an object in whose place there is another one of
// its name is given back.
func TestNobodysDownload(t *testing.T) {
	t.Parallel()
	p := &published{downloaded: map[types.NamespacedName]types.UID{}, pauses: newPauses(), flights: newFlights[struct{}]()}
	key := types.NamespacedName{Namespace: "a", Name: "b"}
	released := 0
	p.remember(key, "new")
	_, cancel := context.WithCancel(t.Context())
	under := &flight[struct{}]{key: "k", cancel: cancel, done: make(chan struct{}), place: func() {}}
	p.flights.begin("new", under)
	p.flights.land(under, source.Result{Release: func() { released++ }}, nil)
	p.remember(key, "new")
	if released != 0 {
		t.Error("it is given back though the object is there")
	}
	p.remember(key, "newer")
	if released != 1 {
		t.Errorf("it was given back %d times, want once", released)
	}
}
