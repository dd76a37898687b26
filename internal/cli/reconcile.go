package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// requestedAt asks for a reconciliation; the operator answers with its value in
// status.lastHandledReconcileAt.
const requestedAt = "reconcile.fluxcd.io/requestedAt"

func (a *app) reconcileCommand() *cobra.Command {
	var withSource bool
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "reconcile KIND NAME",
		Short: "Ask for a reconciliation now and wait for its outcome",
		Long: `Asks the operator to reconcile an object now, waits until it has, and fails if
the object is not ready then. With --with-source the source of the object is
reconciled first.`,
		Example: `  plumb reconcile kustomization apps --with-source
  plumb reconcile gitrepository flux-system`,
		Args: cobra.ExactArgs(2),
		RunE: func(command *cobra.Command, args []string) error {
			kind, err := servedKindOf(args[0])
			if err != nil {
				return err
			}
			if withSource && !hasSource(kind) {
				return usageError("--with-source: %s has no source", kind.Kind.Kind)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(command.Context(), timeout)
			defer cancel()
			if withSource {
				if err := a.reconcileSource(ctx, c, kind, a.connection.namespace, args[1]); err != nil {
					return err
				}
			}
			if kind.Kind.Kind == "ExternalArtifact" && !withSource {
				return a.reconcileSource(ctx, c, kind, a.connection.namespace, args[1])
			}
			return a.reconcile(ctx, c, kind, a.connection.namespace, args[1])
		},
	}
	a.connectionFlags(command)
	command.Flags().BoolVar(&withSource, "with-source", false, "reconcile the source first")
	command.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "longest `time` to wait")
	return command
}

// hasSource tells whether objects of a kind name a source.
func hasSource(kind crds.Definition) bool {
	return kind.Kind.Group == kustomizeGroup || kind.Kind.Kind == "HelmChart" || kind.Kind.Kind == "ExternalArtifact"
}

// reconcileSource reconciles the source of an object. An artifact that is made from others
// is not reconciled itself: what makes it is.
func (a *app) reconcileSource(ctx context.Context, c *clients, kind crds.Definition, namespace, name string) error {
	object, err := c.get(ctx, kind, namespace, name)
	if err != nil {
		return err
	}
	ref := object.Spec.SourceRef
	source, err := servedKindOf(ref.Kind)
	if err != nil {
		return err
	}
	namespace = cmp.Or(ref.Namespace, object.Metadata.Namespace)
	switch source.Kind.Kind {
	case "ExternalArtifact":
		return a.reconcileSource(ctx, c, source, namespace, ref.Name)
	case "HelmRepository":
		if repository, err := c.get(ctx, source, namespace, ref.Name); err == nil && repository.Spec.Type == "oci" {
			a.progress("%s is of type oci: there is no index to reconcile", repository)
			return nil
		}
	}
	return a.reconcile(ctx, c, source, namespace, ref.Name)
}

// reconcile asks, waits for the answer and says how it went.
func (a *app) reconcile(ctx context.Context, c *clients, kind crds.Definition, namespace, name string) error {
	before, err := c.get(ctx, kind, namespace, name)
	if err != nil {
		return err
	}
	if before.Spec.Suspend {
		return fmt.Errorf("%s is suspended: plumb resume %s %s -n %s", before, kind.Plural, name, namespace)
	}
	token := time.Now().Format(time.RFC3339Nano)
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]any{requestedAt: token}}}
	if err := c.patch(ctx, kind, namespace, name, patch); err != nil {
		return err
	}
	a.progress("%s: reconciliation requested", before)
	after, err := c.await(ctx, kind, namespace, name, a.narrate(func(r resource) bool {
		return r.Status.LastHandledReconcileAt == token && r.decided()
	}))
	if err != nil {
		return err
	}
	if err := verdict(after); err != nil {
		return err
	}
	a.progress("%s: ready at %s", after, after.revision())
	return nil
}

// patch merges fields into a custom resource.
func (c *clients) patch(ctx context.Context, kind crds.Definition, namespace, name string, fields map[string]any) error {
	data, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	_, err = c.dynamic.Resource(kind.Resource()).Namespace(namespace).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: "plumb-cli"})
	if err != nil {
		return explain(err, kind, namespace, name)
	}
	return nil
}

// progress says what happens, apart from data.
func (a *app) progress(format string, args ...any) {
	_, _ = fmt.Fprintf(a.streams.Err, format+"\n", args...)
}

// narrate prints what an object says of its work while it is waited for.
func (a *app) narrate(done func(resource) bool) func(resource) bool {
	said := ""
	return func(r resource) bool {
		if done(r) {
			return true
		}
		if c := r.condition("Reconciling"); c.Status == metav1.ConditionTrue && c.Message != "" && c.Message != said {
			said = c.Message
			a.progress("%s: %s", r, said)
		}
		return false
	}
}
