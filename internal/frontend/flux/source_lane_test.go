package flux

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source"
)

func TestLane(t *testing.T) {
	t.Parallel()
	l := newLane(3)
	a := server{"a", "one"}
	var places []func()
	take := func(of server, what string) {
		t.Helper()
		place, _ := l.take(of, false)
		if place == nil {
			t.Fatalf("%s has no place", what)
		}
		places = append(places, place)
	}
	full := func(of server, what string, may bool) (patient func()) {
		t.Helper()
		place, patient := l.take(of, false)
		if place != nil || (patient != nil) != may {
			t.Errorf("%s has a place: %t, and may keep a worker: %t, want %t", what, place != nil, patient != nil, may)
		}
		return patient
	}
	for range 6 {
		take(a, "one server")
	}
	full(a, "one more at the server", false)
	take(server{"b", "one"}, "the same server in another namespace")
	for i := range 8 - 6 {
		take(server{"a", fmt.Sprint(i)}, "another server")
	}
	full(server{"a", "another"}, "one more in the namespace", false)
	var proven []func()
	for range provenPlaces {
		place, _ := l.take(server{"a", "proven"}, true)
		if place == nil {
			t.Fatal("one that is proven has no place beside others of its namespace")
		}
		proven = append(proven, place)
	}
	if place, _ := l.take(server{"a", "proven"}, true); place != nil {
		t.Error("there is no end of those that are proven")
	}
	for _, place := range proven {
		place()
	}
	for i := range 32 - 8 - 1 {
		take(server{fmt.Sprint("c", i), "one"}, "another namespace")
	}
	full(server{"b", "two"}, "a namespace that has one, on a full lane,", false)
	first := full(server{"d", "two"}, "a namespace that has none, on a full lane,", true)
	full(server{"d", "three"}, "one that keeps a worker already", false)
	second := full(server{"e", "two"}, "another namespace that has none", true)
	full(server{"f", "two"}, "a third one, for the last worker,", false)
	first()
	first()
	full(server{"e", "two"}, "one that keeps a worker, after another gave its own back twice,", false)
	third := full(server{"f", "two"}, "the third one, after a worker was given back,", true)
	full(server{"d", "two"}, "the first one, for the last worker,", false)
	second()
	third()
	places[0]()
	places[0]()
	take(a, "what was given back")
	full(a, "what was given back twice", false)
	for _, place := range places {
		place()
	}
	if l.all != 0 || len(l.byNamespace) != 0 || len(l.byServer) != 0 || len(l.patient) != 0 {
		t.Errorf("places are taken after all were given back: %+v", l)
	}
}

func TestLaneLeavesServersAlone(t *testing.T) {
	t.Parallel()
	l, start := newLane(3), time.Unix(1000, 0)
	a, b := asker{server{"a", "one"}, "mine"}, asker{server{"b", "one"}, "mine"}
	other, none := asker{a.server, "another"}, asker{a.server, ""}
	for i, step := range []struct {
		at          time.Duration
		of          asker
		asked, want time.Duration
	}{
		{0, a, 0, 0},
		{0, a, time.Minute, time.Minute},
		{10 * time.Second, a, 0, 50 * time.Second}, // another one that shared the look
		{10 * time.Second, b, 0, 0},                // another namespace
		{10 * time.Second, other, 0, 0},            // whom the server has told nothing
		{10 * time.Second, none, 0, 0},
		{20 * time.Second, a, 10 * time.Second, 40 * time.Second},
		{30 * time.Second, b, 5 * time.Second, 5 * time.Second},
		{time.Minute, a, 0, 0},
	} {
		if got := l.left(step.of, step.asked, start.Add(step.at)); got != step.want {
			t.Errorf("step %d: left alone for %s, want %s", i, got, step.want)
		}
	}
	if len(l.quiet) != 0 {
		t.Errorf("what is over is kept: %v", l.quiet)
	}
}

// busy is a remote behind egress, asked with a user's name.
type busy struct{ client *http.Client }

func (b busy) Fetch(ctx context.Context, request GitRequest, _ string) (source.Result, error) {
	asking, err := http.NewRequestWithContext(ctx, http.MethodGet, request.URL, nil)
	if err != nil {
		return source.Result{}, err
	}
	asking.SetBasicAuth(request.Auth.Username, request.Auth.Password)
	response, err := b.client.Do(asking)
	if err != nil {
		return source.Result{}, err
	}
	return source.Result{}, errors.Join(errors.New(response.Status), response.Body.Close())
}
func (busy) Last(context.Context, GitRequest) (source.Result, error) { return source.Result{}, nil }
func (busy) Retain([]GitRequest) error                               { return nil }

