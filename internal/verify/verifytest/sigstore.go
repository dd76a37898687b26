package verifytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor/pkg/util"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Sigstore is a private Sigstore: an authority that signs certificates of ten minutes for
// identities, a log of certificates, one of signatures, and an authority that says the time.
type Sigstore struct {
	root, intermediate *x509.Certificate
	intermediateKey    *ecdsa.PrivateKey
	certificates, log  *ecdsa.PrivateKey
	stamper            *x509.Certificate
	stamperKey         *ecdsa.PrivateKey
	// Start is when its authority begins to be valid; it is so for a day from then.
	Start time.Time
}

// NewSigstore makes one.
func NewSigstore(t testing.TB) *Sigstore {
	t.Helper()
	s := &Sigstore{Start: time.Now().Add(-12 * time.Hour).Truncate(time.Second), certificates: newKey(t), log: newKey(t), intermediateKey: newKey(t)}
	rootKey := newKey(t)
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: s.Start, NotAfter: s.Start.Add(24 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageTimeStamping},
		}
	}
	template := authority("root")
	s.root = issue(t, template, template, rootKey.Public(), rootKey)
	s.intermediate = issue(t, authority("intermediate"), s.root, s.intermediateKey.Public(), rootKey)
	s.stamper, s.stamperKey = s.newStamper(t, rootKey)
	return s
}

// TrustedRoot is its trusted_root.json.
func (s *Sigstore) TrustedRoot(t testing.TB) []byte {
	t.Helper()
	log := func(key *ecdsa.PrivateKey, host string) map[string]*root.TransparencyLog {
		id := logID(t, key)
		return map[string]*root.TransparencyLog{hex.EncodeToString(id): {
			BaseURL: "https://" + host, ID: id, ValidityPeriodStart: s.Start, HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256, PublicKey: key.Public(),
		}}
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: s.root, Intermediates: []*x509.Certificate{s.intermediate}, ValidityPeriodStart: s.Start, URI: "https://fulcio.example.com",
		}}, log(s.certificates, "ct.example.com"), []root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: s.root, Leaf: s.stamper, ValidityPeriodStart: s.Start, URI: "https://tsa.example.com",
		}}, log(s.log, "rekor.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := made.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Leaf is a certificate for an identity and its key.
type Leaf struct {
	DER []byte
	Key *ecdsa.PrivateKey
	// Start is when it begins to be valid; it is so for ten minutes.
	Start time.Time
}

// PEM is the certificate.
func (l Leaf) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.DER}))
}

// Leaf makes a certificate that has expired by now, as those that one meets have. Where
// logged is nil it is not in a log of certificates, else in that one's.
func (s *Sigstore) Leaf(t testing.TB, issuer, subject string, logged *Sigstore) Leaf {
	t.Helper()
	leaf := Leaf{Key: newKey(t), Start: s.Start.Add(6 * time.Hour)}
	name, err := asn1.Marshal(issuer)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(t), NotBefore: leaf.Start, NotAfter: leaf.Start.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		// Fulcio names the issuer in two ways, an older and a newer one.
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: name},
		},
	}
	if strings.Contains(subject, "://") {
		u, err := url.Parse(subject)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	} else {
		template.EmailAddresses = []string{subject}
	}
	made := issue(t, template, s.intermediate, leaf.Key.Public(), s.intermediateKey)
	if logged != nil {
		template.ExtraExtensions = append(template.ExtraExtensions, logged.proof(t, made, s.intermediate))
		made = issue(t, template, s.intermediate, leaf.Key.Public(), s.intermediateKey)
	}
	leaf.DER = made.Raw
	return leaf
}

// proof is the extension that says that a certificate is in the log of certificates
// (RFC 6962, section 3.3).
func (s *Sigstore) proof(t testing.TB, of, issuer *x509.Certificate) pkix.Extension {
	t.Helper()
	at := uint64(of.NotBefore.UnixMilli()) //nolint:gosec // it is after 1970
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, Timestamp: at}
	copy(sct.LogID.KeyID[:], logID(t, s.certificates))
	signed, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: at, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: sha256.Sum256(issuer.RawSubjectPublicKeyInfo), TBSCertificate: of.RawTBSCertificate},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	signature, err := tls.CreateSignature(*s.certificates, tls.SHA256, signed)
	if err != nil {
		t.Fatal(err)
	}
	sct.Signature = ct.DigitallySigned(signature)
	list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tls.Marshal(*list)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier(ctx509.OIDExtensionCTSCT), Value: value}
}

// Entry puts a body into the log of signatures at a time: with a promise of the log and
// a proof that it is in a tree of one entry.
func (s *Sigstore) Entry(t testing.TB, kind string, body []byte, at time.Time) *protorekor.TransparencyLogEntry {
	t.Helper()
	id := logID(t, s.log)
	// The keys of a map are written in order and nothing in it is escaped, which makes it
	// the canonical form that logs sign.
	promised, err := json.Marshal(map[string]any{
		"body": base64.StdEncoding.EncodeToString(body), "integratedTime": at.Unix(), "logID": hex.EncodeToString(id), "logIndex": 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(promised)
	promise, err := ecdsa.SignASN1(rand.Reader, s.log, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadECDSASignerVerifier(s.log, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	tree := sha256.Sum256(append([]byte{0}, body...))
	checkpoint, err := util.CreateAndSignCheckpoint(t.Context(), "rekor.example.com", 1, 1, tree[:], signer)
	if err != nil {
		t.Fatal(err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: 7, LogId: &protocommon.LogId{KeyId: id}, KindVersion: &protorekor.KindVersion{Kind: kind, Version: "0.0.1"},
		IntegratedTime: at.Unix(), InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: promise}, CanonicalizedBody: body,
		InclusionProof: &protorekor.InclusionProof{TreeSize: 1, RootHash: tree[:], Checkpoint: &protorekor.Checkpoint{Envelope: string(checkpoint)}},
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func issue(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// logID is the digest of a log's key.
func logID(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(public)
	return digest[:]
}
