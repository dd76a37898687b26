package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/spf13/cobra"
)

func (a *app) approveCommand() *cobra.Command {
	var revision string
	var wait bool
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "approve kustomization NAME",
		Short: "Confirm deletions that the operator holds back",
		Long: `Confirms the deletions that the condition DeletionHeld of a Kustomization names,
at the revision that it names: sets the annotation ` + flux.ApproveAnnotation + `.
A confirmation for another revision confirms nothing; with --revision one can be
given before the revision comes.`,
		Example: `  plumb approve ks apps
  plumb approve ks apps --revision main@sha1:0123456789abcdef0123456789abcdef01234567`,
		Args: cobra.ExactArgs(2),
		RunE: func(command *cobra.Command, args []string) error {
			kind, err := servedKindOf(args[0])
			if err != nil {
				return err
			}
			if kind.Kind.Group != kustomizeGroup {
				return usageError("%s deletes nothing by itself", kind.Kind.Kind)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(command.Context(), timeout)
			defer cancel()
			return a.approve(ctx, c, kind, args[1], revision, wait)
		},
	}
	a.connectionFlags(command)
	command.Flags().StringVar(&revision, "revision", "", "`revision` whose deletions are confirmed; default: the one that they are held at")
	command.Flags().BoolVar(&wait, "wait", true, "wait until nothing is held at that revision")
	command.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "longest `time` to wait")
	return command
}

// approve confirms the deletions of a revision, and waits until they are not held
// any more where they are held now.
func (a *app) approve(ctx context.Context, c *clients, kind crds.Definition, name, revision string, wait bool) error {
	r, err := c.get(ctx, kind, a.connection.namespace, name)
	if err != nil {
		return err
	}
	held := r.held()
	at := flux.HeldRevision(held)
	switch {
	case revision == "" && held == "":
		return fmt.Errorf("%s: no deletion is held; --revision confirms those of a revision to come", r)
	case revision == "":
		revision = at
	}
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]any{flux.ApproveAnnotation: revision}}}
	if err := c.patch(ctx, kind, a.connection.namespace, name, patch); err != nil {
		return err
	}
	if revision != at {
		a.progress("%s: deletions at %s confirmed; none are held at it now", r, revision)
		return nil
	}
	for _, object := range flux.HeldObjects(held) {
		a.progress("%s: deletion of %s confirmed", r, object)
	}
	if !wait {
		return nil
	}
	after, err := c.await(ctx, kind, a.connection.namespace, name, a.narrate(func(r resource) bool {
		return flux.HeldRevision(r.held()) != revision
	}))
	if err != nil {
		return err
	}
	if held := after.held(); held != "" {
		return fmt.Errorf("%s has moved on to %s, at which %s", after, flux.HeldRevision(held), flux.Summary(held))
	}
	a.progress("%s: nothing is held any more", after)
	return nil
}
