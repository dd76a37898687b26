// Package server is the composition root: it builds the operator's parts in the
// order in which they start and runs them until the context ends. Nothing else
// knows all of them.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/plumb-gitops/plumb/internal/apply"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/engine"
	"github.com/plumb-gitops/plumb/internal/event"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/observe"
	"github.com/plumb-gitops/plumb/internal/telemetry"
	"github.com/plumb-gitops/plumb/internal/verify/cosign"
)

// Options are what the operator is given beside its configuration.
type Options struct {
	// Version is the program's version, as in its user agent.
	Version string
	// Log receives all log lines.
	Log logr.Logger
	// NoHealth are kinds that are never waited for, because nobody in the
	// cluster works on them.
	NoHealth []gitops.GroupKind
	// Registry receives the operator's metrics; that of controller-runtime
	// where it is nil.
	Registry metrics.RegistererGatherer
	// Clouds takes the place of the network for logins at clouds and for services that
	// keep keys, in tests; nil for the network.
	Clouds http.RoundTripper
}

// Run runs the operator against a cluster until the context ends. The error is
// nil after an orderly end. What libraries log goes where the process has told them
// (telemetry.SetLibraries), which is to be done before it uses them.
func Run(ctx context.Context, rc *rest.Config, cfg config.Operator, options Options) error {
	for _, notice := range cfg.Notices() {
		options.Log.Info(notice)
	}
	if options.Registry == nil {
		options.Registry = metrics.Registry
	}
	s := &server{config: cfg, options: options, rest: rc, clock: clock.RealClock{}, own: egress.NewOwn()}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"connect to the cluster", s.connect},
		{"prepare logins", s.prepareLogins},
		{"install custom resource definitions", s.installCRDs},
		{"set up the manager", s.manage},
		{"listen", s.listen},
		{"open the data folder", s.openStorage},
		{"record events", s.recordEvents},
		{"observe the cluster", s.observe},
		{"set up the front end", s.setUp},
		{"release what only the start needed", s.release},
	}
	defer s.close()
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := s.manager.Start(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run the operator: %w", err)
	}
	return nil
}

// server is the operator while it is put together.
type server struct {
	config  config.Operator
	options Options
	rest    *rest.Config
	clock   clock.RealClock

	metrics    *telemetry.Metrics
	connection *cluster.Connection
	typed      kubernetes.Interface
	manager    manager.Manager
	stores
	followed    followedHelm
	sigstore    *cosign.PublicRoot
	trust       *egress.Transport
	artifacts   *artifact.Store
	cache       *artifact.Cache
	artifactURL string
	// own are what the process listens at; no source may reach them.
	own       *egress.Own
	listeners []net.Listener
	serving   net.Listener // of artifacts
	recorder  *event.Recorder
	clusters  *clusters
	engine    *engine.Engine
	logins    *auth.Logins
}

func (s *server) close() {
	if s.clusters != nil {
		s.clusters.close()
	}
	if s.logins != nil {
		s.logins.Close()
	}
	s.closeStores()
	for _, listener := range s.listeners {
		_ = listener.Close() // Whoever served there has closed it already.
	}
}

// part is the client configuration of one part of the operator.
func (s *server) part(name string) *rest.Config { return s.partOf(s.rest, name) }

// partOf is that in a cluster.
func (s *server) partOf(of *rest.Config, name string) *rest.Config {
	cfg := rest.CopyConfig(of)
	cfg.UserAgent = fmt.Sprintf("plumb/%s (%s)", s.options.Version, name)
	// The API server's priority and fairness does better what a limit here would.
	cfg.QPS, cfg.Burst = -1, 0
	// Events of watches are small: to pack and unpack them costs both sides more
	// than it saves. Kubernetes' own controllers do without it too.
	cfg.DisableCompression = true
	// Warnings of the API server are for people who type; ours are conditions.
	cfg.WarningHandler = rest.NoWarnings{}
	return cfg
}

func (s *server) connect(context.Context) error {
	var err error
	if s.metrics, err = telemetry.NewMetrics(s.options.Registry); err != nil {
		return err
	}
	if s.connection, err = s.connectTo(s.rest, ""); err != nil {
		return err
	}
	s.typed, err = kubernetes.NewForConfig(s.part("references"))
	return err
}

// clientAs is a client for references that acts as a user.
func (s *server) clientAs(user string) (typedcorev1.CoreV1Interface, error) {
	if user == "" {
		return nil, errors.New("no user to act for")
	}
	cfg := s.part("references")
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user}
	return typedcorev1.NewForConfig(cfg)
}

