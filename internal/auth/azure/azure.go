// Package azure logs in at Microsoft Entra ID and at the container registries, Azure DevOps
// and Kubernetes clusters (AKS) of Azure.
//
// The SDK exchanges tokens and finds the operator's own identity; what would start programs
// is left out. The single requests to registries and to the resource manager are made here:
// the SDK's packages for them weigh megabytes.
package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/plumb-gitops/plumb/internal/auth"
)

// Name is that of the provider.
const Name = "azure"

const (
	tenantAnnotation = "azure.workload.identity/tenant-id"
	clientAnnotation = "azure.workload.identity/client-id"
	audience         = "api://AzureADTokenExchange"

	// Scopes, as Microsoft documents them.
	devOpsScope   = "499b84ac-1321-427f-aa17-267ca6975798/.default"
	storageScope  = "https://storage.azure.com/.default"
	clusterScope  = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"
	registryScope = "https://containerregistry.azure.net/.default"

	// environmentFile names a file with the addresses of a cloud of one's own.
	environmentFile = "AZURE_ENVIRONMENT_FILEPATH"
	// maxEnvironment bounds it, in bytes.
	maxEnvironment = 1 << 20
)

// Cloud implements auth.Cloud and what goes with it.
type Cloud struct {
	id, registry, cluster *regexp.Regexp
	code                  *regexp.Regexp
}

