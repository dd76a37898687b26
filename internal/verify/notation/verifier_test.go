package notation

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/verify"
	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// policy is a trustpolicy.json with one statement.
func policy(level, scope string, identities ...string) []byte {
	if len(identities) == 0 {
		identities = []string{"*"}
	}
	raw, _ := json.Marshal(identities) //nolint:errchkjson // strings
	return fmt.Appendf(nil, `{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":[%q],"signatureVerification":{"level":%q},"trustStores":["ca:store"],"trustedIdentities":%s}]}`, scope, level, raw)
}

// trusting are options that trust authorities.
func trusting(t *testing.T, policy []byte, authorities ...*verifytest.Authority) Options {
	t.Helper()
	transport, err := egress.NewTransport(egress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	o := Options{TrustPolicy: policy, Certificates: map[string][]byte{"trustpolicy.json": policy}, Transport: transport}
	for i, authority := range authorities {
		o.Certificates[string(rune('a'+i))+".crt"] = authority.PEM()
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

// passes is what is wanted of an image that is neither verified nor refused.
const passes = "passes"

// check verifies an image twice and compares the outcome with what is wanted: a part of
// by, or the kind of error and a part of its text.
func check(t *testing.T, v *Verifier, r *verifytest.Registry, by string, kind gitops.ErrorKind, text string) {
	t.Helper()
	got, err := v.Verify(t.Context(), r.Image, r.Options...)
	again, second := v.Verify(t.Context(), r.Image, r.Options...)
	if kind == "" {
		if err != nil || second != nil || got != again || (by == passes) != (got == "") || by != passes && !strings.Contains(got, by) {
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

func TestSignatures(t *testing.T) {
	t.Parallel()
	authority, second, stranger := verifytest.NewAuthority(t), verifytest.NewAuthority(t), verifytest.NewAuthority(t)
	tomorrow, past := authority.Certificate.NotAfter, time.Now().Add(-time.Hour)
	ann := authority.Signer(t, "ann", tomorrow, false)
	expired := authority.Signer(t, "ann", past, false)
	lapsed := ann
	lapsed.Expiry = past
	other := &v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 7, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}}
	for name, row := range map[string]struct {
		level      string
		identities []string
		signers    []verifytest.NotationSigner
		target     *v1.Descriptor
		want       string
		text       string
	}{
		"the right certificate":                     {signers: []verifytest.NotationSigner{ann}, want: "CN=ann"},
		"a certificate of the second authority":     {signers: []verifytest.NotationSigner{second.Signer(t, "bob", tomorrow, false)}, want: "CN=bob"},
		"the right identity":                        {identities: []string{"x509.subject: C=CH, ST=ZH, O=Example, CN=ann"}, signers: []verifytest.NotationSigner{ann}, want: "CN=ann"},
		"a wrong identity":                          {identities: []string{"x509.subject: C=CH, ST=ZH, O=Example, CN=bob"}, signers: []verifytest.NotationSigner{ann}, text: "trusted identities"},
		"an authority that is not trusted":          {signers: []verifytest.NotationSigner{stranger.Signer(t, "ann", tomorrow, false)}, text: "trusted"},
		"a wrong one and then a right one":          {signers: []verifytest.NotationSigner{stranger.Signer(t, "ann", tomorrow, false), expired, lapsed, lapsed, ann}, want: "CN=ann"},
		"a certificate that has expired":            {signers: []verifytest.NotationSigner{expired}, text: "expired"},
		"a signature that has expired":              {signers: []verifytest.NotationSigner{lapsed}, text: "expired"},
		"a signature that has expired, logged":      {level: "permissive", signers: []verifytest.NotationSigner{lapsed}, want: "CN=ann"},
		"no signature":                              {text: "has no notation signature"},
		"no signature, where nobody need be":        {level: "audit", text: "has no notation signature"},
		"no signature, where none is looked for":    {level: "skip", want: passes},
		"nobody who is trusted, logged":             {level: "audit", signers: []verifytest.NotationSigner{stranger.Signer(t, "eve", tomorrow, false)}, want: passes},
		"nobody who is trusted and then who is":     {level: "audit", signers: []verifytest.NotationSigner{stranger.Signer(t, "eve", tomorrow, false), ann}, want: "CN=ann"},
		"a signature of another artifact":           {signers: []verifytest.NotationSigner{ann}, target: other, text: "another artifact"},
		"a signature of another artifact, at audit": {level: "audit", signers: []verifytest.NotationSigner{ann}, target: other, text: "another artifact"},
	} {
		for i, envelope := range verifytest.Envelopes() {
			t.Run(fmt.Sprintf("%s in %s", name, envelope), func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, i == 0)
				target := row.target
				if target == nil {
					target = r.Subject(t)
				}
				for _, signer := range row.signers {
					r.PushNotation(t, envelope, signer.Envelope(t, envelope, target))
				}
				level, kind := row.level, gitops.ErrorKind("")
				if level == "" {
					level = "strict"
				}
				if row.want == "" {
					kind = gitops.Denied
				}
				check(t, newVerifier(t, trusting(t, policy(level, "*", row.identities...), authority, second)), r, row.want, kind, row.text)
			})
		}
	}
}

func TestTampered(t *testing.T) {
	t.Parallel()
	authority := verifytest.NewAuthority(t)
	ann := authority.Signer(t, "ann", authority.Certificate.NotAfter, false)
	bob := authority.Signer(t, "bob", authority.Certificate.NotAfter, false)
	for _, mediaType := range verifytest.Envelopes() {
		for name, spoil := range map[string]func(envelope []byte, r *verifytest.Registry) ([]byte, string){
			"a byte that is changed": func(envelope []byte, _ *verifytest.Registry) ([]byte, string) {
				changed := bytes.Clone(envelope)
				changed[len(changed)/20] ^= 1
				return changed, mediaType
			},
			"garbage": func([]byte, *verifytest.Registry) ([]byte, string) { return []byte("canary"), mediaType },
			"nothing": func([]byte, *verifytest.Registry) ([]byte, string) { return nil, mediaType },
			"half of it": func(envelope []byte, _ *verifytest.Registry) ([]byte, string) {
				return envelope[:len(envelope)/2], mediaType
			},
			"another way of writing": func(envelope []byte, _ *verifytest.Registry) ([]byte, string) {
				return envelope, map[bool]string{true: verifytest.Envelopes()[1], false: verifytest.Envelopes()[0]}[mediaType == verifytest.Envelopes()[0]]
			},
			"an unknown way of writing": func(envelope []byte, _ *verifytest.Registry) ([]byte, string) { return envelope, "application/canary" },
			"a payload without artifact": func([]byte, *verifytest.Registry) ([]byte, string) {
				return ann.EnvelopeOf(t, mediaType, []byte(`{}`)), mediaType
			},
			"a payload that is null": func([]byte, *verifytest.Registry) ([]byte, string) {
				return ann.EnvelopeOf(t, mediaType, []byte(`null`)), mediaType
			},
			"certificates of another's key": func([]byte, *verifytest.Registry) ([]byte, string) {
				if mediaType != verifytest.Envelopes()[0] {
					return []byte("canary"), mediaType
				}
				return swapChain(t, ann, bob), mediaType
			},
		} {
			t.Run(name+", "+mediaType, func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, true)
				good := ann.Envelope(t, mediaType, r.Subject(t))
				spoilt, as := spoil(good, r)
				r.PushNotation(t, as, spoilt)
				v := newVerifier(t, trusting(t, policy("strict", "*"), authority))
				check(t, v, r, "", gitops.Denied, "not accepted")
				// At no level does it count, but as one that is not looked at.
				check(t, newVerifier(t, trusting(t, policy("audit", "*"), authority)), r, "", gitops.Denied, "not accepted")
				r.PushNotation(t, mediaType, good)
				check(t, v, r, "CN=ann", "", "")
			})
		}
	}
}

