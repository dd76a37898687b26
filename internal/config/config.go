// Package config turns the flags and the environment of `plumb operator` into
// one typed, validated value.
//
// Flags that Flux's controllers have keep their name, meaning and default, so
// that the arguments of an existing Deployment can be kept; where Plumb differs
// the flag's help says so. A flag that Plumb takes and that changes nothing is
// named by Operator.Notices; one that it does not know is refused, never
// ignored. The composition root reads the result; nothing else does.
package config

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"k8s.io/apimachinery/pkg/labels"
)

// Operator is the configuration of the operator. It is valid as Flags.Operator
// and Default give it, and must not be changed while the operator runs.
type Operator struct {
	// Kubeconfig is a file; empty for KUBECONFIG, the cluster that the process
	// runs in, and ~/.kube/config, in this order.
	Kubeconfig string
	// RuntimeNamespace is where the operator runs and keeps its lease, and the
	// namespace that it watches where WatchAllNamespaces is false.
	RuntimeNamespace string
	// InstallCRDs applies the custom resource definitions at the start.
	InstallCRDs bool

	// MetricsAddress and HealthAddress are host:port, empty where nothing is served.
	MetricsAddress, HealthAddress string
	// EventsAddress is the URL that events are posted to, empty for none.
	EventsAddress string

	// Concurrent is how many owners of a kind are worked on at the same time.
	Concurrent int
	// ConcurrentApply is how many objects of an owner are applied at the same time.
	ConcurrentApply int

	WatchAllNamespaces bool
	// WatchSelector selects the custom resources that this operator serves.
	WatchSelector labels.Selector

	LogLevel    LogLevel
	LogEncoding LogEncoding

	LeaderElection LeaderElection
	API            API
	Storage        Storage
	Gates          Gates

	// MinRetryDelay and MaxRetryDelay bound the back-off after a failure.
	MinRetryDelay, MaxRetryDelay time.Duration
	// RequeueDependency is how often an unready dependency is looked at besides
	// being watched.
	RequeueDependency time.Duration
	// IntervalJitter is the share by which an interval is lengthened or
	// shortened, in percent, below 100.
	IntervalJitter uint8
	// AuditPeriod is the time in which every object is compared once with what
	// was applied; 0 is off.
	AuditPeriod time.Duration

	// Controllers are what this process works on, in order: some of AllControllers.
	Controllers []string

	// DefaultServiceAccount is whose rights are used for owners that name no service
	// account, and who logs in at clouds for sources that name none where service accounts
	// do; empty for the operator's own.
	DefaultServiceAccount string
	// ReferencesAsOwner reads what an owner refers to with the rights of its service
	// account instead of the operator's.
	ReferencesAsOwner bool
	// DefaultKubeconfigServiceAccount is whose tokens remote clusters are given that
	// are described by a ConfigMap which names no service account; empty for none.
	DefaultKubeconfigServiceAccount string
	// DefaultDecryptionServiceAccount is as whom services that keep keys are asked for
	// owners that name no service account for it; empty for the operator itself.
	DefaultDecryptionServiceAccount string
	// VaultConfigMap is a ConfigMap of RuntimeNamespace that names the Vaults at which
	// service accounts may log in, and where; empty for none.
	VaultConfigMap string
	// TokenCacheSize is how many logins at clouds are kept, and TokenCacheDuration for how
	// long at most.
	TokenCacheSize     int
	TokenCacheDuration time.Duration
	// KubeconfigExec lets kubeconfigs run programs in the operator's container, and
	// KubeconfigTLS lets them switch off the check of certificates.
	KubeconfigExec, KubeconfigTLS bool
	// DeletionGuard holds back deletions that are more likely a mistake than a
	// wish until they are confirmed.
	DeletionGuard bool
	// NoCrossNamespaceRefs refuses references to objects of other namespaces.
	NoCrossNamespaceRefs bool
	// AgeSecret is a Secret of RuntimeNamespace with the age identities for what
	// names no Secret with keys itself; empty for none.
	AgeSecret string
	// NoPrivateSources refuses sources at loopback and private addresses.
	NoPrivateSources bool
	// ArtifactServers are the servers, host or host:port, whose artifacts are taken from
	// private addresses even so.
	ArtifactServers []string
	// NoPlainCredentials refuses to send the credential of a source over HTTP without TLS.
	NoPlainCredentials bool
	// Rewrites say where sources are that cannot be reached where their objects say.
	Rewrites []Rewrite
	// Helm bounds what is read of Helm repositories.
	Helm Helm
	// SSH is what Git servers are offered.
	SSH SSH
	// NoRemoteBases refuses resources of a kustomization that are URLs.
	NoRemoteBases bool
	// OverrideManagers are names of field managers whose fields are taken over,
	// besides those that always are.
	OverrideManagers []string
	// CustomStageKinds are applied after definitions and classes and before the
	// rest, in this order of the stages.
	CustomStageKinds []gitops.GroupKind

	notices []string
}

