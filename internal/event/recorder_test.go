package event

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/plumb-gitops/plumb/internal/gitops"
	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func options(t *testing.T, api *destination, dropped *drops) Options {
	t.Helper()
	client, err := typedcorev1.NewForConfig(&rest.Config{
		Host: api.URL, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Events:      client,
		Instance:    "pod-1",
		Redact:      func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") },
		Dropped:     dropped.add,
		Log:         logr.Discard(),
		Now:         func() time.Time { return start },
		RetryDelays: []time.Duration{time.Millisecond, time.Millisecond},
	}
}

// run starts a recorder and gives the function that stops it and waits.
func run(t *testing.T, o Options) (recorder *Recorder, stop func()) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Start(ctx)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return r, stop
}

func object() corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "example.org/v1", Kind: "App", Namespace: "apps", Name: "web", UID: "u1", ResourceVersion: "7"}
}

func event() gitops.Event {
	return gitops.Event{
		Severity: gitops.SeverityError, Reason: "BuildFailed", Message: "clone with hunter2 failed",
		Metadata: map[string]string{"example.org/revision": "main@sha1:1", "note": "hunter2"},
	}
}

func TestEventReachesBothDestinations(t *testing.T) {
	t.Parallel()
	api, receiver, dropped := newDestination(t), newDestination(t), &drops{}
	o := options(t, api, dropped)
	o.Address = receiver.URL + "/"
	r, stop := run(t, o)
	r.Record("app-controller", object(), event())
	stop()

	involved := map[string]any{"apiVersion": "example.org/v1", "kind": "App", "namespace": "apps", "name": "web", "uid": "u1", "resourceVersion": "7"}
	metadata := map[string]any{"example.org/revision": "main@sha1:1", "note": "***"}
	wantAPI := []request{{"POST", "/api/v1/namespaces/apps/events", map[string]any{
		"metadata":       map[string]any{"name": fmt.Sprintf("web.%x", start.UnixNano()), "namespace": "apps", "annotations": metadata},
		"involvedObject": involved,
		"type":           "Warning", "reason": "BuildFailed", "message": "clone with *** failed",
		"count": float64(1), "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z",
		"source": map[string]any{"component": "app-controller"}, "reportingComponent": "app-controller", "reportingInstance": "pod-1",
	}}}
	drop := cmpopts.IgnoreMapEntries(func(key string, _ any) bool {
		return key == "creationTimestamp" || key == "eventTime"
	})
	got := api.requests()
	for i := range got {
		if got[i].Body["kind"] == "Event" { // the envelope, which the encoder adds
			delete(got[i].Body, "kind")
			delete(got[i].Body, "apiVersion")
		}
	}
	if diff := cmp.Diff(wantAPI, got, drop); diff != "" {
		t.Errorf("Kubernetes event differs (-want +got):\n%s", diff)
	}
	wantReceiver := []request{{"POST", "/", map[string]any{
		"involvedObject": involved, "severity": "error", "timestamp": "2026-01-02T03:04:05Z",
		"reason": "BuildFailed", "message": "clone with *** failed", "metadata": metadata,
		"reportingController": "app-controller", "reportingInstance": "pod-1",
	}}}
	if diff := cmp.Diff(wantReceiver, receiver.requests()); diff != "" {
		t.Errorf("posted event differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{}, dropped.get()); diff != "" {
		t.Errorf("drops (-want +got):\n%s", diff)
	}
}

func TestRepeatedEvents(t *testing.T) {
	t.Parallel()
	other := event()
	other.Message = "another"
	tests := map[string]struct {
		events []gitops.Event
		after  time.Duration // between the events
		answer func(int) int
		want   []string
	}{
		"an equal event raises the count": {
			events: []gitops.Event{event(), event(), event()}, after: time.Minute,
			want: []string{"POST 1", "PATCH 2", "PATCH 3"},
		},
		"another message is another event": {
			events: []gitops.Event{event(), other}, after: time.Minute,
			want: []string{"POST 1", "POST 1"},
		},
		"after the window it is written anew": {
			events: []gitops.Event{event(), event()}, after: RepeatWindow,
			want: []string{"POST 1", "POST 1"},
		},
		"one that has expired is written anew": {
			events: []gitops.Event{event(), event(), event()}, after: time.Minute,
			answer: func(n int) int {
				if n == 1 {
					return http.StatusNotFound
				}
				return http.StatusOK
			},
			want: []string{"POST 1", "PATCH 2", "POST 1", "PATCH 2"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newDestination(t)
			api.answer = tt.answer
			o := options(t, api, &drops{})
			now := start
			o.Now = func() time.Time { return now }
			r, stop := run(t, o)
			for _, e := range tt.events {
				r.Record("c", object(), e)
				now = now.Add(tt.after)
			}
			stop()
			var got []string
			for _, request := range api.requests() {
				got = append(got, fmt.Sprintf("%s %v", request.Method, request.Body["count"]))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("requests differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReceiverAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer   func(int) int
		requests int
		dropped  int
	}{
		"accepted":                     {func(int) int { return 202 }, 1, 0},
		"a duplicate is delivered":     {func(int) int { return 429 }, 1, 0},
		"a refusal is not tried again": {func(int) int { return 400 }, 1, 1},
		"a failure is tried again":     {func(n int) int { return []int{500, 503, 202}[n] }, 3, 0},
		"a lasting failure is dropped": {func(int) int { return 500 }, 3, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver, dropped := newDestination(t), &drops{}
			receiver.answer = tt.answer
			o := options(t, newDestination(t), dropped)
			o.Address = receiver.URL
			r, stop := run(t, o)
			r.Record("c", object(), event())
			receiver.wait(t, tt.requests)
			stop()
			if got := len(receiver.requests()); got != tt.requests {
				t.Errorf("%d requests, want %d", got, tt.requests)
			}
			if got := dropped.get()[QueueReceiver]; got != tt.dropped {
				t.Errorf("%d drops, want %d", got, tt.dropped)
			}
		})
	}
}

// A receiver that hangs must not keep Kubernetes events, or who records, waiting.
func TestHangingReceiver(t *testing.T) {
	t.Parallel()
	api, receiver, dropped := newDestination(t), newDestination(t), &drops{}
	receiver.hold = make(chan struct{})
	o := options(t, api, dropped)
	o.Address = receiver.URL
	o.RetryDelays = []time.Duration{}
	o.RequestTimeout = time.Minute // the request that hangs is not given up
	r, stop := run(t, o)

	r.Record("c", object(), event())
	receiver.wait(t, 1) // it hangs now
	api.wait(t, 1)
	const more = QueueLength + 10
	for range more {
		r.Record("c", object(), event())
		api.wait(t, 1)
	}
	if got := dropped.get()[QueueReceiver]; got != 10 {
		t.Errorf("%d events turned away, want the 10 that do not fit", got)
	}
	close(receiver.hold)
	receiver.wait(t, QueueLength)
	stop()
	if got := len(receiver.requests()); got != 1+QueueLength {
		t.Errorf("%d events posted, want all %d that were queued", got, 1+QueueLength)
	}
}

func TestStopEndsInTimeWithHangingDestinations(t *testing.T) {
	t.Parallel()
	api, dropped := newDestination(t), &drops{}
	api.hold = make(chan struct{})
	t.Cleanup(func() { close(api.hold) })
	r, stop := run(t, options(t, api, dropped))
	r.Record("c", object(), event())
	api.wait(t, 1)
	began := time.Now()
	stop()
	if took := time.Since(began); took > FlushTimeout+2*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if got := dropped.get()[QueueKubernetes]; got != 1 {
		t.Errorf("%d drops, want 1", got)
	}
}

func TestForbiddenEventIsCounted(t *testing.T) {
	t.Parallel()
	api, dropped := newDestination(t), &drops{}
	api.answer = func(int) int { return http.StatusForbidden }
	r, stop := run(t, options(t, api, dropped))
	r.Record("c", object(), event())
	stop()
	if got := dropped.get()[QueueKubernetes]; got != 1 {
		t.Errorf("%d drops, want 1", got)
	}
}

func TestMemoryOfSeenEventsIsBounded(t *testing.T) {
	t.Parallel()
	r := &Recorder{seen: map[identity]sighting{}}
	for i := range 3 * maxSeen {
		r.remember(identity{name: fmt.Sprint(i)}, sighting{first: start}, start)
		if len(r.seen) > maxSeen {
			t.Fatalf("%d are remembered, want at most %d", len(r.seen), maxSeen)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"letters":    strings.Repeat("a", 50),
		"characters": strings.Repeat("é", 50),
		"wide":       strings.Repeat("界", 50),
	} {
		for limit := 10; limit < 20; limit++ {
			got := cut(text, limit)
			if len(got) > limit || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
				t.Errorf("%s cut to %d bytes is %q", name, limit, got)
			}
		}
	}
	if got := cut("short", 10); got != "short" {
		t.Errorf("a short text becomes %q", got)
	}
}

func TestNewRefusesMissingOptions(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{}); err == nil {
		t.Error("a recorder without anything is made")
	}
	o := options(t, newDestination(t), &drops{})
	o.Address = "user:secret"
	if _, err := New(o); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error for a broken address is %v", err)
	}
}
