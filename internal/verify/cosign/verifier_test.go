package cosign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/verify"
	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

const (
	issuer  = "https://issuer.example.com"
	subject = "https://github.com/org/app/.github/workflows/release.yaml@refs/tags/v1"
	other   = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// form is a place for signatures in a registry.
type form struct {
	name string
	// referrers tells whether the registry has their API.
	referrers bool
	// push signs a digest and pushes the signature.
	push func(t *testing.T, r *verifytest.Registry, s verifytest.Signer, digest string)
}

// forms are all places that are looked at.
func forms() []form {
	bundle := func(t *testing.T, r *verifytest.Registry, s verifytest.Signer, digest string) {
		t.Helper()
		r.PushBundles(t, verifytest.JSON(t, s.Bundle(t, verifytest.Statement(digest))))
	}
	return []form{
		{"cosign 2", true, func(t *testing.T, r *verifytest.Registry, s verifytest.Signer, digest string) {
			t.Helper()
			r.PushSimples(t, s.Simple(t, verifytest.Payload(digest)))
		}},
		{"cosign 3", true, bundle},
		{"cosign 3 without the API of referrers", false, bundle},
	}
}

// byKeys are options for signers with keys.
func byKeys(t *testing.T, signers ...verifytest.Signer) Options {
	t.Helper()
	o := Options{Keys: map[string][]byte{"cosign.key": []byte("private"), "note.txt": nil}}
	for i, signer := range signers {
		o.Keys[string(rune('a'+i))+".pub"] = signer.Public(t)
	}
	return o
}

func newVerifier(t *testing.T, o Options) *Verifier {
	t.Helper()
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// check verifies an image twice and compares the outcome with what is wanted: a part of
// by, or the kind of error and a part of its text.
func check(t *testing.T, v *Verifier, r *verifytest.Registry, by string, kind gitops.ErrorKind, text string) {
	t.Helper()
	got, err := v.Verify(t.Context(), r.Image, r.Options...)
	again, second := v.Verify(t.Context(), r.Image, r.Options...)
	if kind == "" {
		if err != nil || second != nil || got != again || got == "" || !strings.Contains(got, by) {
			t.Errorf("verified by %q, then %q: %v, %v", got, again, err, second)
		}
		return
	}
	var e *gitops.Error
	if got != "" || !errors.As(err, &e) || e.Kind != kind || e.Stage != gitops.StageFetch || e.Reason != verify.Reason {
		t.Fatalf("verified by %q, error of kind %q: %v", got, gitops.KindOf(err), err)
	}
	if !strings.Contains(err.Error(), text) || kind == gitops.Denied && !strings.Contains(err.Error(), r.Image.DigestStr()) {
		t.Errorf("error %q does not say %q of the image", err, text)
	}
	if second == nil || second.Error() != err.Error() {
		t.Errorf("the same failure is once %q and once %q", err, second)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	first, second, stranger := verifytest.KeySigner(t), verifytest.KeySigner(t), verifytest.KeySigner(t)
	store := verifytest.NewSigstore(t)
	for _, form := range forms() {
		for name, row := range map[string]struct {
			signers []verifytest.Signer
			digest  string
			want    string
			text    string
		}{
			"the right key":                      {signers: []verifytest.Signer{first}, want: `key "a.pub"`},
			"the second of the keys":             {signers: []verifytest.Signer{second}, want: `key "b.pub"`},
			"a wrong key":                        {signers: []verifytest.Signer{stranger}, text: "with none of the keys"},
			"a wrong key and then a right one":   {signers: []verifytest.Signer{stranger, first}, want: `key "a.pub"`},
			"no signature":                       {text: "has no cosign signature"},
			"a signature over another digest":    {signers: []verifytest.Signer{first}, digest: other, text: "another artifact"},
			"a certificate where keys are asked": {signers: []verifytest.Signer{store.Identity(t, issuer, subject)}, text: "not accepted"},
		} {
			t.Run(form.name+": "+name, func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, form.referrers)
				digest := r.Image.DigestStr()
				if row.digest != "" {
					digest = row.digest
				}
				if form.name == "cosign 2" && len(row.signers) > 1 {
					r.PushSimples(t, row.signers[0].Simple(t, verifytest.Payload(digest)), row.signers[1].Simple(t, verifytest.Payload(digest)))
				} else {
					for _, signer := range row.signers {
						form.push(t, r, signer, digest)
					}
				}
				kind := gitops.ErrorKind("")
				if row.want == "" {
					kind = gitops.Denied
				}
				check(t, newVerifier(t, byKeys(t, first, second)), r, row.want, kind, row.text)
			})
		}
	}
}

// Signatures by keys of all kinds that cosign makes are known, with the hash that each
// version takes.
func TestKindsOfKeys(t *testing.T) {
	t.Parallel()
	curve := func(c elliptic.Curve) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384 := curve(elliptic.P384())
	for name, signer := range map[string]verifytest.Signer{
		"RSA": {Key: rsaKey}, "Ed25519": {Key: edKey}, "P-256": {Key: curve(elliptic.P256())}, "P-521": {Key: curve(elliptic.P521()), Hash: crypto.SHA512},
		"P-384 with SHA-256": {Key: p384}, "P-384 with SHA-384": {Key: p384, Hash: crypto.SHA384},
	} {
		for _, form := range forms() {
			t.Run(name+", "+form.name, func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, form.referrers)
				form.push(t, r, signer, r.Image.DigestStr())
				check(t, newVerifier(t, byKeys(t, signer)), r, `key "a.pub"`, "", "")
				check(t, newVerifier(t, byKeys(t, verifytest.KeySigner(t))), r, "", gitops.Denied, "none of the keys")
			})
		}
	}
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	store, foreign := verifytest.NewSigstore(t), verifytest.NewSigstore(t)
	keyless := func(identities ...Identity) Options {
		return Options{Keyless: true, TrustedRoot: store.TrustedRoot(t), Identities: identities}
	}
	exact := Identity{Issuer: "^https://issuer[.]example[.]com$", Subject: "^https://github[.]com/org/app/"}
	signer := store.Identity(t, issuer, subject)
	change := func(by func(*verifytest.Signer)) verifytest.Signer {
		changed := signer
		by(&changed)
		return changed
	}
	unlogged, elsewhere := store.Leaf(t, issuer, subject, nil), store.Leaf(t, issuer, subject, foreign)
	for name, row := range map[string]struct {
		o      Options
		signer verifytest.Signer
		want   string
		text   string
	}{
		"any identity":                           {keyless(), signer, subject, ""},
		"the right identity":                     {keyless(exact), signer, issuer, ""},
		"an e-mail address":                      {keyless(Identity{Subject: "^ann@example[.]com$"}), store.Identity(t, issuer, "ann@example.com"), "ann@example.com", ""},
		"the second of the identities":           {keyless(Identity{Issuer: "^x$", Subject: "^x$"}, exact), signer, subject, ""},
		"a wrong subject":                        {keyless(Identity{Issuer: exact.Issuer, Subject: "^https://github[.]com/other/"}), signer, "", "which is not accepted"},
		"a wrong issuer":                         {keyless(Identity{Issuer: "^https://accounts[.]example", Subject: exact.Subject}), signer, "", "which is not accepted"},
		"issuer and subject of two identities":   {keyless(Identity{Issuer: exact.Issuer, Subject: "^x$"}, Identity{Issuer: "^x$", Subject: exact.Subject}), signer, "", "which is not accepted"},
		"another Sigstore":                       {keyless(), foreign.Identity(t, issuer, subject), "", "trusted root"},
		"signed after the certificate's time":    {keyless(), change(func(s *verifytest.Signer) { s.At = s.At.Add(time.Hour) }), "", "its certificate was not valid"},
		"signed before the certificate's time":   {keyless(), change(func(s *verifytest.Signer) { s.At = s.At.Add(-time.Hour) }), "", "its certificate was not valid"},
		"an entry in another log":                {keyless(), change(func(s *verifytest.Signer) { s.Log = foreign }), "", "no entry in a transparency log of the trusted root"},
		"no entry in a log":                      {keyless(), change(func(s *verifytest.Signer) { s.Log = nil }), "", "no entry in a transparency log"},
		"a certificate of another's key":         {keyless(), change(func(s *verifytest.Signer) { s.Key = verifytest.KeySigner(t).Key }), "", "not accepted"},
		"a certificate that is in no log":        {keyless(), change(func(s *verifytest.Signer) { s.Leaf, s.Key = &unlogged, unlogged.Key }), "", "its certificate is in no transparency log"},
		"a certificate that is in another log":   {keyless(), change(func(s *verifytest.Signer) { s.Leaf, s.Key = &elsewhere, elsewhere.Key }), "", "its certificate is in no transparency log"},
		"a key where certificates are asked for": {keyless(), verifytest.KeySigner(t), "", "made with a key"},
	} {
		for _, form := range forms() {
			t.Run(form.name+": "+name, func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, form.referrers)
				form.push(t, r, row.signer, r.Image.DigestStr())
				kind := gitops.ErrorKind("")
				if row.want == "" {
					kind = gitops.Denied
				}
				check(t, newVerifier(t, row.o), r, row.want, kind, row.text)
			})
		}
	}
	for _, form := range forms() {
		t.Run(form.name+": another digest", func(t *testing.T) {
			t.Parallel()
			r := verifytest.NewRegistry(t, form.referrers)
			form.push(t, r, signer, other)
			check(t, newVerifier(t, keyless()), r, "", gitops.Denied, "another artifact")
		})
	}
}

