package flux

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source"
)

// retained are the URLs that were to be kept, for each cleaning.
type retained chan []string

func (retained) Fetch(context.Context, GitRequest, string) (source.Result, error) {
	return source.Result{}, errors.New("nothing is fetched")
}

func (retained) Last(context.Context, GitRequest) (source.Result, error) {
	return source.Result{}, errors.New("nothing was fetched")
}

func (r retained) Retain(requests []GitRequest) error {
	var urls []string
	for _, request := range requests {
		urls = append(urls, request.URL)
	}
	slices.Sort(urls)
	select {
	case r <- urls:
	default: // nobody counts so far
	}
	return nil
}

func cleaned(t *testing.T, uids ...types.UID) (*sourceReconciler[*sourcev1.GitRepository, GitRequest], retained, *clocktesting.FakeClock) {
	t.Helper()
	store, err := artifact.Open(t.TempDir(), artifact.Options{})
	if err != nil {
		t.Fatal(err)
	}
	calls, clock := make(retained, 100), clocktesting.NewFakeClock(time.Unix(1_700_000_000, 0))
	return &sourceReconciler[*sourcev1.GitRepository, GitRequest]{
		kind: gitRepositories{}, fetcher: calls, clock: clock, packed: packed{store: store}, events: &events{log: logr.Discard()},
		requests: map[types.UID]*followed[GitRequest]{},
		list: func(context.Context) ([]*sourcev1.GitRepository, error) {
			var all []*sourcev1.GitRepository
			for _, uid := range uids {
				all = append(all, &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Name: string(uid), Namespace: "a", UID: uid}})
			}
			return all, nil
		},
	}, calls, clock
}

// TestCleaningWaitsNotForEver: what one object follows that never becomes known keeps
// the data of all others for a while only.
func TestCleaningWaitsNotForEver(t *testing.T) {
	t.Parallel()
	r, calls, clock := cleaned(t, "good", "waiting")
	expect := func(what string, want ...string) {
		t.Helper()
		if err := r.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for len(calls) > 0 {
			got = <-calls
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: kept %q, want %q", what, got, want)
		}
	}
	quiet := &blocked{quiet: true, cause: errors.New("the included one is fetched at the moment")}
	r.follows(t.Context(), "good", &GitRequest{URL: "https://good"})
	r.followsUnknown(t.Context(), "waiting", quiet)
	expect("in the beginning")
	clock.Step(patience - time.Second)
	r.followsUnknown(t.Context(), "waiting", quiet)
	expect("a while later")
	clock.Step(2 * time.Second)
	r.followsUnknown(t.Context(), "waiting", quiet)
	expect("after long", "https://good")
	r.follows(t.Context(), "waiting", &GitRequest{URL: "https://waiting"})
	expect("when it is known", "https://good", "https://waiting")
	r.followsUnknown(t.Context(), "waiting", quiet)
	clock.Step(2 * patience)
	expect("when it waits again", "https://good", "https://waiting")
}

// TestCleaningGoesOn: the folder is cleaned where nothing happens too.
func TestCleaningGoesOn(t *testing.T) {
	t.Parallel()
	r, calls, _ := cleaned(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.keepClean(ctx, time.Millisecond)
	}()
	for range 3 {
		select {
		case <-calls:
		case <-ctx.Done():
			t.Error("the folder is not cleaned again")
		}
	}
	cancel()
	<-done
}

// TestGoneUnseen: what is kept of an object goes with it, where its deletion was not seen before
// it was gone, for somebody has taken its finalizer off.
func TestGoneUnseen(t *testing.T) {
	t.Parallel()
	l := newLife(t, repository("app"), repository("other"))
	for _, name := range []string{"app", "other"} {
		l.push(name, "1", map[string]string{"a": "1"})
		l.look(name)
	}
	l.away(true)
	l.clock.Step(time.Hour)
	l.look("app")
	l.edit("app", func(obj *sourcev1.GitRepository) { obj.Finalizers = nil })
	if err := l.client.Delete(t.Context(), l.get("app")); err != nil {
		t.Fatal(err)
	}
	l.look("app")
	_, requested := l.requests["app"]
	_, published := l.fetched["app"]
	_, looked := l.adopted["app"]
	if requested || published || looked || l.pauses.byObject["app"] != nil {
		t.Errorf("what it follows is kept: %t, what was fetched: %t, what was adopted: %t; its pauses: %v", requested, published, looked, l.pauses.byObject["app"])
	}
	if want := []string{"https://other"}; !slices.Equal(l.remote.wanted, want) {
		t.Errorf("%q is kept, want %q", l.remote.wanted, want)
	}
	if _, ok := l.fetched["other"]; !ok || l.sources.revision(l.ref(repository("other"))) == "" {
		t.Error("another one is forgotten too")
	}
}
