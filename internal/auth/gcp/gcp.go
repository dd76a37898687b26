// Package gcp logs in at Google Cloud, its registries and its Kubernetes clusters (GKE).
//
// Google's library for OAuth exchanges tokens and finds the operator's own identity. The
// single request for a cluster is made here: the client for it weighs megabytes.
package gcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"cloud.google.com/go/compute/metadata"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/google/externalaccount"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Name is that of the provider.
const Name = "gcp"

const (
	accountAnnotation = "iam.gke.io/gcp-service-account"

	universe     = "googleapis.com"
	exchangeURL  = "https://sts.googleapis.com/v1/token"
	introspect   = "https://sts.googleapis.com/v1/introspect"
	impersonate  = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/%s:generateAccessToken"
	clusterURL   = "https://container.googleapis.com/v1/"
	registryUser = "oauth2accesstoken"
)

func scopes() []string {
	return []string{"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/userinfo.email"}
}

// Cloud implements auth.Cloud and what goes with it.
type Cloud struct {
	// annotation is the one that names a workload identity provider.
	annotation                                 string
	email, provider, registry, cluster, status *regexp.Regexp

	mu sync.Mutex // guards gke
	// gke is the cluster that the operator is in; nil until it has been asked for.
	gke *gke
}

// New makes a Cloud. Outside of GKE the annotation of a service account names the workload
// identity provider that trusts its tokens.
func New(annotation string) *Cloud {
	return &Cloud{
		annotation: annotation,
		email:      regexp.MustCompile(`^[a-zA-Z0-9-]{1,100}@[a-zA-Z0-9.-]{1,100}\.iam\.gserviceaccount\.com$`),
		provider:   regexp.MustCompile(`^projects/\d{1,30}/locations/global/workloadIdentityPools/[^/\s]{1,100}/providers/[^/\s]{1,100}$`),
		registry:   regexp.MustCompile(`^(([a-z0-9.-]+\.)?gcr\.io|[a-z0-9.-]+-docker\.pkg\.dev|docker\.s3nsregistry\.fr)$`),
		cluster:    regexp.MustCompile(`^projects/[a-z0-9.:-]{1,200}/locations/[a-z0-9-]{1,200}/clusters/[a-z0-9-]{1,200}$`),
		status:     regexp.MustCompile(`status code (\d{3})`),
	}
}

// gke says which cluster of GKE the operator is in.
type gke struct{ project, location, name string }

func (g *gke) pool() string { return g.project + ".svc.id.goog" }

func (g *gke) audience() string {
	return fmt.Sprintf("identitynamespace:%s:https://container.googleapis.com/v1/projects/%s/locations/%s/clusters/%s", g.pool(), g.project, g.location, g.name)
}

// here asks the metadata service which cluster the operator is in, until it is known.
func (c *Cloud) here(ctx context.Context, own *http.Client) (*gke, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gke != nil {
		return c.gke, nil
	}
	client := metadata.NewClient(own)
	found := &gke{}
	for _, part := range []struct {
		path string
		to   *string
	}{{"project/project-id", &found.project}, {"instance/attributes/cluster-location", &found.location}, {"instance/attributes/cluster-name", &found.name}} {
		value, err := client.GetWithContext(ctx, part.path)
		if *part.to = strings.TrimSpace(value); err != nil || *part.to == "" {
			return nil, auth.Misconfigured("it has no annotation %s, which it needs outside of GKE; in GKE the metadata service has to tell the cluster's %s", c.annotation, part.path)
		}
	}
	c.gke = found
	return found, nil
}

// Claim reads what a service account asks to become: a Google service account, or what
// Google makes of itself.
func (c *Cloud) Claim(ctx context.Context, own *http.Client, annotations map[string]string) (auth.Claim, error) {
	email, provider := annotations[accountAnnotation], annotations[c.annotation]
	if email != "" && !c.email.MatchString(email) {
		return auth.Claim{}, auth.Misconfigured("its annotation %s is no address as NAME@PROJECT.iam.gserviceaccount.com", accountAnnotation)
	}
	if provider != "" {
		if !c.provider.MatchString(provider) {
			return auth.Claim{}, auth.Misconfigured("its annotation %s is no name as projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER", c.annotation)
		}
		audience := "//iam.googleapis.com/" + provider
		return claim(audience, audience, email)
	}
	in, err := c.here(ctx, own)
	if err != nil {
		return auth.Claim{}, err
	}
	return claim(in.pool(), in.audience(), email)
}

// claimed is what a Claim's Identity says.
type claimed struct {
	// Audience is that of the exchange, Email the service account to become.
	Audience string `json:"audience"`
	Email    string `json:"email,omitempty"`
}

func claim(token, exchange, email string) (auth.Claim, error) {
	identity, err := json.Marshal(claimed{exchange, email})
	return auth.Claim{Audiences: []string{token}, Identity: string(identity)}, err
}

// Access gives a token of the operator's own identity, or of that of a service account.
func (c *Cloud) Access(ctx context.Context, who auth.Subject, _ auth.Scope) (auth.Credential, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, who.HTTP)
	source, err := c.source(ctx, who)
	if err != nil {
		return auth.Credential{}, auth.Misconfigured("no identity is found; see that the operator has one: workload identity of GKE, that of the machine, or GOOGLE_APPLICATION_CREDENTIALS")
	}
	token, err := source.Token()
	if err != nil {
		if err = c.refusal(err, remedy(who)); who.Own() {
			err = auth.Hinted(err, remedy(who))
		}
		return auth.Credential{}, err
	}
	if token.AccessToken == "" {
		return auth.Credential{}, &auth.Problem{Kind: gitops.Transient, Text: "the answer has no token"}
	}
	return auth.Credential{Bearer: token.AccessToken, Expires: token.Expiry}, nil
}

