// Package seal encrypts files as the sops command does: what tests and the benchmark
// open again. The operator does not link it.
package seal

import (
	"crypto/rand"
	"fmt"
	"path"
	"time"

	"filippo.io/age"
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keys"
	sopsdotenv "github.com/getsops/sops/v3/stores/dotenv"
	sopsini "github.com/getsops/sops/v3/stores/ini"
	sopsjson "github.com/getsops/sops/v3/stores/json"
	sopsyaml "github.com/getsops/sops/v3/stores/yaml"
)

// Recipient is somebody whom a file is encrypted for: it gives SOPS's key with the data
// key sealed in it.
type Recipient func(dataKey []byte) (keys.MasterKey, error)

// Encryption says what is encrypted and for whom.
type Encryption struct {
	// For are the recipients, each of whom can open it alone.
	For []Recipient
	// Only is a regular expression for the keys whose values are encrypted; all
	// values are where it is empty.
	Only string
	// Binary encrypts a file of any name as binary.
	Binary bool
}

// Encrypt encrypts a text in the form that the ending of its name promises.
func (e Encryption) Encrypt(name, plain string) (string, error) {
	store := storeOf(name)
	if e.Binary {
		store = storeOf("")
	}
	branches, err := store.LoadPlainFile([]byte(plain))
	if err != nil {
		return "", err
	}
	dataKey := make([]byte, 32)
	_, _ = rand.Read(dataKey)
	tree := sops.Tree{Branches: branches, Metadata: sops.Metadata{
		Version: "3.13.3", EncryptedRegex: e.Only, LastModified: time.Now().UTC(), KeyGroups: []sops.KeyGroup{nil},
	}}
	for _, recipient := range e.For {
		key, err := recipient(dataKey)
		if err != nil {
			return "", err
		}
		tree.Metadata.KeyGroups[0] = append(tree.Metadata.KeyGroups[0], key)
	}
	cipher := aes.NewCipher()
	sum, err := tree.Encrypt(dataKey, cipher)
	if err != nil {
		return "", err
	}
	tree.Metadata.MessageAuthenticationCode, err = cipher.Encrypt(sum, dataKey, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil {
		return "", err
	}
	sealed, err := store.EmitEncryptedFile(tree)
	return string(sealed), err
}

func storeOf(name string) sops.Store {
	stores := config.NewStoresConfig()
	switch path.Ext(name) {
	case ".yaml":
		return sopsyaml.NewStore(&stores.YAML)
	case ".json":
		return sopsjson.NewStore(&stores.JSON)
	case ".env":
		return sopsdotenv.NewStore(&stores.Dotenv)
	case ".ini":
		return sopsini.NewStore(&stores.INI)
	default:
		return sopsjson.NewBinaryStore(&stores.JSONBinary)
	}
}

// Age makes an age identity, as it stands in an entry, and its recipient.
func Age() (identity string, recipient Recipient, err error) {
	made, err := age.GenerateX25519Identity()
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("# created: today\n# public key: %s\n%s\n", made.Recipient(), made), func(dataKey []byte) (keys.MasterKey, error) {
		key, err := sopsage.MasterKeyFromRecipient(made.Recipient().String())
		if err == nil {
			err = key.Encrypt(dataKey)
		}
		return key, err
	}, nil
}
