package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// ObjectLevelGate is Flux's name of the feature gate for logins of service accounts.
const ObjectLevelGate = "ObjectLevelWorkloadIdentity"

const (
	// patience is how long one login may take, together with those that it needs.
	patience = 30 * time.Second
	// accountLife is how long what a service account says of itself is believed.
	accountLife = 30 * time.Second
)

// Identity is who logs in. The zero value is the operator itself.
type Identity struct {
	// Namespace and ServiceAccount name a service account; both are empty, or none.
	Namespace, ServiceAccount string
}

// String names the identity for people.
func (i Identity) String() string {
	if i.own() {
		return "the operator itself"
	}
	return fmt.Sprintf("service account '%s/%s'", i.Namespace, i.ServiceAccount)
}

func (i Identity) own() bool { return i == Identity{} }

// Request says where somebody logs in, as whom and by which way.
type Request struct {
	// Provider is the cloud: aws, azure or gcp.
	Provider string
	Identity Identity
	// Client is the managed identity of the machine, at Azure, as which the operator itself
	// logs in, where it has several; empty for what its environment says.
	Client string
	// Audiences are those of the service account's token; the cloud's own where there
	// are none.
	Audiences []string
	// Proxy is that of the object. Logins of the operator itself do not go through it:
	// they may be for the metadata service of the machine.
	Proxy egress.Proxy
}

// Options configure Logins.
type Options struct {
	// Clouds are those that are served, by their names.
	Clouds map[string]Cloud
	// Tokens asks the API server for a token of a service account, with its default
	// audiences where there are none.
	Tokens func(ctx context.Context, namespace, serviceAccount string, audiences []string) (token string, expires time.Time, err error)
	// Annotations reads those of a service account. What it gives is used for half a
	// minute.
	Annotations func(ctx context.Context, namespace, serviceAccount string) (map[string]string, error)
	// ServiceAccounts lets service accounts log in; without it only the operator does.
	ServiceAccounts bool
	// MaxTokens is how many logins are kept, 0 for none. MaxDuration is for how long at
	// most, 0 for an hour.
	MaxTokens   int
	MaxDuration time.Duration
	// Policy is for everything but logins of the operator itself. Private addresses are
	// refused to GitHub's API alone: clouds can have theirs there.
	Policy egress.Policy
	Clock  clock.PassiveClock
	// Transport takes the place of the network for all requests, in tests; nil for the
	// network.
	Transport http.RoundTripper
}

// Logins makes logins and keeps what they gave. It is safe for concurrent use.
type Logins struct {
	options  Options
	tokens   *cache
	accounts *cache
	own      *http.Client

	mu sync.Mutex // guards ways
	// ways are clients by what they were made of.
	ways map[string]*http.Client
}

// maxWays is how many clients for proxies and certificates are kept.
const maxWays = 100

// New makes Logins. Close ends what runs.
func New(options Options) *Logins {
	own := options.Transport
	if own == nil {
		own = ownTransport()
	}
	if options.MaxDuration <= 0 || options.MaxDuration > time.Hour {
		options.MaxDuration = time.Hour
	}
	return &Logins{
		options:  options,
		tokens:   newCache(options.MaxTokens, options.MaxDuration, options.Clock),
		accounts: newCache(maxAccounts, accountLife, options.Clock),
		own:      client(own),
		ways:     map[string]*http.Client{},
	}
}

// maxAccounts is how many service accounts are remembered.
const maxAccounts = 1000

// Close ends logins that are under way and waits for their end. Calls that follow are
// canceled.
func (l *Logins) Close() {
	l.tokens.close()
	l.accounts.close()
	l.own.CloseIdleConnections()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, way := range l.ways {
		way.CloseIdleConnections()
	}
}

// Registry logs in at a registry of images: url is that of a repository in it, with or
// without oci://.
func (l *Logins) Registry(ctx context.Context, r Request, url string) (Login, error) {
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "oci://"), "/")
	what := fmt.Sprintf("registry %s", egress.Quote(host))
	cloud, ok := l.options.Clouds[r.Provider].(Registries)
	if !ok {
		return Login{}, l.fail(ctx, r, what, l.unserved(r.Provider, func(c Cloud) bool { _, ok := c.(Registries); return ok }))
	}
	login, err := derive(ctx, l, r, []string{"registry", host}, func(ctx context.Context, s Session) (Login, time.Time, error) {
		login, err := cloud.Registry(ctx, host, s)
		return login, login.Expires, err
	})
	return login, l.fail(ctx, r, what, err)
}

