package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Reason is that of an artifact which is not verified, in Flux's words.
const Reason = "VerificationError"

// Malformed is the error of something that a registry holds and that cannot be read as
// what it should be: it stays so until somebody pushes another.
type Malformed struct{ Text string }

// Error says what is malformed.
func (e *Malformed) Error() string { return e.Text }

// Unusable is the error of settings that cannot be used: it stays until they change.
func Unusable(format string, values ...any) error {
	return fail(gitops.Stalled, fmt.Errorf(format, values...))
}

// Refused is the error of an artifact that is not verified.
func Refused(format string, values ...any) error {
	return fail(gitops.Denied, fmt.Errorf(format, values...))
}

func fail(kind gitops.ErrorKind, cause error) error {
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: Reason, Cause: cause}
}

// Unread is the error of a verification that could not read what it needs, which is
// named by what, such as `the signatures of ghcr.io/org/app@sha256:…`. Its text is the
// same each time.
func Unread(ctx context.Context, what string, err error) error {
	kind, text := explain(ctx, err)
	return fail(kind, fmt.Errorf("read %s: %s", what, text))
}

// explain puts a failure to read into words that are the same each time.
func explain(ctx context.Context, err error) (gitops.ErrorKind, string) {
	var (
		status    *transport.Error
		malformed *Malformed
		large     *egress.TooLarge
	)
	if code, text, ok := egress.Explain(ctx, err); ok && !errors.As(err, &large) && !errors.As(err, &malformed) {
		return code.Kind(), text
	}
	switch {
	case errors.As(err, &status):
		return explainStatus(status)
	case errors.As(err, &large):
		return gitops.Denied, large.Error()
	default:
		return gitops.Denied, egress.Printable(err.Error())
	}
}

func explainStatus(status *transport.Error) (gitops.ErrorKind, string) {
	text := fmt.Sprintf("the registry answers %d %s", status.StatusCode, http.StatusText(status.StatusCode))
	switch code := status.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return gitops.Denied, text + "; the credential must be allowed to pull the signatures too"
	case code == http.StatusTooManyRequests || code >= http.StatusInternalServerError:
		return gitops.Transient, text
	default:
		return gitops.Denied, text
	}
}

// Attempts collects why the signatures of an artifact do not count, to say it once.
type Attempts struct {
	image name.Digest
	// kind is that of the signatures: cosign or notation.
	kind string
	seen int
	// more is set where there were more signatures than are looked at.
	more bool
	// why holds the reasons, of which there are few kinds.
	why map[string]struct{}
	// unread is the first failure to read; another attempt may go otherwise.
	unread error
}

// NewAttempts are none yet.
func NewAttempts(image name.Digest, kind string) *Attempts {
	return &Attempts{image: image, kind: kind, why: map[string]struct{}{}}
}

// Next tells whether one more signature may be looked at, and counts it.
func (a *Attempts) Next() bool {
	if a.seen >= MostSignatures {
		a.More()
		return false
	}
	a.seen++
	return true
}

// Skip remembers why the signature does not count.
func (a *Attempts) Skip(why string) { a.why[why] = struct{}{} }

// More remembers that there are signatures that are not looked at.
func (a *Attempts) More() { a.more = true }

// Unread remembers that something could not be read, and tells whether that is final:
// nothing else can be read either.
func (a *Attempts) Unread(ctx context.Context, err error) (final bool) {
	if kind, text := explain(ctx, err); kind == gitops.Denied {
		a.Skip(text)
	} else if a.unread == nil {
		a.unread = Unread(ctx, "the signatures of "+a.image.Name(), err)
	}
	return ctx.Err() != nil
}

// Unsure remembers that another attempt may accept a signature, for a reason that lies
// elsewhere.
func (a *Attempts) Unsure(why error) {
	if a.unread == nil {
		a.unread = fail(gitops.Transient, fmt.Errorf("%s is not verified: %w", a.image.Name(), why))
	}
}

// mostReasons is how many reasons a message holds.
const mostReasons = 4

// Error is why the artifact is refused. Advice says what to do.
func (a *Attempts) Error(advice string) error {
	switch {
	case a.unread != nil:
		return a.unread
	case a.seen == 0 && len(a.why) == 0:
		return Refused("%s has no %s signature; %s", a.image.Name(), a.kind, advice)
	}
	why := slices.Sorted(maps.Keys(a.why))
	if len(why) > mostReasons {
		why = append(why[:mostReasons], fmt.Sprintf("and %d reasons more", len(why)-mostReasons))
	}
	count := fmt.Sprintf("none of its %d %s signatures", a.seen, a.kind)
	switch {
	case a.more:
		count = fmt.Sprintf("none of the first %d of its %s signatures", a.seen, a.kind)
	case a.seen == 1:
		count = fmt.Sprintf("its %s signature", a.kind)
	case a.seen == 0:
		count = fmt.Sprintf("what should be its %s signature", a.kind)
	}
	accepted := "is accepted"
	if a.seen <= 1 {
		accepted = "is not accepted"
	}
	return Refused("%s is not verified: %s %s: %s; %s", a.image.Name(), count, accepted, strings.Join(why, "; "), advice)
}

// Guard runs a verification, and makes a refusal of a panic in it: what is verified is
// foreign bytes, and the libraries that read them are large.
func Guard(image name.Digest, verify func() (string, error)) (by string, err error) {
	defer func() {
		if defect := recover(); defect != nil {
			by, err = "", fail(gitops.Internal, fmt.Errorf("%s is not verified: the verifier failed on its signatures, which is a defect to be reported: %s",
				image.Name(), egress.Printable(fmt.Sprint(defect))))
		}
	}()
	return verify()
}
