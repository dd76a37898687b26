package flux

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/auth"
)

// own tells whether it is the operator itself that logs in.
func (l Login) own() bool { return l.Provider != "" && l.ServiceAccount == "" }

// ownLogin refuses a login of the operator itself where what its identity is worth could
// reach somebody else: over an unsafe connection, which whoever writes the object asks for.
// A service account logs in as it likes; it is of the object's namespace. Flux does not
// refuse this.
func ownLogin(login Login, asks map[string]bool) *blocked {
	if !login.own() {
		return nil
	}
	for _, field := range sortedKeys(asks) {
		if asks[field] {
			return &blocked{reason: sourcev1.InvalidProviderConfigurationReason, stalled: true, cause: fmt.Errorf(
				"%s goes with no login of the operator's own identity at provider %s; name a service account in spec.serviceAccountName, or remove it", field, login.Provider)}
		}
	}
	return nil
}

// ownEndpoint refuses to log in at a bucket that is none of the cloud's: a token of the
// operator itself would be sent there. That of AWS is not sent, it signs.
func ownEndpoint(login Login, endpoint string) *blocked {
	hosts := map[string][]string{
		"gcp": {"googleapis.com"},
		// https://learn.microsoft.com/azure/storage/common/storage-account-overview, and the
		// clouds of governments.
		"azure": {"blob.core.windows.net", "blob.storage.azure.net", "blob.core.usgovcloudapi.net", "blob.core.chinacloudapi.cn"},
	}[login.Provider]
	if !login.own() || hosts == nil || endpoint == "" {
		return nil
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	for _, host := range hosts {
		if err == nil && u.Scheme == "https" && (u.Port() == "" || u.Port() == "443") && (strings.EqualFold(u.Hostname(), host) || strings.HasSuffix(strings.ToLower(u.Hostname()), "."+host)) {
			return nil
		}
	}
	return &blocked{reason: sourcev1.InvalidProviderConfigurationReason, stalled: true, cause: fmt.Errorf(
		"spec.endpoint is not one of provider %s, and the operator's own identity is sent nowhere else; name a service account in spec.serviceAccountName, or a Secret in spec.secretRef", login.Provider)}
}

// login is the login that a provider means for an object of a namespace: as the service
// account that the object names, or else as the one for all.
func (o SourceOptions) login(provider, namespace, account string) Login {
	if account == "" && o.ServiceAccountLogins {
		account = o.DefaultServiceAccount
	}
	return loginOf(provider, namespace, account)
}

// gated refuses a login of a service account where the operator's feature gate is off, as
// Flux does.
func (o SourceOptions) gated(provider, account string) *blocked {
	if account == "" || loginOf(provider, "", account).Provider == "" || o.ServiceAccountLogins {
		return nil
	}
	return &blocked{reason: meta.FeatureGateDisabledReason, stalled: true, cause: fmt.Errorf(
		"spec.serviceAccountName with provider %s needs the operator's feature gate %s; the object is left as it is until the gate is on or the field is removed", provider, auth.ObjectLevelGate)}
}