// Git logs in at a Git server.
func (l *Logins) Git(ctx context.Context, r Request, repository string) (Login, error) {
	u, err := url.Parse(repository)
	if err != nil || u.Host == "" {
		return Login{}, l.fail(ctx, r, "a repository", &Problem{Kind: gitops.Stalled, Text: "its address is not a URL"})
	}
	u.User = nil
	what := fmt.Sprintf("repository %q", egress.Printable(u.Scheme+"://"+u.Host+u.Path))
	cloud, ok := l.options.Clouds[r.Provider].(Repositories)
	if !ok {
		return Login{}, l.fail(ctx, r, what, l.unserved(r.Provider, func(c Cloud) bool { _, ok := c.(Repositories); return ok }))
	}
	login, err := derive(ctx, l, r, []string{"git", u.String()}, func(ctx context.Context, s Session) (Login, time.Time, error) {
		login, err := cloud.Git(ctx, u, s)
		return login, login.Expires, err
	})
	return login, l.fail(ctx, r, what, err)
}

// Cluster logs in at a Kubernetes cluster of a cloud, and finds out its address and
// authority where they are not given.
func (l *Logins) Cluster(ctx context.Context, r Request, c Cluster) (Cluster, Login, error) {
	what := "a cluster"
	switch {
	case c.Name != "":
		what = fmt.Sprintf("cluster %s", egress.Quote(c.Name))
	case c.Address != "":
		what = fmt.Sprintf("the cluster at %s", egress.Quote(c.Address))
	}
	cloud, ok := l.options.Clouds[r.Provider].(Clusters)
	if !ok {
		return Cluster{}, Login{}, l.fail(ctx, r, what, l.unserved(r.Provider, func(c Cloud) bool { _, ok := c.(Clusters); return ok }))
	}
	type found struct {
		cluster Cluster
		login   Login
	}
	f, err := derive(ctx, l, r, []string{"cluster", c.Name, c.Address, string(c.CA)}, func(ctx context.Context, s Session) (found, time.Time, error) {
		cluster, login, err := cloud.Cluster(ctx, c, s)
		return found{cluster, login}, login.Expires, err
	})
	return f.cluster, f.login, l.fail(ctx, r, what, err)
}

// Bucket logs in for a bucket: in a region, which only aws needs, and at an address of the
// AWS security token service where one is given.
func (l *Logins) Bucket(ctx context.Context, r Request, region, stsEndpoint string) (Credential, error) {
	scope := Scope{Region: region, Endpoint: stsEndpoint}
	if cloud, ok := l.options.Clouds[r.Provider].(Buckets); ok {
		scope.Resource = cloud.BucketScope()
	}
	credential, err := l.access(ctx, r, scope)
	return credential, l.fail(ctx, r, "a bucket", err)
}

// Keys logs in for a service that keeps keys: at aws in a region, at azure for the scope
// that its client asks for.
func (l *Logins) Keys(ctx context.Context, r Request, scope Scope) (Credential, error) {
	credential, err := l.access(ctx, r, scope)
	return credential, l.fail(ctx, r, "a service that keeps keys", err)
}

// Token is one of a service account, from the API server. Own says that the account is that
// of the operator itself.
func (l *Logins) Token(ctx context.Context, who Identity, audiences []string, own bool) (Login, error) {
	r := Request{Provider: "kubernetes", Identity: who, Audiences: audiences}
	if !l.options.ServiceAccounts && !own {
		return Login{}, l.fail(ctx, r, "a token", gateOff())
	}
	key := keyOf(append([]string{"token", who.Namespace, who.ServiceAccount}, audiences...)...)
	value, err := l.tokens.get(ctx, key, func(ctx context.Context) (any, time.Time, error) {
		token, expires, err := l.token(ctx, who, audiences)
		return Login{Bearer: token, Expires: expires}, expires, err
	})
	login, _ := value.(Login)
	return login, l.fail(ctx, r, "a token", err)
}

