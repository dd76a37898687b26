package cosign

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// flip changes one bit in the middle.
func flip(raw []byte) []byte {
	changed := bytes.Clone(raw)
	changed[len(changed)/2] ^= 1
	return changed
}

func TestTamperedSimples(t *testing.T) {
	t.Parallel()
	store := verifytest.NewSigstore(t)
	identity, key := store.Identity(t, issuer, subject), verifytest.KeySigner(t)
	keyless := newVerifier(t, Options{Keyless: true, TrustedRoot: store.TrustedRoot(t)})
	keyed := newVerifier(t, byKeys(t, key))
	const signature, certificate, log = signatureAnnotation, certificateAnnotation, logAnnotation
	encode := base64.StdEncoding.EncodeToString
	double := func(digest, second string) []byte {
		return fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":%q,%s:%q},"type":%q}}`, other, second, digest, payloadType)
	}
	// resign signs something else than what cosign would.
	resign := func(payload func(digest string) []byte) func(*verifytest.Simple, verifytest.Signer, string) {
		return func(s *verifytest.Simple, by verifytest.Signer, digest string) { *s = by.Simple(t, payload(digest)) }
	}
	annotate := func(key, value string) func(*verifytest.Simple, verifytest.Signer, string) {
		return func(s *verifytest.Simple, _ verifytest.Signer, _ string) { s.Annotations[key] = value }
	}
	for name, row := range map[string]struct {
		spoil func(s *verifytest.Simple, by verifytest.Signer, digest string)
		// keyless is set where only those with certificates are concerned.
		keyless bool
	}{
		"a changed payload": {spoil: func(s *verifytest.Simple, _ verifytest.Signer, _ string) { s.Payload = append(s.Payload, ' ') }},
		"a changed signature": {spoil: func(s *verifytest.Simple, _ verifytest.Signer, _ string) {
			raw, err := base64.StdEncoding.DecodeString(s.Annotations[signature])
			if err != nil {
				t.Fatal(err)
			}
			s.Annotations[signature] = encode(flip(raw))
		}},
		"no signature":                                    {spoil: func(s *verifytest.Simple, _ verifytest.Signer, _ string) { delete(s.Annotations, signature) }},
		"an empty signature":                              {spoil: annotate(signature, "")},
		"a signature that is not base64":                  {spoil: annotate(signature, "§")},
		"a signature of no bytes that matter":             {spoil: annotate(signature, encode(make([]byte, 64)))},
		"a payload that names two digests":                {spoil: resign(func(digest string) []byte { return double(digest, `"docker-manifest-digest"`) })},
		"a payload that names the digest in another case": {spoil: resign(func(digest string) []byte { return double(digest, `"Docker-Manifest-Digest"`) })},
		"a payload of another type": {spoil: resign(func(digest string) []byte {
			return bytes.Replace(verifytest.Payload(digest), []byte(payloadType), []byte("atomic container signature"), 1)
		})},
		"a payload that is not JSON":  {spoil: resign(func(string) []byte { return []byte("canary") })},
		"an empty payload":            {spoil: resign(func(string) []byte { return nil })},
		"a payload that is null":      {spoil: resign(func(string) []byte { return []byte("null") })},
		"a payload with bytes behind": {spoil: resign(func(digest string) []byte { return append(verifytest.Payload(digest), "{}"...) })},
		"no certificate":              {keyless: true, spoil: annotate(certificate, "")},
		"a certificate of garbage":    {keyless: true, spoil: annotate(certificate, "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n")},
		"two certificates": {keyless: true, spoil: func(s *verifytest.Simple, _ verifytest.Signer, _ string) {
			s.Annotations[certificate] += s.Annotations[certificate]
		}},
		"a certificate of another identity": {keyless: true, spoil: annotate(certificate, store.Identity(t, issuer, "ann@example.com").Leaf.PEM())},
		"no entry in a log":                 {keyless: true, spoil: annotate(log, "")},
		"an entry of garbage":               {keyless: true, spoil: annotate(log, "{")},
		"an entry that is null":             {keyless: true, spoil: annotate(log, "null")},
		"an entry without a body":           {keyless: true, spoil: annotate(log, `{"SignedEntryTimestamp":"AA==","Payload":{"logID":"00"}}`)},
		"an entry of another signature": {keyless: true, spoil: func(s *verifytest.Simple, by verifytest.Signer, _ string) {
			s.Annotations[log] = by.Simple(t, verifytest.Payload(other)).Annotations[log]
		}},
		"an entry of another signer": {keyless: true, spoil: func(s *verifytest.Simple, _ verifytest.Signer, digest string) {
			s.Annotations[log] = store.Identity(t, issuer, subject).Simple(t, verifytest.Payload(digest)).Annotations[log]
		}},
		"an entry of another time": {keyless: true, spoil: func(s *verifytest.Simple, _ verifytest.Signer, _ string) {
			s.Annotations[log] = strings.Replace(s.Annotations[log], `"integratedTime":1`, `"integratedTime":2`, 1)
		}},
		"an entry with a changed promise": {keyless: true, spoil: func(s *verifytest.Simple, _ verifytest.Signer, _ string) {
			s.Annotations[log] = strings.Replace(s.Annotations[log], `"SignedEntryTimestamp":"ME`, `"SignedEntryTimestamp":"NE`, 1)
		}},
	} {
		for who, by := range map[string]verifytest.Signer{"key": key, "identity": identity} {
			if row.keyless && who == "key" {
				continue
			}
			t.Run(name+", "+who, func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, true)
				v, digest := keyed, r.Image.DigestStr()
				if who == "identity" {
					v = keyless
				}
				good := by.Simple(t, verifytest.Payload(digest))
				spoilt := by.Simple(t, verifytest.Payload(digest))
				row.spoil(&spoilt, by, digest)
				if fmt.Sprint(spoilt) == fmt.Sprint(good) {
					t.Fatal("nothing is spoilt")
				}
				r.PushSimples(t, spoilt)
				check(t, v, r, "", gitops.Denied, "not accepted")
				// It is no harm to a good one behind it.
				r.PushSimples(t, spoilt, good)
				check(t, v, r, "", "", "")
			})
		}
	}
}

