package sops_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/kms"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/sops"
	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
)

// vaultOfKeys stands in for all services that keep keys: it speaks the protocols of
// Vault's transit engine, AWS KMS and STS, Azure Key Vault and its login, and Google
// Cloud KMS and its login. What it seals it remembers by a random name.
type vaultOfKeys struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	sealed map[string]string
	asked  int
	// fail answers every request to open with an error.
	fail bool
}

func newVaultOfKeys(t *testing.T) *vaultOfKeys {
	t.Helper()
	v := &vaultOfKeys{t: t, sealed: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/transit/", v.vault)
	mux.HandleFunc("/v1/team/", v.vaultLogin)
	mux.HandleFunc("/", v.aws)
	mux.HandleFunc("/keys/", v.azure)
	mux.HandleFunc("/tenant/", v.azureLogin)
	mux.HandleFunc("/common/discovery/instance", v.azureDiscovery)
	mux.HandleFunc("/v1/projects/", v.google)
	mux.HandleFunc("/token", v.googleLogin)
	v.server = httptest.NewTLSServer(mux)
	t.Cleanup(v.server.Close)
	return v
}

// client sends every request here, whatever host it is for.
func (v *vaultOfKeys) client() *http.Client {
	inner := v.server.Client().Transport
	target, err := url.Parse(v.server.URL)
	if err != nil {
		v.t.Fatal(err)
	}
	return &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Host, r.URL.Scheme = target.Host, target.Scheme
		return inner.RoundTrip(r)
	})}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// seal remembers a text under a random name.
func (v *vaultOfKeys) seal(plain string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	name := rand.Text()
	v.sealed[name] = plain
	return name
}

// open gives a text back, and whether there is one and the stand-in is in the mood.
func (v *vaultOfKeys) open(name string) (string, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	plain, found := v.sealed[name]
	return plain, found && !v.fail
}

func (v *vaultOfKeys) requests() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked
}

func answer(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value)
}

// request reads a request's JSON into fields.
func request(r *http.Request) map[string]string {
	var raw map[string]any
	_ = json.NewDecoder(r.Body).Decode(&raw)
	fields := map[string]string{}
	for key, value := range raw {
		if s, ok := value.(string); ok {
			fields[key] = s
		} else {
			text, _ := json.Marshal(value)
			fields[key] = string(text)
		}
	}
	return fields
}

const vaultToken = "canary-vault-token"

