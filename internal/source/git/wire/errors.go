package wire

import (
	"context"
	"errors"
	"strings"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// Code says what kind of failure an Error is.
type Code string

const (
	// CodeURL is a URL that cannot be used.
	CodeURL Code = "url"
	// CodeCredential is a credential that cannot be used, such as a key that
	// does not parse.
	CodeCredential Code = "credential"
	// CodeDenied is a server that refuses the credential, or wants one.
	CodeDenied Code = "denied"
	// CodeHostKey is an SSH server whose key is not the known one.
	CodeHostKey Code = "host key"
	// CodeCertificate is a TLS server whose certificate is not trusted, or a
	// client certificate that the server refuses.
	CodeCertificate Code = "certificate"
	// CodeNotFound is a repository that the server does not have, or hides.
	CodeNotFound Code = "not found"
	// CodeMissing is a commit that the server does not have or give out.
	CodeMissing Code = "missing"
	// CodeTimeout is a deadline that passed.
	CodeTimeout Code = "timeout"
	// CodeCanceled is a fetch that nobody wants any more.
	CodeCanceled Code = "canceled"
	// CodeNetwork is a server that cannot be reached or hangs up.
	CodeNetwork Code = "network"
	// CodeServer is a server that says that it failed.
	CodeServer Code = "server"
	// CodeProtocol is an answer that is not Git's protocol.
	CodeProtocol Code = "protocol"
	// CodeUnsupported is a repository or server of a kind that is not supported.
	CodeUnsupported Code = "unsupported"
	// CodeTooLarge is an answer that passes a limit.
	CodeTooLarge Code = "too large"
	// CodeLocal is a failure on this side, such as a full disk.
	CodeLocal Code = "local"
)

// Error is a failure with a text that is the same each time it happens: without
// times, local ports and credentials.
type Error struct {
	Code Code
	Text string
	Err  error
}

// Error is the text.
func (e *Error) Error() string { return e.Text }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the first Error in a chain, and CodeLocal where there
// is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeLocal
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// classify makes an Error of whatever went wrong, with a text of its own where
// the original one would differ from time to time.
func classify(ctx context.Context, err error) error {
	var known *Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && errors.As(err, &known):
		return err
	case errors.Is(err, pack.ErrTooLarge):
		return &Error{Code: CodeTooLarge, Text: err.Error(), Err: err}
	case errors.Is(err, pack.ErrCorrupt):
		return &Error{Code: CodeProtocol, Text: err.Error(), Err: err}
	}
	code, text, ok := egress.Explain(ctx, err)
	if !ok {
		return err
	}
	return &Error{Code: codeOf(code), Text: text, Err: err}
}

func codeOf(code egress.Code) Code {
	switch code {
	case egress.Timeout:
		return CodeTimeout
	case egress.Canceled:
		return CodeCanceled
	case egress.Forbidden:
		return CodeUnsupported
	case egress.Unusable:
		return CodeCredential
	case egress.Certificate:
		return CodeCertificate
	case egress.Denied:
		return CodeDenied
	default:
		return CodeNetwork
	}
}

// remoteError is what a server says went wrong.
func remoteError(text string) error {
	text = printable(text)
	lower := strings.ToLower(text)
	code := CodeServer
	switch {
	case strings.Contains(lower, "not our ref"), strings.Contains(lower, "unadvertised object"):
		code = CodeMissing
	case strings.Contains(lower, "not found"), strings.Contains(lower, "does not exist"), strings.Contains(lower, "not appear to be a git repository"):
		code = CodeNotFound
	case strings.Contains(lower, "denied"), strings.Contains(lower, "unauthorized"), strings.Contains(lower, "authentication"):
		code = CodeDenied
	}
	return &Error{Code: code, Text: "the server says: " + text}
}

func printable(text string) string { return egress.Printable(text) }

func quoteShort(text string) string { return egress.Quote(text) }