// Notices are sentences for the log about flags that were given and change
// nothing, in a fixed order.
func (o Operator) Notices() []string { return o.notices }

// LogLevel is the least severe level that is logged.
type LogLevel string

// The levels, from the most to the least talkative.
const (
	LogTrace LogLevel = "trace"
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogError LogLevel = "error"
)

// LogEncoding is the form of a log line.
type LogEncoding string

// The forms of a log line.
const (
	LogJSON    LogEncoding = "json"
	LogConsole LogEncoding = "console"
)

// LeaderElection lets one of several operators work at a time.
type LeaderElection struct {
	Enabled bool
	// ReleaseOnCancel gives the lease back when the operator stops.
	ReleaseOnCancel                           bool
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// API bounds the requests to an API server.
type API struct {
	// QPS is the number of requests a second in the long run; below 0 leaves
	// the bound to the API server.
	QPS float32
	// Burst is how many may come at once.
	Burst int
}

// Storage is where artifacts are kept and served.
type Storage struct {
	// Path is the data folder.
	Path string
	// Address is host:port that artifacts are served on.
	Address string
	// Advertised is host or host:port that stands in the URLs of artifacts; empty
	// to derive it from Address and the host's name.
	Advertised string
	// RetentionTTL and RetentionRecords say when an artifact that is not the newest is
	// removed: once the newer one is there for so long, or more than so many are there.
	RetentionTTL     time.Duration
	RetentionRecords int
	// NamespaceBytes is how much the sources of a namespace may keep below Path; 0 for any.
	NamespaceBytes int64
	// DigestAlgorithm is that of the digests of artifacts: sha256, sha384, sha512 or blake3.
	DigestAlgorithm string
}

// Rewrite is a prefix of the URLs of sources, and what takes its place.
type Rewrite struct {
	From, To string
}

// String is the form of the flag.
func (r Rewrite) String() string { return r.From + "=" + r.To }

// ParseRewrite reads FROM=TO: two URLs, or two hosts as in the endpoints of buckets.
func ParseRewrite(text string) (Rewrite, error) {
	from, to, _ := strings.Cut(text, "=")
	schemes := [2]bool{}
	for i, url := range []string{from, to} {
		scheme, rest, ok := strings.Cut(url, "://")
		if !ok {
			scheme, rest = "none", url
		}
		if schemes[i] = ok; scheme == "" || rest == "" || strings.HasPrefix(rest, "/") {
			return Rewrite{}, errors.New("is not FROM=TO with two URLs, or two hosts")
		}
	}
	if schemes[0] != schemes[1] {
		return Rewrite{}, errors.New("has a URL on one side and a host on the other")
	}
	return Rewrite{From: from, To: to}, nil
}

// Helm bounds what is read of Helm repositories, in bytes.
type Helm struct {
	IndexBytes, ChartBytes, ChartFileBytes int64
}

// SSH are names of algorithms, the most wanted first; none for the usual ones.
type SSH struct {
	KeyExchanges, HostKeys []string
}

// The controllers of Flux that Plumb serves.
const (
	SourceController    = "source"
	KustomizeController = "kustomize"
	SourceWatcher       = "source-watcher"
)

// AllControllers are those that are served.
func AllControllers() []string { return []string{KustomizeController, SourceController, SourceWatcher} }

// Works tells whether this process does the work of a controller.
func (o Operator) Works(controller string) bool { return slices.Contains(o.Controllers, controller) }
