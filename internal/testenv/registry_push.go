package testenv

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Media types of artifacts, as Flux and Helm push them.
const (
	MediaTypeManifest     = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex        = "application/vnd.oci.image.index.v1+json"
	MediaTypeFluxConfig   = "application/vnd.cncf.flux.config.v1+json"
	MediaTypeFluxContent  = "application/vnd.cncf.flux.content.v1.tar+gzip"
	MediaTypeChartConfig  = "application/vnd.cncf.helm.config.v1+json"
	MediaTypeChartContent = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	MediaTypeProvenance   = "application/vnd.cncf.helm.chart.provenance.v1.prov"
)

// OCIDescriptor names a blob or a manifest.
type OCIDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *OCIPlatform      `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// OCIPlatform is what a manifest of an index is for.
type OCIPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// OCIManifest is an artifact.
type OCIManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        OCIDescriptor     `json:"config"`
	Layers        []OCIDescriptor   `json:"layers"`
	Subject       *OCIDescriptor    `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// OCIIndex is a list of artifacts.
type OCIIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []OCIDescriptor   `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// OCILayer is a layer to be pushed.
type OCILayer struct {
	MediaType string
	Content   []byte
}

// OCIAnnotations are those that "flux push artifact" gives to an artifact.
func OCIAnnotations(source, revision string) map[string]string {
	return map[string]string{
		"org.opencontainers.image.created":  time.Unix(1_700_000_000, 0).UTC().Format(time.RFC3339),
		"org.opencontainers.image.source":   source,
		"org.opencontainers.image.revision": revision,
	}
}

// Push pushes files as "flux push artifact" does: one layer, a gzipped tar. It gives the
// digest of the manifest. A tag that is there moves.
func (r *Registry) Push(t testing.TB, repository, tag string, files Files) string {
	t.Helper()
	return r.PushLayers(t, repository, tag, MediaTypeFluxConfig,
		OCIAnnotations("https://git.example.com/app.git", "main@sha1:0123456789012345678901234567890123456789"),
		OCILayer{MediaTypeFluxContent, TarGzip(t, files)})
}

// PushChart pushes a packaged Helm chart, with its provenance file where there is one,
// as "helm push" does.
func (r *Registry) PushChart(t testing.TB, repository, tag string, chart, provenance []byte) string {
	t.Helper()
	layers := []OCILayer{{MediaTypeChartContent, chart}}
	if provenance != nil {
		layers = append(layers, OCILayer{MediaTypeProvenance, provenance})
	}
	return r.PushLayers(t, repository, tag, MediaTypeChartConfig, map[string]string{"org.opencontainers.image.title": repository}, layers...)
}

// PushLayers pushes an artifact of some layers.
func (r *Registry) PushLayers(t testing.TB, repository, tag, configType string, annotations map[string]string, layers ...OCILayer) string {
	t.Helper()
	manifest := OCIManifest{
		SchemaVersion: 2, MediaType: MediaTypeManifest, Annotations: annotations, Layers: []OCIDescriptor{},
		Config: r.PushBlob(t, repository, configType, []byte("{}")),
	}
	for _, layer := range layers {
		manifest.Layers = append(manifest.Layers, r.PushBlob(t, repository, layer.MediaType, layer.Content))
	}
	return r.PushManifest(t, repository, tag, manifest)
}

// PushManifest pushes a manifest, an index, or anything else that is JSON.
func (r *Registry) PushManifest(t testing.TB, repository, tag string, manifest any) string {
	t.Helper()
	data, err := json.Marshal(manifest)
	check(t, err)
	contentType := MediaTypeManifest
	if _, index := manifest.(OCIIndex); index {
		contentType = MediaTypeIndex
	}
	return r.PushRaw(t, repository, tag, contentType, data)
}

// PushRaw pushes some bytes as a manifest and gives their digest; under that alone where
// the tag is empty.
func (r *Registry) PushRaw(t testing.TB, repository, tag, contentType string, manifest []byte) string {
	t.Helper()
	if tag == "" {
		tag = DigestOf(manifest)
	}
	r.call(t, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, contentType, manifest, http.StatusCreated)
	return DigestOf(manifest)
}

// PushBlob pushes a blob and describes it.
func (r *Registry) PushBlob(t testing.TB, repository, mediaType string, content []byte) OCIDescriptor {
	t.Helper()
	digest := DigestOf(content)
	r.call(t, http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+digest, "application/octet-stream", content, http.StatusCreated)
	return OCIDescriptor{MediaType: mediaType, Digest: digest, Size: int64(len(content))}
}

// Tag points a tag at a manifest of the repository.
func (r *Registry) Tag(t testing.TB, repository, tag, digest string) {
	t.Helper()
	manifest := r.call(t, http.MethodGet, "/v2/"+repository+"/manifests/"+digest, "", nil, http.StatusOK)
	r.call(t, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, manifest.Header().Get("Content-Type"), manifest.Body.Bytes(), http.StatusCreated)
}

// Delete takes a tag or a manifest away.
func (r *Registry) Delete(t testing.TB, repository, reference string) {
	t.Helper()
	r.call(t, http.MethodDelete, "/v2/"+repository+"/manifests/"+reference, "", nil, http.StatusAccepted)
}

// DigestOf is the sha256 digest of some content.
func DigestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// TarGzip packs files, in the order of their names. Executable and Symlink are known.
func TarGzip(t testing.TB, files Files) []byte {
	t.Helper()
	var headers []tar.Header
	var contents []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}
		if rest, ok := strings.CutPrefix(content, executableMark); ok {
			h.Mode, content = 0o755, rest
		} else if target, ok := strings.CutPrefix(content, symlinkMark); ok {
			h, content = tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""
		}
		h.Size = int64(len(content))
		headers, contents = append(headers, h), append(contents, content)
	}
	return TarGzipOf(t, headers, contents)
}

// TarGzipOf packs entries as they are, also such as nobody should unpack.
func TarGzipOf(t testing.TB, headers []tar.Header, contents []string) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for i := range headers {
		check(t, archive.WriteHeader(&headers[i]))
		_, err := archive.Write([]byte(contents[i]))
		check(t, err)
	}
	check(t, archive.Close())
	check(t, zipped.Close())
	return out.Bytes()
}
