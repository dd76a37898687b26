package notation

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// Whatever an envelope says, it is accepted only from who signed the seed.
func FuzzEnvelope(f *testing.F) {
	authority := verifytest.NewAuthority(f)
	ann := authority.Signer(f, "ann", authority.Certificate.NotAfter, false)
	image, err := name.NewDigest("registry.example.com/org/app@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		f.Fatal(err)
	}
	target := &v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 7, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}}
	for i, mediaType := range verifytest.Envelopes() {
		f.Add(ann.Envelope(f, mediaType, target), i == 0)
		f.Add(ann.EnvelopeOf(f, mediaType, []byte(`{"targetArtifact":null}`)), i == 0)
	}
	f.Add([]byte(`{"payload":"","protected":"","header":{"x5c":[null]},"signature":""}`), true)
	f.Add([]byte{0xd2, 0x84, 0x40, 0xa0, 0x40, 0x40}, false)
	v, err := New(Options{TrustPolicy: policy("strict", "*"), Certificates: map[string][]byte{"a.crt": authority.PEM()}})
	if err != nil {
		f.Fatal(err)
	}
	s := search{library: v.library, image: image, target: ocispec.Descriptor{MediaType: string(target.MediaType), Size: target.Size, Digest: digest.Digest(target.Digest.String())}}
	f.Fuzz(func(t *testing.T, envelope []byte, first bool) {
		mediaType := verifytest.Envelopes()[0]
		if !first {
			mediaType = verifytest.Envelopes()[1]
		}
		if by, err := s.check(t.Context(), envelope, mediaType); err == nil && !strings.Contains(by, "CN=ann") {
			t.Errorf("accepted by %q: %q", by, envelope)
		}
	})
}

// A policy or a certificate of any bytes is used or refused.
func FuzzSettings(f *testing.F) {
	pem := verifytest.NewAuthority(f).PEM()
	f.Add(policy("strict", "*"), pem)
	f.Add(policy("skip", "registry.example.com/app", "x509.subject: C=CH, ST=ZH, O=Example"), pem[:len(pem)/2])
	f.Add([]byte(`{"version":"1.0","trustPolicies":[{"name":"","trustedIdentities":[""],"trustStores":[":"]}]}`), []byte{0x30})
	f.Add([]byte(`{"trustPolicies":null}`), []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, policy, certificate []byte) {
		v, err := New(Options{TrustPolicy: policy, Certificates: map[string][]byte{"a.crt": certificate}})
		if (v == nil) == (err == nil) {
			t.Errorf("%v, %v", v, err)
		}
	})
}
