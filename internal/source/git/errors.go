package git

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// Reasons of errors, in the words of Flux.
const (
	// ReasonURL is a URL that cannot be used.
	ReasonURL = "URLInvalid"
	// ReasonAuthentication is a credential that is unusable or refused.
	ReasonAuthentication = "AuthenticationFailed"
	// ReasonFailed is any other failure to get the content.
	ReasonFailed = "GitOperationFailed"
	// ReasonEmpty is a repository without a commit.
	ReasonEmpty = "EmptyGitRepository"
	// ReasonMode is a mode of verification that does not go with the ref.
	ReasonMode = "InvalidVerificationMode"
	// ReasonVerification is a verification that cannot be done.
	ReasonVerification = "VerificationError"
	// ReasonObject is a tag without a signature.
	ReasonObject = "InvalidGitObject"
	// ReasonTag is a tag whose signature is not right.
	ReasonTag = "InvalidTagSignature"
	// ReasonCommit is a commit whose signature is missing or not right.
	ReasonCommit = "InvalidCommitSignature"
)

// failure says of a request what went wrong: which repository, which ref, and
// what to do. Errors that say so already pass unchanged.
func failure(request Request, err error) error {
	var done *gitops.Error
	if errors.As(err, &done) {
		return &gitops.Error{
			Stage: done.Stage, Kind: done.Kind, Reason: done.Reason,
			Cause: fmt.Errorf("fetch %s of %q: %w", request.Ref, redacted(request.URL), err),
		}
	}
	var file *fs.PathError
	if errors.As(err, &file) {
		// The names of our own files differ from time to time.
		err = fmt.Errorf("data folder: %w", file.Err)
	}
	kind, reason, remedy := gitops.Transient, ReasonFailed, ""
	switch wire.CodeOf(err) {
	case wire.CodeURL:
		kind, reason = gitops.Stalled, ReasonURL
	case wire.CodeCredential:
		kind, reason = gitops.Denied, ReasonAuthentication
	case wire.CodeDenied:
		kind, reason, remedy = gitops.Denied, ReasonAuthentication, denied(request)
	case wire.CodeHostKey:
		kind, remedy = gitops.Denied, "compare the key with that of the host, then put it under \"known_hosts\" of the secret"
	case wire.CodeCertificate:
		kind, remedy = gitops.Denied, "put the authority under \"ca.crt\" of the secret if it is to be trusted"
	case wire.CodeNotFound:
		remedy = "check the URL, and that the credential may read the repository"
	case wire.CodeMissing:
		kind, remedy = gitops.Invalid, "it may have been removed by a force-push"
	case wire.CodeUnsupported, wire.CodeTooLarge:
		kind = gitops.Invalid
	}
	text := fmt.Errorf("fetch %s of %q: %w", request.Ref, redacted(request.URL), err)
	if remedy != "" {
		text = fmt.Errorf("%w; %s", text, remedy)
	}
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: reason, Cause: text}
}

func denied(request Request) string {
	auth := request.Auth
	if auth.Login != nil {
		return "check that who is logged in may read the repository"
	}
	if auth.Username == "" && auth.BearerToken == "" && len(auth.Identity) == 0 {
		return "the repository needs a credential; name its secret in secretRef"
	}
	return "check the credential in the secret"
}
