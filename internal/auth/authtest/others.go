package authtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// What there is in Azure and Google Cloud, and the only ones that are let in.
const (
	AzureTenant  = "11111111-1111-1111-1111-111111111111"
	AzureClient  = "22222222-2222-2222-2222-222222222222"
	AzureCluster = "/subscriptions/33333333-3333-3333-3333-333333333333/resourceGroups/group/providers/Microsoft.ContainerService/managedClusters/far"
	GooglePool   = "projects/123/locations/global/workloadIdentityPools/pool/providers/provider"
	GoogleEmail  = "apps@project.iam.gserviceaccount.com"
	GoogleFar    = "projects/project/locations/europe-west3/clusters/far"
)

// bearer is a token that says who has it and what it is for.
func bearer(holder, scope string) string {
	return Canary + "." + base64.RawURLEncoding.EncodeToString([]byte(holder+" for "+scope)) + ".x"
}

// Holder reads from a token of the stand-in whose it is and for what.
func Holder(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	text, _ := base64.RawURLEncoding.DecodeString(parts[1])
	return string(text)
}

func (c *Clouds) entra(w http.ResponseWriter, r *http.Request) {
	base := "https://" + r.Host + "/" + AzureTenant
	switch {
	case strings.HasPrefix(r.URL.Path, "/common/discovery/instance"):
		answer(w, http.StatusOK, map[string]any{"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration",
			"metadata": []any{map[string]any{"preferred_network": r.Host, "preferred_cache": r.Host, "aliases": []string{r.Host}}}})
	case r.URL.Path == "/"+AzureTenant+"/v2.0/.well-known/openid-configuration":
		answer(w, http.StatusOK, map[string]any{"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0"})
	case r.URL.Path == "/"+AzureTenant+"/oauth2/v2.0/token":
		holder, err := subject(r.FormValue("client_assertion"), "api://AzureADTokenExchange")
		if err != nil || r.FormValue("client_id") != AzureClient {
			answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client",
				"error_description": fmt.Sprintf("AADSTS700211: No matching federated identity record found. %s Trace ID: %d", Canary, len(c.Asked("")))})
			return
		}
		scope, _, _ := strings.Cut(r.FormValue("scope"), " ")
		answer(w, http.StatusOK, map[string]any{"access_token": bearer(holder, scope), "expires_in": 3600, "token_type": "Bearer"})
	default:
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_request", "error_description": "AADSTS90002: Tenant not found. " + Canary})
	}
}

func (c *Clouds) azureMetadata(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata") != "true" || r.URL.Path != "/metadata/identity/oauth2/token" {
		http.NotFound(w, r)
		return
	}
	holder := "the machine"
	if client := r.FormValue("client_id"); client != "" {
		holder += " as " + client
	}
	answer(w, http.StatusOK, map[string]any{"access_token": bearer(holder, r.FormValue("resource")), "expires_in": "3600", "expires_on": fmt.Sprint(c.Expires().Unix()),
		"resource": r.FormValue("resource"), "token_type": "Bearer"})
}

func (c *Clouds) azureRegistry(w http.ResponseWriter, r *http.Request) {
	// The metadata service of a machine takes a scope without its end.
	holder, ok := strings.CutSuffix(strings.TrimSuffix(Holder(r.FormValue("access_token")), "/.default"), " for https://containerregistry.azure.net")
	if r.URL.Path != "/oauth2/exchange" || r.FormValue("grant_type") != "access_token" || r.FormValue("service") != r.Host || !ok {
		answer(w, http.StatusUnauthorized, map[string]any{"errors": []any{map[string]any{"code": "UNAUTHORIZED", "message": Canary}}})
		return
	}
	payload, _ := json.Marshal(map[string]any{"exp": c.Expires().Unix()})
	answer(w, http.StatusOK, map[string]any{"refresh_token": base64.RawURLEncoding.EncodeToString([]byte(holder+" at "+r.Host)) + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + Canary})
}

