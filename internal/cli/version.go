package cli

import (
	"fmt"
	"runtime"

	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
	}
	format := outputFlag(command)
	command.RunE = func(*cobra.Command, []string) error {
		v := struct {
			Version string `json:"version"`
			Flux    string `json:"flux"`
			Go      string `json:"go"`
		}{a.version, crds.FluxVersion, runtime.Version()}
		if *format != outputTable {
			return format.print(a.streams.Out, v)
		}
		_, err := fmt.Fprintf(a.streams.Out, "plumb %s, kinds of Flux %s, %s\n", v.Version, v.Flux, v.Go)
		return err
	}
	return command
}