func (v *vaultOfKeys) vault(w http.ResponseWriter, r *http.Request) {
	fields := request(r)
	switch {
	case r.Header.Get("X-Vault-Token") != vaultToken:
		answer(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied to canary"}})
	case r.URL.Path == "/v1/transit/encrypt/main":
		answer(w, http.StatusOK, map[string]any{"data": map[string]any{"ciphertext": "vault:v1:" + v.seal(fields["plaintext"])}})
	case r.URL.Path == "/v1/transit/decrypt/main":
		plain, ok := v.open(strings.TrimPrefix(fields["ciphertext"], "vault:v1:"))
		if !ok {
			answer(w, http.StatusBadRequest, map[string]any{"errors": []string{"invalid ciphertext: canary"}})
			return
		}
		answer(w, http.StatusOK, map[string]any{"data": map[string]any{"plaintext": plain}})
	default:
		http.NotFound(w, r)
	}
}

const (
	awsID   = "AKIDCANARY"
	awsRole = "ASIAROLE"
)

// aws is asked at the root, with the operation in a header or in a form.
func (v *vaultOfKeys) aws(w http.ResponseWriter, r *http.Request) {
	target := r.Header.Get("X-Amz-Target")
	if target == "" {
		v.assumeRole(w, r)
		return
	}
	fields := request(r)
	w.Header().Set("X-Amzn-Requestid", rand.Text())
	if signed := r.Header.Get("Authorization"); !strings.Contains(signed, "Credential="+awsID+"/") && !strings.Contains(signed, "Credential="+awsRole+"/") {
		answer(w, http.StatusBadRequest, map[string]any{"__type": "UnrecognizedClientException", "message": "canary"})
		return
	}
	// The context of an encryption is part of what is sealed.
	bound := "|" + fields["EncryptionContext"]
	switch target {
	case "TrentService.Encrypt":
		sealed := base64.StdEncoding.EncodeToString([]byte(v.seal(fields["Plaintext"] + bound)))
		answer(w, http.StatusOK, map[string]any{"CiphertextBlob": sealed, "KeyId": fields["KeyId"]})
	case "TrentService.Decrypt":
		name, _ := base64.StdEncoding.DecodeString(fields["CiphertextBlob"])
		plain, ok := v.open(string(name))
		plain, ok2 := strings.CutSuffix(plain, bound)
		if !ok || !ok2 {
			answer(w, http.StatusBadRequest, map[string]any{"__type": "AccessDeniedException", "message": "canary"})
			return
		}
		answer(w, http.StatusOK, map[string]any{"Plaintext": plain, "KeyId": fields["KeyId"]})
	default:
		http.NotFound(w, r)
	}
}

func (v *vaultOfKeys) assumeRole(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("Action") != "AssumeRole" || !strings.Contains(r.Header.Get("Authorization"), "Credential="+awsID+"/") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>%s</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>x</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>`, awsRole)
}

const azureToken = "canary-azure-token"

func (v *vaultOfKeys) azure(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+azureToken {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`)
		answer(w, http.StatusUnauthorized, map[string]any{})
		return
	}
	fields := request(r)
	switch {
	case strings.HasSuffix(r.URL.Path, "/main/v1/encrypt"):
		answer(w, http.StatusOK, map[string]any{"kid": "main", "value": base64.RawURLEncoding.EncodeToString([]byte(v.seal(fields["value"])))})
	case strings.HasSuffix(r.URL.Path, "/main/v1/decrypt"):
		name, _ := base64.RawURLEncoding.DecodeString(fields["value"])
		plain, ok := v.open(string(name))
		if !ok {
			answer(w, http.StatusForbidden, map[string]any{"error": map[string]any{"code": "Forbidden", "message": "canary"}})
			return
		}
		answer(w, http.StatusOK, map[string]any{"kid": "main", "value": plain})
	default:
		http.NotFound(w, r)
	}
}

func (v *vaultOfKeys) azureDiscovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"tenant_discovery_endpoint": "https://login.microsoftonline.com/tenant/v2.0/.well-known/openid-configuration"})
}

func (v *vaultOfKeys) azureLogin(w http.ResponseWriter, r *http.Request) {
	const host = "https://login.microsoftonline.com/tenant"
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		answer(w, http.StatusOK, map[string]any{"issuer": host + "/v2.0", "authorization_endpoint": host + "/authorize", "token_endpoint": host + "/oauth2/v2.0/token"})
	case r.FormValue("client_secret") != "canary-client-secret":
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": "canary " + rand.Text()})
	default:
		answer(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": azureToken})
	}
}

const googleToken = "canary-google-token"

