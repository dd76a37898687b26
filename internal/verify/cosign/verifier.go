// Package cosign verifies the signatures that cosign makes of OCI artifacts, by public
// keys or by the identities in certificates of a Sigstore.
//
// Both places for signatures are looked at: bundles that refer to the artifact (cosign 3),
// and the manifest under the tag sha256-….sig (cosign 2). One valid signature is enough. It
// is valid only where what is signed names the digest of just this artifact, so a
// signature cannot be moved to another one; Flux does not compare that for cosign 2.
//
// As in Flux, signatures by key need no entry in a transparency log, those by
// certificate need one, and a bundle may hold any in-toto statement about the
// artifact. Unlike there no log is asked over the network: the entry must stand with the
// signature, where cosign puts it.
package cosign

import (
	"context"
	"regexp"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/verify"
)

// Options say which signatures are accepted. Either Keys or Keyless must be set, so that
// a Secret without keys is not taken for the wish to have none.
type Options struct {
	// Keys are public keys in PEM, by file name. Files whose names do not end in .pub
	// are left out.
	Keys map[string][]byte
	// Keyless accepts certificates of a Sigstore instead of keys.
	Keyless bool
	// Identities are those that a certificate must have one of. Where there are none, any
	// identity is accepted.
	Identities []Identity
	// TrustedRoot is the trusted_root.json of a private Sigstore. Where it is empty
	// PublicRoot is asked.
	TrustedRoot []byte
	// PublicRoot knows the trusted root of the public Sigstore; it is needed for Keyless
	// without TrustedRoot. All verifiers share one.
	PublicRoot *PublicRoot
}

// Identity is whom a certificate is for.
type Identity struct {
	// Issuer and Subject are regular expressions, found anywhere in the certificate's
	// OIDC issuer and subject; an empty one accepts any.
	Issuer, Subject string
}

// Verifier verifies artifacts. It is safe for use by several goroutines.
type Verifier struct {
	// keys are nil for a keyless one.
	keys       keys
	identities []matcher
	// private is nil where the public root is used.
	private root.TrustedMaterial
	public  *PublicRoot
	advice  string
}

// checker tells by what a signature of the image is accepted. The error is why it is not.
type checker interface {
	checkSimple(s simple, image name.Digest) (by string, err error)
	checkBundle(b *bundle.Bundle, image name.Digest) (by string, err error)
}

// mostSettings is how many keys or identities an artifact may have.
const mostSettings = 100

// New makes a verifier; it connects to nothing yet. The error is Stalled.
func New(o Options) (*Verifier, error) {
	if !o.Keyless {
		keys, err := parseKeys(o.Keys)
		if err != nil {
			return nil, err
		}
		return &Verifier{keys: keys, advice: "sign it with a key whose public half is in the Secret of spec.verify.secretRef, or add the key there"}, nil
	}
	if len(o.Keys) > 0 {
		return nil, verify.Unusable("keys and keyless verification exclude each other")
	}
	v := &Verifier{public: o.PublicRoot, advice: "sign it with an identity that spec.verify.matchOIDCIdentity accepts, or accept that of the signature"}
	if len(o.Identities) > mostSettings {
		return nil, verify.Unusable("spec.verify.matchOIDCIdentity has %d entries, the most are %d", len(o.Identities), mostSettings)
	}
	for i, identity := range o.Identities {
		m, err := identity.matcher(i)
		if err != nil {
			return nil, err
		}
		v.identities = append(v.identities, m)
	}
	switch {
	case len(o.TrustedRoot) > 0:
		private, err := root.NewTrustedRootFromJSON(o.TrustedRoot)
		if err != nil {
			return nil, verify.Unusable("the trusted root of spec.verify.trustedRootSecretRef cannot be used: %s", egress.Printable(err.Error()))
		}
		v.private = private
	case o.PublicRoot == nil:
		return nil, verify.Unusable("keyless verification needs a trusted root; give one with spec.verify.trustedRootSecretRef")
	}
	return v, nil
}

// Verify verifies an artifact: by is the key or the identity whose signature it has. The
// options are those that the artifact is pulled with. The error is a *gitops.Error: Denied
// where no signature is accepted, Transient where the signatures or the trusted root could
// not be read.
func (v *Verifier) Verify(ctx context.Context, image name.Digest, o ...remote.Option) (by string, err error) {
	return verify.Guard(image, func() (string, error) { return v.verify(ctx, image, o) })
}

func (v *Verifier) verify(ctx context.Context, image name.Digest, o []remote.Option) (string, error) {
	check, err := v.checker(ctx)
	if err != nil {
		return "", err
	}
	registry, err := verify.Open(image, o...)
	if err != nil {
		return "", verify.Unusable("%w", err)
	}
	s := search{check: check, image: image, registry: registry, attempts: verify.NewAttempts(image, "cosign")}
	if by, done := s.bundles(ctx); done {
		return by, s.conclude(by, v.advice)
	}
	by := s.simples(ctx)
	return by, s.conclude(by, v.advice)
}

func (v *Verifier) checker(ctx context.Context) (checker, error) {
	if v.keys != nil {
		return v.keys, nil
	}
	material := v.private
	if material == nil {
		var err error
		if material, err = v.public.material(ctx); err != nil {
			return nil, err
		}
	}
	return newCertificates(material, v.identities)
}

// search looks through the signatures of an image.
type search struct {
	check    checker
	image    name.Digest
	registry *verify.Registry
	attempts *verify.Attempts
}

// conclude is nil where something accepts the image.
func (s search) conclude(by, advice string) error {
	if by != "" {
		return nil
	}
	return s.attempts.Error(advice)
}

// matcher is a compiled Identity.
type matcher struct{ issuer, subject *regexp.Regexp }

func (i Identity) matcher(index int) (matcher, error) {
	issuer, err := regexp.Compile(i.Issuer)
	if err != nil {
		return matcher{}, verify.Unusable("spec.verify.matchOIDCIdentity[%d].issuer is not a regular expression: %w", index, err)
	}
	subject, err := regexp.Compile(i.Subject)
	if err != nil {
		return matcher{}, verify.Unusable("spec.verify.matchOIDCIdentity[%d].subject is not a regular expression: %w", index, err)
	}
	return matcher{issuer: issuer, subject: subject}, nil
}
