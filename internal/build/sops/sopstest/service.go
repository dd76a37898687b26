package sopstest

import (
	"testing"

	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/kms"
)

// Unopened are recipients that no service can open, by the entry of a Secret whose
// credential it is asked with: who encrypts for one asks nobody.
func Unopened() map[string]Recipient {
	of := func(key keys.MasterKey) Recipient {
		return func(testing.TB, []byte) keys.MasterKey { return key }
	}
	return map[string]Recipient{
		"sops.vault-token": of(&hcvault.MasterKey{VaultAddress: "https://vault.example.com", EnginePath: "transit", KeyName: "main", EncryptedKey: "vault:v1:AAAA"}),
		"sops.aws-kms":     of(&kms.MasterKey{Arn: "arn:aws:kms:eu-central-1:123456789012:key/main", EncryptedKey: "AAAA"}),
		"sops.azure-kv":    of(&azkv.MasterKey{VaultURL: "https://test.vault.azure.net", Name: "main", Version: "0123456789abcdef", EncryptedKey: "AAAA"}),
		"sops.gcp-kms":     of(&gcpkms.MasterKey{ResourceID: "projects/p/locations/global/keyRings/r/cryptoKeys/main", EncryptedKey: "AAAA"}),
	}
}
