package cosign

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/verify"
	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// on answers requests whose path has a part; all others go to the registry.
func on(part string, answer http.HandlerFunc) func(http.Handler) http.Handler {
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

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// counted counts the requests for a part of a path.
type counted struct {
	http.Handler
	part string
	n    *int
}

func (c counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, c.part) {
		*c.n++
	}
	c.Handler.ServeHTTP(w, r)
}

// endless never ends, and says so or not.
func endless(mediaType string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		spaces := bytes.Repeat([]byte(" "), 1<<16)
		for r.Context().Err() == nil {
			if _, err := w.Write(spaces); err != nil {
				return
			}
		}
	}
}

func TestHostileRegistries(t *testing.T) {
	t.Parallel()
	key := verifytest.KeySigner(t)
	const index = "application/vnd.oci.image.index.v1+json"
	const manifest = "application/vnd.oci.image.manifest.v1+json"
	for name, row := range map[string]struct {
		around func(http.Handler) http.Handler
		kind   gitops.ErrorKind
		text   string
	}{
		"an endless list of referrers": {on("/referrers/", endless(index)), gitops.Denied, "more than 4194304 bytes"},
		"a list of referrers of garbage": {on("/referrers/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", index)
			_, _ = io.WriteString(w, "{")
		}), gitops.Denied, "not an index"},
		"a list of referrers that is null": {on("/referrers/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", index)
			_, _ = io.WriteString(w, "null")
		}), gitops.Denied, "has no cosign signature"},
		"an endless manifest":           {on(".sig", endless(manifest)), gitops.Denied, "more than 4194304 bytes"},
		"a manifest of garbage":         {on(".sig", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "canary") }), gitops.Denied, "not a manifest"},
		"a registry that is not well":   {on("/manifests/", status(http.StatusServiceUnavailable)), gitops.Transient, "503"},
		"a registry that is busy":       {on(".sig", status(http.StatusTooManyRequests)), gitops.Transient, "429"},
		"a registry that refuses us":    {on("/referrers/", status(http.StatusForbidden)), gitops.Denied, "403 Forbidden; the credential"},
		"referrers that it cannot list": {on("/referrers/", status(http.StatusInternalServerError)), gitops.Transient, "500"},
		"a connection that breaks":      {on(".sig", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), gitops.Transient, "hung up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := verifytest.NewRegistry(t, true)
			r.Around(row.around)
			check(t, newVerifier(t, byKeys(t, key)), r, "", row.kind, row.text)
		})
	}
}

// What one form of signatures suffers is no harm to one of the other form.
func TestOneFormIsEnough(t *testing.T) {
	t.Parallel()
	key := verifytest.KeySigner(t)
	for name, around := range map[string]func(http.Handler) http.Handler{
		"referrers are refused":    on("/referrers/", status(http.StatusForbidden)),
		"referrers cannot be read": on("/referrers/", status(http.StatusInternalServerError)),
		"referrers never end":      on("/referrers/", endless("application/vnd.oci.image.index.v1+json")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := verifytest.NewRegistry(t, true)
			r.PushSimples(t, key.Simple(t, verifytest.Payload(r.Image.DigestStr())))
			r.Around(around)
			check(t, newVerifier(t, byKeys(t, key)), r, `key "a.pub"`, "", "")
		})
	}
}

