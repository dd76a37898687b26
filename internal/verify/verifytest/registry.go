// Package verifytest makes what the verifiers of OCI artifacts are tested with: a registry
// that holds an artifact, a private Sigstore with its certificate authority and logs, and
// signers whose signatures can be spoilt before they are pushed. Only tests import it.
package verifytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// Registry is a registry in the process with one artifact.
type Registry struct {
	// Image is the artifact.
	Image name.Digest
	// Options are those to read it with.
	Options []remote.Option

	around atomic.Pointer[func(http.Handler) http.Handler]
	pushed atomic.Int64
}

// NewRegistry starts a registry; it answers what refers to an artifact by the API of
// OCI 1.1, or has clients keep it under a tag.
func NewRegistry(t testing.TB, referrers bool) *Registry {
	t.Helper()
	r := &Registry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		handler := inner
		if around := r.around.Load(); around != nil {
			handler = (*around)(inner)
		}
		handler.ServeHTTP(w, request)
	}))
	t.Cleanup(server.Close)
	transport, err := egress.NewTransport(egress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	// The client's own pauses before it tries again are seconds.
	r.Options = []remote.Option{remote.WithTransport(transport), remote.WithRetryBackoff(remote.Backoff{Duration: time.Millisecond, Factor: 1, Steps: 2})}
	repository, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/org/app")
	if err != nil {
		t.Fatal(err)
	}
	r.Image = r.PushManifest(t, repository.Tag("1.0.0"), r.manifest(t, repository, r.empty(t, repository, ""), []v1.Descriptor{r.PushBlob(t, repository, "application/x", []byte("app"))}, nil))
	return r
}

// Around puts a handler in front of the registry.
func (r *Registry) Around(around func(http.Handler) http.Handler) { r.around.Store(&around) }

// manifest is that of an artifact with some layers.
func (r *Registry) manifest(t testing.TB, repository name.Repository, config v1.Descriptor, layers []v1.Descriptor, subject *v1.Descriptor) []byte {
	t.Helper()
	raw, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: config.ArtifactType,
		Config: config, Layers: layers, Subject: subject,
		// No two manifests are the same.
		Annotations: map[string]string{"n": fmt.Sprint(r.pushed.Add(1))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// empty is the configuration of an artifact that has none.
func (r *Registry) empty(t testing.TB, repository name.Repository, artifactType string) v1.Descriptor {
	t.Helper()
	config := r.PushBlob(t, repository, "application/vnd.oci.empty.v1+json", []byte("{}"))
	config.ArtifactType = artifactType
	return config
}

// PushBlob pushes a blob and describes it.
func (r *Registry) PushBlob(t testing.TB, repository name.Repository, mediaType types.MediaType, content []byte) v1.Descriptor {
	t.Helper()
	layer := static.NewLayer(content, mediaType)
	if err := remote.WriteLayer(repository, layer, r.Options...); err != nil {
		t.Fatal(err)
	}
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(content))}
}

// raw is a manifest as it is pushed.
type raw []byte

func (m raw) RawManifest() ([]byte, error)        { return m, nil }
func (m raw) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// PushManifest pushes a manifest under a tag, whatever it says; an empty tag pushes it by
// its digest.
func (r *Registry) PushManifest(t testing.TB, tag name.Tag, manifest []byte) name.Digest {
	t.Helper()
	digest, _, err := v1.SHA256(bytes.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	byDigest := tag.Context().Digest(digest.String())
	var ref name.Reference = byDigest
	if tag.TagStr() != "" {
		ref = tag
	}
	if err := remote.Put(ref, raw(manifest), r.Options...); err != nil {
		t.Fatal(err)
	}
	return byDigest
}

// SignatureTag is where cosign 2 keeps the signatures of the image.
func (r *Registry) SignatureTag() name.Tag {
	return r.Image.Context().Tag(strings.Replace(r.Image.DigestStr(), ":", "-", 1) + ".sig")
}

// PushSimples pushes signatures of cosign 2, in place of those that are there.
func (r *Registry) PushSimples(t testing.TB, signatures ...Simple) {
	t.Helper()
	layers := []v1.Descriptor{}
	for _, signature := range signatures {
		layer := r.PushBlob(t, r.Image.Context(), "application/vnd.dev.cosign.simplesigning.v1+json", signature.Payload)
		layer.Annotations = signature.Annotations
		layers = append(layers, layer)
	}
	r.PushManifest(t, r.SignatureTag(), r.manifest(t, r.Image.Context(), r.empty(t, r.Image.Context(), ""), layers, nil))
}

// PushReferrer pushes something that refers to the image: one blob.
func (r *Registry) PushReferrer(t testing.TB, artifactType string, mediaType types.MediaType, content []byte) name.Digest {
	t.Helper()
	return r.PushLayers(t, artifactType, []v1.Descriptor{r.PushBlob(t, r.Image.Context(), mediaType, content)})
}

// PushLayers pushes something that refers to the image: blobs that are there, or are not.
func (r *Registry) PushLayers(t testing.TB, artifactType string, layers []v1.Descriptor) name.Digest {
	t.Helper()
	return r.PushManifest(t, name.Tag{Repository: r.Image.Context()}, r.manifest(t, r.Image.Context(), r.empty(t, r.Image.Context(), artifactType), layers, r.Subject(t)))
}

// Subject describes the image.
func (r *Registry) Subject(t testing.TB) *v1.Descriptor {
	t.Helper()
	image, err := remote.Get(r.Image, r.Options...)
	if err != nil {
		t.Fatal(err)
	}
	return &v1.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
}

// PushBundles pushes bundles of cosign 3.
func (r *Registry) PushBundles(t testing.TB, bundles ...[]byte) {
	t.Helper()
	for _, bundle := range bundles {
		r.PushReferrer(t, BundleType, BundleType, bundle)
	}
}

// Referrers is the list of what refers to the image, by a handler that is the registry,
// with the type that each manifest says to have.
func (r *Registry) Referrers(t testing.TB, inner http.Handler) []byte {
	t.Helper()
	get := func(path string, into any) {
		recorder := httptest.NewRecorder()
		inner.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/v2/"+r.Image.Context().RepositoryStr()+path, nil))
		if err := json.Unmarshal(recorder.Body.Bytes(), into); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	var index v1.IndexManifest
	get("/referrers/"+r.Image.DigestStr(), &index)
	for i := range index.Manifests {
		var manifest v1.Manifest
		get("/manifests/"+index.Manifests[i].Digest.String(), &manifest)
		index.Manifests[i].ArtifactType = manifest.ArtifactType
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Error(err)
	}
	return raw
}
