package sops

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/credentials"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/keyservice"
	"github.com/getsops/sops/v3/kms"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"

	"github.com/plumb-gitops/plumb/internal/build"
)

// service answers SOPS's requests for the data key of one document. It implements
// keyservice.KeyServiceClient, and remembers why it could not help.
type service struct {
	ctx  context.Context
	keys keys
	// tried says of each key why it did not help, in order.
	tried []string
	// asked is set where a service outside of this process could not help.
	asked bool
}

var errNoKey = errors.New("no key")

// Encrypt refuses: nothing is encrypted here.
func (s *service) Encrypt(context.Context, *keyservice.EncryptRequest, ...grpc.CallOption) (*keyservice.EncryptResponse, error) {
	return nil, errors.New("nothing is encrypted here")
}

// Decrypt opens a data key. SOPS asks for one key after the other.
func (s *service) Decrypt(_ context.Context, req *keyservice.DecryptRequest, _ ...grpc.CallOption) (*keyservice.DecryptResponse, error) {
	plain, err := s.decrypt(req.Key, req.Ciphertext)
	if err != nil {
		return nil, errNoKey
	}
	return &keyservice.DecryptResponse{Plaintext: plain}, nil
}

// decrypt opens a data key with what there is for its kind of key.
func (s *service) decrypt(key *keyservice.Key, sealed []byte) ([]byte, error) {
	switch k := key.GetKeyType().(type) {
	case *keyservice.Key_AgeKey:
		return s.withAge(k.AgeKey, sealed)
	case *keyservice.Key_PgpKey:
		name := "OpenPGP key " + k.PgpKey.Fingerprint
		if len(s.keys.pgp) == 0 {
			return nil, s.lacks(name, "*"+pgpEntry)
		}
		plain, err := decryptPGP(s.keys.pgp, sealed)
		if err != nil {
			return nil, s.failed(name, err)
		}
		return plain, nil
	case *keyservice.Key_VaultKey:
		return s.withVault(k.VaultKey, sealed)
	case *keyservice.Key_KmsKey:
		return s.withAWS(k.KmsKey, sealed)
	case *keyservice.Key_AzureKeyvaultKey:
		return s.withAzure(k.AzureKeyvaultKey, sealed)
	case *keyservice.Key_GcpKmsKey:
		return s.withGCP(k.GcpKmsKey, sealed)
	default:
		return nil, s.failed("a key of a kind that is not served", errors.New("use another kind"))
	}
}

func (s *service) withAge(key *keyservice.AgeKey, sealed []byte) ([]byte, error) {
	name := "age " + key.Recipient
	if len(s.keys.age) == 0 { // SOPS would look for identities by itself.
		return nil, s.lacks(name, "*"+ageEntry)
	}
	master := sopsage.MasterKey{Recipient: key.Recipient, EncryptedKey: string(sealed)}
	sopsage.ParsedIdentities(s.keys.age).ApplyToMasterKey(&master)
	plain, err := master.Decrypt()
	if err != nil {
		return nil, s.failed(name, errors.New("no age identity fits"))
	}
	return plain, nil
}

func (s *service) withVault(key *keyservice.VaultKey, sealed []byte) ([]byte, error) {
	name := fmt.Sprintf("Vault key %s of %s", key.KeyName, withoutUser(key.VaultAddress))
	token := s.keys.vault
	if token == "" {
		path := s.keys.vaults[key.VaultAddress]
		switch {
		case s.keys.vaultTrouble != "":
			return nil, s.failed(name, fmt.Errorf("there is no entry %s, and nobody can log in: %s", vaultEntry, s.keys.vaultTrouble))
		case path == "" || s.keys.logins.Kubernetes == nil:
			return nil, s.lacks(name, vaultEntry)
		}
		var err error
		if token, err = s.vaultToken(key.VaultAddress, path); err != nil {
			return nil, s.notLoggedIn(name, vaultEntry, err)
		}
	}
	master := hcvault.MasterKey{VaultAddress: key.VaultAddress, EnginePath: key.EnginePath, KeyName: key.KeyName, EncryptedKey: string(sealed)}
	hcvault.Token(token).ApplyToMasterKey(&master)
	if s.keys.http != nil {
		hcvault.NewHTTPClient(s.keys.http).ApplyToMasterKey(&master)
	}
	plain, err := master.DecryptContext(s.ctx)
	return plain, s.answered(name, err)
}

func (s *service) withAWS(key *keyservice.KmsKey, sealed []byte) ([]byte, error) {
	name := "AWS KMS key " + key.Arn
	provider := s.keys.aws
	if provider == nil {
		if s.keys.logins.Cloud == nil {
			return nil, s.lacks(name, awsEntry)
		}
		found, err := s.keys.logins.Cloud(s.ctx, AWS, s.keys.account, regionOf(key.Arn))
		if err != nil {
			return nil, s.notLoggedIn(name, awsEntry, err)
		}
		provider = credentials.NewStaticCredentialsProvider(found.AccessKey, found.SecretKey, found.SessionToken)
	}
	// A profile would be one of this machine.
	master := kms.MasterKey{Arn: key.Arn, Role: key.Role, EncryptionContext: map[string]*string{}, EncryptedKey: string(sealed)}
	for k, v := range key.Context {
		master.EncryptionContext[k] = &v
	}
	kms.NewCredentialsProvider(provider).ApplyToMasterKey(&master)
	if s.keys.http != nil {
		kms.NewHTTPClient(s.keys.http).ApplyToMasterKey(&master)
	}
	plain, err := master.DecryptContext(s.ctx)
	return plain, s.answered(name, err)
}

