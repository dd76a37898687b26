package oci

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/plumb-gitops/plumb/internal/egress"
)

// session is a registry with a credential, and what was learned about how it lets in.
// All requests with the same registry and credential share it.
type session struct {
	registry    name.Registry
	egress      *egress.Transport
	base        http.RoundTripper
	credentials []authn.AuthConfig
	// insecure is Request.Insecure.
	insecure bool
	now      func() time.Time

	// asking has one place, which is taken while the registry is asked how it lets in.
	asking chan struct{}

	mu sync.Mutex // guards what follows
	// challenge is nil where the registry was not asked yet.
	challenge *transport.Challenge
	// chosen is the index of the credential in use.
	chosen int
	// login is what a request's Login gave last; nil where it was not asked.
	login  *authn.AuthConfig
	tokens map[string]token
}

// token lets somebody in for a scope.
type token struct {
	header string
	until  time.Time
}

const (
	// mostTokens is how many tokens are kept: one for each repository.
	mostTokens = 4096
	// tokenLife is how long a token is good of which the server does not say it, and
	// tokenMargin how long before its end it is not used any more.
	tokenLife, tokenMargin = 60 * time.Second, 10 * time.Second
)

func newSession(registry name.Registry, out *egress.Transport, credentials []authn.AuthConfig, insecure bool, o Options) *session {
	return &session{
		registry: registry, egress: out, base: newBounded(out, o), credentials: credentials, insecure: insecure, now: o.Now,
		asking: make(chan struct{}, 1), tokens: map[string]token{},
	}
}

// forgetCredential has it looked for anew what lets in for a scope.
func (s *session) forgetCredential(scope string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chosen, s.login = 0, nil
	delete(s.tokens, scope)
}

// forgetRegistry has the registry asked anew how it is reached and how it lets in.
func (s *session) forgetRegistry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.challenge = nil
	clear(s.tokens)
}

// refusedAll is the error of authorize where the registry has refused all that there is.
type refusedAll struct{}

// Error says so.
func (refusedAll) Error() string { return "the registry refuses the credential" }

// authorize gives the header that lets in for a scope, "" where none is needed. Refused is
// the one that the registry has just refused, nil where it has refused none: it is not
// given again.
func (s *session) authorize(ctx context.Context, login login, scope string, refused *string) (string, error) {
	challenge, err := s.ask(ctx)
	if err != nil {
		return "", err
	}
	bearer := strings.EqualFold(challenge.Scheme, "bearer")
	if header := s.token(scope); bearer && header != "" && (refused == nil || *refused != header) {
		return header, nil
	}
	last := error(refusedAll{})
	// Where nothing is asked for, a login waits until something is.
	all, first := s.candidates(login, challenge.Scheme != "" || refused != nil)
	for i := first; i < len(all); i++ {
		credential, err := all[i](ctx)
		if err != nil {
			return "", err
		}
		header := basicHeader(credential)
		if bearer {
			if header, err = s.exchange(ctx, challenge, credential, scope); err != nil {
				if status := statusOf(err); status != http.StatusUnauthorized && status != http.StatusForbidden {
					return "", err
				}
				last = err
				continue
			}
		}
		if refused == nil || header != *refused && header != "" {
			s.choose(i)
			return header, nil
		}
	}
	return "", last
}

// candidate is a credential that can be tried.
type candidate func(ctx context.Context) (authn.AuthConfig, error)

// candidates are the credentials that may be tried, from the first on that was not
// refused; an empty one where there are none. What a login gave last comes before what it
// gives when it is asked again.
func (s *session) candidates(login login, needed bool) (all []candidate, first int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fixed := s.credentials
	switch {
	case len(fixed) > 0:
		first = s.chosen
	case login == nil || !needed:
		fixed = []authn.AuthConfig{{}}
	case s.login != nil:
		fixed = []authn.AuthConfig{*s.login}
	}
	for _, credential := range fixed {
		all = append(all, func(context.Context) (authn.AuthConfig, error) { return credential, nil })
	}
	if len(s.credentials) == 0 && login != nil && needed {
		all = append(all, func(ctx context.Context) (authn.AuthConfig, error) { return s.logIn(ctx, login) })
	}
	return all, first
}

func (s *session) logIn(ctx context.Context, login login) (authn.AuthConfig, error) {
	username, password, err := login(ctx)
	if err != nil {
		return authn.AuthConfig{}, &loginError{err}
	}
	credential := authn.AuthConfig{Username: username, Password: password}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login = &credential
	return credential, nil
}

// choose remembers which of several credentials lets in.
func (s *session) choose(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.credentials) > 0 {
		s.chosen = i
	}
}

// basicHeader is what lets in without a token server.
func basicHeader(c authn.AuthConfig) string {
	switch {
	case c.RegistryToken != "":
		return "Bearer " + c.RegistryToken
	case c.Username != "" || c.Password != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
	default:
		return ""
	}
}

// token is the header of a token that is still good, "" where there is none.
func (s *session) token(scope string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[scope]; s.now().Before(t.until) {
		return t.header
	}
	return ""
}

// exchange gets a token for a scope from the registry's token server.
func (s *session) exchange(ctx context.Context, challenge *transport.Challenge, c authn.AuthConfig, scope string) (string, error) {
	if c.RegistryToken != "" {
		return "Bearer " + c.RegistryToken, nil
	}
	authenticator := authn.Anonymous
	if c != (authn.AuthConfig{}) {
		authenticator = authn.FromConfig(c)
	}
	got, err := transport.Exchange(ctx, s.registry, authenticator, s.base, []string{scope}, challenge)
	if err != nil {
		return "", &tokenError{realm: challenge.Parameters["realm"], cause: err}
	}
	text := got.AccessToken
	if text == "" {
		text = got.Token
	}
	life := tokenLife
	if got.ExpiresIn > 0 {
		life = time.Duration(min(got.ExpiresIn, 24*60*60)) * time.Second
	}
	header := "Bearer " + text
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) >= mostTokens {
		clear(s.tokens)
	}
	s.tokens[scope] = token{header: header, until: s.now().Add(life - min(tokenMargin, life/2))}
	return header, nil
}