// New makes a Cloud.
func New() *Cloud {
	return &Cloud{
		id:       regexp.MustCompile(`^[A-Za-z0-9.-]{1,100}$`),
		registry: regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,200}\.azurecr\.(io|cn|de|us)$`),
		cluster: regexp.MustCompile(`(?i)^/subscriptions/([0-9a-f-]{36})/resourceGroups/([\w.()-]{1,90})/providers/` +
			`Microsoft\.ContainerService/managedClusters/([A-Za-z0-9_-]{1,63})$`),
		code: regexp.MustCompile(`AADSTS[0-9]{4,12}`),
	}
}

// Claim reads the tenant and the client that a service account asks for.
func (c *Cloud) Claim(_ context.Context, _ *http.Client, annotations map[string]string) (auth.Claim, error) {
	for _, name := range []string{tenantAnnotation, clientAnnotation} {
		switch value := annotations[name]; {
		case value == "":
			return auth.Claim{}, auth.Misconfigured("it has no annotation %s; it needs %s and %s of the managed identity or application", name, tenantAnnotation, clientAnnotation)
		case !c.id.MatchString(value):
			return auth.Claim{}, auth.Misconfigured("its annotation %s is no id", name)
		}
	}
	return auth.Claim{Audiences: []string{audience}, Identity: annotations[tenantAnnotation] + "/" + annotations[clientAnnotation]}, nil
}

// BucketScope is the scope of Azure Blob Storage.
func (c *Cloud) BucketScope() string { return storageScope }

// Access gives a token of the operator's own identity, or of that of a service account.
func (c *Cloud) Access(ctx context.Context, who auth.Subject, scope auth.Scope) (auth.Credential, error) {
	if scope.Resource == "" {
		return auth.Credential{}, auth.Misconfigured("no scope is known")
	}
	options := azcore.ClientOptions{Transport: who.HTTP, Retry: policy.RetryOptions{MaxRetries: 1}}
	remedy := "see that the operator has an identity: workload identity, a managed identity, or the environment variables of an application"
	var credential azcore.TokenCredential
	var err error
	switch {
	case who.Own() && who.Client != "":
		if !c.id.MatchString(who.Client) {
			return auth.Credential{}, auth.Misconfigured("the client of the managed identity is no id")
		}
		remedy = fmt.Sprintf("see that the machine has the managed identity with client %q", who.Client)
		credential, err = azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options, ID: azidentity.ClientID(who.Client)})
	case who.Own():
		credential, err = own(options)
	default:
		tenant, id, _ := strings.Cut(who.Claim.Identity, "/")
		credential, err = azidentity.NewClientAssertionCredential(tenant, id, func(context.Context) (string, error) { return who.Token, nil },
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: hasEnvironment()})
		remedy = fmt.Sprintf("see that client %q of tenant %q has a federated credential for the cluster's issuer, subject system:serviceaccount:%s:%s and audience %s",
			id, tenant, who.Identity.Namespace, who.Identity.ServiceAccount, strings.Join(who.Claim.Audiences, ","))
	}
	if err != nil {
		return auth.Credential{}, auth.Misconfigured("the identity cannot be used; %s", remedy)
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope.Resource}})
	if err != nil {
		if err = c.refusal(err, remedy); who.Own() {
			err = auth.Hinted(err, remedy)
		}
		return auth.Credential{}, err
	}
	return auth.Credential{Bearer: token.Token, Expires: token.ExpiresOn}, nil
}

// own finds the operator's identity in Azure's usual order: an application in the
// environment, workload identity, a managed identity.
func own(options azcore.ClientOptions) (azcore.TokenCredential, error) {
	isolated := hasEnvironment()
	if found, err := azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: isolated}); err == nil {
		return found, nil
	}
	if found, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: isolated}); err == nil {
		return found, nil
	}
	managed := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
	if id := os.Getenv("AZURE_CLIENT_ID"); id != "" {
		managed.ID = azidentity.ClientID(id)
	}
	return azidentity.NewManagedIdentityCredential(managed)
}

// refusal takes the code from an answer of Azure, and keeps an error of the network.
func (c *Cloud) refusal(err error, remedy string) error {
	var failed *azidentity.AuthenticationFailedError
	var answer *azcore.ResponseError
	switch {
	case errors.As(err, &failed) && failed.RawResponse != nil:
		return &auth.Refusal{Status: failed.RawResponse.StatusCode, Code: c.code.FindString(err.Error()), Remedy: remedy}
	case errors.As(err, &answer):
		return &auth.Refusal{Status: answer.StatusCode, Code: answer.ErrorCode, Remedy: remedy}
	}
	return err
}

// environment is what is read of a file that describes a cloud of one's own, such as
// Azure Stack, in the form of cloud-provider-azure.
type environment struct {
	RegistrySuffix string `json:"containerRegistryDNSSuffix"`
	Manager        string `json:"resourceManagerEndpoint"`
	Audience       string `json:"tokenAudience"`
}

func hasEnvironment() bool { return os.Getenv(environmentFile) != "" }

// readEnvironment reads the file; nil where there is none.
func readEnvironment() (*environment, error) {
	if !hasEnvironment() {
		return nil, nil
	}
	bad := auth.Misconfigured("the file that the operator's environment variable %s names needs resourceManagerEndpoint and tokenAudience", environmentFile)
	name := os.Getenv(environmentFile)
	if info, err := os.Stat(name); err != nil || info.Size() > maxEnvironment || !info.Mode().IsRegular() {
		return nil, bad
	}
	content, err := os.ReadFile(name)
	var e environment
	if err != nil || json.Unmarshal(content, &e) != nil || e.Manager == "" || e.Audience == "" {
		return nil, bad
	}
	return &e, nil
}

// manager is the address and the scope of the resource manager.
func manager() (address, scope string, err error) {
	e, err := readEnvironment()
	if err != nil {
		return "", "", err
	}
	if e != nil {
		return strings.TrimSuffix(e.Manager, "/"), e.Audience + "/.default", nil
	}
	of := cloud.AzurePublic
	switch host := os.Getenv("AZURE_AUTHORITY_HOST"); {
	case strings.Contains(host, "chinacloudapi.cn"), strings.Contains(host, "partner.microsoftonline.cn"):
		of = cloud.AzureChina
	case strings.Contains(host, "microsoftonline.us"):
		of = cloud.AzureGovernment
	}
	service := of.Services[cloud.ResourceManager]
	return service.Endpoint, service.Audience + "/.default", nil
}
