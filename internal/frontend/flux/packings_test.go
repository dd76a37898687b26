package flux

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// TestPackingsAreBounded: of one namespace, of all together, and as long as somebody waits.
func TestPackingsAreBounded(t *testing.T) {
	t.Parallel()
	p := newPackings()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var leaves []func()
	take := func(namespace string) {
		t.Helper()
		leave, err := p.take(t.Context(), namespace)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	full := func(namespace, when string) {
		t.Helper()
		if _, err := p.take(gone, namespace); !errors.Is(err, context.Canceled) {
			t.Errorf("namespace %q, %s: %v", namespace, when, err)
		}
	}
	for range namespacePackings {
		take("a")
	}
	full("a", "which has all of its places")
	for _, namespace := range []string{"b", "c", "d"} {
		for range namespacePackings {
			take(namespace)
		}
	}
	full("e", "where all places are taken")
	waits := make(chan error, 1)
	go func() {
		leave, err := p.take(t.Context(), "e")
		if err == nil {
			leave()
		}
		waits <- err
	}()
	for _, leave := range leaves {
		leave()
	}
	if err := <-waits; err != nil {
		t.Errorf("who waits: %v", err)
	}
	if len(p.of) != 0 || len(p.all) != 0 {
		t.Errorf("%d namespaces and %d places are kept", len(p.of), len(p.all))
	}
}

// TestPackingTakesAPlace: an artifact is packed once there is a place.
func TestPackingTakesAPlace(t *testing.T) {
	t.Parallel()
	r, _, _ := cleaned(t)
	r.packings, r.sources, r.triggers = newPackings(), newSources(), &triggers{}
	r.fetched, r.packers = map[types.UID]fetched{}, map[types.UID]int{}
	r.kind = alone{}
	var leaves []func()
	for range namespacePackings {
		leave, err := r.packings.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	obj := &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "app", UID: "app"}}
	next := fetched{revision: "main@sha1:1"}
	next.artifact = gitops.Artifact{Source: sourceOwner(obj, sourcev1.GitRepositoryKind), Revision: next.revision}
	r.sources.publish(next.artifact.Source, gitops.Snapshot{Artifact: next.artifact, Files: sourcetest.Memory(map[string]string{"a": "1"}), Release: func() {}})
	r.startPacking(t.Context(), obj, next)
	users := func() int {
		r.packings.mu.Lock()
		defer r.packings.mu.Unlock()
		return r.packings.of["a"].users
	}
	for end := time.Now().Add(time.Minute); users() == namespacePackings; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("nobody waits for a place")
		}
	}
	packing := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.fetched[obj.UID].packing()
	}
	if !packing() {
		t.Error("it was packed without a place")
	}
	for _, leave := range leaves {
		leave()
	}
	r.work.Wait()
	if now := r.fetched[obj.UID]; packing() || now.failure != nil {
		t.Errorf("it is not packed: %v", now.failure)
	}
}

// alone are repositories that nobody includes.
type alone struct{ gitRepositories }

func (alone) dependents(gitops.OwnerRef) []client.ObjectKey { return nil }
