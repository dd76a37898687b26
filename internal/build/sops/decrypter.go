package sops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/getsops/sops/v3/logging"

	"github.com/plumb-gitops/plumb/internal/build"
)

// Names of entries, and ends of names, as in Flux.
const (
	ageEntry   = ".agekey"
	pgpEntry   = ".asc"
	vaultEntry = "sops.vault-token"
	awsEntry   = "sops.aws-kms"
	azureEntry = "sops.azure-kv"
	gcpEntry   = "sops.gcp-kms"
)

// Options configure a Decrypter.
type Options struct {
	// HTTP is the client for services that keep keys; nil for that of each
	// service's library.
	HTTP *http.Client
	// Logins log in where a Secret has no credentials; without them nobody does.
	Logins Logins
}

// Logins are made as an account, or as the operator itself where its name is empty. Their
// errors are for people, and the same each time.
type Logins struct {
	// Cloud logs in at one, for a region of AWS or a scope of Azure.
	Cloud func(ctx context.Context, cloud Cloud, as build.Account, scope string) (Credential, error)
	// Kubernetes gives a token for an audience, and whose it is.
	Kubernetes func(ctx context.Context, as build.Account, audience string) (token string, of build.Account, err error)
}

// Cloud is one that keeps keys.
type Cloud string

// The clouds.
const (
	AWS   Cloud = "aws"
	Azure Cloud = "azure"
	GCP   Cloud = "gcp"
)

// Credential is what a cloud lets somebody in with: the three keys of AWS, or the token of
// another.
type Credential struct {
	AccessKey, SecretKey, SessionToken string
	Token                              string
	Expires                            time.Time
}

// Decrypter implements build.Decrypter. It is safe for concurrent use.
type Decrypter struct {
	options Options
	marks   marks
}

// New makes a Decrypter. It turns SOPS's own logging off, which is one for the whole
// process: what went wrong is told by errors here.
func New(options Options) *Decrypter {
	for _, logger := range logging.Loggers {
		logger.SetOutput(io.Discard)
	}
	return &Decrypter{options: options, marks: newMarks()}
}

// keys are the keys of one owner by their kinds; what is not given is nil.
type keys struct {
	age   []age.Identity
	pgp   openpgp.EntityList
	vault string
	aws   aws.CredentialsProvider
	azure azcore.TokenCredential
	gcp   []byte
	http  *http.Client

	logins  Logins
	account build.Account
	// vaults are the paths of logins by addresses of Vaults.
	vaults map[string]string
	// vaultTrouble is why they are not known.
	vaultTrouble string
	tokens       *vaultTokens
}

// Unlock reads the entries of a Secret.
func (d *Decrypter) Unlock(decryption build.Decryption) (build.Keyring, error) {
	ring := &keyring{marks: d.marks, from: decryption.From, keys: keys{
		http: d.options.HTTP, logins: d.options.Logins, account: decryption.Account, vaults: decryption.VaultLogins, vaultTrouble: decryption.VaultTrouble,
		tokens: &vaultTokens{known: map[string]string{}},
	}}
	for _, name := range slices.Sorted(maps.Keys(decryption.Keys)) {
		if err := ring.keys.read(name, decryption.Keys[name]); err != nil {
			return nil, fmt.Errorf("entry %q of %s: %w", name, decryption.From, err)
		}
	}
	return ring, nil
}

// read takes one entry. One with another name is none of ours.
func (k *keys) read(name string, value []byte) error {
	switch path.Ext(name) {
	case ageEntry:
		identities, err := readAge(value)
		k.age = append(k.age, identities...)
		return err
	case pgpEntry:
		keys, err := readPGP(value)
		k.pgp = append(k.pgp, keys...)
		return err
	}
	var err error
	switch name {
	case vaultEntry:
		k.vault = strings.TrimSpace(string(value))
	case awsEntry:
		k.aws, err = readAWS(value)
	case azureEntry:
		k.azure, err = readAzure(value, k.http)
	case gcpEntry:
		k.gcp, err = readGCP(value)
	}
	return err
}

// readAge reads age identities, one on a line. A plugin is a program that the identity
// names, and is refused.
func readAge(value []byte) ([]age.Identity, error) {
	if bytes.Contains(value, []byte("AGE-PLUGIN-")) {
		return nil, errors.New("identities of age plugins are refused: they would run a program")
	}
	identities, err := age.ParseIdentities(bytes.NewReader(value))
	if err != nil {
		// The error may quote the identity.
		return nil, errors.New("it has no age identities, which are lines that begin with AGE-SECRET-KEY-")
	}
	return identities, nil
}
