package event

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// destination is an HTTP server that keeps what it is sent, and answers as told.
type destination struct {
	*httptest.Server
	mu       sync.Mutex
	received []request
	// answer gives the status of the n-th request, from 0; nil for 200.
	answer func(n int) int
	// hold keeps every request waiting while it is open; nil for no waiting.
	hold chan struct{}
	got  chan struct{} // one item for each request
}

type request struct {
	Method, Path string
	Body         map[string]any
}

func newDestination(t *testing.T) *destination {
	t.Helper()
	d := &destination{got: make(chan struct{}, 10*QueueLength)}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		var body map[string]any
		_ = json.Unmarshal(data, &body)
		d.mu.Lock()
		n := len(d.received)
		d.received = append(d.received, request{r.Method, r.URL.Path, body})
		d.mu.Unlock()
		d.got <- struct{}{}
		if d.hold != nil {
			select {
			case <-d.hold:
			case <-r.Context().Done():
			}
		}
		status := http.StatusOK
		if d.answer != nil {
			status = d.answer(n)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status == http.StatusOK {
			_, _ = w.Write(data) // an API server answers with the object
		} else {
			reason := map[int]metav1.StatusReason{404: metav1.StatusReasonNotFound, 403: metav1.StatusReasonForbidden}[status]
			_ = json.NewEncoder(w).Encode(metav1.Status{Status: "Failure", Code: int32(status), Reason: reason})
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *destination) requests() []request {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]request(nil), d.received...)
}

func (d *destination) wait(t *testing.T, requests int) {
	t.Helper()
	for range requests {
		select {
		case <-d.got:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d requests, want %d", len(d.requests()), requests)
		}
	}
}

type drops struct {
	mu     sync.Mutex
	counts map[string]int
}

func (d *drops) add(queue string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = map[string]int{}
	}
	d.counts[queue]++
}

func (d *drops) get() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	copied := map[string]int{}
	for k, v := range d.counts {
		copied[k] = v
	}
	return copied
}
