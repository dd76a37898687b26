package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Reasons of errors, in the words of Flux.
const (
	// ReasonURL is a URL that cannot be used.
	ReasonURL = "URLInvalid"
	// ReasonAuthentication is a credential that is unusable or refused.
	ReasonAuthentication = "AuthenticationFailed"
	// ReasonRead is a failure to find the tag.
	ReasonRead = "ReadOperationFailed"
	// ReasonPull is a failure to get the artifact.
	ReasonPull = "OCIArtifactPullFailed"
	// ReasonLayer is an artifact whose layers are not what is wanted.
	ReasonLayer = "OCIArtifactLayerOperationFailed"
	// ReasonVerification is an artifact that must not be used.
	ReasonVerification = "VerificationError"
)

// fault is an error that knows what kind it is. Where it has no reason, that of the step
// holds which fails.
type fault struct {
	kind         gitops.ErrorKind
	reason       string
	text, remedy string
}

// Error says what is wrong.
func (f *fault) Error() string { return f.text }

// step says of an error at which step it came up.
type step struct {
	reason string
	cause  error
}

// Error is the cause's.
func (s *step) Error() string { return s.cause.Error() }

// Unwrap gives the cause.
func (s *step) Unwrap() error { return s.cause }

func at(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &step{reason, err}
}

func wrongDigest(what, digest string) error {
	return &fault{kind: gitops.Transient, text: fmt.Sprintf("%s does not have the digest %s: it is truncated or was changed", what, digest)}
}

// failure says of a request what went wrong: which repository, which reference, and what
// to do.
func failure(ctx context.Context, request Request, err error) error {
	f := explain(ctx, request, err)
	var s *step
	if f.reason == "" && errors.As(err, &s) {
		f.reason = s.reason
	}
	if f.reason == "" {
		f.reason = ReasonPull
	}
	text := fmt.Sprintf("fetch %s of %q: %s", request.Ref, request.redacted(), f.text)
	if f.remedy != "" {
		text += "; " + f.remedy
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: f.kind, Reason: f.reason, Cause: errors.New(text)}
}

// explain puts an error into words that are the same each time.
func explain(ctx context.Context, request Request, err error) fault {
	// What is said of the connection comes first: other errors may follow from it.
	code, text, known := egress.Explain(ctx, err)
	if known && code != egress.Network {
		return fault{kind: code.Kind(), reason: reasonOf(code), text: text, remedy: remedyOf(code)}
	}
	var (
		own       *fault
		told      *gitops.Error
		status    *transport.Error
		failed    *loginError
		large     *tooLarge
		many      *tooMany
		malformed *artifact.Malformed
		exchange  *tokenError
		file      *fs.PathError
	)
	switch {
	case errors.As(err, &told):
		return fault{kind: told.Kind, reason: told.Reason, text: told.Error()}
	case errors.As(err, &own):
		return *own
	case errors.As(err, &failed):
		return fault{kind: gitops.Denied, reason: ReasonAuthentication, text: egress.Printable(failed.Error())}
	case errors.As(err, &large), errors.As(err, &many):
		return fault{kind: gitops.Invalid, text: inner(err, large, many)}
	case errors.As(err, &malformed):
		return fault{kind: gitops.Invalid, reason: ReasonLayer, text: "the layer cannot be unpacked: " + egress.Printable(malformed.Error())}
	case errors.As(err, &status):
		return answered(request, status, exchange, errors.As(err, &exchange))
	case errors.As(err, &exchange):
		return fault{kind: gitops.Transient, reason: ReasonAuthentication, text: exchange.Error() + ": " + tokenFailure(ctx, exchange.cause)}
	case known:
		return fault{kind: code.Kind(), text: text}
	case errors.As(err, &file):
		// The names of our own files differ from time to time.
		return fault{kind: gitops.Transient, text: fmt.Sprintf("data folder: %v", file.Err)}
	}
	return fault{kind: gitops.Transient, text: egress.Printable(err.Error())}
}

// inner is the text of that of two errors that is there.
func inner(err error, large *tooLarge, many *tooMany) string {
	if errors.As(err, &large) {
		return large.Error()
	}
	return many.Error()
}

// tokenFailure says why a token server gave no token. It quotes nothing of what the server
// says, in which there may be a token.
func tokenFailure(ctx context.Context, err error) string {
	var refused *egress.Refused
	if errors.As(err, &refused) {
		return refused.Text
	}
	if strings.Contains(err.Error(), "realm") {
		return "the registry names it, but it may not be used: it must be https, and no private address"
	}
	if _, text, ok := egress.Explain(ctx, err); ok && !strings.HasPrefix(text, "the request failed") {
		return text
	}
	return "its answer has none"
}

func reasonOf(code egress.Code) string {
	switch code {
	case egress.Unusable, egress.Denied:
		return ReasonAuthentication
	}
	return ""
}

func remedyOf(code egress.Code) string {
	if code == egress.Certificate {
		return "put the authority under \"ca.crt\" of the certificate secret if it is to be trusted"
	}
	return ""
}

// answered is the error of a status that a server answers with.
func answered(request Request, status *transport.Error, exchange *tokenError, byTokenServer bool) fault {
	who := "the registry"
	if byTokenServer {
		who = "the token server " + exchange.host()
	}
	f := fault{kind: gitops.Transient, text: fmt.Sprintf("%s answers %d %s%s", who, status.StatusCode, http.StatusText(status.StatusCode), said(status))}
	switch {
	case status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden:
		f.kind, f.reason, f.remedy = gitops.Denied, ReasonAuthentication, denied(request)
	case status.StatusCode == http.StatusNotFound && hasCode(status, transport.ManifestUnknownErrorCode):
		f.kind, f.remedy = gitops.Invalid, "push it, or change \"ref\""
	case status.StatusCode == http.StatusNotFound:
		f.remedy = "check the URL, and that the credential may read the repository"
	case byTokenServer:
		f.reason = ReasonAuthentication
	}
	return f
}

func denied(request Request) string {
	if request.Auth.Username == "" && len(request.Auth.DockerConfigs) == 0 && request.Login == nil {
		return "the repository needs a credential; name its secret in secretRef"
	}
	return "check that the credential is one for this repository"
}

func hasCode(status *transport.Error, code transport.ErrorCode) bool {
	for _, d := range status.Errors {
		if d.Code == code {
			return true
		}
	}
	return false
}

// said is what a server says besides the status, without what differs each time.
func said(status *transport.Error) string {
	if len(status.Errors) == 0 {
		return ""
	}
	d := status.Errors[0]
	text := egress.Printable(string(d.Code))
	if d.Message != "" {
		text += " " + egress.Quote(numbered().ReplaceAllString(d.Message, "…"))
	}
	return ": " + text
}

// numbered finds identifiers and times, which servers put into their messages.
func numbered() *regexp.Regexp {
	return regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[0-9a-f]{16,}\b|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d[0-9:.Z+-]*`)
}
