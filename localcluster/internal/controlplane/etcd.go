package controlplane

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap/zapcore"
)

// Sockets of etcd, in the process's working directory: a path from the root may
// be longer than a socket's name may be.
const (
	etcdClients = "unix://etcd-clients"
	etcdPeers   = "unix://etcd-peers"
)

// etcd is where the API server keeps its objects. It listens on sockets only, in
// a folder that is closed to others: nobody else on the machine can pass by the
// API server's authorization.
type etcd struct {
	dir string
	// durable syncs every write to the disk. Without it a crash of the machine
	// may lose the store; a kill of this process never does.
	durable bool
	verbose bool
}

func (e etcd) run(ctx context.Context, ready func()) error {
	cfg := embed.NewConfig()
	cfg.Name = "localcluster"
	cfg.Dir = filepath.Join(e.dir, "etcd")
	cfg.ListenClientUrls = []url.URL{mustURL(etcdClients)}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.ListenPeerUrls = []url.URL{mustURL(etcdPeers)}
	cfg.AdvertisePeerUrls = cfg.ListenPeerUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.UnsafeNoFsync = !e.durable
	// The only member elects itself as soon as it may.
	cfg.TickMs = 20
	cfg.ElectionMs = 100
	cfg.QuotaBackendBytes = 8 << 30
	cfg.EnableGRPCGateway = false
	cfg.LogLevel = zapcore.ErrorLevel.String()
	if e.verbose {
		cfg.LogLevel = zapcore.InfoLevel.String()
	}
	cfg.LogOutputs = []string{filepath.Join(e.dir, "etcd.log")}

	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
		ready()
	case <-time.After(time.Minute):
		return fmt.Errorf("not ready after a minute")
	case <-ctx.Done():
		return nil
	}
	select {
	case err := <-server.Err():
		return err
	case <-ctx.Done():
		return nil
	}
}

func mustURL(raw string) url.URL {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return *u
}
