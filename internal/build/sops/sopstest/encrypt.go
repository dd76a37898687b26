// Package sopstest encrypts files as the sops command does, for keys that a test makes
// itself. Only tests import it.
package sopstest

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/kms"
	"github.com/getsops/sops/v3/pgp"

	"github.com/plumb-gitops/plumb/internal/build/sops/seal"
)

// Recipient is somebody whom a file is encrypted for: it gives SOPS's key with the data
// key sealed in it.
type Recipient func(t testing.TB, dataKey []byte) keys.MasterKey

// Encryption says what is encrypted and for whom, as that of package seal.
type Encryption struct {
	For    []Recipient
	Only   string
	Binary bool
}

// Encrypt encrypts a text in the form that the ending of its name promises.
func (e Encryption) Encrypt(t testing.TB, name, plain string) string {
	t.Helper()
	encryption := seal.Encryption{Only: e.Only, Binary: e.Binary}
	for _, recipient := range e.For {
		encryption.For = append(encryption.For, func(dataKey []byte) (keys.MasterKey, error) { return recipient(t, dataKey), nil })
	}
	sealed, err := encryption.Encrypt(name, plain)
	if err != nil {
		t.Fatalf("encrypt %s: %v", name, err)
	}
	return sealed
}

// Age makes an age identity, as it stands in an entry, and its recipient.
func Age(t testing.TB) (identity string, recipient Recipient) {
	t.Helper()
	identity, sealed, err := seal.Age()
	if err != nil {
		t.Fatal(err)
	}
	return identity, func(t testing.TB, dataKey []byte) keys.MasterKey {
		t.Helper()
		key, err := sealed(dataKey)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
}

// AWS makes the recipient of a key of AWS KMS, whose service is reached with a client and
// static credentials.
func AWS(arn string, client *http.Client, id, secret, session string) Recipient {
	return func(t testing.TB, dataKey []byte) keys.MasterKey {
		t.Helper()
		key := kms.NewMasterKey(arn, "", nil)
		kms.NewCredentialsProvider(credentials.NewStaticCredentialsProvider(id, secret, session)).ApplyToMasterKey(key)
		kms.NewHTTPClient(client).ApplyToMasterKey(key)
		if err := key.Encrypt(dataKey); err != nil {
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
