// Package notation verifies the signatures that Notary Project's notation makes of OCI
// artifacts, by a trust policy and the certificates that it trusts.
//
// The trust policy decides what is enforced. As in Flux, an artifact whose level is
// skip, or whose only signatures are by nobody who is trusted at a level that merely
// logs that, is not refused and does not count as verified. Other than there, all
// signatures within the bound are tried, not just three.
//
// Whether a certificate is revoked is asked of the servers that it names, where the
// policy wants that; they are reached through the transport that is handed in.
package notation

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	_ "github.com/notaryproject/notation-core-go/signature/cose" // envelopes in COSE are read
	_ "github.com/notaryproject/notation-core-go/signature/jws"  // envelopes in JWS are read
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/verify"
)

// Options say which signatures are accepted.
type Options struct {
	// TrustPolicy is the file trustpolicy.json.
	TrustPolicy []byte
	// Certificates are those of the trust stores, all of them in each, in PEM or DER by
	// file name. Files whose names end neither in .crt nor in .pem are left out.
	Certificates map[string][]byte
	// Transport reaches the servers that know which certificates are revoked: one of
	// egress. Where it is nil they cannot be reached, and the status of certificates that
	// name one is not known.
	Transport http.RoundTripper
}

// Verifier verifies artifacts. It is safe for use by several goroutines.
type Verifier struct{ library library }

// library is what notation's verifier does.
type library interface {
	notation.Verifier
	SkipVerify(ctx context.Context, o notation.VerifierVerifyOptions) (bool, *trustpolicy.VerificationLevel, error)
}

// artifactType is that of manifests that hold a signature.
const artifactType = "application/vnd.cncf.notary.signature"

// largestEnvelope is the most bytes of a signature with its certificates.
const largestEnvelope = 1 << 20

// advice says what to do about an artifact that is refused.
const advice = "sign it with a certificate that trustpolicy.json and the certificates in the Secret of spec.verify.secretRef accept, or accept that of the signature"

// New makes a verifier; it connects to nothing yet. The error is Stalled.
func New(o Options) (*Verifier, error) {
	policy, err := parsePolicy(o.TrustPolicy)
	if err != nil {
		return nil, err
	}
	store, err := parseCertificates(o.Certificates)
	if err != nil {
		return nil, err
	}
	signing, stamping, err := revocations(o.Transport)
	if err != nil {
		return nil, verify.Unusable("check of revoked certificates: %w", err)
	}
	made, err := verifier.NewWithOptions(policy, store, nil, verifier.VerifierOptions{RevocationCodeSigningValidator: signing, RevocationTimestampingValidator: stamping})
	if err != nil {
		return nil, verify.Unusable("trustpolicy.json cannot be used: %s", egress.Printable(err.Error()))
	}
	library, ok := made.(library)
	if !ok {
		return nil, verify.Unusable("the verifier of notation does not tell which artifacts are skipped")
	}
	return &Verifier{library: library}, nil
}

// Verify verifies an artifact: by names the certificate whose signature it has. It is
// empty, without an error, where the trust policy lets an artifact pass that is not
// verified. The options are those that the artifact is pulled with. The error is a
// *gitops.Error: Denied where no signature is accepted, Stalled where the policy is for
// other artifacts, Transient where something could not be read.
func (v *Verifier) Verify(ctx context.Context, image name.Digest, o ...remote.Option) (by string, err error) {
	return verify.Guard(image, func() (string, error) { return v.verify(ctx, image, o) })
}

func (v *Verifier) verify(ctx context.Context, image name.Digest, o []remote.Option) (string, error) {
	skip, _, err := v.library.SkipVerify(ctx, notation.VerifierVerifyOptions{ArtifactReference: image.Name()})
	if err != nil {
		return "", verify.Unusable("no statement of trustpolicy.json is for %s; name that in registryScopes", egress.Quote(image.Context().Name()))
	}
	if skip {
		return "", nil
	}
	registry, err := verify.Open(image, o...)
	if err != nil {
		return "", verify.Unusable("%w", err)
	}
	_, found, err := registry.Raw(ctx, image)
	if err != nil {
		return "", verify.Unread(ctx, image.Name(), err)
	}
	s := search{library: v.library, image: image, registry: registry, attempts: verify.NewAttempts(image, "notation"), target: ocispec.Descriptor{
		MediaType: string(found.MediaType), Digest: digest.Digest(found.Digest.String()), Size: found.Size,
	}}
	by, accepted := s.signatures(ctx)
	if !accepted {
		return "", s.attempts.Error(advice)
	}
	return by, nil
}