// access gives what a cloud lets somebody in with.
func (l *Logins) access(ctx context.Context, r Request, scope Scope) (Credential, error) {
	cloud := l.options.Clouds[r.Provider]
	if cloud == nil {
		return Credential{}, l.unserved(r.Provider, func(Cloud) bool { return true })
	}
	claim, err := l.claim(ctx, r)
	if err != nil {
		return Credential{}, err
	}
	key := l.key(r, claim, "access", scope.Resource, scope.Region, scope.Endpoint)
	value, err := l.tokens.get(ctx, key, func(ctx context.Context) (any, time.Time, error) {
		subject := Subject{Identity: r.Identity, Client: r.Client, Claim: claim, HTTP: l.own}
		if !r.Identity.own() {
			var err error
			if subject.HTTP, err = l.way(way{proxy: r.Proxy}); err != nil {
				return nil, time.Time{}, err
			}
			if subject.Token, _, err = l.token(ctx, r.Identity, claim.Audiences); err != nil {
				return nil, time.Time{}, err
			}
		}
		credential, err := cloud.Access(ctx, subject, scope)
		return credential, credential.Expires, err
	})
	credential, _ := value.(Credential)
	return credential, err
}

// claim is what a service account asks to become; nothing for the operator itself.
func (l *Logins) claim(ctx context.Context, r Request) (Claim, error) {
	if r.Identity.own() {
		return Claim{}, nil
	}
	if !l.options.ServiceAccounts {
		return Claim{}, gateOff()
	}
	if r.Identity.Namespace == "" || r.Identity.ServiceAccount == "" {
		return Claim{}, &Problem{Kind: gitops.Internal, Text: "the service account has no namespace or no name"}
	}
	annotations, err := l.annotations(ctx, r.Identity)
	if err != nil {
		return Claim{}, err
	}
	claim, err := l.options.Clouds[r.Provider].Claim(ctx, l.own, annotations)
	if len(r.Audiences) > 0 {
		claim.Audiences = slices.Clone(r.Audiences)
	}
	return claim, err
}

// key tells apart all that a login is made of.
func (l *Logins) key(r Request, claim Claim, parts ...string) string {
	all := append([]string{r.Provider, r.Identity.Namespace, r.Identity.ServiceAccount, r.Client, claim.Identity,
		r.Proxy.Address, r.Proxy.Username, r.Proxy.Password, fmt.Sprint(len(claim.Audiences))}, claim.Audiences...)
	return keyOf(append(all, parts...)...)
}

// derive gives what is made of a cloud's access, and keeps it.
func derive[T any](ctx context.Context, l *Logins, r Request, parts []string, make func(context.Context, Session) (T, time.Time, error)) (T, error) {
	var none T
	claim, err := l.claim(ctx, r)
	if err != nil {
		return none, err
	}
	value, err := l.tokens.get(ctx, l.key(r, claim, parts...), func(ctx context.Context) (any, time.Time, error) {
		out, err := l.way(way{proxy: r.Proxy})
		if err != nil {
			return none, time.Time{}, err
		}
		return make(ctx, Session{Own: r.Identity.own(), HTTP: out, Now: l.options.Clock.Now, Access: func(scope Scope) (Credential, error) { return l.access(ctx, r, scope) }})
	})
	made, ok := value.(T)
	if !ok {
		return none, err
	}
	return made, err
}

func gateOff() error {
	return &Problem{Kind: gitops.Stalled, Reason: reasonGate, Text: fmt.Sprintf(
		"service accounts do not log in: the operator's feature gate %s is off; set --feature-gates=%s=true", ObjectLevelGate, ObjectLevelGate)}
}

// unserved says which providers there are for a purpose.
func (l *Logins) unserved(provider string, serves func(Cloud) bool) error {
	var names []string
	for name, cloud := range l.options.Clouds {
		if serves(cloud) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return &Problem{Kind: gitops.Stalled, Reason: reasonProvider, Text: fmt.Sprintf(
		"there is no such provider for this: there are %s", strings.Join(names, ", "))}
}

// fail puts an error of a login into the form of a stage's; nil for nil.
func (l *Logins) fail(ctx context.Context, r Request, what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	kind, reason, text := explain(ctx, err)
	return &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: reason,
		Cause: fmt.Errorf("log in at provider %s as %s for %s: %s", egress.Quote(r.Provider), r.Identity, what, text)}
}