func (s *service) withAzure(key *keyservice.AzureKeyVaultKey, sealed []byte) ([]byte, error) {
	name := fmt.Sprintf("Azure Key Vault key %s of %s", key.Name, withoutUser(key.VaultUrl))
	credential := s.keys.azure
	if credential == nil {
		scope := scopeOf(key.VaultUrl)
		if s.keys.logins.Cloud == nil || scope == "" {
			return nil, s.lacks(name, azureEntry)
		}
		found, err := s.keys.logins.Cloud(s.ctx, Azure, s.keys.account, scope)
		if err != nil {
			return nil, s.notLoggedIn(name, azureEntry, err)
		}
		credential = loggedIn{Token: found.Token, ExpiresOn: found.Expires}
	}
	master := azkv.MasterKey{VaultURL: key.VaultUrl, Name: key.Name, Version: key.Version, EncryptedKey: string(sealed)}
	azkv.NewTokenCredential(credential).ApplyToMasterKey(&master)
	if s.keys.http != nil {
		azkv.NewClientOptions(azureOptions(s.keys.http)).ApplyToMasterKey(&master)
	}
	plain, err := master.DecryptContext(s.ctx)
	return plain, s.answered(name, err)
}

func (s *service) withGCP(key *keyservice.GcpKmsKey, sealed []byte) ([]byte, error) {
	name := "Google Cloud KMS key " + key.ResourceId
	master := gcpkms.MasterKey{ResourceID: key.ResourceId, EncryptedKey: string(sealed)}
	switch {
	case s.keys.gcp != nil:
		gcpkms.CredentialJSON(s.keys.gcp).ApplyToMasterKey(&master)
	case s.keys.logins.Cloud != nil:
		found, err := s.keys.logins.Cloud(s.ctx, GCP, s.keys.account, "")
		if err != nil {
			return nil, s.notLoggedIn(name, gcpEntry, err)
		}
		gcpkms.NewTokenSource(oauth2.StaticTokenSource(&oauth2.Token{AccessToken: found.Token, TokenType: "Bearer", Expiry: found.Expires})).ApplyToMasterKey(&master)
	default:
		return nil, s.lacks(name, gcpEntry)
	}
	plain, err := master.DecryptContext(s.ctx)
	return plain, s.answered(name, err)
}

// lacks notes that there is no key of a kind.
func (s *service) lacks(name, entry string) error {
	return s.failed(name, fmt.Errorf("there is no entry %s", entry))
}

// notLoggedIn notes that there is no key of a kind, and that nobody could log in without.
func (s *service) notLoggedIn(name, entry string, err error) error {
	s.asked = true
	return s.failed(name, fmt.Errorf("there is no entry %s, and %s", entry, reason(err)))
}

// answered notes what a service could not do; nil where it could.
func (s *service) answered(name string, err error) error {
	if err == nil {
		return nil
	}
	s.asked = true
	return s.failed(name, errors.New(reason(err)))
}

// failed notes why a key did not help.
func (s *service) failed(name string, err error) error {
	s.tried = append(s.tried, fmt.Sprintf("%s (%v)", shortened(name), err))
	return errNoKey
}

const (
	// maxTried is how many keys are named in an error.
	maxTried = 5
	// maxName is the length of the name of a key in an error.
	maxName = 200
)

// shortened is a name of the repository in a length that can be shown.
func shortened(name string) string {
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}

// explain says for which keys a document is encrypted and why none of them helps.
func (s *service) explain(from string) error {
	tried := strings.Join(s.tried[:min(len(s.tried), maxTried)], ", ")
	if more := len(s.tried) - maxTried; more > 0 {
		tried += fmt.Sprintf(" and %d more", more)
	}
	if tried == "" {
		return errors.New("it is encrypted for no key")
	}
	switch {
	case from == "" && s.asked:
		return &build.Unavailable{Err: fmt.Errorf("no key opens it: it is encrypted for %s; see that the service can be reached and that whoever logs in may use the key", tried)}
	case from == "":
		return fmt.Errorf("there are no keys: it is encrypted for %s; name a Secret with one of them in spec.decryption.secretRef", tried)
	case s.asked:
		return &build.Unavailable{Err: fmt.Errorf("no key of %s opens it: it is encrypted for %s; see that the service can be reached and that the credentials may use the key", from, tried)}
	}
	return fmt.Errorf("no key of %s opens it: it is encrypted for %s; add the key of one of them to the Secret, or encrypt it for a key that is there", from, tried)
}
