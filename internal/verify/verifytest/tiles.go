package verifytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	tilesnote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/mod/sumdb/note"
)

// newStamper makes the certificate that the time is signed with.
func (s *Sigstore) newStamper(t testing.TB, rootKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	// The usage must be marked as critical (RFC 3161, section 2.3).
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	return issue(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "time"}, NotBefore: s.Start, NotAfter: s.Start.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, s.root, key.Public(), rootKey), key
}

// Stamp says that a signature was there at a time (RFC 3161).
func (s *Sigstore) Stamp(t testing.TB, signed []byte, at time.Time) []byte {
	t.Helper()
	digest := sha256.Sum256(signed)
	raw, err := s.stamp(digest[:], nil, at)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (s *Sigstore) stamp(digest []byte, nonce *big.Int, at time.Time) ([]byte, error) {
	stamp := timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: digest, Time: at, Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}, Nonce: nonce,
		AddTSACertificate: true, Certificates: []*x509.Certificate{s.root},
	}
	return stamp.CreateResponseWithOpts(s.stamper, s.stamperKey, crypto.SHA256)
}

// Tile puts a signature into a log of the second generation of Rekor, as the only entry
// of its tree.
func (s *Sigstore) Tile(t testing.TB, leaf *Leaf, message, signed []byte) *protorekor.TransparencyLogEntry {
	t.Helper()
	digest := sha256.Sum256(message)
	body := marshal(t, map[string]any{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": map[string]any{"hashedRekordV002": map[string]any{
		"data": map[string]any{"algorithm": "SHA2_256", "digest": digest[:]},
		"signature": map[string]any{"content": signed, "verifier": map[string]any{
			"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": map[string]any{"rawBytes": leaf.DER},
		}},
	}}})
	if !json.Valid(body) || bytes.ContainsAny(body, " \n") {
		t.Fatal("the body of an entry is not canonical")
	}
	signer, err := signature.LoadECDSASignerVerifier(s.log, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	const origin = "rekor.example.com"
	by, err := tilesnote.NewNoteSigner(t.Context(), origin, signer)
	if err != nil {
		t.Fatal(err)
	}
	tree := sha256.Sum256(append([]byte{0}, body...))
	checkpoint, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n1\n%s\n", origin, base64.StdEncoding.EncodeToString(tree[:]))}, by)
	if err != nil {
		t.Fatal(err)
	}
	return &protorekor.TransparencyLogEntry{
		LogId: &protocommon.LogId{KeyId: logID(t, s.log)}, KindVersion: &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"}, CanonicalizedBody: body,
		InclusionProof: &protorekor.InclusionProof{TreeSize: 1, RootHash: tree[:], Checkpoint: &protorekor.Checkpoint{Envelope: string(checkpoint)}},
	}
}
