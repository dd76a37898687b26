// Package controlplane runs a whole Kubernetes control plane in this process:
// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and simulated
// nodes.
//
// One process, because then nothing can be left running: it holds no child, and
// ends as one. Its end needs no order either: etcd keeps what the API server
// acknowledged, and everything else is derived from it.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/plumb-gitops/plumb/localcluster/internal/credentials"
	"github.com/plumb-gitops/plumb/localcluster/internal/simulate"
	"k8s.io/client-go/rest"
)

// Config says where and how a control plane runs.
type Config struct {
	// Dir is the absolute path of the data folder, locked by the caller. A
	// folder that was used before is continued: same authority, tokens, objects,
	// and if it is free, port. The process's working directory is one that is
	// closed to others and nobody else's: etcd's sockets are made there.
	Dir string
	// Kubeconfig is the absolute path at which the administrator's kubeconfig
	// appears when the control plane is ready.
	Kubeconfig string
	// AuditLog is the absolute path of the API server's audit log; empty for
	// none.
	AuditLog string
	// Nodes is the number of simulated nodes.
	Nodes int
	// Durable makes etcd sync every write to the disk.
	Durable bool
	// Log takes what the parts log; etcd has a file of its own in Dir.
	Log io.Writer
	// Verbose makes etcd log at level info.
	Verbose bool
}

// Run runs a control plane until a part of it fails, and returns that part's
// error, or until ctx ends, and returns nil. It calls ready once with the URL of
// the API server, when the control plane is ready for workloads and the
// kubeconfig is written.
//
// When it returns, parts may still be at work. The process is to end then. Do not
// end ctx to end the process: it starts a graceful stop, which takes its time.
func Run(ctx context.Context, c Config, ready func(url string)) error {
	creds, err := credentials.Ensure(filepath.Join(c.Dir, "credentials"), net.ParseIP(serviceIP))
	if err != nil {
		return err
	}
	listener, err := listen(filepath.Join(c.Dir, "port"))
	if err != nil {
		return err
	}
	url := "https://" + listener.Addr().String()
	admin, err := creds.REST(credentials.Admin, url)
	if err != nil {
		return err
	}
	nodes, err := creds.REST(credentials.Nodes, url)
	if err != nil {
		return err
	}
	volumes, err := simulate.NewVolumes(ctx, nodes)
	if err != nil {
		return err
	}
	g := &group{failed: make(chan error, 1)}
	etcdReady := make(chan struct{})
	g.start("etcd", func() error {
		return etcd{dir: c.Dir, durable: c.Durable, verbose: c.Verbose}.run(ctx, func() { close(etcdReady) })
	})
	g.start("kube-apiserver", func() error {
		return apiServer{dir: c.Dir, creds: creds, listener: listener, auditLog: c.AuditLog}.run(ctx)
	})
	g.start("start", func() error {
		if err := g.startClients(ctx, c, creds, url, admin, nodes, volumes); err != nil {
			return err
		}
		if err := creds.WriteKubeconfig(c.Kubeconfig, credentials.Admin, url); err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
		ready(url)
		<-ctx.Done()
		return nil
	})
	select {
	case <-ctx.Done():
		return nil
	case err := <-g.failed:
		return err
	}
}

// startClients starts the parts that need the API server once it answers, and
// returns when they are up.
func (g *group) startClients(ctx context.Context, c Config, creds credentials.Folder, url string, admin, nodes *rest.Config, volumes *simulate.Volumes) error {
	if err := awaitHealthy(ctx, admin); err != nil {
		return err
	}
	kubeconfigs := map[string]string{}
	for _, user := range []string{credentials.ControllerManager, credentials.Scheduler} {
		path := creds.Path(strings.TrimPrefix(user, "system:") + ".kubeconfig")
		if err := creds.WriteKubeconfig(path, user, url); err != nil {
			return err
		}
		kubeconfigs[user] = path
	}
	g.start("kube-controller-manager", func() error {
		return controllerManager{creds: creds, kubeconfig: kubeconfigs[credentials.ControllerManager]}.run(ctx)
	})
	g.start("kube-scheduler", func() error {
		return podScheduler{kubeconfig: kubeconfigs[credentials.Scheduler]}.run(ctx)
	})
	g.start("simulated nodes", func() error {
		return simulate.Nodes{Config: nodes, Count: c.Nodes, Log: c.Log}.Run(ctx)
	})
	g.start("simulated volumes", func() error { return volumes.Run(ctx) })
	return awaitReady(ctx, admin)
}

// group runs the parts. A part that returns before its time has failed, and one
// failure is enough to end the whole.
type group struct {
	// failed gets the first failure.
	failed chan error
}

func (g *group) start(name string, run func() error) {
	go func() {
		err := run()
		if err == nil {
			err = errors.New("ended unexpectedly")
		}
		select {
		case g.failed <- fmt.Errorf("%s: %w", name, err):
		default:
		}
	}()
}

// listen opens a port of the loopback interface: the one that portFile names, so
// that a kubeconfig from before stays valid, or if there is none or it is taken,
// a free one, which is written there.
func listen(portFile string) (*net.TCPListener, error) {
	port := 0
	if data, err := os.ReadFile(portFile); err == nil {
		port, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	loopback := net.IPv4(127, 0, 0, 1)
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: loopback, Port: port})
	if err != nil && port != 0 {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: loopback})
	}
	if err != nil {
		return nil, err
	}
	port = l.Addr().(*net.TCPAddr).Port
	return l, os.WriteFile(portFile, []byte(strconv.Itoa(port)+"\n"), 0o600)
}
