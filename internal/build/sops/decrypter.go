package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

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
}

// Unlock reads the entries of a Secret.
func (d *Decrypter) Unlock(decryption build.Decryption) (build.Keyring, error) {
	ring := &keyring{marks: d.marks, from: decryption.From, keys: keys{http: d.options.HTTP}}
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
