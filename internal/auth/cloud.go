package auth

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Cloud is one that somebody logs in at. Its errors may be of any type; those whose text is
// for people are *Problem.
type Cloud interface {
	// Claim reads from the annotations of a service account what it asks to become. Own
	// is a client that reaches the machine's metadata service.
	Claim(ctx context.Context, own *http.Client, annotations map[string]string) (Claim, error)
	// Access logs in.
	Access(ctx context.Context, who Subject, scope Scope) (Credential, error)
}

// Registries is a Cloud with registries of images.
type Registries interface {
	// Registry logs in at the registry at a host, which it refuses if it is none of the
	// cloud's.
	Registry(ctx context.Context, host string, s Session) (Login, error)
}

// Repositories is a Cloud with Git repositories.
type Repositories interface {
	// Git logs in for a repository, whose URL it refuses if it is none of the cloud's.
	Git(ctx context.Context, repository *url.URL, s Session) (Login, error)
}

// Clusters is a Cloud with Kubernetes clusters.
type Clusters interface {
	// Cluster logs in at a cluster. What is missing of its address and authority is
	// asked for, by its name. An address has to be one of the cluster's wherever that can
	// be seen, and always for the operator itself.
	Cluster(ctx context.Context, c Cluster, s Session) (Cluster, Login, error)
}

// Buckets is a Cloud whose buckets want a scope of their own.
type Buckets interface {
	// BucketScope is the Resource of the scope.
	BucketScope() string
}

// Claim is what a service account asks to become.
type Claim struct {
	// Audiences are those that its token must have.
	Audiences []string
	// Identity tells apart what it becomes in the cloud, in a form of the cloud's own.
	Identity string
}

// Subject is who logs in.
type Subject struct {
	Identity Identity
	// Client is that of the Request.
	Client string
	Claim  Claim
	// Token is the service account's; empty for the operator itself, whose credentials
	// are found in the environment.
	Token string
	// HTTP is the client for the login.
	HTTP *http.Client
}

// Own tells whether it is the operator itself.
func (s Subject) Own() bool { return s.Identity.own() }

// Scope is what a credential is for.
type Scope struct {
	// Resource is a scope of Azure.
	Resource string
	// Region is one of AWS.
	Region string
	// Endpoint is the address of the AWS security token service; empty for that of the
	// region.
	Endpoint string
}

// Session is what a login for something in a cloud is made with.
type Session struct {
	// Own is set where the operator itself logs in. Its tokens are for addresses alone
	// that the cloud names: whoever describes a cluster could name any.
	Own bool
	// HTTP is a client that keeps the rules for sources.
	HTTP *http.Client
	// Now is the time.
	Now func() time.Time
	// Access logs in at the cloud, or gives what is kept of a login.
	Access func(Scope) (Credential, error)
}

// Credential lets somebody into a cloud. It has the three keys of AWS or a bearer token.
type Credential struct {
	AccessKey, SecretKey, SessionToken string
	Bearer                             string
	// Expires is when it ends; the zero value where that is not known.
	Expires time.Time
}

// Login lets somebody into a server: with a user and a password, or a bearer token.
type Login struct {
	Username, Password string
	Bearer             string
	// Expires is when it ends; the zero value where that is not known.
	Expires time.Time
}

// Cluster is a Kubernetes cluster in a cloud.
type Cluster struct {
	// Name is the cloud's full name of it: an ARN, the id of a resource, a path.
	Name string
	// Address is https://host[:port] of its API server.
	Address string
	// CA are the certificates of its authority, in PEM.
	CA []byte
}

// Complete tells whether a login can be made without asking the cloud about the cluster.
func (c Cluster) Complete(s Session) bool { return !s.Own && c.Address != "" && len(c.CA) > 0 }

// SameAddress tells whether two addresses of API servers are the same.
func SameAddress(a, b string) bool { return hostPort(a) == hostPort(b) }

// hostPort is host:port of an address, with or without https://.
func hostPort(address string) string {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// Locate takes over what a cloud says of a cluster: the first of its addresses, or the one
// that is given already, which has to be among them, and its authority. It is false where
// the given one is not.
func (c *Cluster) Locate(authority []byte, addresses ...string) bool {
	at := slices.IndexFunc(addresses, func(a string) bool { return a != "" && (c.Address == "" || SameAddress(c.Address, a)) })
	if at < 0 {
		return false
	}
	if c.Address == "" {
		c.Address = addresses[at]
		if !strings.Contains(c.Address, "://") {
			c.Address = "https://" + c.Address
		}
	}
	if len(c.CA) == 0 {
		c.CA = authority
	}
	return true
}

// ElsewhereError is that of a cluster whose given address is none of its own.
func ElsewhereError() error {
	return Misconfigured("the cloud knows no such address of it; correct the address, or leave it out")
}
