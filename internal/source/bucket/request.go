package bucket

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Provider is the kind of an object store.
type Provider string

const (
	// Generic is any store that speaks S3.
	Generic Provider = "generic"
	// AWS is Amazon S3.
	AWS Provider = "aws"
	// GCP is Google Cloud Storage.
	GCP Provider = "gcp"
	// Azure is Azure Blob Storage.
	Azure Provider = "azure"
)

// Request says what is followed, and how it is reached.
type Request struct {
	// Provider is Generic where it is empty.
	Provider Provider
	// Bucket is the name of the bucket; of the container for Azure.
	Bucket string
	// Endpoint is host[:port] for S3, and a URL for Azure. Google's may be either, or
	// empty for Google's own.
	Endpoint string
	// Region of an S3 bucket; the server is asked for it where it is empty.
	Region string
	// Prefix is what the keys begin with that are asked for; all where it is empty.
	Prefix string
	// Ignore are patterns in the form of a .sourceignore file. They come after those of
	// that file at the root of the bucket.
	Ignore string
	// Insecure allows HTTP without TLS. S3 and a Google endpoint without a scheme are
	// reached so then.
	Insecure bool
	// Auth is a credential; its zero value is none.
	Auth Auth
	// STS is a service that gives credentials for S3.
	STS STS
	// Login gets a credential of the operator or of a ServiceAccount. It is asked when
	// Auth and STS hold none, no sooner than one is needed, and again when it expires or
	// is refused. Nil is an anonymous request.
	Login func(ctx context.Context) (Credential, error)
	// Identity names whom Login logs in: what one may read is not shown to another.
	Identity string

	TLS    egress.TLS
	Proxy  egress.Proxy
	Policy egress.Policy
}

// Auth is a credential from a Secret.
type Auth struct {
	// AccessKey and SecretKey are those of S3.
	AccessKey, SecretKey string
	// ServiceAccountJSON is the key of a Google service account, or the credential of a
	// user, in JSON.
	ServiceAccountJSON []byte
	// Azure is a credential of Azure.
	Azure AzureAuth
}

// AzureAuth is a credential of Azure. The first that is whole is used: tenant, client
// and secret or certificate; the client alone, a managed identity, for which Login is
// asked; the account key; the shared access signature.
type AzureAuth struct {
	TenantID, ClientID, ClientSecret string
	// ClientCertificate holds certificates and a key, in PEM or PKCS #12.
	ClientCertificate         []byte
	ClientCertificatePassword string
	// ClientCertificateSendChain sends the chain of the certificate with each request.
	ClientCertificateSendChain bool
	// AccountKey is the key of the storage account, in base64.
	AccountKey string
	// SASKey is a shared access signature, with or without a question mark.
	SASKey string
	// AuthorityHost is the URL that logs in, where it is not that of Azure's public cloud.
	AuthorityHost string
}

// STS is a security token service.
type STS struct {
	// Provider is "aws", for which Login is asked, or "ldap"; "" for none.
	Provider string
	// Endpoint is the URL of the service.
	Endpoint string
	// Username and Password are those of LDAP.
	Username, Password string
	TLS                egress.TLS
}

// Providers of security tokens.
const (
	stsAWS  = "aws"
	stsLDAP = "ldap"
)

// Credential is what a login gives.
type Credential struct {
	// AccessKey, SecretKey and SessionToken are for S3.
	AccessKey, SecretKey, SessionToken string
	// BearerToken is for Google and Azure.
	BearerToken string
	// Expires is when it ends; the zero time where it does not.
	Expires time.Time
}

// Fetcher binds a request, so that it can be fetched again and again.
func (s *Store) Fetcher(request Request) source.Fetcher { return fetcher{s, request} }

type fetcher struct {
	store   *Store
	request Request
}

// Fetch fetches the request.
func (f fetcher) Fetch(ctx context.Context, known string) (source.Result, error) {
	return f.store.Fetch(ctx, f.request, known)
}

// withDefaults fills in the provider.
func (r Request) withDefaults() Request {
	if r.Provider == "" {
		r.Provider = Generic
	}
	return r
}

