package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
)

func parse(t *testing.T, environment map[string]string, args ...string) (Operator, error) {
	t.Helper()
	set := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	flags := Bind(set, func(name string) string { return environment[name] })
	if err := set.Parse(args); err != nil {
		return Operator{}, err
	}
	return flags.Operator()
}

var compare = cmp.Options{
	cmp.AllowUnexported(Operator{}),
	cmp.Transformer("selector", func(s labels.Selector) string {
		if s == nil {
			return "none"
		}
		return s.String()
	}),
}

func TestDefaultsAreThoseOfFlux(t *testing.T) {
	t.Parallel()
	want := Operator{
		RuntimeNamespace:   "flux-system",
		MetricsAddress:     ":8080",
		HealthAddress:      ":9440",
		Concurrent:         4,
		ConcurrentApply:    4,
		WatchAllNamespaces: true,
		WatchSelector:      labels.Everything(),
		LogLevel:           LogInfo,
		LogEncoding:        LogJSON,
		LeaderElection: LeaderElection{
			ReleaseOnCancel: true,
			LeaseDuration:   35 * time.Second,
			RenewDeadline:   30 * time.Second,
			RetryPeriod:     5 * time.Second,
		},
		API:               API{QPS: 50, Burst: 300},
		Storage:           Storage{Path: "/data", Address: ":9090", RetentionTTL: time.Minute, RetentionRecords: 2, NamespaceBytes: 8 << 30, DigestAlgorithm: "sha256"},
		Gates:             Gates{StrictPostBuildSubstitutions: true},
		MinRetryDelay:     750 * time.Millisecond,
		MaxRetryDelay:     15 * time.Minute,
		RequeueDependency: 30 * time.Second,
		IntervalJitter:    5,

		TokenCacheSize: 100, TokenCacheDuration: time.Hour,
		// The following are Plumb's own.
		Controllers:   []string{"kustomize", "source", "source-watcher"},
		AuditPeriod:   24 * time.Hour,
		DeletionGuard: true,
		NoRemoteBases: true,
		Helm:          Helm{IndexBytes: 50 << 20, ChartBytes: 10 << 20, ChartFileBytes: 5 << 20},
		ArtifactServers: []string{
			"source-controller.flux-system.svc.cluster.local", "source-watcher.flux-system.svc.cluster.local",
		},
	}
	got, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("defaults differ (-want +got):\n%s", diff)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		environment map[string]string
		args        []string
		want        func(*Operator)
	}{
		"nothing given": {want: func(*Operator) {}},
		"the arguments of a source-controller": {
			args: []string{
				"--events-addr=http://notification-controller.flux-system.svc.cluster.local./", "--watch-all-namespaces=true", "--log-level=info",
				"--log-encoding=json", "--enable-leader-election", "--storage-path=/data", "--storage-adv-addr=source-controller.flux-system.svc.cluster.local.",
			},
			want: func(o *Operator) {
				o.EventsAddress = "http://notification-controller.flux-system.svc.cluster.local./"
				o.LeaderElection.Enabled = true
				o.Storage.Advertised = "source-controller.flux-system.svc.cluster.local."
			},
		},
		"the environment gives defaults": {
			environment: map[string]string{"RUNTIME_NAMESPACE": "gitops", "METRICS_ADDR": ":1", "EVENTS_ADDR": "http://e", "STORAGE_PATH": "/d", "STORAGE_ADDR": ":2", "STORAGE_ADV_ADDR": "a"},
			args:        []string{"--storage-addr=:3"},
			want: func(o *Operator) {
				o.RuntimeNamespace, o.MetricsAddress, o.EventsAddress = "gitops", ":1", "http://e"
				o.Storage.Path, o.Storage.Address, o.Storage.Advertised = "/d", ":3", "a"
				o.ArtifactServers = []string{"source-controller.gitops.svc.cluster.local", "source-watcher.gitops.svc.cluster.local"}
			},
		},
		"servers of artifacts": {
			args: []string{"--no-private-sources", "--artifact-server=builder.apps.svc", "--artifact-server=[fd00::1]:80"},
			want: func(o *Operator) {
				o.NoPrivateSources, o.ArtifactServers = true, []string{"builder.apps.svc", "[fd00::1]:80"}
			},
		},
		"servers can be off": {
			args: []string{"--metrics-addr=0", "--health-addr=0"},
			want: func(o *Operator) { o.MetricsAddress, o.HealthAddress = "", "" },
		},
		"selectors": {
			args: []string{"--watch-label-selector=shard in (a,b)", "--watch-configs-label-selector=owner!=x"},
			want: func(o *Operator) {
				o.WatchSelector = selector("shard in (a,b)")
				o.notices = []string{"--watch-configs-label-selector changes nothing: every ConfigMap and Secret that is referred to is watched"}
			},
		},
		"kinds of the custom stage, with and without group": {
			args: []string{"--custom-apply-stage-kinds=rbac.authorization.k8s.io/Role, Secret,/ConfigMap"},
			want: func(o *Operator) {
				o.CustomStageKinds = []gitops.GroupKind{{Group: "rbac.authorization.k8s.io", Kind: "Role"}, {Kind: "Secret"}, {Kind: "ConfigMap"}}
			},
		},
		"managers to take over": {
			args: []string{"--override-manager=a", "--override-manager=b"},
			want: func(o *Operator) { o.OverrideManagers = []string{"a", "b"} },
		},
		"a Secret with age identities": {
			args: []string{"--sops-age-secret=sops.keys"},
			want: func(o *Operator) { o.AgeSecret = "sops.keys" },
		},
		"Plumb's own": {
			args: []string{"--audit-period=0", "--no-remote-bases=false", "--install-crds", "--kubeconfig=k", "--kube-api-qps=-1", "--deletion-guard=off"},
			want: func(o *Operator) {
				o.DeletionGuard = false
				o.AuditPeriod, o.NoRemoteBases, o.InstallCRDs, o.Kubeconfig, o.API.QPS = 0, false, true, "k", -1
			},
		},
		"logins": {
			args: []string{
				"--feature-gates=ObjectLevelWorkloadIdentity=true", "--default-decryption-service-account=sops", "--sops-vault-configmap=vaults",
				"--token-cache-max-size=0", "--token-cache-max-duration=5m",
			},
			want: func(o *Operator) {
				o.Gates.ObjectLevelWorkloadIdentity = true
				o.DefaultDecryptionServiceAccount, o.VaultConfigMap = "sops", "vaults"
				o.TokenCacheSize, o.TokenCacheDuration = 0, 5*time.Minute
			},
		},
		"another digest": {
			args: []string{"--artifact-digest-algo=sha512"},
			want: func(o *Operator) { o.Storage.DigestAlgorithm = "sha512" },
		},
		"algorithms of ssh": {
			args: []string{"--ssh-kex-algos=curve25519-sha256,ecdh-sha2-nistp256", "--ssh-hostkey-algos=ssh-ed25519"},
			want: func(o *Operator) {
				o.SSH = SSH{KeyExchanges: []string{"curve25519-sha256", "ecdh-sha2-nistp256"}, HostKeys: []string{"ssh-ed25519"}}
			},
		},
		"the cache of Flux's source-controller": {
			args: []string{"--helm-cache-max-size=10", "--helm-cache-ttl=60m", "--helm-cache-purge-interval=5m", "--helm-index-max-size=1", "--helm-chart-max-size=2", "--helm-chart-file-max-size=3"},
			want: func(o *Operator) {
				o.Helm = Helm{IndexBytes: 1, ChartBytes: 2, ChartFileBytes: 3}
				for _, flag := range []string{"helm-cache-max-size", "helm-cache-ttl", "helm-cache-purge-interval"} {
					o.notices = append(o.notices, "--"+flag+" changes nothing: the index of a Helm repository is kept on the disk, ready to be searched, and not in memory")
				}
			},
		},
		"gates that are followed": {
			args: []string{"--feature-gates=StrictPostBuildSubstitutions=false,AdditiveCELDependencyCheck=true", "--feature-gates=DisableFailFastBehavior=true"},
			want: func(o *Operator) {
				o.Gates = Gates{AdditiveCELDependencyCheck: true, DisableFailFastBehavior: true}
			},
		},
		"what changes nothing is said": {
			args: []string{"--feature-gates=MigrateAPIVersion=true,DisableStatusPollerCache=true,DisableConfigWatchers=false", "--http-retry=9"},
			want: func(o *Operator) {
				o.notices = []string{
					"--feature-gates: MigrateAPIVersion=true changes nothing: what it switches is not served",
					"--http-retry changes nothing: a download that fails is tried again, with back-off",
				}
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parse(t, tt.environment, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			want, err := Default()
			if err != nil {
				t.Fatal(err)
			}
			tt.want(&want)
			if diff := cmp.Diff(want, got, compare); diff != "" {
				t.Errorf("configuration differs (-want +got):\n%s", diff)
			}
		})
	}
}

