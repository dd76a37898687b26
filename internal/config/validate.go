package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Operator gives the configuration once the flags have been parsed. The error
// names every flag that has no valid value, so that all can be mended at once.
func (f *Flags) Operator() (Operator, error) {
	c := f.config
	v := &validator{}

	c.MetricsAddress = v.address("metrics-addr", c.MetricsAddress)
	c.HealthAddress = v.address("health-addr", c.HealthAddress)
	v.url("events-addr", c.EventsAddress)
	v.positive("concurrent", c.Concurrent)
	v.positive("concurrent-ssa", c.ConcurrentApply)
	c.WatchSelector = v.selector("watch-label-selector", f.watchSelector)
	v.selector("watch-configs-label-selector", f.configSelector)
	c.LogLevel = oneOf(v, "log-level", LogLevel(f.logLevel), LogTrace, LogDebug, LogInfo, LogError)
	c.LogEncoding = oneOf(v, "log-encoding", LogEncoding(f.logEncoding), LogJSON, LogConsole)
	v.leaderElection(c.LeaderElection)
	v.api(c.API)
	v.atLeast("min-retry-delay", c.MinRetryDelay, time.Millisecond)
	if c.MaxRetryDelay < c.MinRetryDelay {
		v.wrong("max-retry-delay", c.MaxRetryDelay, fmt.Sprintf("is shorter than --min-retry-delay %s", c.MinRetryDelay))
	}
	v.atLeast("requeue-dependency", c.RequeueDependency, time.Second)
	if c.IntervalJitter >= 100 {
		v.wrong("interval-jitter-percentage", c.IntervalJitter, "must be below 100")
	}
	if c.AuditPeriod != 0 {
		v.atLeast("audit-period", c.AuditPeriod, time.Second)
	}
	for _, manager := range c.OverrideManagers {
		if strings.TrimSpace(manager) == "" {
			v.wrong("override-manager", manager, "is no name of a field manager")
		}
	}
	c.DeletionGuard = oneOf(v, "deletion-guard", f.deletionGuard, guardOn, guardOff) == guardOn
	if problems := validation.IsDNS1123Subdomain(c.AgeSecret); c.AgeSecret != "" && len(problems) > 0 {
		v.wrong("sops-age-secret", c.AgeSecret, "is no name of a Secret")
	}
	for _, text := range f.rewrites {
		rewrite, err := ParseRewrite(text)
		if err != nil {
			v.wrong("rewrite-source", text, err.Error())
		}
		c.Rewrites = append(c.Rewrites, rewrite)
	}
	for flag, bytes := range map[string]int64{
		"helm-index-max-size": c.Helm.IndexBytes, "helm-chart-max-size": c.Helm.ChartBytes, "helm-chart-file-max-size": c.Helm.ChartFileBytes,
	} {
		if bytes <= 0 {
			v.wrong(flag, bytes, "must be above 0")
		}
	}
	if problems := validation.IsDNS1123Subdomain(c.VaultConfigMap); c.VaultConfigMap != "" && len(problems) > 0 {
		v.wrong("sops-vault-configmap", c.VaultConfigMap, "is no name of a ConfigMap")
	}
	if c.TokenCacheSize < 0 {
		v.wrong("token-cache-max-size", c.TokenCacheSize, "must be 0 or more")
	}
	v.atLeast("token-cache-max-duration", c.TokenCacheDuration, time.Second)
	c.CustomStageKinds = v.kinds("custom-apply-stage-kinds", f.customStageKinds)
	v.storage(c.Storage)
	for _, server := range c.ArtifactServers {
		if !isServer(server) {
			v.wrong("artifact-server", server, "must be a host or host:port, without scheme and path")
		}
	}
	if len(c.ArtifactServers) == 0 {
		for _, name := range []string{"source-controller", "source-watcher"} {
			c.ArtifactServers = append(c.ArtifactServers, name+"."+c.RuntimeNamespace+".svc.cluster.local")
		}
	}
	c.Controllers = v.controllers(c.Controllers)
	v.account("default-service-account", c.DefaultServiceAccount)
	v.account("default-kubeconfig-service-account", c.DefaultKubeconfigServiceAccount)
	v.account("default-decryption-service-account", c.DefaultDecryptionServiceAccount)
	if problems := validation.IsDNS1123Label(c.RuntimeNamespace); len(problems) > 0 {
		v.errs = append(v.errs, fmt.Errorf("RUNTIME_NAMESPACE %q is no name of a namespace", c.RuntimeNamespace))
	}

	gates, notices, err := parseGates(f.gates)
	if err != nil {
		v.errs = append(v.errs, err)
	}
	c.Gates, c.notices = gates, notices
	if err == nil && c.DefaultDecryptionServiceAccount != "" && !gates.ObjectLevelWorkloadIdentity {
		v.wrong("default-decryption-service-account", c.DefaultDecryptionServiceAccount, "needs --feature-gates=ObjectLevelWorkloadIdentity=true")
	}
	if f.set.Changed("watch-configs-label-selector") {
		c.notices = append(c.notices, "--watch-configs-label-selector changes nothing: every ConfigMap and Secret that is referred to is watched")
	}
	if f.set.Changed("http-retry") {
		c.notices = append(c.notices, "--http-retry changes nothing: a download that fails is tried again, with back-off")
	}
	for _, flag := range []string{"helm-cache-max-size", "helm-cache-ttl", "helm-cache-purge-interval"} {
		if f.set.Changed(flag) {
			c.notices = append(c.notices, "--"+flag+" changes nothing: the index of a Helm repository is kept on the disk, ready to be searched, and not in memory")
		}
	}
	if err := errors.Join(v.errs...); err != nil {
		return Operator{}, err
	}
	return c, nil
}

