package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/server"
	"github.com/plumb-gitops/plumb/internal/telemetry"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func (a *app) operatorCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "operator",
		Short: "Run the operator in the foreground until a signal",
		Long: `Runs the operator against the cluster that it is in or that a kubeconfig names.
Flags that Flux's controllers have keep name, meaning and default. The log goes to
the standard error output. The custom resource definitions are expected to be
there; --install-crds puts them.`,
		Example: `  plumb operator --kubeconfig ~/.kube/config --install-crds --storage-path ./data`,
		Args:    cobra.NoArgs,
	}
	flags := config.Bind(command.Flags(), os.Getenv)
	command.RunE = func(command *cobra.Command, _ []string) error {
		cfg, err := flags.Operator()
		if err != nil {
			return usageError("%w", err)
		}
		log, err := telemetry.NewLogger(a.streams.Err, telemetry.LogOptions{Level: string(cfg.LogLevel), Encoding: string(cfg.LogEncoding)})
		if err != nil {
			return err
		}
		telemetry.SetLibraries(log)
		cluster, err := operatorCluster(cfg.Kubeconfig)
		if err != nil {
			return err
		}
		return server.Run(command.Context(), cluster, cfg, server.Options{Version: a.version, Log: log})
	}
	return command
}

// operatorCluster finds the cluster: the given kubeconfig, $KUBECONFIG, the cluster
// that this process runs in, ~/.kube/config.
func operatorCluster(kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	if kubeconfig == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		inside, err := rest.InClusterConfig()
		if !errors.Is(err, rest.ErrNotInCluster) {
			return inside, err
		}
	}
	cluster, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return cluster, nil
}