func selector(s string) labels.Selector {
	selector, err := labels.Parse(s)
	if err != nil {
		panic(err)
	}
	return selector
}

func TestRefusedFlags(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want string
	}{
		"an unknown flag":                     {[]string{"--sops-nothing=x"}, "unknown flag: --sops-nothing"},
		"an address without port":             {[]string{"--metrics-addr=localhost"}, `--metrics-addr "localhost" is no address such as :8080 or 127.0.0.1:8080`},
		"a port out of range":                 {[]string{"--health-addr=:70000"}, `--health-addr ":70000" is no address`},
		"artifacts that are not served":       {[]string{"--storage-addr=0"}, `--storage-addr "0" cannot be off`},
		"an events address without scheme":    {[]string{"--events-addr=user:secret@host"}, "--events-addr is no URL that begins with http:// or https://"},
		"no controller":                       {[]string{"--controllers="}, `--controllers "" names none: there are kustomize, source, source-watcher`},
		"a controller that is not served":     {[]string{"--controllers=source,helm"}, `--controllers "helm" is not served by this version of Plumb: there are kustomize, source, source-watcher`},
		"another account with a colon":        {[]string{"--default-kubeconfig-service-account=a:b"}, `--default-kubeconfig-service-account "a:b" is no name of a service account`},
		"an account with a colon":             {[]string{"--default-service-account=a:b"}, `--default-service-account "a:b" is no name of a service account`},
		"decryption without its gate":         {[]string{"--default-decryption-service-account=sops"}, `--default-decryption-service-account "sops" needs --feature-gates=ObjectLevelWorkloadIdentity=true`},
		"a ConfigMap that is none":            {[]string{"--sops-vault-configmap=a/b"}, `--sops-vault-configmap "a/b" is no name of a ConfigMap`},
		"fewer logins than none":              {[]string{"--token-cache-max-size=-1"}, `--token-cache-max-size "-1" must be 0 or more`},
		"logins for no time":                  {[]string{"--token-cache-max-duration=0"}, `--token-cache-max-duration "0s" must be 1s or more`},
		"no worker":                           {[]string{"--concurrent=0"}, `--concurrent "0" must be 1 or more`},
		"no applier":                          {[]string{"--concurrent-ssa=-1"}, `--concurrent-ssa "-1" must be 1 or more`},
		"a broken selector":                   {[]string{"--watch-label-selector=a in"}, `--watch-label-selector "a in" is no label selector`},
		"a broken selector of configurations": {[]string{"--watch-configs-label-selector=!!"}, `--watch-configs-label-selector "!!" is no label selector`},
		"an unknown log level":                {[]string{"--log-level=warn"}, `--log-level "warn" must be one of trace, debug, info, error`},
		"an unknown log encoding":             {[]string{"--log-encoding=text"}, `--log-encoding "text" must be one of json, console`},
		"a lease shorter than its renewal":    {[]string{"--leader-election-lease-duration=30s"}, `--leader-election-lease-duration "30s" must be longer than --leader-election-renew-deadline 30s`},
		"a renewal shorter than its retries":  {[]string{"--leader-election-renew-deadline=6s"}, `--leader-election-renew-deadline "6s" must be longer than 1.2 times`},
		"no retry period":                     {[]string{"--leader-election-retry-period=0"}, `--leader-election-retry-period "0s" must be 1ms or more`},
		"no request":                          {[]string{"--kube-api-qps=0"}, `--kube-api-qps "0" must be more than 0, or below 0 for no bound`},
		"no burst":                            {[]string{"--kube-api-burst=0"}, `--kube-api-burst "0" must be 1 or more`},
		"a back-off that shrinks":             {[]string{"--min-retry-delay=1h"}, `--max-retry-delay "15m0s" is shorter than --min-retry-delay 1h0m0s`},
		"no back-off":                         {[]string{"--min-retry-delay=0"}, `--min-retry-delay "0s" must be 1ms or more`},
		"a busy dependency":                   {[]string{"--requeue-dependency=1ms"}, `--requeue-dependency "1ms" must be 1s or more`},
		"all jitter":                          {[]string{"--interval-jitter-percentage=100"}, `--interval-jitter-percentage "100" must be below 100`},
		"a negative audit":                    {[]string{"--audit-period=-1h"}, `--audit-period "-1h0m0s" must be 1s or more`},
		"a Secret of another namespace":       {[]string{"--sops-age-secret=other/keys"}, `--sops-age-secret "other/keys" is no name of a Secret`},
		"a manager without name":              {[]string{"--override-manager="}, `--override-manager "" is no name of a field manager`},
		"a kind without name":                 {[]string{"--custom-apply-stage-kinds=apps/"}, `has the entry "apps/", which is not group/Kind`},
		"no data folder":                      {[]string{"--storage-path="}, `--storage-path "" is no folder`},
		"an advertised URL":                   {[]string{"--storage-adv-addr=http://x"}, `--storage-adv-addr "http://x" must be a host or host:port`},
		"a server of artifacts that is a URL": {[]string{"--artifact-server=http://x"}, `--artifact-server "http://x" must be a host or host:port`},
		"a server of artifacts without name":  {[]string{"--artifact-server="}, `--artifact-server "" must be a host or host:port`},
		"less than no artifact kept":          {[]string{"--artifact-retention-records=-1"}, `--artifact-retention-records "-1" must be 0 or more`},
		"a negative retention":                {[]string{"--artifact-retention-ttl=-1s"}, `--artifact-retention-ttl "-1s" must be 0s or more`},
		"a digest that there is not":          {[]string{"--artifact-digest-algo=md5"}, `--artifact-digest-algo "md5" must be one of sha256, sha384, sha512, blake3`},
		"an unknown gate":                     {[]string{"--feature-gates=Magic=true"}, `--feature-gates: no gate "Magic"; there are AdditiveCELDependencyCheck, `},
		"a gate that is neither":              {[]string{"--feature-gates=ExternalArtifact=maybe"}, `ExternalArtifact="maybe" is neither true nor false`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(t, nil, tt.args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret@") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestAllErrorsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := parse(t, map[string]string{"RUNTIME_NAMESPACE": "No Namespace"}, "--concurrent=0", "--log-level=x")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"--concurrent", "--log-level", "RUNTIME_NAMESPACE"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

func TestParseRewrite(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rewrite{
		"https://host/a=http://127.0.0.1:1/b": {"https://host/a", "http://127.0.0.1:1/b"},
		"oci://host/=oci://127.0.0.1:1/":      {"oci://host/", "oci://127.0.0.1:1/"},
		"s3.host=127.0.0.1:1":                 {"s3.host", "127.0.0.1:1"},
		"https://host=127.0.0.1:1":            {},
		"https://host":                        {},
		"https://=http://x":                   {},
		"=":                                   {},
		"/etc=/tmp":                           {},
	} {
		got, err := ParseRewrite(text)
		if (err == nil) != (want != Rewrite{}) || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}
