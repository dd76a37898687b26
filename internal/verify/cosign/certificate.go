package cosign

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/verify"
)

// certificates accept what was signed with a certificate of a trusted root for one of the
// identities.
type certificates struct {
	verifier   *sigstore.Verifier
	identities []matcher
}

// newCertificates wants of a signature what Flux does: a certificate that is in a
// transparency log of certificates, and an entry in one of signatures. When it was
// signed is told by the log, or by a timestamp authority where the log tells no time.
func newCertificates(trusted root.TrustedMaterial, identities []matcher) (certificates, error) {
	verifier, err := sigstore.NewVerifier(trusted,
		sigstore.WithSignedCertificateTimestamps(1), sigstore.WithTransparencyLog(1),
		sigstore.WithObserverTimestamps(1), sigstore.WithoutStatementPredicate())
	if err != nil {
		return certificates{}, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Internal, Reason: verify.Reason, Cause: err}
	}
	return certificates{verifier: verifier, identities: identities}, nil
}

func (c certificates) checkBundle(b *bundle.Bundle, image name.Digest) (string, error) {
	policy, err := artifactPolicy(image, sigstore.WithoutIdentitiesUnsafe())
	if err != nil {
		return "", err
	}
	return c.check(b, policy)
}

func (c certificates) checkSimple(s simple, image name.Digest) (string, error) {
	read, err := s.bundle()
	if err != nil {
		return "", err
	}
	policy := sigstore.NewPolicy(sigstore.WithArtifact(bytes.NewReader(s.payload)), sigstore.WithoutIdentitiesUnsafe())
	by, err := c.check(read, policy)
	if err != nil {
		return "", err
	}
	return by, s.claims(image)
}

// check verifies a bundle, and then whom its certificate is for: the policy leaves that
// to us, so that the error can say who it was.
func (c certificates) check(b *bundle.Bundle, policy sigstore.PolicyBuilder) (string, error) {
	if content, err := b.VerificationContent(); err == nil && content.Certificate() == nil {
		return "", errors.New("it was made with a key, not with a certificate")
	}
	result, err := c.verifier.Verify(b, policy)
	if err != nil {
		return "", explain(err)
	}
	if result.Signature == nil || result.Signature.Certificate == nil {
		return "", errors.New("it was not made with a certificate")
	}
	return c.identify(*result.Signature.Certificate)
}

// identify tells whom a verified certificate is for, if it is accepted.
func (c certificates) identify(of certificate.Summary) (string, error) {
	who := fmt.Sprintf("identity %s of issuer %s", egress.Quote(of.SubjectAlternativeName), egress.Quote(of.Issuer))
	if len(c.identities) == 0 {
		return who, nil
	}
	for _, accepted := range c.identities {
		if accepted.issuer.MatchString(of.Issuer) && accepted.subject.MatchString(of.SubjectAlternativeName) {
			return who, nil
		}
	}
	return "", fmt.Errorf("it was made by %s, which is not accepted", who)
}

// bundle puts a signature of cosign 2 into the form of the later ones, with the payload
// as the artifact.
func (s simple) bundle() (*bundle.Bundle, error) {
	if s.certificate == "" {
		return nil, errors.New("it was made with a key, not with a certificate")
	}
	chain, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(s.certificate))
	if err != nil || len(chain) != 1 {
		return nil, errors.New("its certificate is not one in PEM")
	}
	entry, err := parseLogEntry(s.log)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(s.payload)
	made, err := bundle.NewBundle(&protobundle.Bundle{
		// This version wants the log's promise, and no proof that it kept it: there is none.
		MediaType: bundleType + "+json;version=0.1",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
				Certificates: []*protocommon.X509Certificate{{RawBytes: chain[0].Raw}},
			}},
			TlogEntries: []*protorekor.TransparencyLogEntry{{
				LogIndex:          entry.Payload.LogIndex,
				LogId:             &protocommon.LogId{KeyId: entry.id},
				KindVersion:       &protorekor.KindVersion{Kind: entry.kind, Version: entry.version},
				IntegratedTime:    entry.Payload.IntegratedTime,
				InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: entry.SignedEntryTimestamp},
				CanonicalizedBody: entry.Payload.Body,
			}},
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature:     s.signature,
		}},
	})
	if err != nil {
		return nil, errors.New("its entry in the transparency log is not what cosign writes")
	}
	return made, nil
}

// explain puts an error of the library into our words where it is known, so that a
// person sees what is wrong with the signature, and not where the library found it.
func explain(err error) error {
	text := err.Error()
	for _, known := range []struct {
		part string
		as   error
	}{
		{"match any digest in statement", errSubject},
		{"match digests in statement", errSubject},
		{"integrated time outside certificate validity", errors.New("it was made when its certificate was not valid")},
		{"not enough verified log entries", errors.New("it has no entry in a transparency log of the trusted root")},
		{"failed to verify log inclusion", errors.New("its entry in the transparency log is not valid or not for it")},
		{"failed to verify timestamps", errors.New("no log or timestamp authority of the trusted root says when it was made")},
		{"failed to verify leaf certificate", errors.New("its certificate is not from an authority of the trusted root, or was not valid when it was made")},
		{"failed to verify signed certificate timestamp", errors.New("its certificate is in no transparency log of the trusted root")},
		{"failed to verify signature", errors.New("what is signed has been changed")},
	} {
		if strings.Contains(text, known.part) {
			return known.as
		}
	}
	return errors.New(egress.Printable(text))
}
