package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// maxShown is how many bytes of the errors of a round are spelled out: what fits
	// into a condition, with room for what is put before it.
	maxShown = 12 << 10
	// maxMessage bounds the text of one error, in bytes.
	maxMessage = 1000
)

// Errors are the errors about several objects, in the order of their refs.
// errors.As finds the gravest of them first: one that stays until the source
// changes counts more than one that may go away.
type Errors struct {
	list []*gitops.Error
}

// All are the errors in the order of their refs.
func (e *Errors) All() []*gitops.Error { return slices.Clone(e.list) }

// Error shows them one a line, as many as a condition has room for, and says how many
// there are.
func (e *Errors) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d objects were refused:", len(e.list))
	for i, err := range e.list {
		text := err.Error()
		if b.Len()+len(text) > maxShown {
			fmt.Fprintf(&b, "\nand %d more", len(e.list)-i)
			break
		}
		b.WriteString("\n" + text)
	}
	return b.String()
}

// Unwrap gives the errors, the gravest first.
func (e *Errors) Unwrap() []error {
	gravity := []gitops.ErrorKind{gitops.Internal, gitops.Invalid, gitops.Denied, gitops.Stalled, gitops.Waiting, gitops.Transient}
	list := slices.Clone(e.list)
	slices.SortStableFunc(list, func(a, b *gitops.Error) int {
		return cmp.Compare(slices.Index(gravity, a.Kind), slices.Index(gravity, b.Kind))
	})
	out := make([]error, len(list))
	for i, err := range list {
		out[i] = err
	}
	return out
}