func (c *Cloud) source(ctx context.Context, who auth.Subject) (oauth2.TokenSource, error) {
	if who.Own() {
		return google.DefaultTokenSource(ctx, scopes()...)
	}
	var is claimed
	if err := json.Unmarshal([]byte(who.Claim.Identity), &is); err != nil {
		return nil, err
	}
	config := externalaccount.Config{
		UniverseDomain: universe, Audience: is.Audience, SubjectTokenType: "urn:ietf:params:oauth:token-type:jwt",
		TokenURL: exchangeURL, SubjectTokenSupplier: supplier(who.Token), Scopes: scopes(),
	}
	if is.Email != "" {
		config.ServiceAccountImpersonationURL = fmt.Sprintf(impersonate, is.Email)
	} else {
		config.TokenInfoURL = introspect
	}
	return externalaccount.NewTokenSource(ctx, config)
}

// supplier gives the token of a service account.
type supplier string

// SubjectToken gives it.
func (s supplier) SubjectToken(context.Context, externalaccount.SupplierOptions) (string, error) {
	return string(s), nil
}

func remedy(who auth.Subject) string {
	if who.Own() {
		return "see that the operator has an identity: workload identity of GKE, that of the machine, or GOOGLE_APPLICATION_CREDENTIALS"
	}
	return fmt.Sprintf("see that the workload identity pool trusts the cluster's issuer and audience %s, and that the Google service account, if one is named, lets subject system:serviceaccount:%s:%s become it",
		strings.Join(who.Claim.Audiences, ","), who.Identity.Namespace, who.Identity.ServiceAccount)
}

// refusal takes the code from an answer of Google, and keeps an error of the network. What
// the library says of an exchange has the whole answer in it.
func (c *Cloud) refusal(err error, remedy string) error {
	var retrieve *oauth2.RetrieveError
	var problem *metadata.Error
	switch {
	case errors.As(err, &retrieve):
		refused := &auth.Refusal{Code: retrieve.ErrorCode, Remedy: remedy}
		if retrieve.Response != nil {
			refused.Status = retrieve.Response.StatusCode
		}
		return refused
	case errors.As(err, &problem):
		return &auth.Refusal{Status: problem.Code, Remedy: remedy}
	}
	if found := c.status.FindStringSubmatch(err.Error()); found != nil {
		status, _ := strconv.Atoi(found[1])
		return &auth.Refusal{Status: status, Remedy: remedy}
	}
	return err
}

// Registry gives a token that registries take as a password.
func (c *Cloud) Registry(_ context.Context, host string, s auth.Session) (auth.Login, error) {
	if !c.registry.MatchString(host) {
		return auth.Login{}, auth.Misconfigured("it is no registry of Google Cloud as LOCATION-docker.pkg.dev or gcr.io")
	}
	access, err := s.Access(auth.Scope{})
	return auth.Login{Username: registryUser, Password: access.Bearer, Expires: access.Expires}, err
}

// Cluster logs in at a cluster of GKE.
func (c *Cloud) Cluster(ctx context.Context, cluster auth.Cluster, s auth.Session) (auth.Cluster, auth.Login, error) {
	access, err := s.Access(auth.Scope{})
	if err != nil {
		return auth.Cluster{}, auth.Login{}, err
	}
	if !cluster.Complete(s) {
		if err := c.describe(ctx, &cluster, access, s); err != nil {
			return auth.Cluster{}, auth.Login{}, err
		}
	}
	return cluster, auth.Login{Bearer: access.Bearer, Expires: access.Expires}, nil
}

// describe asks for what is missing of a cluster.
func (c *Cloud) describe(ctx context.Context, cluster *auth.Cluster, access auth.Credential, s auth.Session) error {
	if !c.cluster.MatchString(cluster.Name) {
		return auth.Misconfigured("its name is none as projects/PROJECT/locations/LOCATION/clusters/NAME")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, clusterURL+cluster.Name, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+access.Bearer)
	var answer struct {
		Endpoint string `json:"endpoint"`
		Auth     struct {
			CA []byte `json:"clusterCaCertificate"`
		} `json:"masterAuth"`
		Private struct {
			Private string `json:"privateEndpoint"`
			Public  string `json:"publicEndpoint"`
		} `json:"privateClusterConfig"`
		Plane struct {
			DNS struct {
				Endpoint string `json:"endpoint"`
			} `json:"dnsEndpointConfig"`
		} `json:"controlPlaneEndpointsConfig"`
	}
	if err := auth.Ask(s.HTTP, request, &answer, code); err != nil {
		return auth.Remedied(err, "see that the cluster exists and that its identity may call container.clusters.get")
	}
	if answer.Endpoint == "" || len(answer.Auth.CA) == 0 {
		return &auth.Problem{Kind: gitops.Transient, Text: "Google Cloud knows no address of it yet; it may be under construction"}
	}
	if !cluster.Locate(answer.Auth.CA, answer.Endpoint, answer.Private.Private, answer.Private.Public, answer.Plane.DNS.Endpoint) {
		return auth.ElsewhereError()
	}
	if dns := answer.Plane.DNS.Endpoint; dns != "" && auth.SameAddress(cluster.Address, dns) && bytes.Equal(cluster.CA, answer.Auth.CA) {
		cluster.CA = nil // There the certificate is of a public authority.
	}
	return nil
}

// code finds the name of an error.
func code(_ http.Header, body []byte) string {
	var answer struct {
		Error struct {
			Status string `json:"status"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &answer)
	return answer.Error.Status
}
