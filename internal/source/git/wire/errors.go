package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"unicode"

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
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{Code: CodeTimeout, Text: "no answer within the timeout", Err: err}
	case ctx.Err() != nil:
		return &Error{Code: CodeCanceled, Text: "canceled", Err: err}
	case errors.As(err, &op) && errors.As(op.Err, &known):
		// What our own dialer says needs no words about the dialing.
		return known
	case errors.As(err, &known):
		return err
	case errors.Is(err, pack.ErrTooLarge):
		return &Error{Code: CodeTooLarge, Text: err.Error(), Err: err}
	case errors.Is(err, pack.ErrCorrupt):
		return &Error{Code: CodeProtocol, Text: err.Error(), Err: err}
	}
	if e := classifyTLS(err); e != nil {
		return e
	}
	return classifyNetwork(err)
}

func classifyTLS(err error) error {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		op        *net.OpError
		record    tls.RecordHeaderError
	)
	text := ""
	switch {
	case errors.As(err, &authority):
		text = "the server's certificate is signed by an unknown authority"
	case errors.As(err, &hostname):
		text = fmt.Sprintf("the server's certificate is not for %q", hostname.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		text = "the server's certificate has expired or is not yet valid"
	case errors.As(err, &invalid):
		text = "the server's certificate is not valid"
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		return &Error{Code: CodeDenied, Text: "the server refuses the client certificate: " + op.Err.Error(), Err: err}
	case errors.As(err, &op) && op.Op == "remote error":
		text = "the server ends the TLS handshake: " + op.Err.Error()
	case errors.As(err, &record):
		text = "the server does not speak TLS"
	default:
		return nil
	}
	return &Error{Code: CodeCertificate, Text: text, Err: err}
}

func classifyNetwork(err error) error {
	var (
		dns *net.DNSError
		op  *net.OpError
		web *url.Error
	)
	switch {
	case errors.As(err, &dns):
		return &Error{Code: CodeNetwork, Text: fmt.Sprintf("host %q cannot be resolved", dns.Name), Err: err}
	case errors.As(err, &op) && op.Op == "dial" && op.Addr != nil:
		return &Error{Code: CodeNetwork, Text: fmt.Sprintf("connect to %s: %s", op.Addr, cause(op)), Err: err}
	case errors.As(err, &op):
		return &Error{Code: CodeNetwork, Text: fmt.Sprintf("connection lost: %s", cause(op)), Err: err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return &Error{Code: CodeNetwork, Text: "the server hung up", Err: err}
	case errors.As(err, &web):
		// It names the whole URL, and quotes what the server sent.
		return &Error{Code: CodeNetwork, Text: "the request failed: " + quoteShort(web.Err.Error()), Err: err}
	default:
		return err
	}
}

func cause(op *net.OpError) string {
	var call *os.SyscallError
	if errors.As(op.Err, &call) {
		return call.Err.Error()
	}
	return op.Err.Error()
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

// longestText is the most of a server's words that reach a message.
const longestText = 300

// printable takes what a message can hold of a server's words: one line,
// without control characters.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longestText {
		text = strings.ToValidUTF8(text[:longestText], "") + "…"
	}
	return text
}

func quoteShort(text string) string { return fmt.Sprintf("%q", printable(text)) }
