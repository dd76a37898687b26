package operator_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// signing is a way of signing artifacts, for a source that wants signatures of it.
type signing struct {
	provider string
	// keys and root are the Secrets that the source names; none where they are empty.
	keys, root map[string]string
	identities []sourcev1.OIDCIdentityMatch
	right      func(*signedArtifact)
	wrong      map[string]badSignature
}

// badSignature is one that does not count, and what is said of it.
type badSignature struct {
	sign  func(*signedArtifact)
	words string
}

// signedArtifact is an artifact in a registry that gets signatures.
type signedArtifact struct {
	t                  *testing.T
	registry           *testenv.Registry
	repository, digest string
}

// subject describes the artifact.
func (a *signedArtifact) subject() testenv.OCIDescriptor {
	a.t.Helper()
	response, err := http.Get("http://" + a.registry.Host() + "/v2/" + a.repository + "/manifests/" + a.digest)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	manifest, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		a.t.Fatalf("%s: %v", response.Status, err)
	}
	return testenv.OCIDescriptor{MediaType: testenv.MediaTypeManifest, Digest: a.digest, Size: int64(len(manifest))}
}

// refer pushes what refers to the artifact.
func (a *signedArtifact) refer(artifactType, configType, mediaType string, content []byte) {
	a.t.Helper()
	subject := a.subject()
	a.registry.PushManifest(a.t, a.repository, "", testenv.OCIManifest{
		SchemaVersion: 2, MediaType: testenv.MediaTypeManifest, ArtifactType: artifactType,
		Config:  a.registry.PushBlob(a.t, a.repository, configType, []byte("{}")),
		Layers:  []testenv.OCIDescriptor{a.registry.PushBlob(a.t, a.repository, mediaType, content)},
		Subject: &subject,
	})
}

// bundle signs as cosign 3 does.
func (a *signedArtifact) bundle(signer verifytest.Signer, digest string) []byte {
	return verifytest.JSON(a.t, signer.Bundle(a.t, verifytest.Statement(digest)))
}

func (a *signedArtifact) pushBundle(bundle []byte) {
	a.refer(verifytest.BundleType, "application/vnd.oci.empty.v1+json", verifytest.BundleType, bundle)
}

// envelope signs as notation does.
func (a *signedArtifact) envelope(signer verifytest.NotationSigner, digest string) []byte {
	target := a.subject()
	target.Digest = digest
	payload, err := json.Marshal(map[string]any{"targetArtifact": target})
	if err != nil {
		a.t.Fatal(err)
	}
	return signer.EnvelopeOf(a.t, verifytest.Envelopes()[0], payload)
}

func (a *signedArtifact) pushEnvelope(envelope []byte) {
	a.refer("", verifytest.NotationType, verifytest.Envelopes()[0], envelope)
}

const otherDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// unsigned is an artifact that nobody has signed.
func unsigned(words string) badSignature { return badSignature{func(*signedArtifact) {}, words} }

// signedByKey are signatures of cosign 2 by a key. Keys do not expire.
func signedByKey(t *testing.T) signing {
	right, stranger := verifytest.KeySigner(t), verifytest.KeySigner(t)
	simple := func(signer verifytest.Signer, of func(digest string) string) func(*signedArtifact) {
		return func(a *signedArtifact) {
			made := signer.Simple(a.t, verifytest.Payload(of(a.digest)))
			// What is signed is what it is for, whatever is pushed.
			made.Payload = verifytest.Payload(a.digest)
			pushSimple(a.t, a.registry, a.repository, a.digest, made)
		}
	}
	itself := func(digest string) string { return digest }
	return signing{
		provider: "cosign", keys: map[string]string{"one.pub": string(right.Public(t))}, right: simple(right, itself),
		wrong: map[string]badSignature{
			"none":      unsigned("has no cosign signature"),
			"wrong key": {simple(stranger, itself), "none of the keys"},
			"tampered":  {simple(right, func(string) string { return otherDigest }), "none of the keys"},
			"of another artifact": {func(a *signedArtifact) {
				pushSimple(a.t, a.registry, a.repository, a.digest, right.Simple(a.t, verifytest.Payload(otherDigest)))
			}, "another artifact"},
		},
	}
}

