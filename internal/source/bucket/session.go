package bucket

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// renewBefore is how long before its end a credential is renewed.
	renewBefore = time.Minute
	// keepAtLeast is how long a credential is used, whatever its end, so that a clock
	// that is wrong does not make every request log in.
	keepAtLeast = 10 * time.Second
)

// session is the credential that requests are sent with, and how it is renewed.
type session struct {
	now func() time.Time
	// turn is held by whoever logs in.
	turn chan struct{}

	mu sync.Mutex // guards all below
	// login is nil where the credential is always the same.
	login   func(context.Context) (Credential, error)
	current Credential
	// version counts logins; 0 is none.
	version int
	renew   time.Time
}

// newSession makes a session that logs in, or that has a credential where login is nil.
func newSession(now func() time.Time, login func(context.Context) (Credential, error), fixed Credential) *session {
	return &session{now: now, turn: make(chan struct{}, 1), login: login, current: fixed}
}

// use logs in by another function from now on.
func (s *session) use(login func(context.Context) (Credential, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login = login
}

// get is the credential of now, which may be that of a login under way.
func (s *session) get() (credential Credential, version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.version
}

func (s *session) valid() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.login == nil || s.version > 0 && (s.renew.IsZero() || s.now().Before(s.renew))
}

// ensure logs in where it is needed.
func (s *session) ensure(ctx context.Context) error {
	if s.valid() {
		return nil
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	if s.valid() {
		return nil
	}
	s.mu.Lock()
	login := s.login
	s.mu.Unlock()
	credential, err := login(ctx)
	if err != nil {
		return loginError(ctx, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.renew = credential, time.Time{}
	s.version++
	if !credential.Expires.IsZero() {
		s.renew = credential.Expires.Add(-renewBefore)
		if earliest := s.now().Add(keepAtLeast); s.renew.Before(earliest) {
			s.renew = earliest
		}
	}
	return nil
}

// loginError says that a login failed; errors that say so already pass unchanged.
func loginError(ctx context.Context, err error) error {
	var done *gitops.Error
	var f *fault
	switch {
	case errors.As(err, &done), errors.As(err, &f):
		return err
	}
	if _, text, ok := egress.Explain(ctx, err); ok {
		return &fault{code: codeLogin, text: "log in: " + text}
	}
	return &fault{code: codeLogin, text: "log in: " + egress.Printable(err.Error())}
}

// reject says that a credential was refused, and tells whether another login may help.
func (s *session) reject(version int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.login == nil {
		return false
	}
	if s.version == version {
		s.renew = s.now()
	}
	return true
}

// do runs an operation with a credential, and once more with a new one where it was
// refused.
func (s *session) do(ctx context.Context, operation func(context.Context) error) error {
	for again := false; ; again = true {
		if err := s.ensure(ctx); err != nil {
			return err
		}
		_, version := s.get()
		err := operation(ctx)
		if err == nil || codeOf(err) != codeDenied || again || !s.reject(version) {
			return err
		}
	}
}