// search looks through the signatures of an image.
type search struct {
	library  library
	image    name.Digest
	registry *verify.Registry
	attempts *verify.Attempts
	// target describes the image as signatures do.
	target ocispec.Descriptor
}

// signatures looks for one that is accepted, and prefers one that verifies the image to
// one that the policy merely lets pass, for which by is empty.
func (s search) signatures(ctx context.Context) (by string, accepted bool) {
	referrers, err := s.registry.Referrers(ctx)
	if err != nil {
		s.attempts.Unread(ctx, err)
		return "", false
	}
	for _, referrer := range referrers {
		if referrer.ArtifactType != artifactType {
			continue
		}
		if !s.attempts.Next() {
			break
		}
		envelope, mediaType, err := s.read(ctx, referrer)
		if err != nil {
			if s.attempts.Unread(ctx, err) {
				break
			}
			continue
		}
		by, err := s.check(ctx, envelope, mediaType)
		switch {
		case errors.Is(err, errUnsure):
			s.attempts.Unsure(err)
		case err != nil:
			s.attempts.Skip(err.Error())
		case by != "":
			return by, true
		default:
			accepted = true
		}
	}
	return "", accepted
}

// read gives the envelope of a signature and its media type.
func (s search) read(ctx context.Context, referrer v1.Descriptor) ([]byte, string, error) {
	manifest, err := s.registry.Manifest(ctx, s.registry.Digest(referrer.Digest))
	if err != nil {
		return nil, "", err
	}
	if len(manifest.Layers) != 1 {
		return nil, "", &verify.Malformed{Text: "the manifest of a signature has not just one layer"}
	}
	envelope, err := s.registry.Blob(ctx, manifest.Layers[0], largestEnvelope)
	return envelope, string(manifest.Layers[0].MediaType), err
}

// check tells by which certificate an envelope is accepted; by is empty where it is
// accepted from somebody who is not trusted. The error is why it is not accepted.
func (s search) check(ctx context.Context, envelope []byte, mediaType string) (by string, err error) {
	var unknown bool
	outcome, err := s.library.Verify(watch(ctx, &unknown), s.target, envelope, notation.VerifierVerifyOptions{
		ArtifactReference: s.image.Name(), SignatureMediaType: mediaType,
	})
	if err != nil {
		return "", explain(outcome, unknown, err)
	}
	if outcome == nil || outcome.EnvelopeContent == nil || len(outcome.EnvelopeContent.SignerInfo.CertificateChain) == 0 {
		return "", errors.New("it names no certificate")
	}
	for _, result := range outcome.VerificationResults {
		if result.Type == trustpolicy.TypeAuthenticity && result.Error != nil {
			return "", nil
		}
	}
	return "certificate " + egress.Quote(outcome.EnvelopeContent.SignerInfo.CertificateChain[0].Subject.String()), nil
}

// errUnsure is the error of a signature that another attempt may accept.
var errUnsure = errors.New("whether a certificate is revoked could not be asked")

func explain(outcome *notation.VerificationOutcome, unknown bool, err error) error {
	if unknown && outcome != nil && len(outcome.VerificationResults) > 0 {
		switch last := outcome.VerificationResults[len(outcome.VerificationResults)-1]; last.Type {
		case trustpolicy.TypeRevocation, trustpolicy.TypeAuthenticTimestamp:
			return fmt.Errorf("%w; let the operator reach the servers that the certificate names, or let trustpolicy.json log that", errUnsure)
		}
	}
	if err.Error() == "content descriptor mismatch" {
		return errors.New("it is a signature of another artifact")
	}
	return errors.New(egress.Printable(err.Error()))
}