// replace makes a bundle another one.
func replace(b, by *protobundle.Bundle) {
	proto.Reset(b)
	proto.Merge(b, by)
}

func TestTamperedBundles(t *testing.T) {
	t.Parallel()
	store := verifytest.NewSigstore(t)
	identity, key := store.Identity(t, issuer, subject), verifytest.KeySigner(t)
	keyless := newVerifier(t, Options{Keyless: true, TrustedRoot: store.TrustedRoot(t)})
	keyed := newVerifier(t, byKeys(t, key))
	for name, row := range map[string]struct {
		spoil   func(b *protobundle.Bundle, by verifytest.Signer, digest string)
		keyless bool
	}{
		"a changed statement": {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetDsseEnvelope().Payload = append(bytes.Clone(b.GetDsseEnvelope().GetPayload()), ' ')
		}},
		"a statement about another digest and this one's signature": {spoil: func(b *protobundle.Bundle, by verifytest.Signer, _ string) {
			b.GetDsseEnvelope().Signatures = by.Bundle(t, verifytest.Statement(other)).GetDsseEnvelope().GetSignatures()
		}},
		"a changed signature": {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetDsseEnvelope().Signatures[0].Sig = flip(b.GetDsseEnvelope().GetSignatures()[0].GetSig())
		}},
		"no signature": {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) { b.GetDsseEnvelope().Signatures = nil }},
		"two signatures": {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetDsseEnvelope().Signatures = append(b.GetDsseEnvelope().Signatures, b.GetDsseEnvelope().GetSignatures()[0])
		}},
		"another type of payload": {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetDsseEnvelope().PayloadType = "application/json"
		}},
		"a statement without subjects": {spoil: func(b *protobundle.Bundle, by verifytest.Signer, _ string) {
			replace(b, by.Bundle(t, []byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"x","predicate":{}}`)))
		}},
		"a statement that is not JSON": {spoil: func(b *protobundle.Bundle, by verifytest.Signer, _ string) {
			replace(b, by.Bundle(t, []byte(`canary`)))
		}},
		"a signature of bytes and not of a statement": {spoil: func(b *protobundle.Bundle, by verifytest.Signer, digest string) {
			b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
				MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: make([]byte, 32)}, Signature: by.Sign(t, []byte(digest)),
			}}
		}},
		"an old version": {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.MediaType = bundleType + "+json;version=0.1"
		}},
		"a version of the future":  {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) { b.MediaType = bundleType + ".v9.9+json" }},
		"no content":               {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) { b.Content = nil }},
		"no verification material": {spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) { b.VerificationMaterial = nil }},
		"no entry in a log": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().TlogEntries = nil
		}},
		"an entry twice": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().TlogEntries = append(b.GetVerificationMaterial().TlogEntries, b.GetVerificationMaterial().GetTlogEntries()[0])
		}},
		"an entry of another signature": {keyless: true, spoil: func(b *protobundle.Bundle, by verifytest.Signer, _ string) {
			b.GetVerificationMaterial().TlogEntries = by.Bundle(t, verifytest.Statement(other)).GetVerificationMaterial().GetTlogEntries()
		}},
		"an entry of another signer": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, digest string) {
			b.GetVerificationMaterial().TlogEntries = store.Identity(t, issuer, subject).Bundle(t, verifytest.Statement(digest)).GetVerificationMaterial().GetTlogEntries()
		}},
		"an entry without proof": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().GetTlogEntries()[0].InclusionProof = nil
		}},
		"an entry without the log's word for its time": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().GetTlogEntries()[0].InclusionPromise = nil
		}},
		"an entry of another time": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().GetTlogEntries()[0].IntegratedTime++
		}},
		"an entry that is in another tree": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			proof := b.GetVerificationMaterial().GetTlogEntries()[0].GetInclusionProof()
			proof.RootHash = flip(proof.GetRootHash())
		}},
		"a certificate of another identity": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().GetCertificate().RawBytes = store.Identity(t, issuer, "ann@example.com").Leaf.DER
		}},
		"a certificate of garbage": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().GetCertificate().RawBytes = []byte("canary")
		}},
		"no certificate": {keyless: true, spoil: func(b *protobundle.Bundle, _ verifytest.Signer, _ string) {
			b.GetVerificationMaterial().GetCertificate().RawBytes = nil
		}},
	} {
		for who, by := range map[string]verifytest.Signer{"key": key, "identity": identity} {
			if row.keyless && who == "key" {
				continue
			}
			t.Run(name+", "+who, func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, true)
				v, digest := keyed, r.Image.DigestStr()
				if who == "identity" {
					v = keyless
				}
				good := by.Bundle(t, verifytest.Statement(digest))
				spoilt := by.Bundle(t, verifytest.Statement(digest))
				row.spoil(spoilt, by, digest)
				if bytes.Equal(verifytest.JSON(t, spoilt), verifytest.JSON(t, good)) {
					t.Fatal("nothing is spoilt")
				}
				r.PushBundles(t, verifytest.JSON(t, spoilt))
				check(t, v, r, "", gitops.Denied, "not accepted")
				r.PushBundles(t, verifytest.JSON(t, good))
				check(t, v, r, "", "", "")
			})
		}
	}
}
