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

	mu    sync.Mutex  // guards all below
	base  *url.URL    // where the repository was found last
	login *credential // what Login gave; nil before, and after it was refused
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

// do sends a request, with the credential only to the host that it is for. A
// credential of Login that is refused is got anew, once.
func (t *httpTransport) do(ctx context.Context, method string, target *url.URL, body []byte) (*http.Response, error) {
	if !t.ours(target) {
		return t.send(ctx, method, target, body, credential{})
	}
	used, old, err := t.credential(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := t.send(ctx, method, target, body, used)
	if err != nil || t.auth.Login == nil || !refuses(answer) {
		return answer, err
	}
	t.forget(used)
	if !old {
		return answer, nil
	}
	_ = answer.Body.Close()
	if used, _, err = t.credential(ctx); err != nil {
		return nil, err
	}
	if answer, err = t.send(ctx, method, target, body, used); err == nil && refuses(answer) {
		t.forget(used)
	}
	return answer, err
}

// ours tells whether a URL leads to the server that the credential is for.
func (t *httpTransport) ours(target *url.URL) bool {
	return target.Scheme == t.origin.Scheme && strings.EqualFold(target.Host, t.origin.Host)
}

// refuses tells whether an answer may be due to a token that has expired. Azure DevOps
// sends a page to sign in at then, with a status of its own.
func refuses(answer *http.Response) bool {
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNonAuthoritativeInfo:
		return true
	default:
		return false
	}
}

// credential is the one to be sent; old tells that Login gave it some time ago.
func (t *httpTransport) credential(ctx context.Context) (c credential, old bool, err error) {
	if t.auth.Login == nil {
		return credential{t.auth.Username, t.auth.Password, t.auth.BearerToken}, false, nil
	}
	t.mu.Lock()
	known := t.login
	t.mu.Unlock()
	if known != nil {
		return *known, true, nil
	}
	c.username, c.password, c.bearer, err = t.auth.Login(ctx)
	if err != nil {
		return credential{}, false, &Error{Code: CodeCredential, Text: "log in: " + printable(err.Error()), Err: err}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.login = &c
	return c, false, nil
}

// forget drops a credential that was refused.
func (t *httpTransport) forget(c credential) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.login != nil && *t.login == c {
		t.login = nil
	}
}

func (t *httpTransport) send(ctx context.Context, method string, target *url.URL, body []byte, c credential) (*http.Response, error) {
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
	switch {
	case c.bearer != "":
		request.Header.Set("Authorization", "Bearer "+c.bearer)
	case c.username != "" || c.password != "":
		request.SetBasicAuth(c.username, c.password)
	}
	return t.client.Do(request)
}

// checkAnswer makes an error of an answer that is not Git's.
func checkAnswer(answer *http.Response, kind string) error {
	switch code := answer.StatusCode; {
	case code == http.StatusOK:
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusProxyAuthRequired, code == http.StatusNonAuthoritativeInfo:
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
