package config

import (
	"cmp"
	"time"

	"github.com/spf13/pflag"
)

// Flags are the flags of the operator, as bound to a flag set.
type Flags struct {
	set              *pflag.FlagSet
	config           Operator
	watchSelector    string
	configSelector   string
	logLevel         string
	logEncoding      string
	customStageKinds string
	deletionGuard    string
	gates            map[string]string
	httpRetry        int
	rewrites         []string
}

// Bind adds the operator's flags to a flag set. getenv is os.Getenv; it gives
// RUNTIME_NAMESPACE and the defaults that Flux's controllers read from the
// environment: METRICS_ADDR, EVENTS_ADDR, STORAGE_PATH, STORAGE_ADDR and
// STORAGE_ADV_ADDR.
func Bind(set *pflag.FlagSet, getenv func(string) string) *Flags {
	f := &Flags{set: set}
	c := &f.config
	c.RuntimeNamespace = cmp.Or(getenv("RUNTIME_NAMESPACE"), "flux-system")

	set.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig `file`; default: $KUBECONFIG, the cluster this runs in, ~/.kube/config")
	set.BoolVar(&c.InstallCRDs, "install-crds", false, "apply the custom resource definitions of all Flux kinds at the start")
	set.StringVar(&c.MetricsAddress, "metrics-addr", cmp.Or(getenv("METRICS_ADDR"), ":8080"), "`address` that metrics are served on, 0 for none")
	set.StringVar(&c.HealthAddress, "health-addr", ":9440", "`address` that /healthz and /readyz are served on, 0 for none")
	set.StringVar(&c.EventsAddress, "events-addr", getenv("EVENTS_ADDR"), "`URL` that events are posted to, such as that of a notification controller")

	set.IntVar(&c.Concurrent, "concurrent", 4, "`number` of objects of a kind that are worked on at the same time; of sources four times as many")
	set.IntVar(&c.ConcurrentApply, "concurrent-ssa", 4, "`number` of objects of a Kustomization that are applied at the same time")
	set.BoolVar(&c.WatchAllNamespaces, "watch-all-namespaces", true, "serve custom resources of all namespaces; if false, of the one in RUNTIME_NAMESPACE")
	set.StringVar(&f.watchSelector, "watch-label-selector", "", "serve only custom resources with matching `labels`")
	set.StringVar(&f.configSelector, "watch-configs-label-selector", "", "no effect: every ConfigMap and Secret that is referred to is reacted to at once, whatever its `labels`")
	set.StringVar(&f.logLevel, "log-level", string(LogInfo), "`level` of the log: trace, debug, info or error")
	set.StringVar(&f.logEncoding, "log-encoding", string(LogJSON), "`form` of the log: json or console")

	le := &c.LeaderElection
	set.BoolVar(&le.Enabled, "enable-leader-election", false, "let one of several operators work at a time")
	set.BoolVar(&le.ReleaseOnCancel, "leader-election-release-on-cancel", true, "give leadership up when stopping")
	set.DurationVar(&le.LeaseDuration, "leader-election-lease-duration", 35*time.Second, "`time` after which another operator takes over")
	set.DurationVar(&le.RenewDeadline, "leader-election-renew-deadline", 30*time.Second, "`time` for which the leader tries to stay it")
	set.DurationVar(&le.RetryPeriod, "leader-election-retry-period", 5*time.Second, "`time` between tries")

	set.Float32Var(&c.API.QPS, "kube-api-qps", 50, "requests a second to the API server; below 0 for as many as it answers")
	set.IntVar(&c.API.Burst, "kube-api-burst", 300, "`number` of requests that may come at once")
	set.DurationVar(&c.MinRetryDelay, "min-retry-delay", 750*time.Millisecond, "first `time` to wait after a failure")
	set.DurationVar(&c.MaxRetryDelay, "max-retry-delay", 15*time.Minute, "longest `time` to wait after a failure")
	set.DurationVar(&c.RequeueDependency, "requeue-dependency", 30*time.Second, "`time` after which an unready dependency is looked at again; its change is noticed at once anyway")
	set.Uint8Var(&c.IntervalJitter, "interval-jitter-percentage", 5, "`share` by which intervals differ, below 100")
	set.StringToStringVar(&f.gates, "feature-gates", nil, "gates to set, as `Name=true,Name=false`")

	set.StringSliceVar(&c.Controllers, "controllers", AllControllers(), "`names` of what this process works on; the rest is left to other controllers, whose artifacts are used")
	set.StringVar(&c.DefaultServiceAccount, "default-service-account", "", "`name` of the service account with whose rights a Kustomization that names none is applied, and which logs in at clouds for a source that names none if the gate ObjectLevelWorkloadIdentity is on; empty for the operator's own rights")
	set.BoolVar(&c.ReferencesAsOwner, "references-as-owner", false, "read ConfigMaps and Secrets that a Kustomization refers to with the rights of its service account (no flag of Flux)")
	set.StringVar(&c.DefaultKubeconfigServiceAccount, "default-kubeconfig-service-account", "", "`name` of the service account whose tokens a remote cluster is given where the ConfigMap of a kubeConfig names none")
	set.StringVar(&c.DefaultDecryptionServiceAccount, "default-decryption-service-account", "", "`name` of the service account as which services that keep keys are asked where a Kustomization names none; empty for the operator itself. It needs the gate ObjectLevelWorkloadIdentity")
	set.IntVar(&c.TokenCacheSize, "token-cache-max-size", 100, "`number` of logins at clouds and GitHub that are kept, 0 for none")
	set.DurationVar(&c.TokenCacheDuration, "token-cache-max-duration", time.Hour, "`time` for which a login is kept, at most an hour")
	set.BoolVar(&c.KubeconfigExec, "insecure-kubeconfig-exec", false, "let kubeconfigs of remote clusters run programs in the operator's container")
	set.BoolVar(&c.KubeconfigTLS, "insecure-kubeconfig-tls", false, "let kubeconfigs of remote clusters switch off the check of certificates")
	set.BoolVar(&c.NoCrossNamespaceRefs, "no-cross-namespace-refs", false, "refuse references to objects of other namespaces")
	set.StringVar(&c.AgeSecret, "sops-age-secret", "", "`name` of a Secret in RUNTIME_NAMESPACE with age identities, for Kustomizations with decryption that name no Secret")
	set.BoolVar(&c.NoPrivateSources, "no-private-sources", false, "refuse sources at loopback and private addresses (no flag of Flux)")
	set.StringArrayVar(&c.ArtifactServers, "artifact-server", nil, "`host` or host:port whose artifacts are taken from a private address despite --no-private-sources; may be repeated; default: Flux's controllers in RUNTIME_NAMESPACE (no flag of Flux)")
	set.BoolVar(&c.NoPlainCredentials, "no-plain-credentials", false, "refuse to send the credential of a source over http (no flag of Flux)")
	set.StringArrayVar(&f.rewrites, "rewrite-source", nil, "`FROM=TO`: sources whose URLs are FROM, or go on from it with a part of the path, are at TO; may be repeated (no flag of Flux)")
	set.Int64Var(&c.Helm.IndexBytes, "helm-index-max-size", 50<<20, "most `bytes` of the index of a Helm repository")
	set.Int64Var(&c.Helm.ChartBytes, "helm-chart-max-size", 10<<20, "most `bytes` of a Helm chart")
	set.Int64Var(&c.Helm.ChartFileBytes, "helm-chart-file-max-size", 5<<20, "most `bytes` of a file in a Helm chart")
	set.Int("helm-cache-max-size", 0, "no effect: indexes are kept on the disk and not in memory")
	set.Duration("helm-cache-ttl", 15*time.Minute, "no effect, see --helm-cache-max-size")
	set.Duration("helm-cache-purge-interval", time.Minute, "no effect, see --helm-cache-max-size")
	set.StringSliceVar(&c.SSH.KeyExchanges, "ssh-kex-algos", nil, "key exchange `algorithms` that Git servers are offered over ssh, the most wanted first; default: the usual ones")
	set.StringSliceVar(&c.SSH.HostKeys, "ssh-hostkey-algos", nil, "host key `algorithms` that Git servers are offered over ssh, the most wanted first; default: those of known_hosts")
	set.StringVar(&c.VaultConfigMap, "sops-vault-configmap", "", "`name` of a ConfigMap in RUNTIME_NAMESPACE with the Vaults at which service accounts log in to decrypt, and their login paths")
	set.BoolVar(&c.NoRemoteBases, "no-remote-bases", true, "refuse bases of a kustomization that are URLs (Flux's default is false)")
	set.StringArrayVar(&c.OverrideManagers, "override-manager", nil, "field `manager` whose fields are taken over; may be repeated")
	set.StringVar(&f.customStageKinds, "custom-apply-stage-kinds", "", "`kinds` to apply before the rest, as group/Kind,group/Kind")

	s := &c.Storage
	set.StringVar(&s.Path, "storage-path", cmp.Or(getenv("STORAGE_PATH"), "/data"), "data `folder`: repositories and artifacts")
	set.StringVar(&s.Address, "storage-addr", cmp.Or(getenv("STORAGE_ADDR"), ":9090"), "`address` that artifacts are served on")
	set.StringVar(&s.Advertised, "storage-adv-addr", getenv("STORAGE_ADV_ADDR"), "`host` that stands in the URLs of artifacts; default: from --storage-addr")
	set.Int64Var(&s.NamespaceBytes, "storage-namespace-limit", 8<<30, "most `bytes` that the sources of one namespace keep in the data folder, 0 for any number (no flag of Flux)")
	set.StringVar(&s.DigestAlgorithm, "artifact-digest-algo", "sha256", "`algorithm` of artifact digests: sha256, sha384, sha512 or blake3")
	set.DurationVar(&s.RetentionTTL, "artifact-retention-ttl", time.Minute, "`time` after which an artifact is removed that is not the newest any more; with 0 after a few seconds")
	set.IntVar(&s.RetentionRecords, "artifact-retention-records", 2, "`number` of artifacts kept for each source; the newest always is")

	set.StringVar(&f.deletionGuard, "deletion-guard", guardOn, "whether unlikely deletions wait for a confirmation: `on` or off (as Flux)")
	set.DurationVar(&c.AuditPeriod, "audit-period", 24*time.Hour, "`time` in which every object is compared with what was applied, 0 for never")
	set.IntVar(&f.httpRetry, "http-retry", 9, "no effect: a download that fails is tried again, with back-off")
	return f
}

// Default is the configuration without any flag or variable, to start from where
// there is no command line.
func Default() (Operator, error) {
	return Bind(pflag.NewFlagSet("", pflag.ContinueOnError), func(string) string { return "" }).Operator()
}
