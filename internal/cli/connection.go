package cli

import (
	"fmt"
	"sync"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

// connection is how the cluster is found: as kubectl finds it.
type connection struct {
	kubeconfig, context, namespace string
}

// connectionFlags adds the flags that name a cluster and a namespace.
func (a *app) connectionFlags(command *cobra.Command) {
	c := &a.connection
	command.Flags().StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig `file`; default: $KUBECONFIG, ~/.kube/config, the cluster this runs in")
	command.Flags().StringVar(&c.context, "context", "", "`context` of the kubeconfig")
	command.Flags().StringVarP(&c.namespace, "namespace", "n", "flux-system", "`namespace` of the object")
}

// clients are what commands ask the cluster with.
type clients struct {
	dynamic dynamic.Interface
	// mapper asks the cluster for its kinds when it is first used.
	mapper func() (meta.RESTMapper, error)
}

// connect reads the kubeconfig. It makes no request.
func (a *app) connect() (*clients, error) {
	config, err := a.restConfig()
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &clients{
		dynamic: client,
		mapper: sync.OnceValues(func() (meta.RESTMapper, error) {
			client, err := discovery.NewDiscoveryClientForConfig(config)
			if err != nil {
				return nil, fmt.Errorf("connect: %w", err)
			}
			return restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client)), nil
		}),
	}, nil
}

func (a *app) restConfig() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.connection.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: a.connection.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.UserAgent = "plumb/" + a.version + " cli"
	config.QPS = -1 // a command makes few requests, and the API server has its own bound
	config.WarningHandler = rest.NewWarningWriter(a.streams.Err, rest.WarningWriterOptions{Deduplicate: true})
	return config, nil
}
