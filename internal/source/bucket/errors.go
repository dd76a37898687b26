package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Reasons of errors, in the words of Flux.
const (
	// ReasonURL is an endpoint or a bucket's name that cannot be used.
	ReasonURL = "URLInvalid"
	// ReasonProvider is an unknown provider.
	ReasonProvider = "InvalidProviderConfiguration"
	// ReasonSTS is a security token service that does not fit the provider.
	ReasonSTS = "InvalidSTSConfiguration"
	// ReasonAuthentication is a credential that is unusable or refused.
	ReasonAuthentication = "AuthenticationFailed"
	// ReasonFailed is any other failure to get the content.
	ReasonFailed = "BucketOperationFailed"
)

// code is what kind of failure a fault is.
type code int

const (
	// codeServer is an answer that may be another one next time.
	codeServer code = iota
	codeURL
	codeProvider
	codeSTS
	// codeCredential is a credential that cannot be used.
	codeCredential
	// codeLogin is a login that failed and may work next time.
	codeLogin
	// codeDenied is a credential that is refused, or none where one is needed.
	codeDenied
	// codeNoBucket is a bucket that is missing.
	codeNoBucket
	// codeNoObject is an object that is missing.
	codeNoObject
	// codeChanged is an object that is not any more what the listing said.
	codeChanged
	// codeRefused is content that is not taken.
	codeRefused
	// codeClosed is a bucket that nobody follows any more.
	codeClosed
	// codeCanceled is a fetch that ended with its context.
	codeCanceled
)

// fault is a failure in words that are the same each time. The text holds nothing
// secret.
type fault struct {
	code code
	text string
}

// Error is the text.
func (f *fault) Error() string { return f.text }

// codeOf is the code of an error, codeServer where it has none.
func codeOf(err error) code {
	var f *fault
	if errors.As(err, &f) {
		return f.code
	}
	return codeServer
}

func refused(format string, values ...any) error {
	return &fault{code: codeRefused, text: fmt.Sprintf(format, values...)}
}

// named is an object in messages.
func named(key string) string { return "object " + egress.Quote(key) }

// failure says of a request what went wrong: which bucket, and what to do. Errors that
// say so already pass unchanged.
func failure(ctx context.Context, request Request, err error) error {
	var done *gitops.Error
	if errors.As(err, &done) {
		return &gitops.Error{
			Stage: gitops.StageFetch, Kind: done.Kind, Reason: done.Reason,
			Cause: fmt.Errorf("fetch %s: %w", request, done.Cause),
		}
	}
	kind, reason, text := gitops.Transient, ReasonFailed, ""
	var f *fault
	var file *fs.PathError
	switch {
	case errors.As(err, &f):
		kind, reason = f.code.kind(), f.code.reason()
		text = f.text + f.code.remedy(request)
	case errors.As(err, &file):
		// The names of our own files differ from time to time.
		text = "data folder: " + file.Err.Error()
	default:
		code, words, ok := egress.Explain(ctx, err)
		if !ok {
			words = "the server's answer cannot be used: " + egress.Printable(err.Error())
		} else {
			kind = code.Kind()
			if code == egress.Unusable || code == egress.Denied {
				reason = ReasonAuthentication
			}
		}
		text = words
		if code == egress.Certificate {
			text += "; put the authority under \"ca.crt\" of the secret in certSecretRef if it is to be trusted"
		}
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: reason, Cause: fmt.Errorf("fetch %s: %s", request, text)}
}

func (c code) kind() gitops.ErrorKind {
	switch c {
	case codeURL, codeProvider, codeSTS:
		return gitops.Stalled
	case codeCredential, codeDenied:
		return gitops.Denied
	case codeRefused:
		return gitops.Invalid
	default:
		return gitops.Transient
	}
}

func (c code) reason() string {
	switch c {
	case codeURL:
		return ReasonURL
	case codeProvider:
		return ReasonProvider
	case codeSTS:
		return ReasonSTS
	case codeCredential, codeDenied, codeLogin:
		return ReasonAuthentication
	default:
		return ReasonFailed
	}
}

func (c code) remedy(request Request) string {
	switch {
	case c == codeNoBucket:
		return "; check its name, the endpoint and the region"
	case c == codeDenied && request.anonymous():
		return "; the bucket needs a credential; name its secret in secretRef"
	case c == codeDenied:
		return "; check the credential, and that it may list the bucket and read its objects"
	default:
		return ""
	}
}

// answer is an error that a server answers: a status of HTTP and a word for it. What
// else the server says is left out, as it may hold times, identifiers and keys.
func answer(status int, word string) *fault {
	text := fmt.Sprintf("the server answers %d", status)
	if word = plainWord(word); word != "" {
		text += " " + word
	} else if known := http.StatusText(status); known != "" {
		text += " " + known
	}
	f := &fault{code: codeServer, text: text}
	switch word {
	case "NoSuchBucket", "ContainerNotFound":
		f.code, f.text = codeNoBucket, "the bucket does not exist"
	case "NoSuchKey", "BlobNotFound":
		f.code = codeNoObject
	case "ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "TokenRefreshRequired":
		f.code = codeDenied
	case "InvalidBucketName", "InvalidResourceName":
		f.code, f.text = codeURL, "the name of the bucket is none that a bucket can have"
	default:
		switch status {
		case http.StatusUnauthorized, http.StatusForbidden:
			f.code = codeDenied
		case http.StatusPreconditionFailed:
			f.code = codeChanged
		}
	}
	return f
}

// plainWord is a word of letters and digits; empty for anything else.
func plainWord(word string) string {
	if len(word) > 64 || strings.ContainsFunc(word, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		return ""
	}
	return word
}