func (v *vaultOfKeys) googleLogin(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || r.FormValue("assertion") == "" {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	answer(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": googleToken})
}

func (v *vaultOfKeys) google(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+googleToken {
		answer(w, http.StatusUnauthorized, map[string]any{"error": map[string]any{"code": 401, "status": "UNAUTHENTICATED", "message": "canary"}})
		return
	}
	fields := request(r)
	switch {
	case strings.HasSuffix(r.URL.Path, ":encrypt"):
		answer(w, http.StatusOK, map[string]any{"ciphertext": base64.StdEncoding.EncodeToString([]byte(v.seal(fields["plaintext"])))})
	default:
		name, _ := base64.StdEncoding.DecodeString(fields["ciphertext"])
		plain, ok := v.open(string(name))
		if !ok {
			answer(w, http.StatusForbidden, map[string]any{"error": map[string]any{"code": 403, "status": "PERMISSION_DENIED", "message": "canary"}})
			return
		}
		answer(w, http.StatusOK, map[string]any{"plaintext": plain})
	}
}

// master makes a recipient of a key that a service keeps.
func master[K keys.MasterKey](key K) sopstest.Recipient {
	return func(t testing.TB, dataKey []byte) keys.MasterKey {
		t.Helper()
		if err := key.Encrypt(dataKey); err != nil {
			t.Fatal(err)
		}
		return key
	}
}

// service is one kind of service, as its users set it up.
type service struct {
	recipient sopstest.Recipient
	entry     string
	good, bad string
	// lacks, denied and refused are parts of the errors without the entry, with a bad
	// one, and where the service does not open the key.
	lacks, denied, refused string
}

func (v *vaultOfKeys) services(t *testing.T) map[string]service {
	t.Helper()
	const arn = "arn:aws:kms:eu-west-1:123456789012:key/main"
	vaultKey := hcvault.NewMasterKey("https://vault.example.com", "transit", "main")
	hcvault.Token(vaultToken).ApplyToMasterKey(vaultKey)
	hcvault.NewHTTPClient(v.client()).ApplyToMasterKey(vaultKey)

	static := kms.NewCredentialsProvider(credentials.NewStaticCredentialsProvider(awsID, "canary", ""))
	about := "prod"
	awsKey := kms.NewMasterKey(arn, "", map[string]*string{"app": &about})
	roleKey := kms.NewMasterKey(arn, "arn:aws:iam::123456789012:role/sops", nil)
	for _, key := range []*kms.MasterKey{awsKey, roleKey} {
		static.ApplyToMasterKey(key)
		kms.NewHTTPClient(v.client()).ApplyToMasterKey(key)
	}

	azureKey := azkv.NewMasterKey("https://main.vault.azure.net", "main", "v1")
	login, err := azidentity.NewClientSecretCredential("tenant", "client", "canary-client-secret",
		&azidentity.ClientSecretCredentialOptions{ClientOptions: azcore.ClientOptions{Transport: v.client()}})
	if err != nil {
		t.Fatal(err)
	}
	azkv.NewTokenCredential(login).ApplyToMasterKey(azureKey)
	azkv.NewClientOptions(&azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: v.client()}}).ApplyToMasterKey(azureKey)

	awsEntry := func(id string) string {
		return "aws_access_key_id: " + id + "\naws_secret_access_key: canary\n"
	}
	azureEntry := func(secret string) string {
		return `{"tenantId": "tenant", "clientId": "client", "clientSecret": "` + secret + `"}`
	}
	return map[string]service{
		"Vault": {
			recipient: master(vaultKey), entry: "sops.vault-token", good: vaultToken + "\n", bad: "canary-other",
			lacks: "Vault key main of https://vault.example.com (there is no entry sops.vault-token)", denied: "(it answers 403)", refused: "(it answers 400)",
		},
		"AWS": {
			recipient: master(awsKey), entry: "sops.aws-kms", good: awsEntry(awsID), bad: awsEntry("AKIDOTHER"),
			lacks: "AWS KMS key " + arn + " (there is no entry sops.aws-kms)", denied: "(it answers UnrecognizedClientException)", refused: "(it answers AccessDeniedException)",
		},
		"AWS with a role": {
			recipient: master(roleKey), entry: "sops.aws-kms", good: awsEntry(awsID), bad: awsEntry("AKIDOTHER"),
			lacks: "there is no entry sops.aws-kms", denied: "it ", refused: "(it answers AccessDeniedException)",
		},
		"Azure": {
			recipient: master(azureKey), entry: "sops.azure-kv", good: azureEntry("canary-client-secret"), bad: azureEntry("canary-other"),
			lacks: "Azure Key Vault key main of https://main.vault.azure.net (there is no entry sops.azure-kv)", denied: "(the login fails with 401)", refused: "(it answers 403 Forbidden)",
		},
	}
}