func (c *Clouds) azureManager(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !strings.Contains(Holder(token), " for https://management.core.windows.net/") {
		answer(w, http.StatusForbidden, map[string]any{"error": map[string]any{"code": "AuthorizationFailed", "message": Canary}})
		return
	}
	switch {
	case r.URL.Query().Get("api-version") == "":
		answer(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"code": "MissingApiVersionParameter"}})
	case r.Method == http.MethodGet && r.URL.Path == AzureCluster:
		answer(w, http.StatusOK, map[string]any{"properties": map[string]any{"aadProfile": map[string]any{"managed": true}}})
	case r.Method == http.MethodGet && r.URL.Path == strings.Replace(AzureCluster, "/far", "/closed", 1):
		answer(w, http.StatusOK, map[string]any{"properties": map[string]any{}})
	case r.Method == http.MethodPost && r.URL.Path == AzureCluster+"/listClusterUserCredential":
		one := func(host string) map[string]any {
			return map[string]any{"name": host, "value": []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: far
contexts: [{name: far, context: {cluster: far, user: far}}]
clusters: [{name: far, cluster: {server: "https://%s:443", certificate-authority-data: %s}}]
users: [{name: far, user: {exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: kubelogin}}}]
`, host, base64.StdEncoding.EncodeToString([]byte("the authority of "+host))))}
		}
		answer(w, http.StatusOK, map[string]any{"kubeconfigs": []any{one("far.azmk8s.io"), one("second.azmk8s.io")}})
	default:
		answer(w, http.StatusNotFound, map[string]any{"error": map[string]any{"code": "ResourceNotFound", "message": Canary}})
	}
}

func (c *Clouds) google(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case r.Host == "sts.googleapis.com" && r.URL.Path == "/v1/token":
		audience, pool := r.FormValue("audience"), "//iam.googleapis.com/"+GooglePool
		if audience == "identitynamespace:here.svc.id.goog:https://container.googleapis.com/v1/projects/here/locations/europe-west3/clusters/home" {
			pool = "here.svc.id.goog"
		}
		holder, err := subject(r.FormValue("subject_token"), pool)
		if err != nil || r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" || (audience != pool && pool != "here.svc.id.goog") {
			answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": Canary})
			return
		}
		token := bearer(holder, "exchange")
		if c.GoogleToken != "" {
			token = c.GoogleToken
		}
		answer(w, http.StatusOK, map[string]any{"access_token": token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 3600})
	case r.Host == "iamcredentials.googleapis.com" && r.URL.Path == "/v1/projects/-/serviceAccounts/"+GoogleEmail+":generateAccessToken" && strings.HasSuffix(Holder(token), " for exchange"):
		answer(w, http.StatusOK, map[string]any{"accessToken": bearer(GoogleEmail, strings.TrimSuffix(Holder(token), " for exchange")), "expireTime": c.Expires()})
	case r.Host == "container.googleapis.com" && r.URL.Path == "/v1/"+GoogleFar && (Holder(token) != "" || token == c.GoogleToken):
		answer(w, http.StatusOK, map[string]any{"endpoint": c.GoogleAddress, "masterAuth": map[string]any{"clusterCaCertificate": c.GoogleCA}})
	default:
		answer(w, http.StatusForbidden, map[string]any{"error": map[string]any{"code": 403, "status": "PERMISSION_DENIED", "message": Canary}})
	}
}

func (c *Clouds) googleMetadata(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Metadata-Flavor", "Google")
	const base = "/computeMetadata/v1/"
	switch r.URL.Path {
	case base + "project/project-id":
		_, _ = fmt.Fprint(w, "here")
	case base + "instance/attributes/cluster-location":
		_, _ = fmt.Fprint(w, "europe-west3")
	case base + "instance/attributes/cluster-name":
		_, _ = fmt.Fprint(w, "home")
	case base + "instance/service-accounts/default/token":
		answer(w, http.StatusOK, map[string]any{"access_token": bearer("the machine", r.FormValue("scopes")), "expires_in": 3600, "token_type": "Bearer"})
	default:
		http.NotFound(w, r)
	}
}

func (c *Clouds) github(w http.ResponseWriter, r *http.Request) {
	claim := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	parsed, err := jwt.ParseWithClaims(claim, &jwt.RegisteredClaims{}, func(*jwt.Token) (any, error) { return c.GitHubKey, nil }, jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired())
	if err != nil || !parsed.Valid || parsed.Claims.(*jwt.RegisteredClaims).Issuer != "42" {
		answer(w, http.StatusUnauthorized, map[string]any{"message": Canary})
		return
	}
	path := r.URL.Path
	if r.Host == "github.example.com" {
		var ok bool
		if path, ok = strings.CutPrefix(path, "/api/v3"); !ok {
			http.NotFound(w, r)
			return
		}
	}
	switch r.Method + " " + path {
	case "GET /orgs/acme/installation":
		answer(w, http.StatusOK, map[string]any{"id": 7})
	case "GET /users/" + url.PathEscape("someone") + "/installation":
		answer(w, http.StatusOK, map[string]any{"id": 8})
	case "POST /app/installations/7/access_tokens", "POST /app/installations/8/access_tokens":
		answer(w, http.StatusCreated, map[string]any{"token": Canary + " of " + path[len("/app/installations/"):len("/app/installations/")+1], "expires_at": c.Expires()})
	default:
		answer(w, http.StatusNotFound, map[string]any{"message": Canary})
	}
}
