package cli

import (
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/spf13/cobra"
)

func (a *app) crdsCommand() *cobra.Command {
	var served bool
	command := &cobra.Command{
		Use:     "crds",
		Short:   "Print the custom resource definitions",
		Long:    `Prints the definitions of all Flux kinds as YAML. It needs no cluster.`,
		Example: `  plumb crds | kubectl apply --server-side -f -`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			load := crds.All
			if served {
				load = crds.Served
			}
			definitions, err := load()
			if err != nil {
				return err
			}
			return crds.WriteYAML(a.streams.Out, definitions)
		},
	}
	command.Flags().BoolVar(&served, "served", false, "only those of the kinds that Plumb reconciles")
	return command
}