func TestServices(t *testing.T) {
	// The stand-ins are asked as the SDKs find them without any setting of this machine.
	for _, name := range []string{"AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	// A token of the operator's own must not be used.
	t.Setenv("VAULT_TOKEN", vaultToken)
	t.Setenv("VAULT_MAX_RETRIES", "0")
	v := newVaultOfKeys(t)
	for name, s := range v.services(t) {
		t.Run(name, func(t *testing.T) { v.check(t, s, sops.Options{HTTP: v.client()}) })
	}
}

// TestGoogle asks through the variables that SOPS knows for other clouds of that kind.
func TestGoogle(t *testing.T) {
	v := newVaultOfKeys(t)
	plain := httptest.NewServer(v.server.Config.Handler)
	t.Cleanup(plain.Close)
	t.Setenv("SOPS_GCP_KMS_CLIENT_TYPE", "rest")
	t.Setenv("SOPS_GCP_KMS_ENDPOINT", plain.URL)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	account := func(login string) string {
		text, err := json.Marshal(map[string]string{
			"type": "service_account", "client_email": "canary@example.com", "private_key_id": "1", "token_uri": plain.URL + login,
			"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const id = "projects/p/locations/global/keyRings/r/cryptoKeys/main"
	key := gcpkms.NewMasterKeyFromResourceID(id)
	gcpkms.CredentialJSON(account("/token")).ApplyToMasterKey(key)
	v.check(t, service{
		recipient: master(key), entry: "sops.gcp-kms", good: account("/token"), bad: account("/nothing"),
		lacks: "Google Cloud KMS key " + id + " (there is no entry sops.gcp-kms)", denied: "(", refused: "(it answers PermissionDenied)",
	}, sops.Options{})
}

// check opens a file with the good entry, and fails to with none, a bad one, and where
// the service does not open it. Nothing is asked without an entry.
func (v *vaultOfKeys) check(t *testing.T, s service, options sops.Options) {
	t.Helper()
	sealed := sopstest.Encryption{For: []sopstest.Recipient{s.recipient}}.Encrypt(t, "a.yaml", "a: canary\n")
	open := func(d build.Decryption) (build.Opened, error) {
		keys, err := sops.New(options).Unlock(d)
		if err != nil {
			t.Fatal(err)
		}
		opened, _, err := keys.File(context.Background(), build.EncryptedFile{Content: []byte(sealed), Name: "a.yaml"})
		return opened, err
	}
	opened, err := open(entries(s.entry, s.good))
	if err != nil || string(opened.Content) != "a: canary\n" {
		t.Fatalf("opened %q, %v", opened.Content, err)
	}
	before := v.requests()
	failures := map[string]struct {
		keys  build.Decryption
		want  string
		again bool
	}{
		"without the entry": {entries("sops.other", "x"), s.lacks, false},
		"with a bad one":    {entries(s.entry, s.bad), s.denied, true},
	}
	for name, f := range failures {
		_, err := open(f.keys)
		v.failsWith(t, name, err, f.want, f.again)
	}
	if now := v.requests(); now != before {
		t.Errorf("a key was opened %d times without good credentials", now-before)
	}
	v.fail = true
	defer func() { v.fail = false }()
	_, err = open(entries(s.entry, s.good))
	v.failsWith(t, "where it is refused", err, s.refused, true)
	_, again := open(entries(s.entry, s.good))
	if err != nil && again != nil && err.Error() != again.Error() {
		t.Errorf("the text is another one each time: %q, %q", err, again)
	}
}

func (v *vaultOfKeys) failsWith(t *testing.T, name string, err error, want string, again bool) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(strings.ReplaceAll(err.Error(), awsID, ""), "canary") {
		t.Errorf("%s the error is %v, want one with %q and without what was sent or answered", name, err, want)
	}
	var away *build.Unavailable
	if errors.As(err, &away) != again {
		t.Errorf("%s another try helps: %v", name, !again)
	}
}

// TestServiceThatDoesNotAnswer ends with its context.
func TestServiceThatDoesNotAnswer(t *testing.T) {
	v := newVaultOfKeys(t)
	s := v.services(t)["Vault"]
	sealed := sopstest.Encryption{For: []sopstest.Recipient{s.recipient}}.Encrypt(t, "a.yaml", "a: canary\n")
	silent := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})}
	keys, err := sops.New(sops.Options{HTTP: silent}).Unlock(entries(s.entry, s.good))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err = keys.File(ctx, build.EncryptedFile{Content: []byte(sealed), Name: "a.yaml"})
	v.failsWith(t, "without an answer", err, "(it ", true)
}
