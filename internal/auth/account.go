package auth

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// annotations reads those of a service account.
func (l *Logins) annotations(ctx context.Context, who Identity) (map[string]string, error) {
	value, err := l.accounts.get(ctx, keyOf(who.Namespace, who.ServiceAccount), func(ctx context.Context) (any, time.Time, error) {
		annotations, err := l.options.Annotations(ctx, who.Namespace, who.ServiceAccount)
		return annotations, time.Time{}, accountProblem(ctx, err, "the service account cannot be read", "get service accounts")
	})
	annotations, _ := value.(map[string]string)
	return annotations, err
}

// token asks for one of a service account.
func (l *Logins) token(ctx context.Context, who Identity, audiences []string) (string, time.Time, error) {
	token, expires, err := l.options.Tokens(ctx, who.Namespace, who.ServiceAccount, audiences)
	err = accountProblem(ctx, err, fmt.Sprintf("no token for audiences %s", egress.Quote(strings.Join(audiences, ", "))), "create serviceaccounts/token")
	return token, expires, err
}

// accountProblem puts an error of the API server into words that are the same each time.
func accountProblem(ctx context.Context, err error, what, right string) error {
	if err == nil {
		return nil
	}
	problem := &Problem{Kind: gitops.Denied}
	switch {
	case apierrors.IsNotFound(err):
		problem.Text = "the service account does not exist in this namespace; create it, or name another"
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		problem.Text = fmt.Sprintf("%s: the operator may not %s in this namespace", what, right)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		problem.Text = what + ": the API server finds the request invalid; see that the audiences are right"
	default:
		problem.Kind = gitops.Transient
		why := "the API server cannot be asked"
		if _, text, ok := egress.Explain(ctx, err); ok {
			why = "the API server: " + text
		} else if reason := apierrors.ReasonForError(err); reason != "" {
			why = "the API server answers " + string(reason)
		}
		problem.Text = what + ": " + why
	}
	return problem
}