func TestBlobsThatLie(t *testing.T) {
	t.Parallel()
	key := verifytest.KeySigner(t)
	for _, form := range forms()[:2] {
		for name, row := range map[string]struct {
			lie    func(layer *v1.Descriptor)
			around func(http.Handler) http.Handler
			kind   gitops.ErrorKind
			text   string
		}{
			"a size that is too small": {lie: func(l *v1.Descriptor) { l.Size-- }, kind: gitops.Denied, text: "another size"},
			"a size that is too large": {lie: func(l *v1.Descriptor) { l.Size++ }, kind: gitops.Denied, text: "another size"},
			"a size of no bytes":       {lie: func(l *v1.Descriptor) { l.Size = 0 }, kind: gitops.Denied, text: "another size"},
			"a size below none":        {lie: func(l *v1.Descriptor) { l.Size = -1 }, kind: gitops.Denied, text: "another size"},
			"a size past the bound":    {lie: func(l *v1.Descriptor) { l.Size = 1 << 40 }, kind: gitops.Denied, text: "a signature has more than"},
			"a blob that is not there": {lie: func(l *v1.Descriptor) { l.Digest.Hex = strings.Repeat("a", 64) }, kind: gitops.Denied, text: "404"},
			"a blob that is another":   {around: on("/blobs/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "canary") }), kind: gitops.Denied, text: "other bytes"},
			"a blob of other bytes":    {around: garble, kind: gitops.Denied, text: "other bytes"},
			"a blob that never ends":   {around: on("/blobs/", endless("application/octet-stream")), kind: gitops.Denied, text: "another size"},
			"a blob that is cut": {around: on("/blobs/", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = io.WriteString(w, "{")
				panic(http.ErrAbortHandler)
			}), kind: gitops.Transient, text: "hung up"},
		} {
			t.Run(form.name+": "+name, func(t *testing.T) {
				t.Parallel()
				r := verifytest.NewRegistry(t, true)
				digest := r.Image.DigestStr()
				if form.name == "cosign 2" {
					signed := key.Simple(t, verifytest.Payload(digest))
					layer := r.PushBlob(t, r.Image.Context(), "application/vnd.dev.cosign.simplesigning.v1+json", signed.Payload)
					layer.Annotations = signed.Annotations
					if row.lie != nil {
						row.lie(&layer)
					}
					r.PushManifest(t, r.SignatureTag(), fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"x","digest":%q,"size":2},"layers":[%s]}`, layer.Digest, described(t, layer)))
				} else {
					layer := r.PushBlob(t, r.Image.Context(), verifytest.BundleType, verifytest.JSON(t, key.Bundle(t, verifytest.Statement(digest))))
					if row.lie != nil {
						row.lie(&layer)
					}
					r.PushLayers(t, verifytest.BundleType, []v1.Descriptor{layer})
				}
				if row.around != nil {
					r.Around(row.around)
				}
				check(t, newVerifier(t, byKeys(t, key)), r, "", row.kind, row.text)
			})
		}
	}
}

// described is a descriptor in JSON.
func described(t *testing.T, layer v1.Descriptor) string {
	t.Helper()
	annotations := []string{}
	for key, value := range layer.Annotations {
		annotations = append(annotations, strconv.Quote(key)+":"+strconv.Quote(value))
	}
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%s}}`, layer.MediaType, layer.Digest, layer.Size, strings.Join(annotations, ","))
}

// garble changes the last byte of each blob.
func garble(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			inner.ServeHTTP(w, r)
			return
		}
		inner.ServeHTTP(garbled{w}, r)
	})
}

type garbled struct{ http.ResponseWriter }

func (g garbled) Write(p []byte) (int, error) {
	changed := bytes.Clone(p)
	if len(changed) > 0 {
		changed[len(changed)-1] ^= 1
	}
	return g.ResponseWriter.Write(changed)
}

// As many signatures as a registry has, so many are looked at, and no more.
func TestCrowdsOfSignatures(t *testing.T) {
	t.Parallel()
	key, stranger := verifytest.KeySigner(t), verifytest.KeySigner(t)
	crowd := func(t *testing.T, r *verifytest.Registry, n int) []verifytest.Simple {
		t.Helper()
		bad := stranger.Simple(t, verifytest.Payload(r.Image.DigestStr()))
		all := make([]verifytest.Simple, n)
		for i := range all {
			all[i] = bad
		}
		return all
	}
	t.Run("the last one that is looked at", func(t *testing.T) {
		t.Parallel()
		r := verifytest.NewRegistry(t, true)
		r.PushSimples(t, append(crowd(t, r, verify.MostSignatures-1), key.Simple(t, verifytest.Payload(r.Image.DigestStr())))...)
		check(t, newVerifier(t, byKeys(t, key)), r, `key "a.pub"`, "", "")
	})
	t.Run("the first one that is not", func(t *testing.T) {
		t.Parallel()
		r := verifytest.NewRegistry(t, true)
		r.PushSimples(t, append(crowd(t, r, verify.MostSignatures), key.Simple(t, verifytest.Payload(r.Image.DigestStr())))...)
		check(t, newVerifier(t, byKeys(t, key)), r, "", gitops.Denied, "none of the first 100 of its cosign signatures")
	})
	// Index entries are made up: each says to be a bundle, and is looked up in vain.
	for name, row := range map[string]struct {
		n    int
		text string
	}{
		"thousands of bundles": {10_000, "none of the first 100"},
		"a million of bundles": {1_000_000, "more than 4194304 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := verifytest.NewRegistry(t, true)
			asked := 0
			list := on("/referrers/", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
				_, _ = io.WriteString(w, `{"schemaVersion":2,"manifests":[`)
				for i := range row.n {
					if i > 0 {
						_, _ = io.WriteString(w, ",")
					}
					if _, err := fmt.Fprintf(w, `{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"sha256:%064d","artifactType":%q}`, i, verifytest.BundleType); err != nil {
						return
					}
				}
				_, _ = io.WriteString(w, `]}`)
			})
			r.Around(func(inner http.Handler) http.Handler { return counted{list(inner), "/manifests/sha256:", &asked} })
			_, err := newVerifier(t, byKeys(t, key)).Verify(t.Context(), r.Image, r.Options...)
			if gitops.KindOf(err) != gitops.Denied || !strings.Contains(err.Error(), row.text) || asked > verify.MostSignatures {
				t.Errorf("after %d manifests: %v", asked, err)
			}
		})
	}
	t.Run("bundles that are large together", func(t *testing.T) {
		t.Parallel()
		r := verifytest.NewRegistry(t, true)
		for i := range 10 {
			r.PushReferrer(t, verifytest.BundleType, verifytest.BundleType, append(bytes.Repeat([]byte(" "), verify.LargestBlob-2), fmt.Sprintf("%02d", i)...))
		}
		check(t, newVerifier(t, byKeys(t, key)), r, "", gitops.Denied, "more than 67108864 bytes together")
	})
	t.Run("a bundle in a crowd of other referrers", func(t *testing.T) {
		t.Parallel()
		r := verifytest.NewRegistry(t, true)
		for i := range verify.MostSignatures + 10 {
			r.PushReferrer(t, "application/spdx+json", "application/spdx+json", []byte(strconv.Itoa(i)))
		}
		check(t, newVerifier(t, byKeys(t, key)), r, "", gitops.Denied, "cosign signature")
		r.PushBundles(t, verifytest.JSON(t, key.Bundle(t, verifytest.Statement(r.Image.DigestStr()))))
		// The registry knows a referrer by the type of its configuration only.
		r.Around(func(inner http.Handler) http.Handler { return typed{inner, t, r} })
		check(t, newVerifier(t, byKeys(t, key)), r, `key "a.pub"`, "", "")
	})
	t.Run("what is no manifest", func(t *testing.T) {
		t.Parallel()
		r := verifytest.NewRegistry(t, true)
		r.PushLayers(t, verifytest.BundleType, nil)
		r.PushSimples(t)
		check(t, newVerifier(t, byKeys(t, key)), r, "", gitops.Denied, "has no cosign signature")
	})
}

