package cosign

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// fuzzed is an image that nobody pushed.
func fuzzed(f *testing.F) name.Digest {
	f.Helper()
	image, err := name.NewDigest("registry.example.com/org/app@" + other)
	if err != nil {
		f.Fatal(err)
	}
	return image
}

// checkers accept the signatures of a key and of an identity.
func checkers(f *testing.F, key verifytest.Signer, store *verifytest.Sigstore) []checker {
	f.Helper()
	keyed, err := New(Options{Keys: map[string][]byte{"a.pub": key.Public(f)}})
	if err != nil {
		f.Fatal(err)
	}
	keyless, err := New(Options{Keyless: true, TrustedRoot: store.TrustedRoot(f)})
	if err != nil {
		f.Fatal(err)
	}
	by, err := keyless.checker(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return []checker{keyed.keys, by}
}

// Whatever a signature of cosign 2 says, it is accepted only if it names the image.
func FuzzSimple(f *testing.F) {
	image, key, store := fuzzed(f), verifytest.KeySigner(f), verifytest.NewSigstore(f)
	for _, signer := range []verifytest.Signer{key, store.Identity(f, issuer, subject)} {
		good := signer.Simple(f, verifytest.Payload(other))
		f.Add(good.Payload, good.Annotations[signatureAnnotation], good.Annotations[certificateAnnotation], good.Annotations[logAnnotation])
		bad := signer.Simple(f, verifytest.Payload(strings.ReplaceAll(other, "a", "b")))
		f.Add(bad.Payload, bad.Annotations[signatureAnnotation], bad.Annotations[certificateAnnotation], bad.Annotations[logAnnotation])
	}
	f.Add([]byte(`{"critical":null}`), "", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", `{"Payload":{"logID":"00","body":"bnVsbA=="}}`)
	all := checkers(f, key, store)
	f.Fuzz(func(t *testing.T, payload []byte, encoded, certificate, log string) {
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return
		}
		for _, check := range all {
			by, err := check.checkSimple(simple{payload: payload, signature: signature, certificate: certificate, log: log}, image)
			if err == nil && (by == "" || !bytes.Contains(payload, []byte(other))) {
				t.Errorf("accepted by %q: %q", by, payload)
			}
		}
	})
}

// Whatever a bundle says, it is accepted only if its statement names the image.
func FuzzBundle(f *testing.F) {
	image, key, store := fuzzed(f), verifytest.KeySigner(f), verifytest.NewSigstore(f)
	for _, signer := range []verifytest.Signer{key, store.Identity(f, issuer, subject)} {
		f.Add(verifytest.JSON(f, signer.Bundle(f, verifytest.Statement(other))))
		f.Add(verifytest.JSON(f, signer.Bundle(f, verifytest.Statement(strings.ReplaceAll(other, "a", "b")))))
	}
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{},"verificationMaterial":{"publicKey":{}}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":null,"verificationMaterial":{"certificate":{"rawBytes":""},"tlogEntries":[null]}}`))
	all := checkers(f, key, store)
	f.Fuzz(func(t *testing.T, raw []byte) {
		read, err := parseBundle(raw)
		if err != nil {
			return
		}
		for _, check := range all {
			by, err := check.checkBundle(read, image)
			if err == nil && (by == "" || !bytes.Contains(read.GetDsseEnvelope().GetPayload(), []byte(strings.TrimPrefix(other, "sha256:")))) {
				t.Errorf("accepted by %q: %q", by, raw)
			}
		}
	})
}

// A key or a trusted root of any bytes is used or refused.
func FuzzSettings(f *testing.F) {
	f.Add(verifytest.KeySigner(f).Public(f))
	f.Add(verifytest.NewSigstore(f).TrustedRoot(f))
	f.Add([]byte("-----BEGIN RSA PUBLIC KEY-----\nAA==\n-----END RSA PUBLIC KEY-----\n"))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[null],"certificateAuthorities":[{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if v, err := New(Options{Keys: map[string][]byte{"a.pub": raw}}); err == nil && len(v.keys) != 1 {
			t.Errorf("%d keys", len(v.keys))
		}
		if v, err := New(Options{Keyless: true, TrustedRoot: raw}); err == nil {
			if _, err := v.checker(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
