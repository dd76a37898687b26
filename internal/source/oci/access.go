package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/plumb-gitops/plumb/internal/egress"
)

// login is Request.Login.
type login func(ctx context.Context) (username, password string, err error)

// loginError is a login that failed.
type loginError struct{ cause error }

// Error says why.
func (e *loginError) Error() string { return fmt.Sprintf("log in: %v", e.cause) }

// Unwrap gives the cause.
func (e *loginError) Unwrap() error { return e.cause }

// tokenError is a token server that gives no token.
type tokenError struct {
	realm string
	cause error
}

// Error names the token server.
func (e *tokenError) Error() string { return fmt.Sprintf("get a token from %s", e.host()) }

// Unwrap gives the cause.
func (e *tokenError) Unwrap() error { return e.cause }

// host is the token server without what a URL may have besides.
func (e *tokenError) host() string {
	u, err := url.Parse(e.realm)
	if err != nil || u.Host == "" {
		return "a token server that is no URL"
	}
	return egress.Quote(u.Scheme + "://" + u.Host)
}

// statusOf is the status that a server has answered with, 0 where err is none.
func statusOf(err error) int {
	var status *transport.Error
	if errors.As(err, &status) {
		return status.StatusCode
	}
	return 0
}

// access is a session as one repository uses it: a RoundTripper that goes to the registry
// with the scheme that it has, and with what lets in.
type access struct {
	session *session
	scope   string
	login   login
}

// mostRefusals is how often a request is sent again with another credential.
const mostRefusals = 8

// RoundTrip sends a request. What leads to another server gets no credential.
func (a *access) RoundTrip(in *http.Request) (*http.Response, error) {
	ctx := in.Context()
	challenge, err := a.session.ask(ctx)
	if err != nil {
		return nil, err
	}
	request := in.Clone(ctx)
	at := schemeOf(challenge)
	if !sameHost(request.URL, at, a.session.registry.RegistryStr()) {
		return a.session.base.RoundTrip(request)
	}
	switch {
	case request.Response == nil || at == "https":
		request.URL.Scheme = at
	case request.URL.Scheme != at:
		return a.session.base.RoundTrip(request) // it leads on to HTTPS
	}
	header, err := a.session.authorize(ctx, a.login, a.scope, nil)
	for try := 0; err == nil; try++ {
		request.Header.Del("Authorization")
		if header != "" {
			request.Header.Set("Authorization", header)
		}
		response, sendErr := a.session.base.RoundTrip(request)
		if sendErr != nil || response.StatusCode != http.StatusUnauthorized || try == mostRefusals {
			return response, sendErr
		}
		header, err = a.session.authorize(ctx, a.login, a.scope, &header)
		if errors.As(err, new(refusedAll)) {
			return response, nil
		}
		_ = response.Body.Close()
	}
	return nil, err
}

// forget drops what may be the cause of an error: what lets in, or how the registry is
// reached.
func (a *access) forget(err error) {
	var exchange *tokenError
	_, _, network := egress.Explain(context.Background(), err)
	switch code := statusOf(err); {
	case code == http.StatusUnauthorized:
		a.session.forgetCredential(a.scope)
	case code == 0 && (network || errors.As(err, &exchange)):
		a.session.forgetRegistry()
	}
}

// schemeOf is how a registry is reached.
func schemeOf(challenge *transport.Challenge) string {
	if challenge.Insecure {
		return "http"
	}
	return "https"
}

// sameHost tells whether a URL is at a registry.
func sameHost(u *url.URL, scheme, registry string) bool {
	hosts := [2]string{u.Host, registry}
	for i, host := range hosts {
		if _, port := splitPort(host); port == "" {
			hosts[i] = host + ":" + map[string]string{"http": "80", "https": "443"}[scheme]
		}
	}
	return strings.EqualFold(hosts[0], hosts[1])
}

// wrapped is access as the library takes it without asking the registry itself again.
func (a *access) wrapped() (http.RoundTripper, error) {
	return transport.FromToken(a.session.registry, authn.Anonymous, a, &transport.Challenge{}, &transport.Token{})
}
