package bucket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
)

const (
	// attempts is how often a request is sent that fails in a way that may pass.
	attempts = 3
	// firstPause is the wait before the second attempt; it doubles.
	firstPause = 200 * time.Millisecond
	// mostLogin is the most bytes of an answer to a login.
	mostLogin = 1 << 20
)

// wire is how all clients of object stores send requests: by the rules of egress, with
// limits, and with a few attempts. It follows redirects, as egress allows, so that the
// clients see their end only.
type wire struct{ client *http.Client }

func newWire(o egress.Options) (*wire, error) {
	transport, err := egress.NewTransport(o)
	if err != nil {
		return nil, err
	}
	return &wire{client: transport.Client()}, nil
}

// exchange is one operation of a client: what its requests may cost, and what went
// wrong below the client, which may hide it.
type exchange struct {
	limit int64 // bytes of an answer
	// roots are elements, one of which is in the beginning of each answer; any where it
	// is empty. Whatever else is XML would be taken for a listing of nothing.
	roots []string

	mu       sync.Mutex // guards all below
	requests int        // that are left
	err      error
	status   int
}

type exchangeKey struct{}

// exchanging begins an operation of some requests, each with an answer of some bytes.
func exchanging(ctx context.Context, requests int, limit int64) (context.Context, *exchange) {
	e := &exchange{limit: limit, requests: requests}
	return context.WithValue(ctx, exchangeKey{}, e), e
}

func exchangeOf(ctx context.Context) *exchange {
	if e, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return e
	}
	return &exchange{limit: mostLogin, requests: 1}
}

func (e *exchange) spend() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.requests--; e.requests < 0 {
		return refused("the server's listing has more pages than are read; choose a narrower prefix")
	}
	return nil
}

func (e *exchange) note(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
	return err
}

func (e *exchange) answered(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status, e.err = status, nil
}

// cause is what went wrong: what happened below the client, else what the client says.
func (e *exchange) cause(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	return err
}

// Do is RoundTrip, as Azure's client calls it.
func (w *wire) Do(request *http.Request) (*http.Response, error) { return w.RoundTrip(request) }

// RoundTrip sends a request, at most a few times.
func (w *wire) RoundTrip(request *http.Request) (*http.Response, error) {
	e := exchangeOf(request.Context())
	if err := e.spend(); err != nil {
		return nil, e.note(err)
	}
	for attempt := 1; ; attempt++ {
		response, err := w.client.Do(request)
		if err == nil {
			e.answered(response.StatusCode)
			response.Body = &measured{ReadCloser: response.Body, exchange: e, left: e.limit}
			err = e.look(response)
		}
		if attempt == attempts || request.Method != http.MethodGet || !passes(request.Context(), response, err) {
			if err != nil {
				return nil, e.note(withoutURL(err))
			}
			return response, nil
		}
		if err == nil {
			_ = response.Body.Close()
		}
		if err := pause(request.Context(), firstPause<<(attempt-1)); err != nil {
			return nil, e.note(err)
		}
	}
}

// longestBeginning is how much of an answer is looked at for its root.
const longestBeginning = 2 << 10

// look checks the beginning of an answer that is not an error.
func (e *exchange) look(response *http.Response) error {
	if len(e.roots) == 0 || response.StatusCode != http.StatusOK {
		return nil
	}
	body := bufio.NewReaderSize(response.Body, longestBeginning)
	beginning, err := body.Peek(longestBeginning)
	for _, root := range e.roots {
		if bytes.Contains(beginning, []byte(root)) {
			response.Body = &looked{Reader: body, Closer: response.Body}
			return nil
		}
	}
	_ = response.Body.Close()
	if err != nil && err != io.EOF { //nolint:errorlint // readers return the end itself
		return err
	}
	return &fault{code: codeServer, text: "the server's answer is no listing of objects; check the endpoint"}
}

// looked is a body whose beginning was looked at.
type looked struct {
	io.Reader
	io.Closer
}

// withoutURL is what the HTTP client's error says of a URL.
func withoutURL(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// passes tells whether a failure may pass by itself.
func passes(ctx context.Context, response *http.Response, err error) bool {
	if err != nil {
		code, _, ok := egress.Explain(ctx, err)
		return ok && code == egress.Network
	}
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// measured is the body of an answer, with a limit.
type measured struct {
	io.ReadCloser
	exchange *exchange
	left     int64
}

// Read gives bytes of the body; more than the limit is an error.
func (m *measured) Read(p []byte) (int, error) {
	if int64(len(p)) > m.left+1 {
		p = p[:m.left+1]
	}
	n, err := m.ReadCloser.Read(p)
	if int64(n) > m.left {
		return 0, m.exchange.note(refused("the server's answer has more than %d bytes", m.exchange.limit))
	}
	m.left -= int64(n)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return the end itself
		return n, m.exchange.note(err)
	}
	return n, err
}

// logins is an HTTP client for one login. It follows no redirect, which would take what
// is in the body of its request to another server.
func (w *wire) logins(ctx context.Context) (*http.Client, *exchange) {
	e := &exchange{limit: mostLogin}
	return &http.Client{
		Transport: &login{ctx: ctx, wire: w, exchange: e},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return e.note(&egress.Refused{Text: "the server that logs in redirects, which is refused"})
		},
	}, e
}

// login sends the requests of one login. Not all libraries hand on the context.
type login struct {
	ctx      context.Context //nolint:containedctx // of the one login that it is for
	wire     *wire
	exchange *exchange
}

// RoundTrip sends a request.
func (l *login) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.wire.client.Transport.RoundTrip(request.WithContext(l.ctx))
	if err != nil {
		return nil, l.exchange.note(err)
	}
	l.exchange.answered(response.StatusCode)
	response.Body = &measured{ReadCloser: response.Body, exchange: l.exchange, left: l.exchange.limit}
	return response, nil
}

// loginFailure puts the failure of a login into words. Word is the server's own for it.
func (e *exchange) loginFailure(ctx context.Context, what string, err error, word string) error {
	e.mu.Lock()
	status, below := e.status, e.err
	e.mu.Unlock()
	if below == nil && ctx.Err() == nil && status >= http.StatusBadRequest {
		f := &fault{code: codeDenied, text: fmt.Sprintf("log in at %s: %s", what, answer(status, word).text)}
		if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
			f.code = codeLogin
		}
		return f
	}
	if below != nil {
		err = below
	}
	code, text, ok := egress.Explain(ctx, err)
	switch {
	case codeOf(err) == codeRefused:
		return err
	case !ok, below == nil && ctx.Err() == nil:
		return &fault{code: codeLogin, text: fmt.Sprintf("log in at %s: the server's answer cannot be used", what)}
	case code == egress.Certificate || code == egress.Forbidden:
		return &fault{code: codeCredential, text: fmt.Sprintf("log in at %s: %s", what, text)}
	default:
		return &fault{code: codeLogin, text: fmt.Sprintf("log in at %s: %s", what, text)}
	}
}

func (w *wire) close() { w.client.CloseIdleConnections() }
