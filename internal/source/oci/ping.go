package oci

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/plumb-gitops/plumb/internal/egress"
)

// ask finds out how the registry is reached and how it lets in.
func (s *session) ask(ctx context.Context) (*transport.Challenge, error) {
	if known := s.asked(); known != nil {
		return known, nil
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if known := s.asked(); known != nil {
		return known, nil
	}
	challenge, err := s.ping(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.challenge = challenge
	return challenge, nil
}

// mostPings is how often a registry is asked that hangs up: the next time it may say why.
const mostPings = 5

// ping asks a registry what lets in.
func (s *session) ping(ctx context.Context) (challenge *transport.Challenge, err error) {
	for range mostPings {
		attempts := &attempts{next: s.base, registry: s.registry.RegistryStr(), hasty: s.insecure, tried: make(chan struct{})}
		if challenge, err = transport.Ping(ctx, s.registry, attempts); err == nil {
			return challenge, nil
		}
		if err = attempts.explain(err); !hungUp(err) || ctx.Err() != nil {
			break
		}
		if code, _, _ := egress.Explain(ctx, err); code == egress.Denied || code == egress.Certificate {
			break
		}
	}
	return nil, err
}

func (s *session) asked() *transport.Challenge {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.challenge
}

// attempts tries HTTPS and, where that is allowed, HTTP. A server whose certificate is
// not trusted is not asked without encryption instead.
type attempts struct {
	next     http.RoundTripper
	registry string
	// hasty tries HTTP also while HTTPS has not failed yet, since it may take long to:
	// only where somebody has asked for it.
	hasty bool
	// tried is closed when HTTPS has been tried.
	tried chan struct{}
	once  sync.Once

	mu            sync.Mutex // guards what follows
	secure, plain error
	// untrusted is set where a server was found that speaks TLS: what went wrong then is
	// about a certificate, the server's or ours, though the server may only hang up.
	untrusted bool
}

// RoundTrip sends a request and remembers how it failed.
func (a *attempts) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme == "https" {
		defer a.once.Do(func() { close(a.tried) })
	} else if err := a.mayBePlain(request.Context()); err != nil {
		return nil, err
	}
	response, err := a.next.RoundTrip(request)
	if err == nil {
		if request.Response != nil && !sameHost(request.URL, request.URL.Scheme, a.registry) {
			// Another server does not say who gets the credential.
			response.Header.Del("Www-Authenticate")
		}
		return response, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if request.URL.Scheme == "http" {
		a.plain = err
		return response, err
	}
	a.secure = err
	code, text, _ := egress.Explain(request.Context(), err)
	a.untrusted = code == egress.Denied || code == egress.Certificate && text != noTLS || hungUp(err)
	return response, err
}

// hungUp tells whether a server ended a connection that was there already. One that speaks
// TLS and refuses our certificate may do so without its reason getting through.
func hungUp(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op != "dial" && op.Op != "proxyconnect" && op.Op != "socks connect" ||
		errors.Is(err, io.EOF) || strings.HasPrefix(err.Error(), "http2: client conn")
}

// mayBePlain waits until HTTP may be tried.
func (a *attempts) mayBePlain(ctx context.Context) error {
	if !a.hasty {
		select {
		case <-a.tried:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.untrusted:
		return a.secure
	case !a.hasty && a.secure == nil:
		return errors.New("the registry has HTTPS")
	}
	return nil
}

// noTLS is how egress says that a server has no TLS.
const noTLS = "the server does not speak TLS"

// explain picks that failure of several that says most.
func (a *attempts) explain(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var status *transport.Error
	switch {
	case a.untrusted:
		return a.secure
	case a.secure != nil && a.plain != nil:
		if _, text, _ := egress.Explain(context.Background(), a.secure); text == noTLS {
			return a.plain
		}
		return a.secure
	case errors.As(err, &status):
		return status
	case a.secure != nil:
		return a.secure
	case a.plain != nil:
		return a.plain
	}
	return err
}
