package sops

import (
	"context"
	"net/url"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	vault "github.com/hashicorp/vault/api"

	"github.com/plumb-gitops/plumb/internal/build"
)

// said is an error in words for people.
type said string

// Error is the words.
func (s said) Error() string { return string(s) }

// vaultTokens are those of logins at Vaults, by address, for one build.
type vaultTokens struct {
	mu    sync.Mutex // guards known
	known map[string]string
}

// regionOf is the region in the ARN of a key; whatever stands there in a text that is none.
func regionOf(arn string) string {
	parts := strings.Split(arn, ":")
	if len(parts) < 6 {
		return ""
	}
	return parts[3]
}

// scopeOf is the scope of Azure for which a Key Vault wants a token: the domain that it is
// in. The client of Key Vault sends a token only to a vault of the domain that it is for.
func scopeOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil {
		return ""
	}
	_, domain, ok := strings.Cut(u.Hostname(), ".")
	if !ok || !strings.Contains(domain, ".") {
		return ""
	}
	return "https://" + domain + "/.default"
}

// loggedIn is a credential of Azure that is there already.
type loggedIn azcore.AccessToken

// GetToken gives it.
func (l loggedIn) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken(l), nil
}

// vaultToken logs in at a Vault, once in a build.
func (s *service) vaultToken(address, path string) (string, error) {
	s.keys.tokens.mu.Lock()
	defer s.keys.tokens.mu.Unlock()
	if token := s.keys.tokens.known[address]; token != "" {
		return token, nil
	}
	token, err := s.vaultLogin(address, path)
	if err == nil {
		s.keys.tokens.known[address] = token
	}
	return token, err
}

// vaultLogin exchanges a token of the account for one of a Vault, as the role that Flux
// derives from the account's name.
func (s *service) vaultLogin(address, path string) (string, error) {
	token, of, err := s.keys.logins.Kubernetes(s.ctx, s.keys.account, address)
	if err != nil {
		return "", err
	}
	config := vault.DefaultConfig()
	if config.Error != nil {
		return "", said("the settings for Vault in the operator's environment cannot be used")
	}
	if s.keys.http != nil {
		own := *s.keys.http // which is changed there
		config.HttpClient = &own
	}
	config.Address = address
	client, err := vault.NewClient(config)
	if err != nil {
		return "", said("its address cannot be used")
	}
	// The token of the operator's environment is not for whoever names an address.
	client.ClearToken()
	client.SetMaxRetries(0)
	answer, err := client.Logical().WriteWithContext(s.ctx, path, map[string]any{"role": roleOf(of), "jwt": token})
	switch {
	case err != nil:
		return "", &loginError{role: roleOf(of), path: path, err: err}
	case answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "":
		return "", said("it answers the login without a token")
	}
	return answer.Auth.ClientToken, nil
}

// roleOf is the role of an account in a Vault.
func roleOf(account build.Account) string { return account.Namespace + "_" + account.Name }

// loginError is the failure of a login at a Vault.
type loginError struct {
	role, path string
	err        error
}

// Error says as what somebody wanted to log in.
func (e *loginError) Error() string {
	return "login at path " + shortened(e.path) + " as role " + shortened(e.role) + ": " + reason(e.err)
}
