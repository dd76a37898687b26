package auth

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// githubAPI is where GitHub's own API is.
	githubAPI = "https://api.github.com"
	// githubUser is the user of an installation's token.
	githubUser = "x-access-token"
	// skew is by how much GitHub's clock may be behind, and claimLife is how long what
	// the app says of itself is valid: one login.
	skew      = 30 * time.Second
	claimLife = 2 * time.Minute
)

// App is an installation of a GitHub App. Exactly one of InstallationID and
// InstallationOwner is set.
type App struct {
	// ID is the number of the app.
	ID string
	// InstallationID is the number of the installation, InstallationOwner the
	// organization or user whose it is.
	InstallationID, InstallationOwner string
	// PrivateKey is an RSA key of the app, in PEM.
	PrivateKey []byte
	// BaseURL is that of the API, such as https://HOST/api/v3 for GitHub Enterprise
	// Server; empty for GitHub's own.
	BaseURL string
	// TLS and Proxy say how the API is reached.
	TLS   egress.TLS
	Proxy egress.Proxy
}

// GitHubApp gives the user and the token of an installation, which Git and the API take.
func (l *Logins) GitHubApp(ctx context.Context, app App) (Login, error) {
	key := keyOf("github", app.ID, app.InstallationID, app.InstallationOwner, string(app.PrivateKey), app.BaseURL,
		string(app.TLS.CA), string(app.TLS.Certificate), string(app.TLS.Key), fmt.Sprint(app.TLS.Insecure),
		app.Proxy.Address, app.Proxy.Username, app.Proxy.Password)
	value, err := l.tokens.get(ctx, key, func(ctx context.Context) (any, time.Time, error) {
		login, err := l.installation(ctx, app)
		return login, login.Expires, err
	})
	if err == nil {
		return value.(Login), nil
	}
	if errors.Is(err, context.Canceled) {
		return Login{}, err
	}
	kind, reason, text := explain(ctx, err)
	return Login{}, &gitops.Error{Stage: gitops.StageFetch, Kind: kind, Reason: reason,
		Cause: fmt.Errorf("log in as GitHub App %s: %s", egress.Quote(app.ID), text)}
}

// installation asks for a token.
func (l *Logins) installation(ctx context.Context, app App) (Login, error) {
	api, key, err := app.check(l.options.Policy)
	if err != nil {
		return Login{}, err
	}
	client, err := l.way(way{proxy: app.Proxy, tls: app.TLS, named: true})
	if err != nil {
		return Login{}, err
	}
	issued := l.options.Clock.Now().Add(-skew).Truncate(time.Second)
	claim, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.RegisteredClaims{
		Issuer: app.ID, IssuedAt: jwt.NewNumericDate(issued), ExpiresAt: jwt.NewNumericDate(issued.Add(claimLife)),
	}).SignedString(key)
	if err != nil {
		return Login{}, Misconfigured("the private key cannot be used; it needs an RSA key of the app")
	}
	ask := func(method, path string, to any) error {
		request, err := http.NewRequestWithContext(ctx, method, api+path, nil)
		if err != nil {
			return Misconfigured("the base URL is none")
		}
		request.Header.Set("Accept", "application/vnd.github+json")
		request.Header.Set("Authorization", "Bearer "+claim)
		return Ask(client, request, to, nil)
	}
	id := app.InstallationID
	if id == "" {
		if id, err = app.find(ask); err != nil {
			return Login{}, err
		}
	}
	var token struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	if err := ask(http.MethodPost, "/app/installations/"+id+"/access_tokens", &token); err != nil {
		return Login{}, Remedied(err, "see that the app's id and private key belong together, and that it is installed there")
	}
	if token.Token == "" {
		return Login{}, &Problem{Kind: gitops.Transient, Text: "the answer has no token"}
	}
	return Login{Username: githubUser, Password: token.Token, Expires: token.Expires}, nil
}

// find asks for the installation of the owner: an organization or else a user.
func (a App) find(ask func(method, path string, to any) error) (string, error) {
	var err error
	for _, kind := range []string{"orgs", "users"} {
		var installation struct {
			ID int64 `json:"id"`
		}
		err = ask(http.MethodGet, "/"+kind+"/"+url.PathEscape(a.InstallationOwner)+"/installation", &installation)
		if err == nil && installation.ID > 0 {
			return strconv.FormatInt(installation.ID, 10), nil
		}
		var refusal *Refusal
		if err != nil && (!errors.As(err, &refusal) || refusal.Status != http.StatusNotFound) {
			return "", Remedied(err, "see that the app's id and private key belong together")
		}
	}
	return "", Misconfigured("it is not installed for %s; install it, or correct the owner", egress.Quote(a.InstallationOwner))
}

// check reads what is given.
func (a App) check(policy egress.Policy) (api string, key *rsa.PrivateKey, err error) {
	number := func(text string) bool { _, err := strconv.ParseUint(text, 10, 63); return err == nil }
	switch {
	case !number(a.ID):
		return "", nil, Misconfigured("the app's id is not a number")
	case a.InstallationID == "" && a.InstallationOwner == "":
		return "", nil, Misconfigured("it needs the id or the owner of an installation")
	case a.InstallationID != "" && a.InstallationOwner != "":
		return "", nil, Misconfigured("it has both the id and the owner of an installation; give one")
	case a.InstallationID != "" && !number(a.InstallationID):
		return "", nil, Misconfigured("the installation's id is not a number")
	}
	var large *egress.Misconfigured
	if errors.As(egress.CheckKey(a.PrivateKey), &large) {
		return "", nil, Misconfigured("%s", large.Text)
	}
	if key, err = jwt.ParseRSAPrivateKeyFromPEM(a.PrivateKey); err != nil {
		return "", nil, Misconfigured("the private key is not an RSA key in PEM")
	}
	if a.BaseURL == "" {
		return githubAPI, key, nil
	}
	u, err := url.Parse(a.BaseURL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "https" && u.Scheme != "http"):
		return "", nil, Misconfigured("the base URL is not one as https://HOST/api/v3")
	case u.Scheme == "http" && policy.NoPlainCredentials:
		return "", nil, Misconfigured("the base URL is not https, which --no-plain-credentials asks for")
	}
	return strings.TrimSuffix(u.String(), "/"), key, nil
}
