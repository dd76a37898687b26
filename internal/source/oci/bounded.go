package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// bounded is the way to all servers: it bounds what they answer with, and tries again
// where a server was out of order for a moment.
type bounded struct {
	next   *egress.Transport
	agent  string
	limits map[string]int64
}

// mostAnswer is the largest answer that is none of a manifest or a layer, in bytes: of a
// token server, say, or a page of tags.
const mostAnswer = 2 << 20

// mostError is what is read of an answer that is an error.
const mostError = 32 << 10

func newBounded(out *egress.Transport, o Options) *bounded {
	return &bounded{next: out, agent: o.UserAgent, limits: map[string]int64{
		"manifests": o.ManifestBytes, "referrers": o.ManifestBytes, "blobs": o.LayerBytes,
	}}
}

// tooLarge is the error of an answer beyond its bound.
type tooLarge struct {
	what string
	most int64
}

// Error says what is too large.
func (e *tooLarge) Error() string {
	return fmt.Sprintf("%s has more than %d bytes", e.what, e.most)
}

// pauses are those before a request is sent again.
func pauses() []time.Duration { return []time.Duration{100 * time.Millisecond, 300 * time.Millisecond} }

// RoundTrip sends a request.
func (b *bounded) RoundTrip(in *http.Request) (*http.Response, error) {
	request := in.Clone(in.Context())
	if b.agent != "" {
		request.Header.Set("User-Agent", b.agent)
	}
	response, err := b.next.RoundTrip(request)
	for _, pause := range pauses() {
		if !passing(request, response, err) {
			break
		}
		if response != nil {
			_ = response.Body.Close()
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-request.Context().Done():
			timer.Stop()
			return nil, request.Context().Err()
		}
		response, err = b.next.RoundTrip(request)
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		// Of an error the beginning is enough.
		response.Body = &boundedBody{ReadCloser: response.Body, left: mostError, err: io.EOF}
		return response, nil
	}
	what, most := b.limit(request)
	if response.ContentLength > most && request.Method != http.MethodHead {
		_ = response.Body.Close()
		return nil, &tooLarge{what, most}
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: most, err: &tooLarge{what, most}}
	return response, nil
}

// passing tells whether a failure may be over in a moment. Only requests without a body
// are sent again.
func passing(request *http.Request, response *http.Response, err error) bool {
	if request.Body != nil && request.Body != http.NoBody || request.Context().Err() != nil {
		return false
	}
	if err != nil {
		for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed} {
			if errors.Is(err, lost) {
				return true
			}
		}
		return false
	}
	switch response.StatusCode {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// limit is the bound of an answer. What a registry redirects elsewhere is judged by the
// path that it had there.
func (b *bounded) limit(request *http.Request) (what string, most int64) {
	for request.Response != nil && request.Response.Request != nil {
		request = request.Response.Request
	}
	elements := strings.Split(request.URL.Path, "/")
	if len(elements) > 2 && elements[1] == "v2" {
		kind := elements[len(elements)-2]
		if most, ok := b.limits[kind]; ok {
			return map[string]string{"manifests": "the manifest", "referrers": "the list of referrers", "blobs": "the layer"}[kind], most
		}
	}
	return "the answer", mostAnswer
}

// boundedBody is an answer that ends with an error where it is too long.
type boundedBody struct {
	io.ReadCloser
	left int64
	err  error
}

// Read gives what is within the bound.
func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n + int(b.left), b.err
	}
	return n, err
}

// endOf is the error of a context that has ended, else the error itself.
func endOf(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	return err
}
