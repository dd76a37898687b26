package flux

import (
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// GitRequest is what a GitRepository follows, and how it is reached.
type GitRequest struct {
	// URL is that of the repository: http, https or ssh.
	URL   string
	Ref   GitRef
	Auth  GitAuth
	Login Login
	Proxy egress.Proxy
	// Verification is how commits and tags are verified; nil for not at all.
	Verification *GitVerification
	// RecurseSubmodules shows the files of submodules too.
	RecurseSubmodules bool
	// Sparse are the only directories that are shown; all where it is empty.
	Sparse []string
	// NotBefore is the moment from which on what the server said is new enough; zero for
	// now. Those who follow one repository share what they are told.
	NotBefore time.Time `json:"-"`
	// Follower is the namespace and name of who asks, for Parts.GitNews.
	Follower string `json:"-"`
}

// GitRef chooses a commit; see sourcev1.GitRepositoryRef.
type GitRef struct {
	Branch, Tag, SemVer, Name, Commit string
}

// GitAuth is a credential; its zero value is none.
type GitAuth struct {
	Username, Password string
	BearerToken        string
	// CA, Certificate and Key are in PEM.
	CA, Certificate, Key []byte
	// Identity is an SSH private key, Passphrase what opens it.
	Identity   []byte
	Passphrase string
	// KnownHosts are the keys of SSH servers.
	KnownHosts []byte
	// App is a GitHub App; nil for none.
	App *GitHubApp
}

// GitHubApp is an App that is installed where a repository is.
type GitHubApp struct {
	ID string
	// InstallationOwner or InstallationID says which installation it is.
	InstallationOwner, InstallationID string
	// PrivateKey is in PEM.
	PrivateKey []byte
	// BaseURL is that of the API; empty for the public one.
	BaseURL string
}

// GitVerification says whose signatures are asked for, and of what.
type GitVerification struct {
	// Head and Tag ask for that of the commit and that of the tag.
	Head, Tag bool
	// Keys are public keys by file name: OpenPGP, or of SSH where it ends in .sshpub.
	Keys map[string][]byte
}

// Login is a login at a cloud; its zero value is none.
type Login struct {
	// Provider is aws, azure or gcp.
	Provider string
	// Namespace and ServiceAccount are the identity; those of the operator where
	// ServiceAccount is empty.
	Namespace, ServiceAccount string
	// Client is the managed identity, of those that the machine has at Azure, as which the
	// operator logs in; empty for its own.
	Client string
}

// OCIRequest is what an OCIRepository follows, and how it is reached.
type OCIRequest struct {
	// URL is oci://registry/repository.
	URL   string
	Ref   OCIRef
	Layer OCILayer
	// Insecure allows HTTP, and any certificate.
	Insecure     bool
	Auth         RegistryAuth
	Login        Login
	TLS          egress.TLS
	Proxy        egress.Proxy
	Verification *Verification
}

// OCIRef chooses an artifact; see sourcev1.OCIRepositoryRef.
type OCIRef struct {
	Tag, SemVer, SemVerFilter, Digest string
}

// OCILayer chooses a layer of an artifact: the first of the media type, or the first.
type OCILayer struct {
	MediaType string
	// Copy keeps the layer as it is for others.
	Copy bool
}

// RegistryAuth is a credential for a registry; its zero value is none.
type RegistryAuth struct {
	Username, Password string
	// DockerConfigs are docker configurations, which are looked into in order.
	DockerConfigs [][]byte
}

// Verification says whose signatures of an artifact are asked for.
type Verification struct {
	// Provider is cosign or notation.
	Provider string
	// Keys are public keys of cosign by file name. Without any it is keyless.
	Keys map[string][]byte
	// Identities are those of a keyless signature, one of which is enough; any where
	// it is empty.
	Identities []Identity
	// TrustedRoot is that of a private Sigstore; nil for the public one.
	TrustedRoot []byte
	// TrustPolicy and Certificates are notation's.
	TrustPolicy  []byte
	Certificates map[string][]byte
}

// Identity is whose signature is accepted, as regular expressions.
type Identity struct {
	Issuer, Subject string
}

// BucketRequest is what a Bucket follows, and how it is reached.
type BucketRequest struct {
	// Provider is generic, aws, gcp or azure.
	Provider               string
	Bucket, Endpoint       string
	Region, Prefix, Ignore string
	// Insecure allows HTTP.
	Insecure bool
	// Secret are the keys that Flux documents; nil for none.
	Secret map[string][]byte
	Login  Login
	STS    *STS
	TLS    egress.TLS
	Proxy  egress.Proxy
}

// STS gives short-lived credentials.
type STS struct {
	// Provider is aws or ldap.
	Provider, Endpoint string
	// Username and Password are those of LDAP.
	Username, Password string
	TLS                egress.TLS
}

// HelmRepositoryRequest is what a HelmRepository follows, and how it is reached.
type HelmRepositoryRequest struct {
	// URL is http, https or, for charts only, oci.
	URL      string
	Auth     RegistryAuth
	Login    Login
	TLS      egress.TLS
	Insecure bool
	// PassCredentials sends them to other hosts that the index names, too.
	PassCredentials bool
}

// HelmChartRequest is what a HelmChart follows.
type HelmChartRequest struct {
	// Repository is where the chart is found by its name; nil where it is in Source.
	Repository *HelmRepositoryRequest
	// Chart is its name, or its path in Source.
	Chart string
	// Version is a range; empty for any.
	Version                  string
	ValuesFiles              []string
	IgnoreMissingValuesFiles bool
	// ByRevision makes a chart of each revision of Source, not of each version only.
	ByRevision   bool
	Generation   int64
	Verification *Verification
	Source       *ChartSource
	// RepositoryFor finds the repository of a dependency by its URL. With ErrNoRepository
	// it says where one is that nobody has declared.
	RepositoryFor func(url string) (HelmRepositoryRequest, error) `json:"-"`
}

// ChartSource is a source that a chart is in.
type ChartSource struct {
	// Owner is which.
	Owner    gitops.OwnerRef
	Revision string
	Files    gitops.Tree `json:"-"`
}