func (s *server) manage(context.Context) error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	flux.AddToScheme(scheme)
	namespaces := map[string]cache.Config{}
	if !s.config.WatchAllNamespaces {
		namespaces[s.config.RuntimeNamespace] = cache.Config{}
	}
	le := s.config.LeaderElection
	var err error
	s.manager, err = ctrl.NewManager(s.part("controllers"), ctrl.Options{
		Scheme: scheme,
		Logger: s.options.Log,
		Cache: cache.Options{
			DefaultNamespaces: namespaces,
			DefaultTransform:  cache.TransformStripManagedFields(),
		},
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // See listen.
		HealthProbeBindAddress:        "0",
		LeaderElection:                le.Enabled,
		LeaderElectionID:              s.lease(),
		LeaderElectionNamespace:       s.config.RuntimeNamespace,
		LeaderElectionReleaseOnCancel: le.ReleaseOnCancel,
		LeaseDuration:                 &le.LeaseDuration,
		RenewDeadline:                 &le.RenewDeadline,
		RetryPeriod:                   &le.RetryPeriod,
	})
	return err
}

// lease is the name of the lease for which processes compete that work on the same.
func (s *server) lease() string {
	name := "plumb-leader-election"
	if slices.Equal(s.config.Controllers, config.AllControllers()) {
		return name
	}
	return name + "-" + strings.Join(s.config.Controllers, "-")
}

// release has the start's memory given back once the caches are filled.
func (s *server) release(context.Context) error {
	return s.manager.Add(manager.RunnableFunc(func(context.Context) error {
		if err := releaseProgram(); err != nil {
			s.options.Log.Error(err, "Giving back memory failed; it is only used for longer")
		}
		return nil
	}))
}

func (s *server) openStorage(context.Context) error {
	storage := s.config.Storage
	var err error
	rooms := artifact.NewRooms(storage.NamespaceBytes, s.clock.Now)
	s.artifacts, err = artifact.Open(filepath.Join(storage.Path, "artifacts"), artifact.Options{
		TTL: storage.RetentionTTL, Records: storage.RetentionRecords, Digest: artifact.Algorithm(storage.DigestAlgorithm), Rooms: rooms,
	})
	if err != nil {
		return err
	}
	if s.cache, err = artifact.OpenCache(filepath.Join(storage.Path, "published")); err != nil {
		return err
	}
	if err := errors.Join(s.openStores(), s.prepareVerification()); err != nil {
		return err
	}
	for _, store := range []artifact.Measurer{s.cache, s.git, s.buckets, s.charts} {
		rooms.Add(store)
	}
	out, err := s.publishers()
	if err != nil {
		return err
	}
	s.cache.Through(out)
	return errors.Join(s.manager.Add(manager.RunnableFunc(s.collect)), s.serve("artifacts", s.serving, s.artifacts.Handler()))
}

// collectEvery is how often artifacts that were replaced are looked for.
const collectEvery = 30 * time.Second

// collect removes artifacts that were replaced, until the context ends.
func (s *server) collect(ctx context.Context) error {
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			_, err := s.artifacts.Collect()
			if err := errors.Join(err, s.cache.Collect()); err != nil {
				s.options.Log.Error(err, "Removing old artifacts failed")
			}
		}
	}
}

func (s *server) recordEvents(context.Context) error {
	client, err := kubernetes.NewForConfig(s.part("events"))
	if err != nil {
		return err
	}
	instance, err := os.Hostname()
	if err != nil {
		instance = "plumb"
	}
	s.recorder, err = event.New(event.Options{
		Events: client.CoreV1(), Address: s.config.EventsAddress, Instance: instance,
		Redact: telemetry.Redact, Dropped: s.metrics.Dropped, Log: s.options.Log, Now: time.Now,
		Busy: func() bool { return s.engine != nil && s.engine.Busy() },
	})
	if err != nil {
		return err
	}
	return s.manager.Add(s.recorder)
}

func (s *server) observe(context.Context) error {
	observer, err := s.observer(s.rest, s.connection, 0)
	if err != nil {
		return err
	}
	s.clusters = newClusters(s.connection, observer, s.applier, s.openRemote)
	return nil
}

// openRemote opens the way to a remote cluster.
func (s *server) openRemote(remote *engine.Remote) (*cluster.Connection, *observe.Observer, error) {
	// Where the operator's own cluster is on its own machine, so may be others: a laptop.
	config := cluster.Foreign(remote.Config, s.isLocal())
	connection, err := s.connectTo(config, remote.Name)
	if err != nil {
		return nil, nil, err
	}
	observer, err := s.observer(config, connection, maxRemoteObjects)
	return connection, observer, err
}

// isLocal tells whether the operator's own cluster is on its own machine.
func (s *server) isLocal() bool {
	u, err := url.Parse(s.rest.Host)
	return err == nil && cluster.IsLoopback(u.Hostname())
}

// connectTo makes the connection to a cluster; the operator's own has no name.
func (s *server) connectTo(config *rest.Config, remote string) (*cluster.Connection, error) {
	return cluster.Connect(config, cluster.Options{
		Version: s.options.Version, Part: "apply", Remote: remote, QPS: s.config.API.QPS, Burst: s.config.API.Burst, Clock: s.clock,
	})
}

// maxRemoteObjects is how many objects of a kind are watched in a remote cluster.
const maxRemoteObjects = 100_000

