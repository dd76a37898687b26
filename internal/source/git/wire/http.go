package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// httpTransport reaches a repository by smart HTTP.
type httpTransport struct {
	origin *url.URL // as given, without credentials
	auth   Auth
	// client sends credentials and the client certificate to the origin only.
	client    *http.Client
	transport *egress.Transport

	mu   sync.Mutex // guards base
	base *url.URL   // where the repository was found last
}

// longestRedirect is the most redirects that are followed.
const longestRedirect = 10

func newHTTP(o Options) (*httpTransport, error) {
	t := &httpTransport{auth: o.Auth}
	origin := *o.URL
	if user := origin.User; user != nil && t.auth.Username == "" && t.auth.BearerToken == "" {
		t.auth.Username = user.Username()
		t.auth.Password, _ = user.Password()
	}
	origin.User, origin.Fragment = nil, ""
	t.origin, t.base = &origin, &origin
	var err error
	t.transport, err = egress.NewTransport(egress.Options{
		TLS:   egress.TLS{CA: o.Auth.CA, Certificate: o.Auth.Certificate, Key: o.Auth.Key},
		Proxy: o.Proxy, Policy: o.Policy, Origin: origin.Scheme + "://" + origin.Host,
	})
	if err != nil {
		return nil, unusable(CodeCredential, err)
	}
	t.client = &http.Client{
		Transport:     t.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return t, nil
}

func (t *httpTransport) close() {
	t.transport.CloseIdleConnections()
}

func (t *httpTransport) current() *url.URL {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.base
}

func (t *httpTransport) resume() session { return &httpSession{transport: t, base: t.current()} }

// open asks for the greeting, and follows redirects of that request only: what
// comes after goes to where it was answered.
func (t *httpTransport) open(ctx context.Context) (session, error) {
	base := t.origin
	for range longestRedirect + 1 {
		target := endpoint(base, "/info/refs")
		query := target.Query()
		query.Set("service", "git-upload-pack")
		target.RawQuery = query.Encode()
		answer, err := t.do(ctx, http.MethodGet, target, nil)
		if err != nil {
			return nil, err
		}
		if location := answer.Header.Get("Location"); answer.StatusCode/100 == 3 && location != "" {
			_ = answer.Body.Close()
			if base, err = redirect(target, location); err != nil {
				return nil, err
			}
			continue
		}
		if err := checkAnswer(answer, "advertisement"); err != nil {
			_ = answer.Body.Close()
			return nil, err
		}
		t.mu.Lock()
		t.base = base
		t.mu.Unlock()
		return &httpSession{transport: t, base: base, first: answer.Body}, nil
	}
	return nil, &Error{Code: CodeServer, Text: fmt.Sprintf("the server redirects more than %d times", longestRedirect)}
}

// redirect is the repository that a redirect of the first request leads to.
func redirect(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if err != nil {
		return nil, &Error{Code: CodeServer, Text: "the server redirects to something that is not a URL"}
	}
	to.User, to.Fragment = nil, ""
	if to.Scheme != "https" && to.Scheme != "http" || from.Scheme == "https" && to.Scheme == "http" {
		return nil, &Error{Code: CodeServer, Text: fmt.Sprintf("the server redirects from %s to %s, which is refused", from.Scheme, quoteShort(to.Scheme))}
	}
	path, ok := strings.CutSuffix(to.Path, "/info/refs")
	if !ok {
		return nil, &Error{Code: CodeServer, Text: fmt.Sprintf("the server redirects to %s, which is not a Git repository", quoteShort(to.Scheme+"://"+to.Host+to.Path))}
	}
	to.Path, to.RawPath = path, ""
	query := to.Query()
	query.Del("service")
	to.RawQuery = query.Encode()
	return to, nil
}

func endpoint(base *url.URL, path string) *url.URL {
	target := *base
	target.Path = strings.TrimSuffix(target.Path, "/") + path
	if target.RawPath != "" {
		target.RawPath = strings.TrimSuffix(target.RawPath, "/") + path
	}
	return &target
}

// do sends a request, with the credential only to the host that it is for.
func (t *httpTransport) do(ctx context.Context, method string, target *url.URL, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "git/"+agent)
	request.Header.Set("Git-Protocol", "version=2")
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		request.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	if target.Scheme == t.origin.Scheme && strings.EqualFold(target.Host, t.origin.Host) {
		switch {
		case t.auth.BearerToken != "":
			request.Header.Set("Authorization", "Bearer "+t.auth.BearerToken)
		case t.auth.Username != "" || t.auth.Password != "":
			request.SetBasicAuth(t.auth.Username, t.auth.Password)
		}
	}
	return t.client.Do(request)
}

// checkAnswer makes an error of an answer that is not Git's.
func checkAnswer(answer *http.Response, kind string) error {
	switch code := answer.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusProxyAuthRequired:
		return &Error{Code: CodeDenied, Text: fmt.Sprintf("the server answers %d %s", code, http.StatusText(code))}
	case code == http.StatusNotFound, code == http.StatusGone:
		return &Error{Code: CodeNotFound, Text: fmt.Sprintf("the server answers %d %s", code, http.StatusText(code))}
	default:
		return &Error{Code: CodeServer, Text: strings.TrimSpace(fmt.Sprintf("the server answers %d %s", code, http.StatusText(code)))}
	}
	want := "application/x-git-upload-pack-" + kind
	if got := answer.Header.Get("Content-Type"); got != want {
		return &Error{Code: CodeProtocol, Text: fmt.Sprintf("the server's answer is %s, not a Git repository", quoteShort(got))}
	}
	return nil
}

// httpSession is a row of requests that the server does not connect.
type httpSession struct {
	transport *httpTransport
	base      *url.URL
	first     io.ReadCloser
}

func (s *httpSession) greeting() io.Reader { return s.first }
func (*httpSession) stateless() bool       { return true }

func (s *httpSession) request(ctx context.Context, body []byte) (io.ReadCloser, error) {
	if err := s.close(); err != nil {
		return nil, err
	}
	answer, err := s.transport.do(ctx, http.MethodPost, endpoint(s.base, "/git-upload-pack"), body)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(answer, "result"); err != nil {
		_ = answer.Body.Close()
		return nil, err
	}
	return &drained{answer.Body}, nil
}

func (s *httpSession) close() error {
	if s.first == nil {
		return nil
	}
	body := &drained{s.first}
	s.first = nil
	return body.Close()
}

// drained reads the little that is left of an answer before it closes it, so
// that the connection can be used again.
type drained struct{ io.ReadCloser }

// Close ends reading.
func (d *drained) Close() error {
	_, _ = io.CopyN(io.Discard, d.ReadCloser, 1<<10)
	return d.ReadCloser.Close()
}
