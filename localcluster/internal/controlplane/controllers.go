package controlplane

import (
	"context"
	"fmt"

	"github.com/plumb-gitops/plumb/localcluster/internal/credentials"
	"github.com/spf13/pflag"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// unlimited is a client-side rate, in requests a second, that is never reached.
const unlimited = "100000"

// controllerManager is the kube-controller-manager. Every controller has its own
// service account, as in a real cluster, so that what controllers may do and
// what the audit log says of them is the same.
type controllerManager struct {
	creds credentials.Folder
	// kubeconfig is the path of its kubeconfig.
	kubeconfig string
}

func (c controllerManager) run(ctx context.Context) error {
	o, err := controlleroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	all, off, aliases := controllers.KnownControllers(), controllers.ControllersDisabledByDefault(), controllers.ControllerAliases()
	sets := o.Flags(all, off, aliases)
	o.ParsedFlags = &sets
	flags := pflag.NewFlagSet("kube-controller-manager", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	err = flags.Parse([]string{
		"--kubeconfig=" + c.kubeconfig,
		"--kube-api-qps=" + unlimited,
		"--kube-api-burst=" + unlimited,
		"--leader-elect=false",
		"--secure-port=0",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.creds.Path(credentials.ServiceAccount),
		"--root-ca-file=" + c.creds.Path(credentials.CACert),
		"--cluster-signing-cert-file=" + c.creds.Path(credentials.CACert),
		"--cluster-signing-key-file=" + c.creds.Path(credentials.CAKey),
		// Simulated nodes send no heartbeats: an idle cluster writes nothing.
		"--node-monitor-grace-period=87600h",
		// What is left out serves kubelets, volumes of real machines or the
		// joining of nodes.
		"--controllers=*,-ttl-controller,-bootstrap-signer-controller,-token-cleaner-controller," +
			"-node-ipam-controller,-persistentvolume-attach-detach-controller," +
			"-persistentvolume-expander-controller,-device-taint-eviction-controller," +
			"-resourceclaim-controller,-storageversion-garbage-collector-controller," +
			"-legacy-serviceaccount-token-cleaner-controller",
	})
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	cfg, err := o.Config(ctx, all, off, aliases)
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	return controllers.Run(ctx, cfg.Complete())
}

// podScheduler is the kube-scheduler.
type podScheduler struct {
	// kubeconfig is the path of its kubeconfig.
	kubeconfig string
}

func (s podScheduler) run(ctx context.Context) error {
	o := scheduleroptions.NewOptions()
	flags := pflag.NewFlagSet("kube-scheduler", pflag.ContinueOnError)
	for _, set := range o.Flags.FlagSets {
		flags.AddFlagSet(set)
	}
	err := flags.Parse([]string{
		"--kubeconfig=" + s.kubeconfig,
		"--kube-api-qps=" + unlimited,
		"--kube-api-burst=" + unlimited,
		"--leader-elect=false",
		"--secure-port=0",
	})
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	cfg, sched, err := scheduler.Setup(ctx, o)
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	return scheduler.Run(ctx, cfg, sched)
}
