package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (a *app) suspendCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "suspend KIND NAME... | --all",
		Short: "Stop the reconciliation of objects",
		Long: `Sets spec.suspend. The operator leaves a suspended object as it is: nothing is
fetched, applied, pruned or repaired until it is resumed.`,
		Args: nameOrAll(&all),
		RunE: func(command *cobra.Command, args []string) error {
			return a.setSuspend(command.Context(), args, true, func(_ context.Context, _ *clients, _ crds.Definition, r resource) error {
				a.progress("%s: suspended", r)
				return nil
			})
		},
	}
	a.connectionFlags(command)
	command.Flags().BoolVar(&all, "all", false, "all objects of the kind in the namespace")
	return command
}

func (a *app) resumeCommand() *cobra.Command {
	var all, wait bool
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "resume KIND NAME... | --all",
		Short: "Take up the reconciliation of suspended objects",
		Long:  `Clears spec.suspend and waits until the object is ready again.`,
		Args:  nameOrAll(&all),
		RunE: func(command *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(command.Context(), timeout)
			defer cancel()
			return a.setSuspend(ctx, args, false, func(ctx context.Context, c *clients, kind crds.Definition, r resource) error {
				a.progress("%s: resumed", r)
				if !wait || !kind.Served {
					return nil
				}
				after, err := c.await(ctx, kind, r.Metadata.Namespace, r.Metadata.Name, a.narrate(resource.decided))
				if err != nil {
					return err
				}
				if err := verdict(after); err != nil {
					return err
				}
				a.progress("%s: ready at %s", after, after.revision())
				return nil
			})
		},
	}
	a.connectionFlags(command)
	command.Flags().BoolVar(&all, "all", false, "all objects of the kind in the namespace")
	command.Flags().BoolVar(&wait, "wait", true, "wait until the object is ready")
	command.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "longest `time` to wait")
	return command
}

// nameOrAll wants a kind, and names or --all.
func nameOrAll(all *bool) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return errors.New("a kind is needed")
		case *all && len(args) > 1:
			return errors.New("--all takes no name")
		case !*all && len(args) == 1:
			return errors.New("a name or --all is needed")
		}
		return nil
	}
}

// setSuspend writes spec.suspend of the objects that args name, or of all where
// they name none, and calls then for each. One failure does not keep the others.
func (a *app) setSuspend(ctx context.Context, args []string, suspend bool, then func(context.Context, *clients, crds.Definition, resource) error) error {
	kind, err := kindOf(args[0])
	if err != nil {
		return err
	}
	if !kind.HasSuspend() {
		return usageError("%s has no spec.suspend", kind.Kind.Kind)
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	names := args[1:]
	if len(names) == 0 {
		if names, err = c.names(ctx, kind, a.connection.namespace); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range names {
		object, err := c.get(ctx, kind, a.connection.namespace, name)
		if err == nil {
			err = c.patch(ctx, kind, a.connection.namespace, name, map[string]any{"spec": map[string]any{"suspend": suspend}})
		}
		if err == nil {
			err = then(ctx, c, kind, object)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *clients) names(ctx context.Context, kind crds.Definition, namespace string) ([]string, error) {
	list, err := c.dynamic.Resource(kind.Resource()).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(err, kind, namespace, "")
	}
	if len(list.Items) == 0 {
		return nil, fmt.Errorf("no %s in namespace %q", kind.Plural, namespace)
	}
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, list.Items[i].GetName())
	}
	return names, nil
}
