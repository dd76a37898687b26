package cosign

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/verify"
)

// keys accept what one of them signed.
type keys []key

// key is a public key and the file that it was read from.
type key struct {
	name string
	// verifiers are one for each hash that signatures of such a key are made with.
	verifiers []signature.Verifier
}

// parseKeys reads the files *.pub in the order of their names. A file that is no key is
// an error, even where others are fine: whoever put it there means it to count.
func parseKeys(files map[string][]byte) (keys, error) {
	var found keys
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(file, ".pub") {
			continue
		}
		verifiers, err := parseKey(files[file])
		if err != nil {
			return nil, verify.Unusable("file %q of the Secret of spec.verify.secretRef is not a public key that cosign can have made: %s", file, egress.Printable(err.Error()))
		}
		found = append(found, key{name: file, verifiers: verifiers})
	}
	switch {
	case len(found) == 0:
		return nil, verify.Unusable("the Secret of spec.verify.secretRef holds no public key; cosign's keys are its files that are named *.pub")
	case len(found) > mostSettings:
		return nil, verify.Unusable("the Secret of spec.verify.secretRef holds %d public keys, the most are %d", len(found), mostSettings)
	}
	return found, nil
}

// parseKey reads a public key in PEM. Signatures of elliptic curves larger than P-256 are
// made with SHA-256 by older versions of cosign, and with a larger hash by newer ones.
func parseKey(pem []byte) ([]signature.Verifier, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, errors.New("it is not PEM of type PUBLIC KEY")
	}
	plain, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	verifiers := []signature.Verifier{plain}
	if algorithm, err := signature.GetDefaultAlgorithmDetails(public); err == nil && algorithm.GetKeyType() == signature.ECDSA && algorithm.GetHashType() != crypto.SHA256 {
		larger, err := signature.LoadVerifier(public, algorithm.GetHashType())
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, larger)
	}
	return verifiers, nil
}

// errNoKey is the error of a signature that no key made.
var errNoKey = errors.New("it was made with none of the keys")

func (k keys) checkSimple(s simple, image name.Digest) (string, error) {
	for _, key := range k {
		for _, verifier := range key.verifiers {
			if err := verifier.VerifySignature(bytes.NewReader(s.signature), bytes.NewReader(s.payload)); err == nil {
				return fmt.Sprintf("key %q", key.name), s.claims(image)
			}
		}
	}
	return "", errNoKey
}

func (k keys) checkBundle(b *bundle.Bundle, image name.Digest) (string, error) {
	if content, err := b.VerificationContent(); err == nil && content.Certificate() != nil {
		return "", errors.New("it was made with a certificate, not with a key")
	}
	policy, err := artifactPolicy(image, sigstore.WithKey())
	if err != nil {
		return "", err
	}
	failure := errNoKey
	for _, key := range k {
		for _, made := range key.verifiers {
			verifier, err := sigstore.NewVerifier(material(made), sigstore.WithNoObserverTimestamps(), sigstore.WithoutStatementPredicate())
			if err != nil {
				return "", err
			}
			_, err = verifier.Verify(b, policy)
			if err == nil {
				return fmt.Sprintf("key %q", key.name), nil
			}
			// A signature that fits, over something else, says more than those that do not.
			if subject := explain(err); errors.Is(subject, errSubject) {
				failure = subject
			}
		}
	}
	return "", failure
}

// material trusts one key, for any time and hint.
func material(verifier signature.Verifier) root.TrustedMaterial {
	trusted := root.NewExpiringKey(verifier, time.Time{}, time.Time{})
	return root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return trusted, nil })
}

// artifactPolicy wants what is signed to name the image's digest.
func artifactPolicy(image name.Digest, o ...sigstore.PolicyOption) (sigstore.PolicyBuilder, error) {
	hash, err := v1.NewHash(image.DigestStr())
	if err != nil {
		return sigstore.PolicyBuilder{}, err
	}
	digest, err := hex.DecodeString(hash.Hex)
	if err != nil {
		return sigstore.PolicyBuilder{}, err
	}
	return sigstore.NewPolicy(sigstore.WithArtifactDigest(hash.Algorithm, digest), o...), nil
}
