package controlplane

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/plumb-gitops/plumb/localcluster/internal/credentials"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// serviceNetwork is where Services get their addresses; serviceIP is that of the
// Service "kubernetes", the first of the network.
const (
	serviceNetwork = "10.96.0.0/16"
	serviceIP      = "10.96.0.1"
)

// auditPolicy records who did what to which object when, for every request, and
// no bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// apiServer is the kube-apiserver: TLS, authentication by token, authorization
// by RBAC, Kubernetes' default admission.
type apiServer struct {
	dir   string
	creds credentials.Folder
	// listener is where it serves; it takes it over.
	listener *net.TCPListener
	// auditLog is the path of its audit log, empty for none.
	auditLog string
}

// options returns the completed options. Flags are used, not fields, because
// they are the interface that Kubernetes documents.
func (a apiServer) options(ctx context.Context) (options.CompletedOptions, error) {
	none := options.CompletedOptions{}
	args := []string{
		"--etcd-servers=" + etcdClients,
		"--advertise-address=127.0.0.1",
		// An endpoint of the Service "kubernetes" must not be a loopback
		// address, and no pod really runs that could use it.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + serviceNetwork,
		"--tls-cert-file=" + a.creds.Path(credentials.ServerCert),
		"--tls-private-key-file=" + a.creds.Path(credentials.ServerKey),
		"--client-ca-file=" + a.creds.Path(credentials.CACert),
		"--token-auth-file=" + a.creds.Path(credentials.TokenFile),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + a.creds.Path(credentials.ServiceAccount),
		"--service-account-signing-key-file=" + a.creds.Path(credentials.ServiceAccount),
		"--requestheader-client-ca-file=" + a.creds.Path(credentials.ProxyCACert),
		"--requestheader-allowed-names=" + credentials.ProxyName,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + a.creds.Path(credentials.ProxyCert),
		"--proxy-client-key-file=" + a.creds.Path(credentials.ProxyKey),
		// The machine is the limit, not the number of requests.
		"--max-requests-inflight=4000",
		"--max-mutating-requests-inflight=2000",
	}
	if a.auditLog != "" {
		policy := filepath.Join(a.dir, "audit-policy.yaml")
		if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
			return none, err
		}
		args = append(args,
			"--audit-policy-file="+policy,
			"--audit-log-path="+a.auditLog,
			// An entry is in the file when its request is answered.
			"--audit-log-mode=blocking",
			// Never rotated: a reader wants one file.
			"--audit-log-maxsize=1000000",
		)
	}

	o := options.NewServerRunOptions()
	o.SecureServing.Listener = a.listener
	o.SecureServing.ExternalAddress = net.IPv4(127, 0, 0, 1)
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range o.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(args); err != nil {
		return none, err
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return none, err
	}
	completed, err := o.Complete(ctx)
	if err != nil {
		return none, err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return none, errors.NewAggregate(errs)
	}
	return completed, nil
}

func (a apiServer) run(ctx context.Context) error {
	o, err := a.options(ctx)
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	return app.Run(ctx, o)
}