// swapChain is an envelope in JWS by one signer with the certificates of another.
func swapChain(t *testing.T, by, of verifytest.NotationSigner) []byte {
	t.Helper()
	var envelope map[string]any
	if err := json.Unmarshal(by.EnvelopeOf(t, verifytest.Envelopes()[0], []byte(`{}`)), &envelope); err != nil {
		t.Fatal(err)
	}
	header, ok := envelope["header"].(map[string]any)
	if !ok {
		t.Fatal("an envelope has no header")
	}
	chain := [][]byte{}
	for _, certificate := range of.Chain {
		chain = append(chain, certificate.Raw)
	}
	header["x5c"] = chain
	raw, err := json.Marshal(envelope)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		level   string
		spoil   func(*verifytest.Authority, verifytest.NotationSigner, *Options)
		want    string
		kind    gitops.ErrorKind
		text    string
		unasked bool
	}{
		"a certificate that is not revoked": {want: "CN=ann"},
		"a certificate that is revoked":     {spoil: func(a *verifytest.Authority, s verifytest.NotationSigner, _ *Options) { a.Revoke(s) }, kind: gitops.Denied, text: "revoked"},
		"one that is revoked, logged":       {level: "permissive", spoil: func(a *verifytest.Authority, s verifytest.NotationSigner, _ *Options) { a.Revoke(s) }, want: "CN=ann"},
		"a server that is gone":             {spoil: func(a *verifytest.Authority, _ verifytest.NotationSigner, _ *Options) { a.Revocations.Close() }, kind: gitops.Transient, text: "could not be asked", unasked: true},
		"a server that is gone, logged":     {level: "permissive", spoil: func(a *verifytest.Authority, _ verifytest.NotationSigner, _ *Options) { a.Revocations.Close() }, want: "CN=ann", unasked: true},
		"no way to reach it":                {spoil: func(_ *verifytest.Authority, _ verifytest.NotationSigner, o *Options) { o.Transport = nil }, kind: gitops.Transient, text: "could not be asked", unasked: true},
		"private addresses are refused": {spoil: func(_ *verifytest.Authority, _ verifytest.NotationSigner, o *Options) {
			transport, err := egress.NewTransport(egress.Options{Policy: egress.Policy{NoPrivate: true}})
			if err != nil {
				t.Error(err)
			}
			o.Transport = transport
		}, kind: gitops.Transient, text: "could not be asked", unasked: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authority := verifytest.NewAuthority(t)
			ann := authority.Signer(t, "ann", authority.Certificate.NotAfter, true)
			r := verifytest.NewRegistry(t, true)
			r.PushNotation(t, verifytest.Envelopes()[0], ann.Envelope(t, verifytest.Envelopes()[0], r.Subject(t)))
			level := row.level
			if level == "" {
				level = "strict"
			}
			o := trusting(t, policy(level, "*"), authority)
			if row.spoil != nil {
				row.spoil(authority, ann, &o)
			}
			check(t, newVerifier(t, o), r, row.want, row.kind, row.text)
			if (authority.Asked() == 0) != row.unasked {
				t.Errorf("the list of revoked certificates was asked for %d times", authority.Asked())
			}
		})
	}
}

