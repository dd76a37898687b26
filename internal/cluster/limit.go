package cluster

import (
	"net/http"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// fairHeader is set by API priority and fairness on every answer.
const fairHeader = "X-Kubernetes-Pf-Flowschema-Uid"

func newLimit(qps float32, burst int) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(qps), max(burst, 1))
}

// limited holds requests back until an answer shows that the server shares its
// capacity itself; from then on it lets everything through.
type limited struct {
	next  http.RoundTripper
	limit *rate.Limiter
	fair  atomic.Bool
}

// RoundTrip sends the request when the limit allows it.
func (l *limited) RoundTrip(req *http.Request) (*http.Response, error) {
	if l.fair.Load() {
		return l.next.RoundTrip(req)
	}
	if err := l.limit.Wait(req.Context()); err != nil {
		return nil, err
	}
	resp, err := l.next.RoundTrip(req)
	if err == nil && resp.Header.Get(fairHeader) != "" {
		l.fair.Store(true)
	}
	return resp, err
}

// WrappedRoundTripper gives client-go the transport below.
func (l *limited) WrappedRoundTripper() http.RoundTripper { return l.next }
