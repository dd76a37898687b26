package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Reasons of errors, in the words of Flux.
const (
	// reasonAuthentication is a login that failed.
	reasonAuthentication = "AuthenticationFailed"
	// reasonProvider is a provider that is not served.
	reasonProvider = "InvalidProviderConfiguration"
	// reasonGate is something that a feature gate would have to allow.
	reasonGate = "FeatureGateDisabled"
)

// Problem is an error in words for people, which are the same each time.
type Problem struct {
	Kind gitops.ErrorKind
	// Reason is that of the condition; empty for that of a failed login.
	Reason string
	// Text says what is wrong and what to do.
	Text string
}

// Error is Text.
func (p *Problem) Error() string { return p.Text }

// Misconfigured is a Problem that only a change of what names or describes the login mends.
func Misconfigured(format string, args ...any) error {
	return &Problem{Kind: gitops.Denied, Text: fmt.Sprintf(format, args...)}
}

// Refusal is the answer of a server that refuses a request.
type Refusal struct {
	// Status is that of HTTP; 0 where it is not known.
	Status int
	// Code is the server's name for the error; empty where there is none.
	Code string
	// Remedy says what to look at; empty for nothing.
	Remedy string
}

// Error says what the server answers, and what to do.
func (r *Refusal) Error() string {
	text := "it refuses the login"
	switch code := r.code(); {
	case r.Status != 0 && code != "":
		text = fmt.Sprintf("it answers %d %s", r.Status, code)
	case r.Status != 0:
		text = fmt.Sprintf("it answers %d", r.Status)
	case code != "":
		text = "it answers " + code
	}
	if r.Remedy != "" && !r.passing() {
		text += "; " + r.Remedy
	}
	return text
}

// codes are names of errors. What does not look like one may be anything.
var codes = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

func (r *Refusal) code() string {
	if codes.MatchString(r.Code) {
		return r.Code
	}
	return ""
}

// passing tells whether another try may get another answer.
func (r *Refusal) passing() bool {
	return r.Status >= http.StatusInternalServerError || r.Status == http.StatusTooManyRequests
}

// explain puts an error into words that are the same each time.
func explain(ctx context.Context, err error) (kind gitops.ErrorKind, reason, text string) {
	var (
		done    *gitops.Error
		problem *Problem
		refusal *Refusal
	)
	switch {
	case errors.As(err, &done):
		return done.Kind, done.Reason, done.Error()
	case errors.As(err, &problem):
		if problem.Reason == "" {
			return problem.Kind, reasonAuthentication, problem.Text
		}
		return problem.Kind, problem.Reason, problem.Text
	case errors.As(err, &refusal):
		if refusal.passing() {
			return gitops.Transient, reasonAuthentication, refusal.Error()
		}
		return gitops.Denied, reasonAuthentication, refusal.Error()
	}
	remedy := ""
	if h := (*hinted)(nil); errors.As(err, &h) {
		remedy = "; " + h.remedy
	}
	if code, text, ok := egress.Explain(ctx, err); ok {
		return code.Kind(), reasonAuthentication, text + remedy
	}
	return gitops.Transient, reasonAuthentication, "it cannot be asked" + remedy
}

// hinted is an error with what to do about it.
type hinted struct {
	err    error
	remedy string
}

// Error is the error's text.
func (h *hinted) Error() string { return h.err.Error() }

// Unwrap gives the error.
func (h *hinted) Unwrap() error { return h.err }

// Hinted adds what to do to an error of the way to a server: where the operator has no
// identity, there is nobody at the end of it.
func Hinted(err error, remedy string) error { return &hinted{err, remedy} }

// Remedied adds to a refusal what to do; other errors stay as they are.
func Remedied(err error, remedy string) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return &Refusal{Status: refusal.Status, Code: refusal.Code, Remedy: remedy}
	}
	return err
}