// Logs of the second generation of Rekor tell no time: an authority for the time does.
func TestLogsOfTiles(t *testing.T) {
	t.Parallel()
	store, foreign := verifytest.NewSigstore(t), verifytest.NewSigstore(t)
	v := newVerifier(t, Options{Keyless: true, TrustedRoot: store.TrustedRoot(t)})
	for name, row := range map[string]struct {
		change func(*verifytest.Signer)
		spoil  func(b *protobundle.Bundle, signed []byte)
		want   string
		text   string
	}{
		"the right time":         {want: subject},
		"after the certificate":  {change: func(s *verifytest.Signer) { s.At = s.At.Add(time.Hour) }, text: "was not valid when it was made"},
		"before the certificate": {change: func(s *verifytest.Signer) { s.At = s.At.Add(-time.Hour) }, text: "was not valid when it was made"},
		"another log":            {change: func(s *verifytest.Signer) { s.Log = foreign }, text: "no entry in a transparency log of the trusted root"},
		"nobody says the time": {spoil: func(b *protobundle.Bundle, _ []byte) { b.GetVerificationMaterial().TimestampVerificationData = nil },
			text: "says when it was made"},
		"the signer says the time": {spoil: func(b *protobundle.Bundle, _ []byte) {
			b.GetVerificationMaterial().TimestampVerificationData = nil
			b.GetVerificationMaterial().GetTlogEntries()[0].IntegratedTime = store.Start.Add(6*time.Hour + time.Minute).Unix()
		}, text: "says when it was made"},
		"an authority that is not trusted says it": {spoil: func(b *protobundle.Bundle, signed []byte) {
			b.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps()[0].SignedTimestamp = foreign.Stamp(t, signed, store.Start.Add(6*time.Hour+time.Minute))
		}, text: "says when it was made"},
		"the time of another signature": {spoil: func(b *protobundle.Bundle, _ []byte) {
			b.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps()[0].SignedTimestamp = store.Stamp(t, []byte("another"), store.Start.Add(6*time.Hour+time.Minute))
		}, text: "says when it was made"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			signer := store.Identity(t, issuer, subject)
			signer.Tiles = true
			if row.change != nil {
				row.change(&signer)
			}
			r := verifytest.NewRegistry(t, true)
			b := signer.Bundle(t, verifytest.Statement(r.Image.DigestStr()))
			if row.spoil != nil {
				row.spoil(b, b.GetDsseEnvelope().GetSignatures()[0].GetSig())
			}
			r.PushBundles(t, verifytest.JSON(t, b))
			kind := gitops.ErrorKind("")
			if row.want == "" {
				kind = gitops.Denied
			}
			check(t, v, r, row.want, kind, row.text)
		})
	}
}

