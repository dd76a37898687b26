package helmrepo

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Reasons of errors, in the words of Flux.
const (
	// ReasonURL is a URL that cannot be used.
	ReasonURL = "URLInvalid"
	// ReasonAuthentication is a credential that is unusable or refused.
	ReasonAuthentication = "AuthenticationFailed"
	// ReasonFailed is an index that cannot be got.
	ReasonFailed = "Failed"
	// ReasonIndexation is an index that cannot be used.
	ReasonIndexation = "IndexationFailed"
	// ReasonReference is a chart or a version that there is not.
	ReasonReference = "InvalidChartReference"
	// ReasonPull is a chart that cannot be got.
	ReasonPull = "ChartPullError"
	// ReasonMetadata is a version that cannot be given build metadata.
	ReasonMetadata = "MetadataPatchError"
	// ReasonValues are values files that cannot be merged.
	ReasonValues = "ValuesFilesError"
	// ReasonDependency is a dependency that cannot be got.
	ReasonDependency = "DependencyBuildError"
	// ReasonPackage is a chart that cannot be packaged.
	ReasonPackage = "ChartPackageError"
)

// fault makes an error of this package.
func fault(kind gitops.ErrorKind, reason string, cause error) *gitops.Error {
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: reason, Cause: cause}
}

// within says what was being done when an error came up; its kind and reason stay.
func within(what string, err error) error {
	var done *gitops.Error
	if !errors.As(err, &done) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fault(done.Kind, done.Reason, fmt.Errorf("%s: %w", what, err))
}

// because gives an error a reason, and a kind where it has none. That a credential is
// refused stays the reason.
func because(kind gitops.ErrorKind, reason string, err error) *gitops.Error {
	var done *gitops.Error
	if errors.As(err, &done) {
		kind = done.Kind
		if done.Reason == ReasonAuthentication {
			reason = done.Reason
		}
	}
	return fault(kind, reason, err)
}

// statusError is an answer that is none of those that are looked for.
type statusError struct{ code int }

// Error is what the server answers.
func (e *statusError) Error() string {
	return fmt.Sprintf("the server answers %d %s", e.code, http.StatusText(e.code))
}

// failure says what went wrong with a request to a repository, or with what came of it, and
// what to do. Reason is for what has none of its own. What has a kind passes unchanged.
func (r *remote) failure(ctx context.Context, reason string, err error) error {
	var (
		done   *gitops.Error
		status *statusError
	)
	if errors.As(err, &done) {
		return err
	}
	if code, text, ok := egress.Explain(ctx, err); ok && !isDisk(err) {
		switch code {
		case egress.Certificate:
			text += `; put the authority under "ca.crt" of the secret if it is to be trusted`
		case egress.Denied:
			reason, text = ReasonAuthentication, text+"; check the client certificate in the secret"
		case egress.Unusable:
			reason = ReasonAuthentication
		}
		return fault(code.Kind(), reason, errors.New(text))
	}
	switch {
	case isDisk(err):
		return fault(gitops.Transient, reason, disk(err))
	case errors.As(err, &status):
		return r.statusFailure(reason, status)
	default:
		return fault(gitops.Invalid, reason, err)
	}
}

func (r *remote) statusFailure(reason string, status *statusError) error {
	switch status.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		remedy := "check the credential in the secret"
		if r.auth.Username == "" && r.auth.Password == "" {
			remedy = "the repository needs a credential; name its secret in secretRef"
		}
		return fault(gitops.Denied, ReasonAuthentication, fmt.Errorf("%w; %s", status, remedy))
	case http.StatusNotFound, http.StatusGone:
		return fault(gitops.Transient, reason, fmt.Errorf("%w; check the URL, and that the credential may read it", status))
	default:
		return fault(gitops.Transient, reason, status)
	}
}
