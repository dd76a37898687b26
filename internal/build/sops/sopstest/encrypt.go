// Package sopstest encrypts files as the sops command does, for keys that a test makes
// itself. Only tests import it.
package sopstest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/pgp"
	sopsdotenv "github.com/getsops/sops/v3/stores/dotenv"
	sopsini "github.com/getsops/sops/v3/stores/ini"
	sopsjson "github.com/getsops/sops/v3/stores/json"
	sopsyaml "github.com/getsops/sops/v3/stores/yaml"
)

// Recipient is somebody whom a file is encrypted for: it gives SOPS's key with the data
// key sealed in it.
type Recipient func(t testing.TB, dataKey []byte) keys.MasterKey

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
func (e Encryption) Encrypt(t testing.TB, name, plain string) string {
	t.Helper()
	store := storeOf(name)
	if e.Binary {
		store = storeOf("")
	}
	branches, err := store.LoadPlainFile([]byte(plain))
	if err != nil {
		t.Fatalf("encrypt %s: %v", name, err)
	}
	dataKey := make([]byte, 32)
	_, _ = rand.Read(dataKey)
	tree := sops.Tree{Branches: branches, Metadata: sops.Metadata{
		Version: "3.13.3", EncryptedRegex: e.Only, LastModified: time.Now().UTC(), KeyGroups: []sops.KeyGroup{nil},
	}}
	for _, recipient := range e.For {
		tree.Metadata.KeyGroups[0] = append(tree.Metadata.KeyGroups[0], recipient(t, dataKey))
	}
	cipher := aes.NewCipher()
	sum, err := tree.Encrypt(dataKey, cipher)
	if err != nil {
		t.Fatalf("encrypt %s: %v", name, err)
	}
	tree.Metadata.MessageAuthenticationCode, err = cipher.Encrypt(sum, dataKey, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil {
		t.Fatalf("encrypt %s: %v", name, err)
	}
	sealed, err := store.EmitEncryptedFile(tree)
	if err != nil {
		t.Fatalf("encrypt %s: %v", name, err)
	}
	return string(sealed)
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
func Age(t testing.TB) (identity string, recipient Recipient) {
	t.Helper()
	made, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("# created: today\n# public key: %s\n%s\n", made.Recipient(), made), func(t testing.TB, dataKey []byte) keys.MasterKey {
		t.Helper()
		key, err := sopsage.MasterKeyFromRecipient(made.Recipient().String())
		if err == nil {
			err = key.Encrypt(dataKey)
		}
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
}

// PGP makes an OpenPGP key, armored as gpg exports it, and its recipient. Passphrase
// protects the key where it is not empty.
func PGP(t testing.TB, passphrase string) (private string, recipient Recipient) {
	t.Helper()
	entity, err := openpgp.NewEntity("Test", "", "test@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	recipient = func(t testing.TB, dataKey []byte) keys.MasterKey {
		t.Helper()
		var sealed bytes.Buffer
		armored, err := armor.Encode(&sealed, "PGP MESSAGE", nil)
		if err != nil {
			t.Fatal(err)
		}
		message, err := openpgp.Encrypt(armored, []*openpgp.Entity{entity}, nil, &openpgp.FileHints{IsBinary: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []func() error{func() error { _, err := message.Write(dataKey); return err }, message.Close, armored.Close} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		key := pgp.NewMasterKeyFromFingerprint(strings.ToUpper(fmt.Sprintf("%x", entity.PrimaryKey.Fingerprint)))
		key.SetEncryptedDataKey(sealed.Bytes())
		return key
	}
	return armoredKey(t, entity, passphrase), recipient
}

func armoredKey(t testing.TB, entity *openpgp.Entity, passphrase string) string {
	t.Helper()
	var out bytes.Buffer
	armored, err := armor.Encode(&out, openpgp.PrivateKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	serialize := entity.SerializePrivate
	if passphrase != "" {
		if err := entity.EncryptPrivateKeys([]byte(passphrase), nil); err != nil {
			t.Fatal(err)
		}
		serialize = entity.SerializePrivateWithoutSigning
	}
	if err := serialize(armored, nil); err != nil {
		t.Fatal(err)
	}
	if err := armored.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
