package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// firstRest is how long a cluster that could not be reached is left alone, and
	// lastRest how long at most: it doubles with each try that fails.
	firstRest = time.Second
	lastRest  = time.Minute
)

// UnreachableError says that a cluster cannot be reached. Its text is the same for
// the same reason.
type UnreachableError struct {
	// Name is the address of the cluster.
	Name   string
	Reason string
}

// Error names the cluster and the reason.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cluster %s cannot be reached: %s", e.Name, e.Reason)
}

// breaker lets nobody wait for a cluster of which somebody found a moment ago that it
// cannot be reached: workers are few, and other clusters are waiting for them. One
// request at a time finds out whether it is there again.
type breaker struct {
	name  string
	clock clock.PassiveClock

	mu sync.Mutex
	// failures counts those in a row; it is guarded by mu, as is all that follows.
	failures int
	until    time.Time
	reason   string
	// trying is set while a request finds out.
	trying bool
}

// admit gives the error of a request that is not to be sent.
func (b *breaker) admit() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == 0 {
		return nil
	}
	if b.trying || b.clock.Now().Before(b.until) {
		return &UnreachableError{Name: b.name, Reason: b.reason}
	}
	b.trying = true
	return nil
}

// done takes over how a request went.
func (b *breaker) done(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.failures, b.trying = 0, false
		return nil
	case errors.Is(err, context.Canceled):
		b.trying = false
		return err
	}
	b.trying = false
	b.reason = unreachable(err)
	// Those that were sent together fail together, and count once.
	if now := b.clock.Now(); b.failures == 0 || !now.Before(b.until) {
		b.until = now.Add(min(firstRest<<min(b.failures, 10), lastRest))
		b.failures++
	}
	return &UnreachableError{Name: b.name, Reason: b.reason}
}

// wrap puts the breaker before a transport.
func (b *breaker) wrap(next http.RoundTripper) http.RoundTripper {
	return &guarded{breaker: b, next: next}
}

type guarded struct {
	breaker *breaker
	next    http.RoundTripper
}

// errNoAnswer is the cause of the end of a request that took too long.
var errNoAnswer = fmt.Errorf("%w: no answer", context.DeadlineExceeded)

// RoundTrip sends the request, unless the cluster is known not to be reachable. The
// answer, its body included, has to be there in time. Where the sender has given up
// before, that says nothing of the cluster.
func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.breaker.admit(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(req.Context(), answerTimeout, errNoAnswer)
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil && context.Cause(ctx) != errNoAnswer && req.Context().Err() != nil { //nolint:errorlint // the very one
		err = context.Canceled
	}
	if err := g.breaker.done(err); err != nil {
		cancel()
		if req.Context().Err() != nil && errors.Is(err, context.Canceled) {
			err = req.Context().Err()
		}
		return nil, err
	}
	resp.Body = &ending{ReadCloser: resp.Body, cancel: cancel}
	return resp, nil
}

// ending is a body with which its request ends.
type ending struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close ends the request.
func (e *ending) Close() error {
	defer e.cancel()
	return e.ReadCloser.Close()
}

// WrappedRoundTripper gives client-go the transport below.
func (g *guarded) WrappedRoundTripper() http.RoundTripper { return g.next }

// IsUnreachable tells whether an error is about the way to a cluster, and not an answer
// of its API server or the end of a context.
func IsUnreachable(err error) bool {
	var (
		known   *UnreachableError
		request *url.Error
		network net.Error
	)
	if statusOf(err).Code != 0 || errors.Is(err, context.Canceled) {
		return false
	}
	return errors.As(err, &known) || errors.As(err, &request) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Unreachable says of such an error why the cluster cannot be reached, in words that are
// the same each time.
func Unreachable(err error) string {
	var known *UnreachableError
	if errors.As(err, &known) {
		return known.Reason
	}
	return unreachable(err)
}

// unreachable puts the failure of a connection into words that are the same each
// time: what the network says has ports in it.
func unreachable(err error) string {
	if reason, ok := gitops.NetworkReason(err); ok {
		return reason
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}