// signedByIdentity are signatures of cosign 3 by an identity.
func signedByIdentity(t *testing.T) signing {
	const issuer, subject = "https://issuer.example.com", "ann@example.com"
	store, foreign := verifytest.NewSigstore(t), verifytest.NewSigstore(t)
	by := func(signer verifytest.Signer) func(*signedArtifact) {
		return func(a *signedArtifact) { a.pushBundle(a.bundle(signer, a.digest)) }
	}
	ann := store.Identity(t, issuer, subject)
	late := ann
	late.At = late.At.Add(time.Hour)
	return signing{
		provider: "cosign", root: map[string]string{"trusted_root.json": string(store.TrustedRoot(t))},
		identities: []sourcev1.OIDCIdentityMatch{{Issuer: "^https://issuer[.]example[.]com$", Subject: "^ann@example[.]com$"}}, right: by(ann),
		wrong: map[string]badSignature{
			"none":             unsigned("has no cosign signature"),
			"wrong identity":   {by(store.Identity(t, issuer, "bob@example.com")), "which is not accepted"},
			"another Sigstore": {by(foreign.Identity(t, issuer, subject)), "trusted root"},
			"a key":            {by(verifytest.KeySigner(t)), "made with a key"},
			"tampered": {func(a *signedArtifact) {
				text := func(digest string) []byte {
					return []byte(base64.StdEncoding.EncodeToString(verifytest.Statement(digest)))
				}
				bundle := a.bundle(ann, otherDigest)
				changed := bytes.Replace(bundle, text(otherDigest), text(a.digest), 1)
				if bytes.Equal(changed, bundle) {
					a.t.Error("the bundle is not tampered with")
				}
				a.pushBundle(changed)
			}, "not accepted"},
			"of another artifact": {func(a *signedArtifact) { a.pushBundle(a.bundle(ann, otherDigest)) }, "another artifact"},
			"expired":             {by(late), "was not valid"},
		},
	}
}

// signedByCertificate are signatures of notation.
func signedByCertificate(t *testing.T) signing {
	authority, stranger := verifytest.NewAuthority(t), verifytest.NewAuthority(t)
	ann := authority.Signer(t, "ann", authority.Certificate.NotAfter, false)
	lapsed := ann
	lapsed.Expiry = time.Now().Add(-time.Hour)
	by := func(signer verifytest.NotationSigner) func(*signedArtifact) {
		return func(a *signedArtifact) { a.pushEnvelope(a.envelope(signer, a.digest)) }
	}
	return signing{
		provider: "notation", right: by(ann),
		keys: map[string]string{
			"trustpolicy.json": `{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":["*"],"signatureVerification":{"level":"strict"},"trustStores":["ca:store"],"trustedIdentities":["*"]}]}`,
			"authority.crt":    string(authority.PEM()),
		},
		wrong: map[string]badSignature{
			"none":            unsigned("has no notation signature"),
			"wrong authority": {by(stranger.Signer(t, "ann", stranger.Certificate.NotAfter, false)), "trusted"},
			"tampered": {func(a *signedArtifact) {
				changed := a.envelope(ann, a.digest)
				changed[len(changed)/20] ^= 1
				a.pushEnvelope(changed)
			}, "not accepted"},
			"of another artifact": {func(a *signedArtifact) { a.pushEnvelope(a.envelope(ann, otherDigest)) }, "another artifact"},
			"expired":             {by(lapsed), "expired"},
			"expired certificate": {by(authority.Signer(t, "ann", time.Now().Add(-time.Hour), false)), "expired"},
		},
	}
}

// secretsOf creates the Secrets of a way of signing, and refers to them.
func (w *world) secretsOf(s signing) (keys, root *meta.LocalObjectReference) {
	w.t.Helper()
	if s.keys != nil {
		w.secret("keys", s.keys)
		keys = &meta.LocalObjectReference{Name: "keys"}
	}
	if s.root != nil {
		w.secret("root", s.root)
		root = &meta.LocalObjectReference{Name: "root"}
	}
	return keys, root
}