// TestOneCredentialIsSentAway: what a server asks of one credential holds for all objects of
// the namespace that have it, and for nobody else.
func TestOneCredentialIsSentAway(t *testing.T) {
	t.Parallel()
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _, _ := r.BasicAuth(); user == "limited" && !asked {
			asked = true
			w.Header().Set("Retry-After", "600")
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	transport, err := egress.NewTransport(egress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{
		kind: gitRepositories{}, fetcher: busy{transport.Client()}, lane: newLane(4), flights: newFlights[GitRequest](), triggers: &triggers{},
		clock: clocktesting.NewFakeClock(time.Unix(1000, 0)),
	}
	for i, step := range []struct {
		who       string
		auth      GitAuth
		namespace string
		want      time.Duration
	}{
		{"who is told so", GitAuth{Username: "limited", Password: "a"}, "mine", 10 * time.Minute},
		{"another one with the same credential", GitAuth{Username: "limited", Password: "a"}, "mine", 10 * time.Minute},
		{"one with another credential", GitAuth{Username: "free", Password: "a"}, "mine", 0},
		{"one with a newer password", GitAuth{Username: "limited", Password: "b"}, "mine", 0},
		{"one without a credential", GitAuth{}, "mine", 0},
		{"another namespace", GitAuth{Username: "limited", Password: "a"}, "theirs", 0},
	} {
		obj := &sourcev1.GitRepository{Spec: sourcev1.GitRepositorySpec{URL: server.URL}}
		obj.Name, obj.Namespace, obj.UID = fmt.Sprint(i), step.namespace, types.UID(fmt.Sprint(i))
		following := &pursuit[GitRequest]{request: GitRequest{URL: server.URL, Auth: step.auth}}
		landed, err := r.fetch(t.Context(), obj, following, "")
		for err == nil && landed == nil { // a slow machine: it goes on without us
			<-r.flights.byObject[obj.UID].done
			landed, err = r.fetch(t.Context(), obj, following, "")
		}
		var u *unfetched
		if err != nil || !errors.As(landed.err, &u) {
			t.Fatalf("%s: %v, %v", step.who, landed, err)
		}
		if u.pause != step.want {
			t.Errorf("%s is to come again in %s, want %s", step.who, u.pause, step.want)
		}
	}
}

// hangs is a remote that never answers.
type hangs struct{}

func (hangs) Fetch(ctx context.Context, _ GitRequest, _ string) (source.Result, error) {
	<-ctx.Done()
	return source.Result{}, ctx.Err()
}
func (hangs) Last(context.Context, GitRequest) (source.Result, error) { return source.Result{}, nil }
func (hangs) Retain([]GitRequest) error                               { return nil }

// TestFullLane: when others have taken all places, the objects of a namespace keep one worker
// at most, and that one not for ever.
func TestFullLane(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		patience      time.Duration
		objects, kept int
	}{
		"one worker is kept":               {time.Hour, 3, 1},
		"a worker is not kept for ever":    {workerWait, 1, 0},
		"one after another keeps a worker": {workerWait, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLane(4)
			l.all, l.patience = lanePlaces, test.patience
			r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{
				kind: gitRepositories{}, fetcher: hangs{}, clock: clock.RealClock{}, lane: l, flights: newFlights[GitRequest](), triggers: &triggers{},
			}
			ctx, cancel := context.WithCancel(t.Context())
			ends := make(chan error, test.objects)
			for i := range test.objects {
				obj := &sourcev1.GitRepository{Spec: sourcev1.GitRepositorySpec{URL: "https://example.com/a", Timeout: &metav1.Duration{Duration: time.Hour}}}
				obj.Name, obj.Namespace, obj.UID = fmt.Sprint(i), "mine", types.UID(fmt.Sprint(i))
				go func() {
					_, err := r.fetch(ctx, obj, &pursuit[GitRequest]{}, "")
					ends <- err
				}()
			}
			for range test.objects - test.kept {
				select {
				case err := <-ends:
					var b *blocked
					if !errors.As(err, &b) || b.retry < lanePause {
						t.Errorf("a look without a place ends with %v, want an error that says when to look again", err)
					}
				case <-time.After(time.Minute):
					t.Fatal("a worker is kept for a minute")
				}
			}
			cancel()
			for range test.kept {
				<-ends
			}
			r.work.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.patient) != 0 || l.all != lanePlaces {
				t.Errorf("after all went on %d places are taken and workers are kept for %v", l.all, l.patient)
			}
		})
	}
}

func TestHostOf(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://example.com:8443/a/b":    "example.com:8443",
		"ssh://git@example.com/a":         "example.com",
		"oci://registry/a":                "registry",
		"minio:9000/bucket":               "minio:9000/bucket",
		"chart 'a' of HelmRepository 'b'": "chart 'a' of HelmRepository 'b'",
		"":                                "",
	} {
		if got := hostOf(address); got != want {
			t.Errorf("%q is at %q, want %q", address, got, want)
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	const m = time.Minute
	r := &sourceReconciler[*sourcev1.GitRepository, GitRequest]{kind: gitRepositories{}}
	for name, test := range map[string]struct {
		own, other, want time.Duration
		words            string
	}{
		"none":                           {0, 0, m, "within 1m0s (spec.timeout)"},
		"its own":                        {5 * m, 0, 5 * m, "within 5m0s (spec.timeout)"},
		"its own, of years":              {9999999 * m, 0, 60 * m, "within 1h0m0s (spec.timeout, which can be no longer)"},
		"that of what it is made from":   {5 * m, 2 * m, 2 * m, "within 2m0s (spec.timeout)"},
		"that of what it is made, years": {5 * m, 9999999 * m, 60 * m, "within 1h0m0s (spec.timeout, which can be no longer)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			obj := &sourcev1.GitRepository{Spec: sourcev1.GitRepositorySpec{URL: "https://example.com/a"}}
			if test.own > 0 {
				obj.Spec.Timeout = &metav1.Duration{Duration: test.own}
			}
			got := r.timeout(obj, test.other)
			if got != test.want {
				t.Errorf("timeout %s, want %s", got, test.want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 0)
			defer cancel()
			if err := r.fetchError(obj, ctx, got, errors.New("cut off")); !strings.Contains(err.Error(), test.words) {
				t.Errorf("error %q, want %q", err, test.words)
			}
		})
	}
}
