package verifytest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/tspclient-go"
)

// NotationType is the artifact type of signatures of notation.
const NotationType = "application/vnd.cncf.notary.signature"

// Envelopes are the media types of signatures of notation.
func Envelopes() []string { return []string{jws.MediaTypeEnvelope, cose.MediaTypeEnvelope} }

// Authority signs certificates for notation, and says which it revoked.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	// Revocations is the server of its list; certificates name it where they shall.
	Revocations *httptest.Server

	mu      sync.Mutex // guards what follows
	revoked []x509.RevocationListEntry
	// asked counts the requests for the list.
	asked int
}

// NewAuthority makes one that is valid for a day.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "authority", Country: []string{"CH"}, Organization: []string{"Example"}, Province: []string{"ZH"}},
		NotBefore: time.Now().Add(-12 * time.Hour), NotAfter: time.Now().Add(12 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
	}
	a.Certificate = issue(t, template, template, a.key.Public(), a.key)
	a.Revocations = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked++
		list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour), RevokedCertificateEntries: a.revoked,
		}, a.Certificate, a.key)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(list)
	}))
	t.Cleanup(a.Revocations.Close)
	return a
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

// Asked is how often the list of revoked certificates was asked for.
func (a *Authority) Asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// NotationSigner signs as notation does.
type NotationSigner struct {
	Chain []*x509.Certificate
	Key   crypto.PrivateKey
	// At is when it signs, Expiry when the signature expires, if it is not zero.
	At, Expiry time.Time
	// Time says when it signs, where it is not nil.
	Time *Sigstore
}

// Signer makes a signer for somebody, whose certificate is valid until a time. Where listed
// is set the certificate names the server of revoked ones.
func (a *Authority) Signer(t testing.TB, who string, until time.Time, listed bool) NotationSigner {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: who, Country: []string{"CH"}, Organization: []string{"Example"}, Province: []string{"ZH"}},
		NotBefore: a.Certificate.NotBefore, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if listed {
		template.CRLDistributionPoints = []string{a.Revocations.URL + "/list.crl"}
	}
	leaf := issue(t, template, a.Certificate, key.Public(), a.key)
	return NotationSigner{Chain: []*x509.Certificate{leaf, a.Certificate}, Key: key, At: a.Certificate.NotBefore.Add(time.Minute)}
}

// Revoke revokes the certificate of a signer.
func (a *Authority) Revoke(s NotationSigner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = append(a.revoked, x509.RevocationListEntry{SerialNumber: s.Chain[0].SerialNumber, RevocationTime: time.Now().Add(-time.Hour)})
}

// Envelope signs what describes an artifact, in an envelope of a media type.
func (s NotationSigner) Envelope(t testing.TB, mediaType string, target *v1.Descriptor) []byte {
	t.Helper()
	return s.EnvelopeOf(t, mediaType, marshal(t, map[string]any{"targetArtifact": map[string]any{
		"mediaType": target.MediaType, "digest": target.Digest.String(), "size": target.Size,
	}}))
}

// EnvelopeOf signs a payload.
func (s NotationSigner) EnvelopeOf(t testing.TB, mediaType string, payload []byte) []byte {
	t.Helper()
	envelope, err := signature.NewEnvelope(mediaType)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.NewLocalSigner(s.Chain, s.Key)
	if err != nil {
		t.Fatal(err)
	}
	request := &signature.SignRequest{
		Payload: signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: payload},
		Signer:  signer, SigningTime: s.At, Expiry: s.Expiry, SigningScheme: signature.SigningSchemeX509,
	}
	if s.Time != nil {
		request.TSARootCAs = x509.NewCertPool()
		request.TSARootCAs.AddCert(s.Time.root)
		request.Timestamper = stamper{s.Time, s.At}
	}
	signed, err := envelope.Sign(request)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// PushNotation pushes signatures of notation.
func (r *Registry) PushNotation(t testing.TB, mediaType string, envelopes ...[]byte) {
	t.Helper()
	for _, envelope := range envelopes {
		r.PushNotationLayers(t, r.PushBlob(t, r.Image.Context(), types.MediaType(mediaType), envelope))
	}
}

// PushNotationLayers pushes a signature whose envelope is some blobs, where one belongs.
func (r *Registry) PushNotationLayers(t testing.TB, layers ...v1.Descriptor) {
	t.Helper()
	config := r.PushBlob(t, r.Image.Context(), NotationType, []byte("{}"))
	r.PushManifest(t, name.Tag{Repository: r.Image.Context()}, r.manifest(t, r.Image.Context(), config, layers, r.Subject(t)))
}

// stamper says the time as notation asks for it.
type stamper struct {
	by *Sigstore
	at time.Time
}

// Timestamp answers a request.
func (s stamper) Timestamp(_ context.Context, request *tspclient.Request) (*tspclient.Response, error) {
	raw, err := s.by.stamp(request.MessageImprint.HashedMessage, request.Nonce, s.at)
	if err != nil {
		return nil, err
	}
	response := &tspclient.Response{}
	return response, response.UnmarshalBinary(raw)
}

// TimePEM is the certificate of the authority that says the time.
func (s *Sigstore) TimePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.root.Raw})
}