// observer makes the observer of a cluster; most is that of observe.Options.
func (s *server) observer(config *rest.Config, connection *cluster.Connection, most int) (*observe.Observer, error) {
	return observe.New(observe.Options{
		Config: s.partOf(config, "observe"),
		Resources: func(ctx context.Context, kind gitops.GroupKind, version string) (schema.GroupVersionResource, bool, error) {
			r, err := connection.Resource(ctx, kind, version)
			return r.GVR, r.Namespaced, err
		},
		Keys:       s.keys(),
		Logger:     slog.New(logr.ToSlogHandler(s.options.Log)),
		MaxObjects: most,
	})
}

func (s *server) rewrites() []flux.Rewrite {
	rules := make([]flux.Rewrite, 0, len(s.config.Rewrites))
	for _, rule := range s.config.Rewrites {
		rules = append(rules, flux.Rewrite(rule))
	}
	return rules
}

func (s *server) keys() gitops.Keys { return flux.Keys(s.config.OverrideManagers...) }

// applier works with the rights of a client.
func (s *server) applier(client *cluster.Client) *apply.Applier {
	return &apply.Applier{Cluster: client, Keys: s.keys(), Parallel: s.config.ConcurrentApply, Clock: s.clock}
}

func (s *server) setUp(ctx context.Context) error {
	noHealth := map[gitops.GroupKind]bool{}
	for _, kind := range s.options.NoHealth {
		noHealth[kind] = true
	}
	makeEngine := func(wake func(gitops.OwnerRef), exists func(gitops.OwnerRef) bool) *engine.Engine {
		return engine.New(engine.Parts{
			Builder:  newBuilder(!s.config.NoRemoteBases, s.keyLogins()),
			Clusters: s.clusters,
			Keys:     s.keys(),
			Clock:    s.clock,
			Exists:   exists,
			Metrics:  s.metrics,
		}, engine.Settings{
			NoHealth:      noHealth,
			WaitForAll:    s.config.Gates.DisableFailFastBehavior,
			DeletionGuard: s.config.DeletionGuard,
			CustomKinds:   s.config.CustomStageKinds,
		}, wake)
	}
	jitter := float64(s.config.IntervalJitter) / 100
	var err error
	s.engine, err = flux.Setup(ctx, flux.Parts{
		Manager: s.manager, Client: s.typed, ClientAs: s.clientAs, Recorder: s.recorder, Metrics: s.metrics, Clock: s.clock,
		Git: gitSources{s}, GitNews: s.gitNews.listen, OCI: ociSources{s}, Buckets: bucketSources{s}, HelmRepositories: helmRepositories{s}, HelmCharts: helmCharts{s},
		Artifacts: s.artifacts, Cache: s.cache, Logins: s.logins, ArtifactURL: s.artifactURL, Engine: makeEngine,
	}, flux.Options{
		Controllers: flux.Controllers{
			Source: s.config.Works(config.SourceController), Kustomize: s.config.Works(config.KustomizeController), Watcher: s.config.Works(config.SourceWatcher),
		},
		Concurrent: s.config.Concurrent,
		Selector:   s.config.WatchSelector,
		Kustomization: flux.KustomizationOptions{
			NoCrossNamespaceRefs:  s.config.NoCrossNamespaceRefs,
			DefaultServiceAccount: s.config.DefaultServiceAccount,
			ReferencesAsOwner:     s.config.ReferencesAsOwner,
			Kubeconfigs:           cluster.KubeconfigPolicy{Exec: s.config.KubeconfigExec, InsecureTLS: s.config.KubeconfigTLS},

			DefaultKubeconfigServiceAccount: s.config.DefaultKubeconfigServiceAccount,
			DefaultDecryptionServiceAccount: s.config.DefaultDecryptionServiceAccount,
			ServiceAccountLogins:            s.config.Gates.ObjectLevelWorkloadIdentity,
			VaultConfig:                     client.ObjectKey{Namespace: s.config.RuntimeNamespace, Name: s.config.VaultConfigMap},

			AgeSecret:               client.ObjectKey{Namespace: s.config.RuntimeNamespace, Name: s.config.AgeSecret},
			StrictSubstitution:      s.config.Gates.StrictPostBuildSubstitutions,
			AdditiveDependencyCheck: s.config.Gates.AdditiveCELDependencyCheck,
			RequeueDependency:       s.config.RequeueDependency,
			MinRetryDelay:           s.config.MinRetryDelay,
			MaxRetryDelay:           s.config.MaxRetryDelay,
			IntervalJitter:          jitter,
		},
		Sources: flux.SourceOptions{
			MinRetryDelay:        s.config.MinRetryDelay,
			MaxRetryDelay:        s.config.MaxRetryDelay,
			RequeueDependency:    s.config.RequeueDependency,
			IntervalJitter:       jitter,
			NoCrossNamespaceRefs: s.config.NoCrossNamespaceRefs,
			ServiceAccountLogins: s.config.Gates.ObjectLevelWorkloadIdentity,
			Rewrites:             s.rewrites(),

			DefaultServiceAccount: s.config.DefaultServiceAccount,
		},
	})
	if err != nil {
		return err
	}
	if s.config.AuditPeriod > 0 {
		return s.manager.Add(s.engine.Auditor(s.config.AuditPeriod))
	}
	return nil
}
