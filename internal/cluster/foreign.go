package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// dialTimeout and answerTimeout bound the wait for a remote cluster. An API
	// server works on a request for a minute at most.
	dialTimeout   = 10 * time.Second
	answerTimeout = time.Minute
	// maxAnswer bounds an answer of a remote cluster but a watch, in bytes.
	maxAnswer = 64 << 20
)

// Foreign is a configuration for a cluster that somebody else named: whoever answers
// there may not be an API server, and not mean well. Addresses of the machine's own
// network (link-local, and loopback unless that is allowed) are not dialled, redirects
// are not followed, answers are bounded and not unpacked.
func Foreign(config *rest.Config, loopback bool) *rest.Config {
	config = rest.CopyConfig(config)
	config.DisableCompression = true
	config.Dial = (&net.Dialer{
		Timeout: dialTimeout, KeepAlive: dialTimeout,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return checkDialled(address, loopback)
		},
	}).DialContext
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &wary{next} })
	return config
}

// checkDialled refuses addresses, as they are after names have been looked up, at which
// no cluster of somebody else is.
func checkDialled(address string, loopback bool) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address", address)
	}
	switch ip := at.Addr().Unmap(); {
	case ip.IsLoopback() && loopback:
		return nil
	case ip.IsLoopback(), ip.IsLinkLocalUnicast(), ip.IsUnspecified(), ip.IsMulticast():
		return errors.New("it is an address of the operator's own machine or network")
	}
	return nil
}

// IsLoopback tells whether a host is an address of the machine itself.
func IsLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// wary takes answers as those of a stranger.
type wary struct{ next http.RoundTripper }

// RoundTrip sends a request. A redirect would have the operator ask wherever it points.
func (w *wary) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		_ = resp.Body.Close()
		return nil, errors.New("it redirects, as no API server does")
	}
	if req.URL.Query().Get("watch") == "" {
		resp.Body = &bounded{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, nil
}

// WrappedRoundTripper gives client-go the transport below.
func (w *wary) WrappedRoundTripper() http.RoundTripper { return w.next }

// bounded is a body that fails behind a number of bytes.
type bounded struct {
	io.ReadCloser
	left int64
}

// Read gives bytes as long as there may be more.
func (b *bounded) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	if b.left -= int64(n); b.left < 0 {
		return n, fmt.Errorf("an answer has more than %d bytes", maxAnswer)
	}
	return n, err
}