// TestSignatures: of artifacts in registries only those are stored that are signed as the
// source wants it. Of all others it is said why, and the one before stays in force.
func TestSignatures(t *testing.T) {
	t.Parallel()
	ways := map[string]func(*testing.T) signing{"cosign keys": signedByKey, "cosign keyless": signedByIdentity, "notation": signedByCertificate}
	for name, way := range ways {
		t.Run("OCIRepository, "+name, func(t *testing.T) {
			t.Parallel()
			w, registry, s := newWorld(t), testenv.NewRegistry(t, testenv.RegistryOptions{}), way(t)
			keys, root := w.secretsOf(s)
			number := 0
			publish := func() *signedArtifact {
				number++
				return &signedArtifact{t, registry, "fleet", registry.Push(t, "fleet", "latest", testenv.Files{"one.yaml": configMap("one", fmt.Sprint(number))})}
			}
			good := publish()
			s.right(good)
			source := &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{
				URL: registry.URL("fleet"), Interval: metav1.Duration{Duration: time.Hour}, Insecure: true,
				Verify: &sourcev1.OCIRepositoryVerification{Provider: s.provider, SecretRef: keys, TrustedRootSecretRef: root, MatchOIDCIdentity: s.identities},
			}}
			w.check(w.client.Create(w.context(), source))
			w.kustomization("app", of("OCIRepository", "fleet"))
			verified(t, stored(w, source, "latest@"+good.digest))
			w.data("one", "1")
			for what, wrong := range s.wrong {
				bad := publish()
				wrong.sign(bad)
				w.request(source)
				got := unstored(w, source, "VerificationError", bad.digest+"|"+wrong.words+"|'latest@"+good.digest+"' stays in force")
				refused(t, what, got, "latest@"+good.digest)
			}
			w.data("one", "1")
			good = publish()
			s.right(good)
			w.request(source)
			verified(t, stored(w, source, "latest@"+good.digest))
			w.data("one", fmt.Sprint(number))
		})
		if name == "cosign keyless" {
			continue // a HelmChart has no field for a Sigstore of its own
		}
		t.Run("HelmChart, "+name, func(t *testing.T) {
			t.Parallel()
			w, registry, s := newWorld(t), testenv.NewRegistry(t, testenv.RegistryOptions{}), way(t)
			keys, _ := w.secretsOf(s)
			number := 0
			publish := func() (*signedArtifact, string) {
				number++
				version := fmt.Sprintf("1.%d.0", number)
				return &signedArtifact{t, registry, "charts/web", registry.PushChart(t, "charts/web", version, testenv.HelmChart(t, "web", version, nil), nil)}, version
			}
			charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
				URL: registry.URL("charts"), Type: "oci", Insecure: true, Interval: metav1.Duration{Duration: time.Hour},
			}}
			w.check(w.client.Create(w.context(), charts))
			good, version := publish()
			s.right(good)
			web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
				Chart: "web", Version: "1.x", Interval: metav1.Duration{Duration: time.Hour},
				SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
				Verify:    &sourcev1.HelmChartVerification{Provider: s.provider, SecretRef: keys},
			}}
			w.check(w.client.Create(w.context(), web))
			verified(t, stored(w, web, version))
			for what, wrong := range s.wrong {
				bad, _ := publish()
				wrong.sign(bad)
				w.request(web)
				got := unstored(w, web, "ChartVerificationError", bad.digest+"|"+wrong.words+"|'"+version+"' stays in force")
				refused(t, what, got, version)
			}
			good, version = publish()
			s.right(good)
			w.request(web)
			verified(t, stored(w, web, version))
		})
	}
}

// verified checks what is said of a source whose signature counts.
func verified(t *testing.T, source sourced) {
	t.Helper()
	c := conditionOf(source.GetConditions(), "SourceVerified")
	if c.Status != "True" || c.Reason != "Succeeded" || c.ObservedGeneration != source.GetGeneration() {
		t.Errorf("SourceVerified: %+v", c)
	}
}

// refused checks what is said of a source whose signature does not count.
func refused(t *testing.T, what string, source sourced, before string) {
	t.Helper()
	c := conditionOf(source.GetConditions(), "SourceVerified")
	if c.Status != "False" || c.Reason != "VerificationError" && !strings.HasPrefix(c.Reason, "Invalid") {
		t.Errorf("%s: SourceVerified: %+v", what, c)
	}
	if strings.Contains(c.Message, "…") {
		t.Errorf("%s: the message does not end: %s", what, c.Message)
	}
	if a := source.GetArtifact(); a == nil || a.Revision != before {
		t.Errorf("%s: the artifact is %+v, want %s", what, a, before)
	}
}

// pgpSigner signs as GnuPG does.
type pgpSigner struct {
	entity *openpgp.Entity
	at     time.Time
}

