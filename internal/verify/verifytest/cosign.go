package verifytest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

// BundleType is the media type of bundles.
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Signer signs as cosign does: with a key, or with a certificate and an entry in a log.
type Signer struct {
	Key crypto.PrivateKey
	// Hash is what it signs with; SHA-256 where it is zero.
	Hash crypto.Hash
	// Leaf is nil for a signer with a key.
	Leaf *Leaf
	// Log gets an entry, where it is not nil, at a time.
	Log *Sigstore
	At  time.Time
	// Tiles has the log be one of the second generation, which tells no time, so that the
	// authority for the time does; only bundles hold such entries.
	Tiles bool
}

// Identity makes a signer for an identity, in the middle of its certificate's time.
func (s *Sigstore) Identity(t testing.TB, issuer, subject string) Signer {
	t.Helper()
	leaf := s.Leaf(t, issuer, subject, s)
	return Signer{Key: leaf.Key, Leaf: &leaf, Log: s, At: leaf.Start.Add(5 * time.Minute)}
}

// KeySigner makes a signer with a new key.
func KeySigner(t testing.TB) Signer { return Signer{Key: newKey(t)} }

// Public is the signer's public key in PEM.
func (s Signer) Public(t testing.TB) []byte {
	t.Helper()
	signer, ok := s.Key.(crypto.Signer)
	if !ok {
		t.Fatalf("%T is no key that signs", s.Key)
	}
	raw, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw})
}

// Sign signs bytes.
func (s Signer) Sign(t testing.TB, message []byte) []byte {
	t.Helper()
	hash := s.Hash
	if hash == 0 {
		hash = crypto.SHA256
	}
	signer, err := signature.LoadSigner(s.Key, hash)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.SignMessage(bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// Simple is a signature of cosign 2.
type Simple struct {
	Payload     []byte
	Annotations map[string]string
}

// Payload is what cosign 2 signs for a digest.
func Payload(digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"example.com/org/app"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
}

// Simple signs a payload as cosign 2 does.
func (s Signer) Simple(t testing.TB, payload []byte) Simple {
	t.Helper()
	signed := s.Sign(t, payload)
	made := Simple{Payload: payload, Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signed)}}
	if s.Leaf != nil {
		made.Annotations["dev.sigstore.cosign/certificate"] = s.Leaf.PEM()
		made.Annotations["dev.sigstore.cosign/chain"] = s.Leaf.PEM()
	}
	if s.Log != nil {
		made.Annotations["dev.sigstore.cosign/bundle"] = simpleEntry(t, s.Log.Entry(t, "hashedrekord", s.record(t, payload, signed), s.At))
	}
	return made
}

// record is the body of a log's entry for a signature.
func (s Signer) record(t testing.TB, payload, signed []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(payload)
	return marshal(t, map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(digest[:])}},
		"signature": map[string]any{"content": signed, "publicKey": map[string]any{"content": []byte(s.public(t))}},
	}})
}

// public is what a log's entry names the signer by.
func (s Signer) public(t testing.TB) string {
	if s.Leaf != nil {
		return s.Leaf.PEM()
	}
	return string(s.Public(t))
}

// simpleEntry is an entry as an annotation holds it.
func simpleEntry(t testing.TB, entry *protorekor.TransparencyLogEntry) string {
	t.Helper()
	return string(marshal(t, map[string]any{
		"SignedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
		"Payload": map[string]any{
			"body": entry.GetCanonicalizedBody(), "integratedTime": entry.GetIntegratedTime(), "logIndex": entry.GetLogIndex(), "logID": hex.EncodeToString(entry.GetLogId().GetKeyId()),
		},
	}))
}

// Statement is what cosign 3 signs for a digest.
func Statement(digest string) []byte {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"","digest":{%q:%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, algorithm, hex)
}

// Bundle signs a statement as cosign 3 does.
func (s Signer) Bundle(t testing.TB, statement []byte) *protobundle.Bundle {
	t.Helper()
	const payloadType = "application/vnd.in-toto+json"
	signed := s.Sign(t, dsse.PAE(payloadType, statement))
	made := &protobundle.Bundle{
		MediaType: BundleType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: "hint"}},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: signed}},
		}},
	}
	if s.Leaf != nil {
		made.VerificationMaterial.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: s.Leaf.DER}}
	}
	switch {
	case s.Log != nil && s.Tiles:
		made.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{s.Log.Tile(t, s.Leaf, dsse.PAE(payloadType, statement), signed)}
		made.VerificationMaterial.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: s.Log.Stamp(t, signed, s.At)}},
		}
	case s.Log != nil:
		payload, envelope := sha256.Sum256(statement), sha256.Sum256(marshal(t, made.GetDsseEnvelope()))
		body := marshal(t, map[string]any{"apiVersion": "0.0.1", "kind": "dsse", "spec": map[string]any{
			"envelopeHash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(envelope[:])},
			"payloadHash":  map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(payload[:])},
			"signatures":   []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(signed), "verifier": []byte(s.public(t))}},
		}})
		made.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{s.Log.Entry(t, "dsse", body, s.At)}
	}
	return made
}

// JSON is a bundle as it is pushed.
func JSON(t testing.TB, bundle *protobundle.Bundle) []byte {
	t.Helper()
	raw, err := protojson.Marshal(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// marshal writes JSON with its keys in order.
func marshal(t testing.TB, value any) []byte {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