// check refuses what can never work.
func (r Request) check() error {
	switch r.Provider {
	case Generic, AWS, GCP, Azure:
	default:
		return &fault{code: codeProvider, text: fmt.Sprintf("provider %s is not supported; use generic, aws, gcp or azure", egress.Quote(string(r.Provider)))}
	}
	if strings.ContainsAny(r.Bucket, "/\\?#%\x00") || r.Bucket == "" || r.Bucket == "." || r.Bucket == ".." {
		return badName()
	}
	if err := r.checkSTS(); err != nil {
		return err
	}
	if (r.Auth.AccessKey == "") != (r.Auth.SecretKey == "") {
		return &fault{code: codeCredential, text: "the secret must hold both \"accesskey\" and \"secretkey\""}
	}
	return nil
}

func badName() error {
	return &fault{code: codeURL, text: "the name of the bucket is none that a bucket can have"}
}

func (r Request) checkSTS() error {
	wrong := func(text string) error { return &fault{code: codeSTS, text: text} }
	switch {
	case r.STS.Provider == "":
		return nil
	case r.Provider != AWS && r.Provider != Generic:
		return wrong(fmt.Sprintf("the provider %q cannot be used with a security token service", r.Provider))
	case r.Provider == AWS && r.STS.Provider != stsAWS, r.Provider == Generic && r.STS.Provider != stsLDAP:
		return wrong(fmt.Sprintf("security tokens of %s cannot be used with the provider %q", egress.Quote(r.STS.Provider), r.Provider))
	case r.STS.Provider == stsAWS && (r.STS.Username != "" || r.STS.Password != "" || len(r.STS.TLS.CA)+len(r.STS.TLS.Certificate) > 0):
		return wrong("security tokens of AWS need no secret; leave it out")
	}
	if u, err := url.Parse(r.STS.Endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return &fault{code: codeURL, text: "the endpoint of the security token service is no URL with https or http"}
	}
	return nil
}

// endpoint is the URL of the store. Google's and that of S3 have no path.
func (r Request) endpoint() (*url.URL, error) {
	text := r.Endpoint
	switch {
	case r.Provider == GCP && text == "":
		text = "https://storage.googleapis.com"
	case r.Provider == Azure, strings.Contains(text, "://") && r.Provider == GCP:
	case strings.Contains(text, "://"):
		return nil, &fault{code: codeURL, text: "the endpoint must be host[:port], without https:// or http://; insecure chooses the latter"}
	case r.Insecure:
		text = "http://" + text
	default:
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return nil, &fault{code: codeURL, text: "the endpoint is no host[:port] and no URL of one"}
	case r.Provider != Azure && (strings.Trim(u.Path, "/") != "" || u.RawQuery != ""):
		return nil, &fault{code: codeURL, text: "the endpoint must not have a path"}
	case u.Scheme == "http" && !r.Insecure:
		return nil, &fault{code: codeURL, text: "the endpoint is reached over http, without TLS; set insecure if that is wanted"}
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, &fault{code: codeURL, text: fmt.Sprintf("scheme %s of the endpoint is not supported; use https", egress.Quote(u.Scheme))}
	}
	return u, nil
}

// account is the name of an Azure storage account: the first label of the host, or
// the first element of the path where the host is an address or has a single label,
// as that of an emulator.
func account(u *url.URL) (string, error) {
	host := u.Hostname()
	labels := strings.Split(host, ".")
	if _, err := netip.ParseAddr(host); err == nil || len(labels) == 1 {
		if first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/"); first != "" {
			return first, nil
		}
	} else if len(labels) > 2 {
		return labels[0], nil
	}
	return "", &fault{code: codeCredential, text: "an account key needs an endpoint that begins with the name of the storage account"}
}

// String names the bucket for messages, without anything secret.
func (r Request) String() string {
	text := fmt.Sprintf("bucket %s", egress.Quote(r.Bucket))
	if r.Prefix != "" {
		text += fmt.Sprintf(" below %s", egress.Quote(r.Prefix))
	}
	if u, err := r.endpoint(); err == nil {
		text += fmt.Sprintf(" at %s", egress.Quote(u.Scheme+"://"+u.Host+strings.TrimSuffix(u.Path, "/")))
	}
	return text
}