// newPGPSigner makes one with a key of so many seconds' life, 0 for ever, that was made two
// days ago.
func newPGPSigner(t *testing.T, seconds uint32) pgpSigner {
	t.Helper()
	made := time.Now().Add(-48 * time.Hour)
	entity, err := openpgp.NewEntity("Ann", "", "ann@example.com", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: seconds, Time: func() time.Time { return made },
	})
	if err != nil {
		t.Fatal(err)
	}
	return pgpSigner{entity, made.Add(time.Minute)}
}

// public is the key as a Secret has it.
func (s pgpSigner) public(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.entity.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Signature signs some bytes.
func (s pgpSigner) Signature(t testing.TB, payload string) string {
	t.Helper()
	var out bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&out, s.entity, strings.NewReader(payload), &packet.Config{Time: func() time.Time { return s.at }}); err != nil {
		t.Fatal(err)
	}
	return out.String() + "\n"
}

// TestGitSignatures: of commits and tags only those are stored that are signed as the
// repository wants it. Of all others it is said why, and the one before stays in force.
func TestGitSignatures(t *testing.T) {
	t.Parallel()
	ann, eve := testenv.NewGitSigner(t), testenv.NewGitSigner(t)
	pgp, stranger, expired := newPGPSigner(t, 0), newPGPSigner(t, 0), newPGPSigner(t, 3600)
	for name, way := range map[string]struct {
		keys        map[string]string
		right       testenv.Signs
		wrong, late testenv.Signs
		words       string
	}{
		// Keys of SSH do not expire.
		"SSH":     {map[string]string{"ann.sshpub": string(ann.AuthorizedKey())}, ann, eve, nil, eve.Fingerprint()},
		"OpenPGP": {map[string]string{"ann.asc": pgp.public(t), "late": expired.public(t)}, pgp, stranger, expired, "none of the public keys"},
	} {
		for _, mode := range []sourcev1.GitVerificationMode{sourcev1.ModeGitHEAD, sourcev1.ModeGitTag, sourcev1.ModeGitTagAndHEAD} {
			t.Run(fmt.Sprintf("%s, %s", name, mode), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				number := 0
				// publish makes a commit and a tag, signed by somebody or by nobody, and gives the
				// revision.
				publish := func(by testenv.Signs, spoilt bool) string {
					number++
					w.push(testenv.Files{"app/a.yaml": configMap("a", fmt.Sprint(number))})
					tag := fmt.Sprintf("v1.%d.0", number)
					commit := strings.TrimSpace(w.repo.Git(t, "rev-parse", "refs/heads/main"))
					if by == nil {
						w.repo.Tag(t, tag, commit, "by nobody")
						return tag + "@sha1:" + commit
					}
					signs := by
					if spoilt {
						signs = spoils{by}
					}
					commit = testenv.SignCommit(t, w.repo, "main", signs)
					testenv.SignTag(t, w.repo, tag, tag, commit, signs)
					return tag + "@sha1:" + commit
				}
				w.secret("keys", way.keys)
				good := publish(way.right, false)
				w.source(func(s *sourcev1.GitRepository) {
					s.Spec.Reference = &sourcev1.GitRepositoryRef{SemVer: "1.x"}
					s.Spec.Verification = &sourcev1.GitRepositoryVerification{Mode: mode, SecretRef: meta.LocalObjectReference{Name: "keys"}}
				})
				source := w.namedSource("repo")
				verified(t, stored(w, source, good))
				type row struct {
					by     testenv.Signs
					spoilt bool
					words  string
				}
				rows := map[string]row{"none": {nil, false, "not signed"}, "wrong key": {way.wrong, false, way.words}, "tampered": {way.right, true, "does not fit"}}
				if way.late != nil {
					rows["expired"] = row{way.late, false, "has expired"}
				}
				for what, r := range rows {
					publish(r.by, r.spoilt)
					w.request(source)
					reason, object := "InvalidCommitSignature", "commit"
					if mode != sourcev1.ModeGitHEAD {
						reason, object = "InvalidTagSignature", fmt.Sprintf("v1.%d.0", number)
						if r.by == nil {
							reason = "InvalidGitObject"
						}
					}
					refused(t, what, unstored(w, source, reason, object+"|"+r.words+"|'"+good+"' stays in force"), good)
				}
				good = publish(way.right, false)
				w.request(source)
				verified(t, stored(w, source, good))
			})
		}
	}
}

// spoils signs other bytes than it is given.
type spoils struct{ testenv.Signs }

func (s spoils) Signature(t testing.TB, payload string) string {
	return s.Signs.Signature(t, payload+"\n")
}
