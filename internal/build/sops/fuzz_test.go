package sops_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
)

// FuzzOpen hands in anything as a file, as an object and as an entry. Nothing of it may
// panic, and nothing that is not encrypted may count as opened.
func FuzzOpen(f *testing.F) {
	identity, age := sopstest.Age(f)
	to := sopstest.Encryption{For: []sopstest.Recipient{age}}
	for name, plain := range map[string]string{"a.yaml": "a: b\n", "a.json": `{"a":1}`, "a.env": "a=b\n", "a.ini": "[a]\nb = c\n", "a": "b"} {
		f.Add([]byte(to.Encrypt(f, name, plain)), name)
	}
	f.Add([]byte(`{"apiVersion":"v1","kind":"Secret","sops":{"mac":"ENC["},"data":{"a":"bWFjOiBFTkNb"}}`), "a.yaml")
	f.Fuzz(func(t *testing.T, content []byte, name string) {
		keys := unlock(t, entries("a.agekey", identity))
		opened, encrypted, err := keys.File(context.Background(), build.EncryptedFile{Content: content, Name: name})
		if encrypted && err == nil && bytes.Equal(opened.Content, content) {
			t.Errorf("%q counts as opened", content)
		}
		_, _, _ = keys.Object(context.Background(), content)
		for _, entry := range []string{"a.asc", "a.agekey", "sops.aws-kms", "sops.azure-kv", "sops.gcp-kms"} {
			_, _ = newDecrypter().Unlock(entries(entry, string(content)))
		}
	})
}