func TestUnusableSettings(t *testing.T) {
	t.Parallel()
	public := verifytest.KeySigner(t).Public(t)
	many := map[string][]byte{}
	identities := []Identity{}
	for i := range mostSettings + 1 {
		many[strings.Repeat("a", i)+".pub"] = public
		identities = append(identities, Identity{})
	}
	trusted := verifytest.NewSigstore(t).TrustedRoot(t)
	for name, row := range map[string]struct {
		o    Options
		text string
	}{
		"nothing":                         {Options{}, "holds no public key"},
		"a Secret without files":          {Options{Keys: map[string][]byte{}}, "holds no public key"},
		"a Secret without keys":           {Options{Keys: map[string][]byte{"cosign.key": public}}, "holds no public key"},
		"an empty key":                    {Options{Keys: map[string][]byte{"a.pub": nil}}, `"a.pub"`},
		"no PEM":                          {Options{Keys: map[string][]byte{"a.pub": []byte("canary")}}, `"a.pub"`},
		"PEM of garbage":                  {Options{Keys: map[string][]byte{"a.pub": []byte("-----BEGIN PUBLIC KEY-----\nY2FuYXJ5\n-----END PUBLIC KEY-----\n")}}, `"a.pub"`},
		"a private key":                   {Options{Keys: map[string][]byte{"a.pub": []byte("-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n")}}, `"a.pub"`},
		"a key of PGP":                    {Options{Keys: map[string][]byte{"a.pub": []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nY2FuYXJ5\n-----END PGP PUBLIC KEY BLOCK-----\n")}}, `"a.pub"`},
		"a key of SSH":                    {Options{Keys: map[string][]byte{"a.pub": []byte("ssh-ed25519 canary")}}, `"a.pub"`},
		"a good key and a bad one":        {Options{Keys: map[string][]byte{"a.pub": public, "b.pub": []byte("canary")}}, `"b.pub"`},
		"too many keys":                   {Options{Keys: many}, "the most are 100"},
		"keys and keyless":                {Options{Keys: map[string][]byte{"a.pub": public}, Keyless: true, TrustedRoot: trusted}, "exclude each other"},
		"keyless without a root":          {Options{Keyless: true}, "trustedRootSecretRef"},
		"a trusted root of garbage":       {Options{Keyless: true, TrustedRoot: []byte("{")}, "trustedRootSecretRef"},
		"a trusted root without type":     {Options{Keyless: true, TrustedRoot: []byte("{}")}, "trustedRootSecretRef"},
		"an issuer that is no expression": {Options{Keyless: true, TrustedRoot: trusted, Identities: []Identity{{Issuer: "("}}}, "matchOIDCIdentity[0].issuer"},
		"a subject that is no expression": {Options{Keyless: true, TrustedRoot: trusted, Identities: []Identity{{}, {Subject: "["}}}, "matchOIDCIdentity[1].subject"},
		"too many identities":             {Options{Keyless: true, TrustedRoot: trusted, Identities: identities}, "the most are 100"},
	} {
		_, err := New(row.o)
		_, again := New(row.o)
		if gitops.KindOf(err) != gitops.Stalled || !strings.Contains(err.Error(), row.text) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		} else if err.Error() != again.Error() {
			t.Errorf("%s: once %q and once %q", name, err, again)
		}
	}
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	signer := verifytest.KeySigner(t)
	r := verifytest.NewRegistry(t, true)
	r.PushSimples(t, signer.Simple(t, verifytest.Payload(r.Image.DigestStr())))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	by, err := newVerifier(t, byKeys(t, signer)).Verify(ctx, r.Image, r.Options...)
	if by != "" || gitops.KindOf(err) != gitops.Transient {
		t.Errorf("verified by %q: %v", by, err)
	}
}
