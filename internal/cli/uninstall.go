package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/install"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) uninstallCommand() *cobra.Command {
	var definitions, yes bool
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the operator from a cluster",
		Long: `Removes what plumb install has made, the operator first, and its namespace where
nothing else is in it. What the operator has applied stays. Custom resources and
their definitions stay too, so that another operator can go on with them.

With --crds the definitions are deleted, and with them all custom resources of
Flux's kinds in all namespaces. What these have applied stays: before anything is
deleted they are suspended and relieved of their finalizers.`,
		Example: `  plumb uninstall
  plumb uninstall --crds`,
		Args: cobra.NoArgs,
	}
	a.connectionFlags(command)
	flags := command.Flags()
	flags.Lookup("namespace").Usage = "`namespace` that the operator runs in"
	flags.BoolVar(&definitions, "crds", false, "delete the definitions and all custom resources, too")
	flags.BoolVar(&yes, "yes", false, "do not ask before definitions are deleted")
	flags.DurationVar(&timeout, "timeout", 5*time.Minute, "longest `time` to wait")
	format := outputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		if timeout <= 0 {
			return usageError("--timeout must be above 0")
		}
		i, err := a.installer()
		if err != nil {
			return err
		}
		namespace := a.connection.namespace
		var holdings []install.Holding
		if definitions {
			if holdings, err = a.confirmed(command.Context(), i, namespace, yes); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(command.Context(), timeout)
		defer cancel()
		changes, err := a.uninstall(ctx, i, namespace, holdings)
		if *format != outputTable {
			err = errors.Join(format.print(a.streams.Out, installed{Namespace: namespace, Objects: changes}), err)
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(changes, func(c install.Change) bool { return c.Action == install.Deleted }) {
			a.progress("nothing was removed: plumb install has made nothing in namespace %s", namespace)
			return nil
		}
		a.progress("the operator is removed from namespace %s: %s", namespace, tally(changes))
		if !definitions {
			a.progress("custom resources and their definitions stay; --crds deletes them")
		}
		return nil
	}
	return command
}

// uninstall removes the operator, then definitions, then the namespace.
func (a *app) uninstall(ctx context.Context, i *install.Installer, namespace string, holdings []install.Holding) ([]install.Change, error) {
	changes, err := i.Uninstall(ctx, namespace)
	if err != nil {
		return changes, err
	}
	if len(holdings) > 0 {
		removed, err := i.RemoveDefinitions(ctx, holdings)
		changes = append(changes, removed...)
		if err != nil {
			return changes, err
		}
	}
	change, err := i.RemoveNamespace(ctx, namespace)
	if err == nil && change.Action != "" {
		changes = append(changes, change)
	}
	return changes, err
}

// confirmed says what the definitions take with them and has a person say yes to it.
func (a *app) confirmed(ctx context.Context, i *install.Installer, namespace string, yes bool) ([]install.Holding, error) {
	holdings, err := i.Holdings(ctx, namespace)
	if err != nil || len(holdings) == 0 {
		return nil, err
	}
	a.progress("%s", warning(holdings))
	if yes {
		return holdings, nil
	}
	if file, ok := a.streams.In.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, usageError("--crds needs --yes where nobody can be asked")
	}
	_, _ = fmt.Fprint(a.streams.Err, `Type "yes" to go on: `)
	answer, _ := bufio.NewReader(a.streams.In).ReadString('\n') // an end is no yes
	if strings.TrimSpace(answer) != "yes" {
		return nil, errors.New("nothing was deleted")
	}
	return holdings, nil
}

// warning is what a person has to know before definitions are deleted.
func warning(holdings []install.Holding) string {
	var b strings.Builder
	objects, managed := 0, 0
	for _, h := range holdings {
		objects += h.Objects
		managed += h.Managed
	}
	fmt.Fprintf(&b, "This deletes %d definitions and with them %d custom resources, in all namespaces:\n", len(holdings), objects)
	for _, h := range holdings {
		if h.Objects > 0 {
			fmt.Fprintf(&b, "  %s: %d\n", h.Kind, h.Objects)
		}
	}
	fmt.Fprintf(&b, "The %d objects that they manage stay as they are; nothing keeps them up to date or knows any more what belongs together.", managed)
	return b.String()
}