// join makes one error of those of a round; nil of none. What is no error about
// an object, and the end of the context, counts alone.
func join(ctx context.Context, errs []error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var list []*gitops.Error
	for _, err := range errs {
		var e *gitops.Error
		if !errors.As(err, &e) || e.Ref == (gitops.ObjectRef{}) {
			return err
		}
		list = append(list, e)
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	slices.SortFunc(list, func(a, b *gitops.Error) int {
		return cmp.Or(gitops.CompareRefs(a.Ref, b.Ref), cmp.Compare(a.Error(), b.Error()))
	})
	return &Errors{list: list}
}

// fail is an error about a step's object.
func (r *run) fail(s *step, stage gitops.StageName, kind gitops.ErrorKind, cause error) *gitops.Error {
	e := &gitops.Error{Stage: stage, Kind: kind, Ref: s.change.Ref, Cause: cause}
	if s.change.Manifest != nil {
		e.Origin = s.change.Manifest.Origin
	}
	return e
}

// refused translates what the API server, or the way to it, answered.
func (r *run) refused(s *step, stage gitops.StageName, err error) *gitops.Error {
	var e *gitops.Error
	if errors.As(err, &e) {
		return e
	}
	namespace := s.change.Ref.Namespace
	switch {
	case cluster.IsNamespaceMissing(err, namespace):
		r.active.Delete(namespace)
		return r.fail(s, stage, gitops.Waiting, namespaceMissing(namespace))
	case cluster.IsNamespaceTerminating(err):
		r.active.Delete(namespace)
		return r.fail(s, stage, gitops.Waiting, namespaceTerminating(namespace))
	case cluster.IsNotServed(err):
		return r.fail(s, stage, gitops.Waiting, fmt.Errorf("%w: install its CustomResourceDefinition, or declare it in the same set", err))
	case cluster.IsDiscoveryFailed(err):
		return r.fail(s, stage, gitops.Transient, err)
	}
	told := &answer{text: explain(s.change.Manifest, err), cause: err}
	if cluster.IsImmutable(err) && !s.policy.Force {
		told.text += " (to have the object deleted and created again, " + r.forceHint() + ")"
		return r.fail(s, stage, gitops.Invalid, told)
	}
	return r.fail(s, stage, kindOf(err), told)
}

func (r *run) forceHint() string {
	hint := "set spec.force of " + r.req.Owner.String()
	if r.Keys.Force != "" {
		hint += ", or annotate it with " + r.Keys.Force + ": enabled"
	}
	return hint
}

// answer is what the API server said, fit for being shown. It keeps the original
// for those who ask for its type, such as how long to wait.
type answer struct {
	text  string
	cause error
}

// Error is the text that may be shown.
func (a *answer) Error() string { return a.text }

// Unwrap gives what was answered, which may hold values that must not be shown.
func (a *answer) Unwrap() error { return a.cause }

// kindOf says what kind of reaction an answer needs.
func kindOf(err error) gitops.ErrorKind {
	status := cluster.StatusOf(err)
	switch {
	case apierrors.IsForbidden(err) || denied.MatchString(status.Message):
		return gitops.Denied
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsMethodNotSupported(err),
		apierrors.IsRequestEntityTooLargeError(err), apierrors.IsUnsupportedMediaType(err):
		return gitops.Invalid
	case misfit.MatchString(status.Message) && !strings.Contains(status.Message, "conversion webhook"):
		return gitops.Invalid
	case status.Code == http.StatusUnprocessableEntity:
		return gitops.Invalid
	}
	return gitops.Transient
}

// isOvertaken tells whether a patch was refused because the object was changed.
func isOvertaken(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsInvalid(err) || cluster.StatusOf(err).Code == http.StatusUnprocessableEntity
}

// explain puts an answer into words. Of a sensitive object only the reason and
// the fields are told: the server's message may hold values.
func explain(m *gitops.Manifest, err error) string {
	status := cluster.StatusOf(err)
	if m != nil && isSensitive(*m) && status.Code != 0 {
		return explainBlind(status)
	}
	if causes := statusCauses(m, status); len(causes) > 0 && status.Reason == metav1.StatusReasonInvalid {
		return shorten(hide(m, strings.Join(causes, "; ")))
	}
	text := err.Error()
	if status.Message != "" {
		text = status.Message
	}
	return shorten(withoutPointers(hide(m, withoutWrapping(text))))
}

// hide takes secret values of a manifest out of a text.
func hide(m *gitops.Manifest, text string) string {
	if m == nil {
		return text
	}
	for _, secret := range m.Secrets {
		text = gitops.Hide(text, secret)
	}
	return text
}

// denied are the words in which admission webhooks and policies refuse, with
// whatever code they like.
var denied = regexp.MustCompile(`denied (the )?request`)

// misfit are the words in which a manifest that does not fit the schema is
// refused, with a 500 and no reason code.
var misfit = regexp.MustCompile(`^failed to (create typed patch object|convert new (typed )?object|convert to unversioned)`)

// typedPatch is what the API server puts before the field of a manifest that
// does not fit the schema, and goValue what it puts behind it.
var (
	typedPatch = regexp.MustCompile(`^failed to (?:create typed patch|convert new|convert new typed) object \([^)]*\)(?: to proper version \([^)]*\)| to object)?: `)
	goValue    = regexp.MustCompile(`, got &?value\.value.*$`)
)

// withoutWrapping leaves the field and what is wrong with it.
func withoutWrapping(text string) string {
	return goValue.ReplaceAllString(typedPatch.ReplaceAllString(text, ""), ", got another type")
}

func isSensitive(m gitops.Manifest) bool {
	return m.Sensitive || m.Ref.GroupKind() == gitops.GroupKind{Kind: "Secret"}
}

// explainBlind tells no more than a status code, its reason and field paths.
func explainBlind(status metav1.Status) string {
	text := fmt.Sprintf("refused by the API server with %d", status.Code)
	if status.Reason != "" {
		text += " " + string(status.Reason)
	}
	var fields []string
	if status.Details != nil {
		for _, cause := range status.Details.Causes {
			if cause.Field != "" {
				fields = append(fields, cause.Field)
			}
		}
	}
	if len(fields) > 0 {
		slices.Sort(fields)
		text += " for " + strings.Join(slices.Compact(fields), ", ")
	}
	return text + " (the message is not shown: it may hold values)"
}

// statusCauses are the causes of a refusal as field: detail, sorted.
func statusCauses(m *gitops.Manifest, status metav1.Status) []string {
	if status.Details == nil {
		return nil
	}
	var out []string
	for _, cause := range status.Details.Causes {
		if cause.Field == "" {
			return nil
		}
		out = append(out, cause.Field+": "+withoutPointers(withoutObject(hide(m, cause.Message))))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// withoutObject drops a whole object that a cause prints as its invalid value.
func withoutObject(message string) string {
	head, value, ok := strings.Cut(message, ": ")
	if !ok || len(value) < 120 {
		return message
	}
	for _, end := range []string{"}: ", "]: ", "): "} {
		if i := strings.LastIndex(value, end); i >= 0 {
			return head + ": " + value[i+len(end):]
		}
	}
	return message
}

var pointers = regexp.MustCompile(`\(?\b0x[0-9a-f]{6,16}\b\)?`)

// withoutPointers makes a text the same each time.
func withoutPointers(text string) string { return pointers.ReplaceAllString(text, "…") }

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + "…"
}
