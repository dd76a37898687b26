package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"unicode"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Code says what kind of failure a connection had.
type Code string

const (
	// Timeout is a deadline that passed.
	Timeout Code = "timeout"
	// Canceled is a request that nobody wants any more.
	Canceled Code = "canceled"
	// Forbidden is a connection that the rules of this package refuse.
	Forbidden Code = "forbidden"
	// Unusable are options that cannot be used.
	Unusable Code = "unusable"
	// Certificate is a TLS server whose certificate is not trusted.
	Certificate Code = "certificate"
	// Denied is a server that refuses the client certificate.
	Denied Code = "denied"
	// Network is a server that cannot be reached or hangs up.
	Network Code = "network"
)

// Kind is the kind of error that a failure is for its owner.
func (c Code) Kind() gitops.ErrorKind {
	switch c {
	case Forbidden:
		return gitops.Invalid
	case Unusable:
		return gitops.Stalled
	case Certificate, Denied:
		return gitops.Denied
	default:
		return gitops.Transient
	}
}

// Explain puts the failure of a connection into words that are the same each time:
// without times, local ports, URLs and credentials. It is false for an error that is
// none of a connection, which keeps its own words.
func Explain(ctx context.Context, err error) (code Code, text string, ok bool) {
	var refused *Refused
	var bad *Misconfigured
	var status *ProxyStatus
	var answer *ProxyAnswer
	switch {
	case err == nil:
		return "", "", false
	case errors.As(err, &refused):
		return Forbidden, refused.Text, true
	case errors.As(err, &bad):
		return Unusable, bad.Text, true
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout, "no answer within the timeout", true
	case ctx.Err() != nil:
		return Canceled, "canceled", true
	case errors.As(err, &status):
		return Network, status.Error(), true
	case errors.As(err, &answer):
		return Network, answer.Error(), true
	}
	if code, text = explainTLS(err); code != "" {
		return code, text, true
	}
	text, ok = explainNetwork(err)
	return Network, text, ok
}

func explainTLS(err error) (Code, string) {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		op        *net.OpError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &authority):
		return Certificate, "the server's certificate is signed by an unknown authority"
	case errors.As(err, &hostname):
		return Certificate, fmt.Sprintf("the server's certificate is not for %q", hostname.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Certificate, "the server's certificate has expired or is not yet valid"
	case errors.As(err, &invalid):
		return Certificate, "the server's certificate is not valid"
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		return Denied, "the server refuses the client certificate: " + op.Err.Error()
	case errors.As(err, &op) && op.Op == "remote error":
		return Certificate, "the server ends the TLS handshake: " + op.Err.Error()
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return Certificate, "the server does not speak TLS"
	}
	return "", ""
}

func explainNetwork(err error) (text string, ok bool) {
	var (
		dns *net.DNSError
		op  *net.OpError
		web *url.Error
	)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("host %q cannot be resolved", dns.Name), true
	case errors.As(err, &op) && op.Op == "dial" && op.Addr != nil:
		return fmt.Sprintf("connect to %s: %s", op.Addr, cause(op)), true
	case hungUp(err):
		return "the server hung up", true
	case errors.As(err, &op):
		return "connection lost: " + cause(op), true
	case errors.As(err, &web):
		// It names the whole URL, and quotes what the server sent.
		return "the request failed: " + Quote(web.Err.Error()), true
	default:
		return "", false
	}
}

// hungUp tells whether a connection that was there has ended. How that is noticed depends on
// what was on its way in that moment, so that it is no reason for other words.
func hungUp(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

func cause(op *net.OpError) string {
	var call *os.SyscallError
	if errors.As(op.Err, &call) {
		return call.Err.Error()
	}
	return op.Err.Error()
}

// longestText is the most of a server's words that reach a message.
const longestText = 300

// Printable takes what a message can hold of a server's words: one line, without
// control characters, of some 300 bytes at most.
func Printable(text string) string { return PrintableOf(text, longestText) }

// PrintableOf is Printable with another bound, for words that are not a server's alone.
func PrintableOf(text string, longest int) string {
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
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

// Quote is Printable in quotes.
func Quote(text string) string { return fmt.Sprintf("%q", Printable(text)) }
