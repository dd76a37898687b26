package helmrepo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Auth is a credential for a repository; its zero value is none.
type Auth struct{ Username, Password string }

// Repository says where charts come from, and how it is reached.
type Repository struct {
	// URL is that of the folder of index.yaml: http or https. With a Registry it is
	// oci://host/path.
	URL  string
	Auth Auth
	// TLS is how the server is trusted. Its CA stands beside the system's authorities, as
	// charts often are on other hosts than their index.
	TLS   egress.TLS
	Proxy egress.Proxy
	// PassCredentials sends the credential also to other hosts, where the index has the
	// URLs of charts there.
	PassCredentials bool
	Policy          egress.Policy
	// Registry is how charts are got from an OCI registry; nil for HTTP. URL is all that is
	// used beside it.
	Registry *Registry
}

// Registry gets charts from one OCI registry, with the credential and the verification of
// one owner. All three functions end with their context, limit what they read, and return
// errors that name the registry and no secret, best as gitops.Error. A repository is
// host/path.
type Registry struct {
	// Identity tells two credentials for the same URL apart, so that nobody gets through
	// the store what the own credential would not give. It is not shown.
	Identity string
	// Tags lists the tags of a repository.
	Tags func(ctx context.Context, repository string) ([]string, error)
	// Resolve gives the digest of the manifest that a tag stands for, after everything was
	// verified that has to be, and by what: empty where nothing was.
	Resolve func(ctx context.Context, repository, tag string) (digest, verified string, err error)
	// Pull opens the layer with the chart of the manifest with a digest. What is read has
	// the digest that the manifest says, or the last read is an error.
	Pull func(ctx context.Context, repository, digest string) (io.ReadCloser, error)
}

// base is a repository's URL for requests, with a slash at the end and without a
// credential, which is given beside it. The error is about the owner's specification.
func (r Repository) base() (*url.URL, Auth, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Opaque != "" {
		return nil, Auth{}, errors.New("it is not a URL")
	}
	switch {
	case r.Registry != nil && u.Scheme != "oci":
		return nil, Auth{}, fmt.Errorf("scheme %s is not that of a registry; use oci", egress.Quote(u.Scheme))
	case r.Registry == nil && u.Scheme == "oci":
		return nil, Auth{}, errors.New(`"oci" URLs are for repositories of type "oci"`)
	case r.Registry == nil && u.Scheme != "http" && u.Scheme != "https":
		return nil, Auth{}, fmt.Errorf("scheme %s is not supported; use http, https or oci", egress.Quote(u.Scheme))
	}
	if u.Hostname() == "" {
		return nil, Auth{}, errors.New("it names no host")
	}
	auth := r.Auth
	if u.User != nil && auth == (Auth{}) {
		auth.Username = u.User.Username()
		auth.Password, _ = u.User.Password()
	}
	u.User, u.Fragment = nil, ""
	u.Path = strings.TrimRight(u.Path, "/") + "/"
	if u.RawPath != "" {
		u.RawPath = strings.TrimRight(u.RawPath, "/") + "/"
	}
	return u, auth, nil
}

// redacted is a URL for messages: without a user, a password, a query.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Host == "" && strings.Contains(text, "@") {
		return "a URL that cannot be read"
	}
	return egress.Printable(shown(u))
}

func shown(u *url.URL) string {
	plain := *u
	plain.User, plain.RawQuery, plain.ForceQuery, plain.Fragment, plain.RawFragment = nil, "", false, "", ""
	return plain.String()
}

// resolve makes the URL of a chart in the index whole, as Helm does: a relative one is
// below the repository and has its query.
func resolve(base *url.URL, reference string) (*url.URL, error) {
	u, err := url.Parse(reference)
	if err != nil {
		return nil, errors.New("the index has a URL for it that cannot be read")
	}
	if u.IsAbs() {
		return u, nil
	}
	whole := base.ResolveReference(u)
	whole.RawQuery = base.RawQuery
	return whole, nil
}

// origin is the server of a URL.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// remote is a repository as one credential sees it.
type remote struct {
	*shelf
	base *url.URL
	auth Auth
	// own gives credential and client certificate to the repository's server only; all
	// gives them to the server that is asked. The latter is nil without PassCredentials.
	own, all *egress.Transport
	polls    *polls
}

// newRemote makes a connection, which has no shelf yet.
func newRemote(r Repository) (*remote, error) {
	base, auth, err := r.base()
	if err != nil {
		return nil, fault(gitops.Stalled, ReasonURL, fmt.Errorf("repository %q: %w", redacted(r.URL), err))
	}
	made := &remote{base: base, auth: auth, polls: newPolls()}
	if r.Registry != nil {
		return made, nil
	}
	options := egress.Options{TLS: r.TLS, Proxy: r.Proxy, Policy: r.Policy, Origin: origin(base)}
	if made.own, err = egress.NewTransport(options); err == nil && r.PassCredentials {
		options.Origin = ""
		made.all, err = egress.NewTransport(options)
	}
	if err != nil {
		return nil, fault(gitops.Stalled, ReasonAuthentication, fmt.Errorf("repository %q: %w", redacted(r.URL), err))
	}
	return made, nil
}

// close lets go of connections.
func (r *remote) close() {
	for _, t := range []*egress.Transport{r.own, r.all} {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
}
