package sops_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/getsops/sops/v3/gcpkms"
	"golang.org/x/oauth2"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/sops"
	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// account is as whom services are asked in these tests.
var account = build.Account{Namespace: "apps", Name: "sops"}

// logins gives out what the stand-in lets in, and remembers who asked for what.
type logins struct {
	mu    sync.Mutex
	asked []string
	fail  error
}

func (l *logins) options(v *vaultOfKeys) sops.Options {
	return sops.Options{HTTP: v.client(), Logins: sops.Logins{Cloud: l.cloud, Kubernetes: l.kubernetes}}
}

func (l *logins) note(what string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, what)
	return l.fail
}

func (l *logins) cloud(_ context.Context, cloud sops.Cloud, as build.Account, scope string) (sops.Credential, error) {
	token := map[sops.Cloud]string{sops.Azure: azureToken, sops.GCP: googleToken}[cloud]
	return sops.Credential{AccessKey: awsID, SecretKey: "canary", SessionToken: "canary", Token: token, Expires: time.Now().Add(time.Hour)},
		l.note(fmt.Sprintf("%s %s/%s %s", cloud, as.Namespace, as.Name, scope))
}

func (l *logins) kubernetes(_ context.Context, as build.Account, audience string) (string, build.Account, error) {
	if as == (build.Account{}) {
		as = build.Account{Namespace: "flux-system", Name: "plumb"}
	}
	return accountToken + as.Namespace + "_" + as.Name, as, l.note("kubernetes " + as.Namespace + "/" + as.Name + " " + audience)
}

const accountToken = "canary-account-token "

// vaultLogin takes a token of the account that is the role, and knows no other role.
func (v *vaultOfKeys) vaultLogin(w http.ResponseWriter, r *http.Request) {
	fields := request(r)
	switch role := fields["role"]; {
	case fields["jwt"] != accountToken+role || role != "apps_sops" && role != "flux-system_plumb":
		answer(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied to canary"}})
	case r.URL.Path == "/v1/team/auth/empty/login":
		answer(w, http.StatusOK, map[string]any{})
	default:
		answer(w, http.StatusOK, map[string]any{"auth": map[string]any{"client_token": vaultToken}})
	}
}

// opened decrypts a file that is for a recipient.
func opened(t *testing.T, recipient sopstest.Recipient, options sops.Options, d build.Decryption) (string, error) {
	t.Helper()
	sealed := sopstest.Encryption{For: []sopstest.Recipient{recipient}}.Encrypt(t, "a.yaml", "a: canary\n")
	keys, err := sops.New(options).Unlock(d)
	if err != nil {
		t.Fatal(err)
	}
	var opened build.Opened
	for range 2 {
		opened, _, err = keys.File(context.Background(), build.EncryptedFile{Content: []byte(sealed), Name: "a.yaml"})
	}
	return string(opened.Content), err
}

// TestLogins asks services as an account, and as the operator itself.
func TestLogins(t *testing.T) {
	for _, name := range []string{"AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	t.Setenv("VAULT_TOKEN", "canary-of-the-operator")
	v := newVaultOfKeys(t)
	const vaultAddress, path = "https://vault.example.com", "team/auth/kubernetes/login"
	vaults := map[string]string{vaultAddress: path}
	for name, test := range map[string]struct {
		service string
		// as and own are what is asked for, as the account and as the operator.
		as, own string
	}{
		"AWS":   {"AWS", "aws apps/sops eu-west-1", "aws / eu-west-1"},
		"Azure": {"Azure", "azure apps/sops https://vault.azure.net/.default", "azure / https://vault.azure.net/.default"},
		"Vault": {"Vault", "kubernetes apps/sops " + vaultAddress, "kubernetes flux-system/plumb " + vaultAddress},
	} {
		s := v.services(t)[test.service]
		for who, want := range map[build.Account]string{account: test.as, {}: test.own} {
			l := &logins{}
			got, err := opened(t, s.recipient, l.options(v), build.Decryption{Account: who, VaultLogins: vaults})
			if err != nil || got != "a: canary\n" || l.asked[0] != want {
				t.Errorf("%s as %v: %q, %v, asked %q, want %q", name, who, got, err, l.asked, want)
			}
			if name == "Vault" && len(l.asked) != 1 {
				t.Errorf("%d logins at a Vault in one build", len(l.asked))
			}
		}
		// What the Secret has comes first.
		l := &logins{}
		d := entries(s.entry, s.good)
		d.Account, d.VaultLogins = account, vaults
		if _, err := opened(t, s.recipient, l.options(v), d); err != nil || len(l.asked) > 0 {
			t.Errorf("%s with a Secret: %v, asked %q", name, err, l.asked)
		}
		// A login that fails says why.
		l = &logins{fail: &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Denied, Cause: errors.New("log in at provider: it answers 403")}}
		_, err := opened(t, s.recipient, l.options(v), build.Decryption{Account: account, VaultLogins: vaults})
		v.failsWith(t, name+" without a login", err, "(there is no entry "+s.entry+", and log in at provider: it answers 403)", true)
	}
	v.vaultLogins(t, path)
}

// vaultLogins are those that a Vault refuses, and those that nobody tries.
func (v *vaultOfKeys) vaultLogins(t *testing.T, path string) {
	t.Helper()
	s := v.services(t)["Vault"]
	const address = "https://vault.example.com"
	for name, test := range map[string]struct {
		d     build.Decryption
		want  string
		again bool
		asked int
	}{
		"another role":      {build.Decryption{Account: build.Account{Namespace: "apps", Name: "other"}, VaultLogins: map[string]string{address: path}}, "(there is no entry sops.vault-token, and login at path " + path + " as role apps_other: it answers 403)", true, 2},
		"no token":          {build.Decryption{Account: account, VaultLogins: map[string]string{address: "team/auth/empty/login"}}, "it answers the login without a token", true, 2},
		"another address":   {build.Decryption{Account: account, VaultLogins: map[string]string{"https://other.example.com": path}}, "there is no entry sops.vault-token", false, 0},
		"trouble with them": {build.Decryption{Account: account, VaultTrouble: "ConfigMap 'a/b': not found"}, "there is no entry sops.vault-token, and nobody can log in: ConfigMap 'a/b': not found", false, 0},
	} {
		l := &logins{}
		_, err := opened(t, s.recipient, l.options(v), test.d)
		v.failsWith(t, name, err, test.want, test.again)
		if len(l.asked) != test.asked {
			t.Errorf("%s: asked %q", name, l.asked)
		}
	}
}

// TestGoogleLogin asks Google Cloud KMS with a token.
func TestGoogleLogin(t *testing.T) {
	v := newVaultOfKeys(t)
	plain := httptest.NewServer(v.server.Config.Handler)
	t.Cleanup(plain.Close)
	t.Setenv("SOPS_GCP_KMS_CLIENT_TYPE", "rest")
	t.Setenv("SOPS_GCP_KMS_ENDPOINT", plain.URL)
	key := gcpkms.NewMasterKeyFromResourceID("projects/p/locations/global/keyRings/r/cryptoKeys/main")
	gcpkms.NewTokenSource(oauth2.StaticTokenSource(&oauth2.Token{AccessToken: googleToken})).ApplyToMasterKey(key)
	l := &logins{}
	got, err := opened(t, master(key), l.options(v), build.Decryption{Account: account})
	if err != nil || got != "a: canary\n" || l.asked[0] != "gcp apps/sops " {
		t.Errorf("opened %q, %v, asked %q", got, err, l.asked)
	}
}
