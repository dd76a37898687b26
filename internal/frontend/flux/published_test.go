package flux

import (
	"context"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// TestNobodysDownload: what was brought for an object in whose place there is another one of
// its name is given back.
func TestNobodysDownload(t *testing.T) {
	t.Parallel()
	p := &published{downloaded: map[types.NamespacedName]types.UID{}, pauses: newPauses(), flights: newFlights[meta.Artifact]()}
	key := types.NamespacedName{Namespace: "a", Name: "b"}
	released := 0
	p.remember(key, "new")
	_, cancel := context.WithCancel(t.Context())
	under := &flight[meta.Artifact]{key: "k", cancel: cancel, done: make(chan struct{}), place: func() {}}
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

// TestPanickingDownload: what would have ended one reconciliation ends no process.
func TestPanickingDownload(t *testing.T) {
	t.Parallel()
	a := &meta.Artifact{URL: "https://example.com/a", Digest: "sha256:" + strings.Repeat("0", 64)}
	_, err := (&published{}).guarded(t.Context(), gitops.OwnerRef{}, a) // It has no cache.
	if err == nil || !strings.Contains(err.Error(), "artifact at https://example.com/a: internal error") {
		t.Errorf("error %v", err)
	}
}