// A certificate that has expired is fine where somebody who is trusted says that it had
// not when it signed.
func TestTimestamps(t *testing.T) {
	t.Parallel()
	clock, foreign := verifytest.NewSigstore(t), verifytest.NewSigstore(t)
	authority := verifytest.NewAuthority(t)
	expired := authority.Signer(t, "ann", time.Now().Add(-time.Hour), false)
	expired.At = time.Now().Add(-2 * time.Hour)
	for name, row := range map[string]struct {
		by   *verifytest.Sigstore
		want string
		text string
	}{
		"in time":                    {by: clock, want: "CN=ann"},
		"nobody says the time":       {text: "no timestamp countersignature"},
		"nobody who is trusted does": {by: foreign, text: "timestamp countersignature"},
	} {
		for _, envelope := range verifytest.Envelopes() {
			t.Run(name+", "+envelope, func(t *testing.T) {
				t.Parallel()
				signer := expired
				signer.Time = row.by
				r := verifytest.NewRegistry(t, true)
				r.PushNotation(t, envelope, signer.Envelope(t, envelope, r.Subject(t)))
				o := trusting(t, bytes.Replace(policy("strict", "*"), []byte(`"ca:store"`), []byte(`"ca:store","tsa:clock"`), 1), authority)
				o.Certificates["tsa.pem"] = clock.TimePEM()
				kind := gitops.ErrorKind("")
				if row.want == "" {
					kind = gitops.Denied
				}
				check(t, newVerifier(t, o), r, row.want, kind, row.text)
			})
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	authority := verifytest.NewAuthority(t)
	r := verifytest.NewRegistry(t, true)
	ann := authority.Signer(t, "ann", authority.Certificate.NotAfter, false)
	r.PushNotation(t, verifytest.Envelopes()[0], ann.Envelope(t, verifytest.Envelopes()[0], r.Subject(t)))
	check(t, newVerifier(t, trusting(t, policy("strict", r.Image.Context().Name()), authority)), r, "CN=ann", "", "")
	check(t, newVerifier(t, trusting(t, policy("strict", "ghcr.io/org/app"), authority)), r, "", gitops.Stalled, "registryScopes")
}

func TestHostileRegistries(t *testing.T) {
	t.Parallel()
	authority := verifytest.NewAuthority(t)
	ann := authority.Signer(t, "ann", authority.Certificate.NotAfter, false)
	on := func(part string, answer http.HandlerFunc) func(http.Handler) http.Handler {
		return func(inner http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, part) {
					answer(w, r)
					return
				}
				inner.ServeHTTP(w, r)
			})
		}
	}
	const index = "application/vnd.oci.image.index.v1+json"
	for name, row := range map[string]struct {
		around func(http.Handler) http.Handler
		kind   gitops.ErrorKind
		text   string
	}{
		"the image is another":  {on("/manifests/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }), gitops.Denied, "does not match"},
		"the image is gone":     {on("/manifests/", http.NotFound), gitops.Denied, "not found"},
		"it refuses us":         {on("/manifests/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }), gitops.Denied, "401"},
		"it is not well":        {on("/blobs/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }), gitops.Transient, "502"},
		"an envelope of others": {on("/blobs/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "canary") }), gitops.Denied, "other bytes"},
		"a million signatures": {on("/referrers/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", index)
			_, _ = io.WriteString(w, `{"manifests":[`+strings.Repeat(fmt.Sprintf(`{"mediaType":"x","size":2,"digest":"sha256:%064d","artifactType":%q},`, 1, artifactType), 100_000))
		}), gitops.Denied, "more than 4194304 bytes"},
		"thousands of signatures": {on("/referrers/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", index)
			entry := fmt.Sprintf(`{"mediaType":"x","size":2,"digest":"sha256:%064d","artifactType":%q}`, 1, artifactType)
			_, _ = io.WriteString(w, `{"manifests":[`+strings.Repeat(entry+",", 5_000)+entry+"]}")
		}), gitops.Denied, "none of the first 100"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := verifytest.NewRegistry(t, true)
			r.PushNotation(t, verifytest.Envelopes()[0], ann.Envelope(t, verifytest.Envelopes()[0], r.Subject(t)))
			r.Around(row.around)
			check(t, newVerifier(t, trusting(t, policy("strict", "*"), authority)), r, "", row.kind, row.text)
		})
	}
	t.Run("manifests that lie", func(t *testing.T) {
		t.Parallel()
		r := verifytest.NewRegistry(t, true)
		layer := r.PushBlob(t, r.Image.Context(), "application/jose+json", ann.Envelope(t, verifytest.Envelopes()[0], r.Subject(t)))
		large, small := layer, layer
		large.Size, small.Size = 1<<40, 1
		r.PushNotationLayers(t)
		r.PushNotationLayers(t, layer, layer)
		r.PushNotationLayers(t, large)
		r.PushNotationLayers(t, small)
		check(t, newVerifier(t, trusting(t, policy("strict", "*"), authority)), r, "", gitops.Denied, "none of its 4 notation signatures")
	})
}

func TestUnusableSettings(t *testing.T) {
	t.Parallel()
	authority := verifytest.NewAuthority(t)
	good, pem := policy("strict", "*"), authority.PEM()
	files := func(name string, content []byte) map[string][]byte { return map[string][]byte{name: content} }
	for name, row := range map[string]struct {
		o    Options
		text string
	}{
		"no policy":                      {Options{Certificates: files("a.crt", pem)}, "no trustpolicy.json"},
		"a policy of garbage":            {Options{TrustPolicy: []byte("canary"), Certificates: files("a.crt", pem)}, "trustpolicy.json"},
		"a policy without statements":    {Options{TrustPolicy: []byte(`{"version":"1.0"}`), Certificates: files("a.crt", pem)}, "trustpolicy.json"},
		"a policy of the future":         {Options{TrustPolicy: bytes.Replace(good, []byte("1.0"), []byte("9.0"), 1), Certificates: files("a.crt", pem)}, "trustpolicy.json"},
		"a policy with a key twice":      {Options{TrustPolicy: bytes.Replace(good, []byte(`"level":"strict"`), []byte(`"level":"strict","level":"skip"`), 1), Certificates: files("a.crt", pem)}, "level"},
		"a level that nobody knows":      {Options{TrustPolicy: policy("lax", "*"), Certificates: files("a.crt", pem)}, "trustpolicy.json"},
		"no certificates":                {Options{TrustPolicy: good}, "holds no certificate"},
		"certificates of another name":   {Options{TrustPolicy: good, Certificates: files("a.cer", pem)}, "holds no certificate"},
		"an empty certificate":           {Options{TrustPolicy: good, Certificates: files("a.crt", nil)}, `"a.crt"`},
		"a certificate of garbage":       {Options{TrustPolicy: good, Certificates: files("a.pem", []byte("canary"))}, `"a.pem"`},
		"PEM of garbage":                 {Options{TrustPolicy: good, Certificates: files("a.pem", []byte("-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n"))}, `"a.pem"`},
		"a key":                          {Options{TrustPolicy: good, Certificates: files("a.pem", bytes.ReplaceAll(pem, []byte("CERTIFICATE"), []byte("PRIVATE KEY")))}, "another type"},
		"a certificate and garbage":      {Options{TrustPolicy: good, Certificates: files("a.pem", append(bytes.Clone(pem), "canary"...))}, `"a.pem"`},
		"a good certificate and another": {Options{TrustPolicy: good, Certificates: map[string][]byte{"a.crt": pem, "b.crt": []byte("canary")}}, `"b.crt"`},
	} {
		_, err := New(row.o)
		if gitops.KindOf(err) != gitops.Stalled || !strings.Contains(err.Error(), row.text) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, o := range map[string]Options{
		"several certificates in a file": {TrustPolicy: good, Certificates: files("a.pem", append(bytes.Clone(pem), pem...))},
		"a certificate in DER":           {TrustPolicy: good, Certificates: files("a.crt", authority.Certificate.Raw)},
		"skip with what it needs not":    {TrustPolicy: policy("skip", "*"), Certificates: files("a.crt", pem)},
	} {
		if _, err := New(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if found, err := parseCertificate(append(bytes.Clone(pem), pem...)); err != nil || len(found) != 2 || !found[1].Equal((*x509.Certificate)(authority.Certificate)) {
		t.Errorf("%d certificates of two: %v", len(found), err)
	}
}
