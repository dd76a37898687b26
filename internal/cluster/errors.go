package cluster

import (
	"errors"
	"net/http"
	"regexp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// NotServedError says that the API server answered and does not serve a kind in
// the version asked for.
type NotServedError struct {
	Group   string
	Version string // empty where any version would have done
	Kind    string // empty where the whole group and version is not served
}

// Error names the kind and the version.
func (e *NotServedError) Error() string {
	if e.Kind == "" {
		return "no kind of " + metav1.GroupVersion{Group: e.Group, Version: e.Version}.String() + " is served by the cluster"
	}
	kind := gitops.GroupKind{Group: e.Group, Kind: e.Kind}.String()
	if e.Version == "" {
		return "kind " + kind + " is not served by the cluster"
	}
	return "kind " + kind + " is not served by the cluster in version " + e.Version
}

// DiscoveryError says that the API server could not be asked which kinds a
// group has; the question may be asked again.
type DiscoveryError struct {
	// Group and Version are those that could not be discovered; empty where
	// nothing could be.
	Group   string
	Version string
	Cause   error
}

// Error names the group, where there is one, and the cause.
func (e *DiscoveryError) Error() string {
	if e.Group == "" && e.Version == "" {
		return "discover the kinds of the cluster: " + e.Cause.Error()
	}
	return "discover the kinds of " + metav1.GroupVersion{Group: e.Group, Version: e.Version}.String() + ": " + e.Cause.Error()
}

// Unwrap gives the cause.
func (e *DiscoveryError) Unwrap() error { return e.Cause }

// IsNotServed tells whether the kind is known not to be served.
func IsNotServed(err error) bool {
	var e *NotServedError
	return errors.As(err, &e)
}

// IsDiscoveryFailed tells whether it could not be found out what is served.
func IsDiscoveryFailed(err error) bool {
	var e *DiscoveryError
	return errors.As(err, &e)
}

// IsNotFound tells whether the API server serves the kind and has no such
// object, or no such namespace.
func IsNotFound(err error) bool { return apierrors.IsNotFound(err) }

// IsNamespaceMissing tells whether a write was refused for want of its namespace.
func IsNamespaceMissing(err error, namespace string) bool {
	details := statusOf(err).Details
	return apierrors.IsNotFound(err) && details != nil && details.Kind == "namespaces" && details.Name == namespace
}

// IsNamespaceTerminating tells whether a write was refused because its
// namespace is being deleted.
func IsNamespaceTerminating(err error) bool {
	return apierrors.HasStatusCause(err, "NamespaceTerminating")
}

// immutable are the words in which the API server and common validation rules
// say that a field cannot be changed. There is no reason code for it.
var immutable = regexp.MustCompile(`(?i)immutable|may not change once set|may not be changed|cannot be changed|` +
	`cannot change roleRef|updates to .* (are|is) forbidden|may not change fields other than`)

// IsImmutable tells whether a write was refused only because it changes fields
// that cannot be changed: deleting the object and creating it again would help.
// A refusal that has another cause as well is not one of these.
func IsImmutable(err error) bool {
	status := statusOf(err)
	if status.Reason != metav1.StatusReasonInvalid && status.Code != http.StatusUnprocessableEntity {
		return false
	}
	if status.Details == nil || len(status.Details.Causes) == 0 {
		return immutable.MatchString(status.Message)
	}
	for _, cause := range status.Details.Causes {
		if !immutable.MatchString(cause.Message) {
			return false
		}
	}
	return true
}

// StatusOf is the status in which the API server refused; the zero value where
// the error is not an answer of the API server.
func StatusOf(err error) metav1.Status { return statusOf(err) }

func statusOf(err error) metav1.Status {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status()
	}
	return metav1.Status{}
}

// isUnknownPath tells the 404 of a path that the server does not have from that
// of an object that does not exist: only the latter names an object.
func isUnknownPath(err error) bool {
	status := statusOf(err)
	return status.Code == http.StatusNotFound && (status.Details == nil || status.Details.Name == "")
}