// typed says of each referrer what its artifact's type is, as newer registries do.
type typed struct {
	http.Handler
	t *testing.T
	r *verifytest.Registry
}

func (h typed) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !strings.Contains(request.URL.Path, "/referrers/") {
		h.Handler.ServeHTTP(w, request)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	_, _ = w.Write(h.r.Referrers(h.t, h.Handler))
}

// Signatures are read with the credential that the artifact is pulled with, which no
// error tells.
func TestCredentials(t *testing.T) {
	t.Parallel()
	key := verifytest.KeySigner(t)
	for _, form := range forms() {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			r := verifytest.NewRegistry(t, form.referrers)
			form.push(t, r, key, r.Image.DigestStr())
			r.Around(func(inner http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
					if name, password, _ := request.BasicAuth(); name != "ann" || password != "canary" {
						w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					inner.ServeHTTP(w, request)
				})
			})
			v := newVerifier(t, byKeys(t, key))
			check(t, v, r, "", gitops.Denied, "401")
			open := r.Options
			r.Options = append(slices.Clone(open), remote.WithAuth(&authn.Basic{Username: "ann", Password: "canary"}))
			check(t, v, r, `key "a.pub"`, "", "")
			r.Options = append(slices.Clone(open), remote.WithAuth(&authn.Basic{Username: "bob", Password: "canary"}))
			check(t, v, r, "", gitops.Denied, "401")
			if _, err := v.Verify(t.Context(), r.Image, r.Options...); strings.Contains(err.Error(), "canary") {
				t.Error(err)
			}
		})
	}
}
