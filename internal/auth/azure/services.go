package azure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// registryUser is the user of a registry's token:
	// https://learn.microsoft.com/azure/container-registry/container-registry-authentication
	registryUser = "00000000-0000-0000-0000-000000000000"
	// clusterVersion is that of the resource manager's API for clusters.
	clusterVersion = "2024-09-01"
)

// Registry logs in at a registry.
func (c *Cloud) Registry(ctx context.Context, host string, s auth.Session) (auth.Login, error) {
	e, err := readEnvironment()
	if err != nil {
		return auth.Login{}, err
	}
	scope := registryScope
	if e != nil {
		scope = strings.TrimSuffix(e.Manager, "/") + "/.default"
	}
	if !c.registry.MatchString(host) && (e == nil || e.RegistrySuffix == "" || !strings.HasSuffix(host, "."+strings.TrimPrefix(e.RegistrySuffix, "."))) {
		return auth.Login{}, auth.Misconfigured("it is no registry of Azure as NAME.azurecr.io")
	}
	access, err := s.Access(auth.Scope{Resource: scope})
	if err != nil {
		return auth.Login{}, err
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {host}, "access_token": {access.Bearer}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/oauth2/exchange", strings.NewReader(form.Encode()))
	if err != nil {
		return auth.Login{}, auth.Misconfigured("it is no registry of Azure as NAME.azurecr.io")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		Token string `json:"refresh_token"`
	}
	if err := auth.Ask(s.HTTP, request, &answer, registryCode); err != nil {
		return auth.Login{}, auth.Remedied(err, "see that its identity has the role AcrPull of the registry")
	}
	if answer.Token == "" {
		return auth.Login{}, &auth.Problem{Kind: gitops.Transient, Text: "the answer has no token"}
	}
	return auth.Login{Username: registryUser, Password: answer.Token, Expires: ends(answer.Token)}, nil
}

// ends reads from a token when it ends; the zero value where it does not say. Nobody
// verifies the token here: it is for the server that gave it.
func ends(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Ends float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Ends <= 0 || claims.Ends > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Ends), 0)
}

// Git gives a token for Azure DevOps.
func (c *Cloud) Git(_ context.Context, repository *url.URL, s auth.Session) (auth.Login, error) {
	if repository.Scheme != "https" {
		return auth.Login{}, auth.Misconfigured("a token is not sent without TLS; use https")
	}
	if !isDevOps(strings.ToLower(repository.Host)) {
		return auth.Login{}, auth.Misconfigured("it is no repository of Azure DevOps, at dev.azure.com or ORGANIZATION.visualstudio.com")
	}
	access, err := s.Access(auth.Scope{Resource: devOpsScope})
	return auth.Login{Bearer: access.Bearer, Expires: access.Expires}, err
}

// isDevOps tells whether a host has repositories of Azure DevOps. Other services of Microsoft
// have deeper names below visualstudio.com, some of them chosen by customers.
func isDevOps(host string) bool {
	organization, ok := strings.CutSuffix(host, ".visualstudio.com")
	return host == "dev.azure.com" || ok && organization != "" && !strings.Contains(organization, ".")
}

// Cluster logs in at a cluster of AKS that lets in identities of Microsoft Entra ID.
func (c *Cloud) Cluster(ctx context.Context, cluster auth.Cluster, s auth.Session) (auth.Cluster, auth.Login, error) {
	access, err := s.Access(auth.Scope{Resource: clusterScope})
	if err != nil {
		return auth.Cluster{}, auth.Login{}, err
	}
	if !cluster.Complete(s) {
		if err := c.describe(ctx, &cluster, s); err != nil {
			return auth.Cluster{}, auth.Login{}, err
		}
	}
	return cluster, auth.Login{Bearer: access.Bearer, Expires: access.Expires}, nil
}

// describe asks for what is missing of a cluster.
func (c *Cloud) describe(ctx context.Context, cluster *auth.Cluster, s auth.Session) error {
	found := c.cluster.FindStringSubmatch(cluster.Name)
	if found == nil {
		return auth.Misconfigured("its name is no id as /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.ContainerService/managedClusters/NAME")
	}
	address, scope, err := manager()
	if err != nil {
		return err
	}
	access, err := s.Access(auth.Scope{Resource: scope})
	if err != nil {
		return err
	}
	base := address + "/subscriptions/" + found[1] + "/resourceGroups/" + url.PathEscape(found[2]) +
		"/providers/Microsoft.ContainerService/managedClusters/" + found[3]
	ask := func(method, path string, to any) error {
		request, err := http.NewRequestWithContext(ctx, method, base+path+"?api-version="+clusterVersion, nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+access.Bearer)
		return auth.Remedied(auth.Ask(s.HTTP, request, to, managerCode),
			"see that the cluster exists and that its identity has the role Azure Kubernetes Service Cluster User of it")
	}
	var properties struct {
		Properties struct {
			Entra *struct{} `json:"aadProfile"`
		} `json:"properties"`
	}
	if err := ask(http.MethodGet, "", &properties); err != nil {
		return err
	}
	if properties.Properties.Entra == nil {
		return auth.Misconfigured("it does not let in identities of Microsoft Entra ID; enable that in the cluster")
	}
	var credentials struct {
		Kubeconfigs []struct {
			Value []byte `json:"value"`
		} `json:"kubeconfigs"`
	}
	if err := ask(http.MethodPost, "/listClusterUserCredential", &credentials); err != nil {
		return err
	}
	for _, kubeconfig := range credentials.Kubeconfigs {
		if fill(cluster, kubeconfig.Value) {
			return nil
		}
	}
	return auth.ElsewhereError()
}

// fill takes address and authority from a kubeconfig, if it is for the address that is
// known. Nothing else in it counts.
func fill(cluster *auth.Cluster, kubeconfig []byte) bool {
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return false
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil || config.Clusters[current.Cluster] == nil {
		return false
	}
	found := config.Clusters[current.Cluster]
	return len(found.CertificateAuthorityData) > 0 && cluster.Locate(found.CertificateAuthorityData, found.Server)
}

// registryCode finds the name of a registry's error.
func registryCode(_ http.Header, body []byte) string {
	var answer struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	return answer.Errors[0].Code
}

// managerCode finds the name of an error of the resource manager.
func managerCode(_ http.Header, body []byte) string {
	var answer struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &answer)
	return answer.Error.Code
}