// The values of --deletion-guard.
const (
	guardOn  = "on"
	guardOff = "off"
)

// validator collects what is wrong.
type validator struct{ errs []error }

func (v *validator) wrong(flag string, value any, why string) {
	v.errs = append(v.errs, fmt.Errorf("--%s %q %s", flag, fmt.Sprint(value), why))
}

// controllers checks names of controllers, and puts them in order.
func (v *validator) controllers(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		v.wrong("controllers", "", "names none: there are "+strings.Join(AllControllers(), ", "))
	}
	for _, name := range names {
		if !slices.Contains(AllControllers(), name) {
			v.wrong("controllers", name, "is not served by this version of Plumb: there are "+strings.Join(AllControllers(), ", "))
		}
	}
	return names
}

// account checks the name of a service account, which may be empty.
func (v *validator) account(flag, name string) {
	if name != "" && len(validation.IsDNS1123Subdomain(name)) > 0 {
		v.wrong(flag, name, "is no name of a service account")
	}
}

// address checks host:port, and gives "" for 0, which is off.
func (v *validator) address(flag, value string) string {
	if value == "0" || value == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		v.wrong(flag, value, "is no address such as :8080 or 127.0.0.1:8080")
	}
	return value
}

func (v *validator) url(flag, value string) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		// The value may hold a password and is not shown.
		v.errs = append(v.errs, fmt.Errorf("--%s is no URL that begins with http:// or https://", flag))
	}
}

func (v *validator) positive(flag string, value int) {
	if value < 1 {
		v.wrong(flag, value, "must be 1 or more")
	}
}

func (v *validator) atLeast(flag string, value, least time.Duration) {
	if value < least {
		v.wrong(flag, value, fmt.Sprintf("must be %s or more", least))
	}
}

func (v *validator) selector(flag, value string) labels.Selector {
	selector, err := labels.Parse(value)
	if err != nil {
		v.wrong(flag, value, fmt.Sprintf("is no label selector: %v", err))
		return labels.Nothing()
	}
	return selector
}

func oneOf[T ~string](v *validator, flag string, value T, allowed ...T) T {
	if !slices.Contains(allowed, value) {
		words := make([]string, len(allowed))
		for i, a := range allowed {
			words[i] = string(a)
		}
		v.wrong(flag, string(value), "must be one of "+strings.Join(words, ", "))
	}
	return value
}

// leaderElection checks what the election itself would refuse after the start:
// the deadline must leave room for retries that come up to a fifth later.
func (v *validator) leaderElection(le LeaderElection) {
	v.atLeast("leader-election-retry-period", le.RetryPeriod, time.Millisecond)
	if le.LeaseDuration <= le.RenewDeadline {
		v.wrong("leader-election-lease-duration", le.LeaseDuration, fmt.Sprintf("must be longer than --leader-election-renew-deadline %s", le.RenewDeadline))
	}
	if le.RenewDeadline <= le.RetryPeriod*6/5 {
		v.wrong("leader-election-renew-deadline", le.RenewDeadline, fmt.Sprintf("must be longer than 1.2 times --leader-election-retry-period %s", le.RetryPeriod))
	}
}

func (v *validator) api(api API) {
	if api.QPS == 0 {
		v.wrong("kube-api-qps", api.QPS, "must be more than 0, or below 0 for no bound")
	}
	if api.QPS > 0 && api.Burst < 1 {
		v.wrong("kube-api-burst", api.Burst, "must be 1 or more")
	}
}

// kinds reads group/Kind,group/Kind; the core group has no name: Kind or /Kind.
func (v *validator) kinds(flag, value string) []gitops.GroupKind {
	if value == "" {
		return nil
	}
	var kinds []gitops.GroupKind
	for one := range strings.SplitSeq(value, ",") {
		group, kind, ok := strings.Cut(strings.TrimSpace(one), "/")
		if !ok {
			group, kind = "", group
		}
		if kind == "" || strings.Contains(kind, "/") {
			v.wrong(flag, value, fmt.Sprintf("has the entry %q, which is not group/Kind", one))
			return nil
		}
		kinds = append(kinds, gitops.GroupKind{Group: group, Kind: kind})
	}
	return kinds
}

// isServer tells whether a text can be a host or host:port.
func isServer(text string) bool { return text != "" && !strings.ContainsAny(text, "/ ?#@,") }

func (v *validator) storage(s Storage) {
	if s.Path == "" {
		v.wrong("storage-path", s.Path, "is no folder")
	}
	if v.address("storage-addr", s.Address) == "" {
		v.wrong("storage-addr", s.Address, "cannot be off: artifacts are promised to be served")
	}
	if s.Advertised != "" && !isServer(s.Advertised) {
		v.wrong("storage-adv-addr", s.Advertised, "must be a host or host:port, without scheme and path")
	}
	v.atLeast("artifact-retention-ttl", s.RetentionTTL, 0)
	if s.RetentionRecords < 0 {
		v.wrong("artifact-retention-records", s.RetentionRecords, "must be 0 or more; the newest is always kept")
	}
	if s.NamespaceBytes < 0 {
		v.wrong("storage-namespace-limit", s.NamespaceBytes, "must be 0 or more; 0 is no limit")
	}
	oneOf(v, "artifact-digest-algo", s.DigestAlgorithm, "sha256", "sha384", "sha512", "blake3")
}
