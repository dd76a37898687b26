package cluster

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestBreaker counts the requests that reach a server which is away for an hour while
// somebody asks for it once a second.
func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent, away := 0, true
		b := &breaker{name: "https://far.example", clock: clock.RealClock{}}
		transport := b.wrap(roundTrip(func(*http.Request) (*http.Response, error) {
			sent++
			if away {
				return nil, context.DeadlineExceeded
			}
			return httptest.NewRecorder().Result(), nil
		}))
		ask := func() error {
			resp, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		}
		texts := map[string]bool{}
		for range 3600 {
			err := ask()
			var unreachable *UnreachableError
			if !errors.As(err, &unreachable) {
				t.Fatalf("got %v", err)
			}
			texts[err.Error()] = true
			time.Sleep(time.Second)
		}
		if sent < 60 || sent > 70 {
			t.Errorf("%d requests were sent in an hour", sent)
		}
		if len(texts) != 1 || !texts["cluster https://far.example cannot be reached: it does not answer in time"] {
			t.Errorf("it was told as %v", texts)
		}
		away = false
		time.Sleep(lastRest)
		for range 10 {
			if err := ask(); err != nil {
				t.Errorf("it is back, and the request fails: %v", err)
			}
		}
	})
}

// TestBreakerTriesOnce has many ask at the same time for a server that is away.
func TestBreakerTriesOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan struct{}, 100)
		b := &breaker{name: "x", clock: clock.RealClock{}}
		transport := b.wrap(roundTrip(func(*http.Request) (*http.Response, error) {
			sent <- struct{}{}
			time.Sleep(time.Minute)
			return nil, errors.New("EOF")
		}))
		ask := func() {
			_, _ = transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		} //nolint:bodyclose // there is none
		ask()
		time.Sleep(firstRest)
		for range 50 {
			go ask()
		}
		synctest.Wait()
		if n := len(sent); n != 2 {
			t.Errorf("%d requests were sent, want the first one and one that tries", n)
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestBreakerAndCancellation: a request that its sender gives up says nothing of the
// cluster.
func TestBreakerAndCancellation(t *testing.T) {
	t.Parallel()
	b := &breaker{name: "x", clock: clock.RealClock{}}
	if err := b.done(context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := b.admit(); err != nil {
		t.Errorf("the next request is not sent: %v", err)
	}
}

func TestUnreachableReason(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.URL
	server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("%s answers", address)
	}
	if reason := unreachable(err); reason != "connection refused" {
		t.Errorf("the reason is %q", reason)
	}
}
