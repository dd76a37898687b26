// Package verify is what the verifiers of OCI artifacts share: it reads what stands
// beside an artifact in its registry, within bounds, and puts into words why an
// artifact is refused.
//
// What a registry answers is untrusted: how many signatures there are, how large they
// are, and what they claim to be. Manifests and blobs are read by digest, and nothing is
// read without a bound; time is bounded by the context. An artifact is verified or it is
// refused: there is no failure, defect of a library or missing file after which it
// counts as verified.
//
// The packages below it know a kind of signature each. The composition root hands their
// Verify to the sources.
package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/plumb-gitops/plumb/internal/egress"
)

const (
	// MostSignatures is how many signatures of an artifact are looked at.
	MostSignatures = 100
	// LargestManifest is the most bytes of a manifest, and of the list of what refers to
	// an artifact. The registries' own limit is the same.
	LargestManifest = 4 << 20
	// LargestBlob is the most bytes of a signature with all that it carries. A
	// statement that holds a list of parts is larger than a signature by far.
	LargestBlob = 8 << 20
	// mostBytes is how many bytes of blobs are read for one verification.
	mostBytes = 64 << 20
)

// ErrNotFound is the error of a manifest that the registry does not have.
var ErrNotFound = errors.New("not found")

// Registry reads what stands beside an artifact. It keeps the session with the registry,
// and is made for one verification by one goroutine.
type Registry struct {
	image   name.Digest
	puller  *remote.Puller
	options []remote.Option
	// read counts the bytes of blobs.
	read int64
}

// Open makes a Registry for an artifact; it connects to nothing yet. The options are those
// that the artifact is pulled with; their transport must be one of egress, which keeps
// the bounds.
func Open(image name.Digest, o ...remote.Option) (*Registry, error) {
	puller, err := remote.NewPuller(o...)
	if err != nil {
		return nil, fmt.Errorf("options of the registry: %w", err)
	}
	return &Registry{image: image, puller: puller, options: o}, nil
}

// Referrers are the manifests that refer to the artifact, at most as many as fit into
// LargestManifest, by the registry's API or by the tag that stands in for it.
func (r *Registry) Referrers(ctx context.Context) ([]v1.Descriptor, error) {
	ctx = egress.Bound(ctx, LargestManifest)
	options := append(append([]remote.Option{}, r.options...), remote.Reuse(r.puller), remote.WithContext(ctx))
	index, err := remote.Referrers(r.image, options...)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, &Malformed{Text: "the list of what refers to the artifact is not an index"}
	}
	return manifest.Manifests, nil
}

// Raw is a manifest as it is, with its media type, digest and size. The error is
// ErrNotFound where there is none.
func (r *Registry) Raw(ctx context.Context, ref name.Reference) ([]byte, v1.Descriptor, error) {
	got, err := r.puller.Get(egress.Bound(ctx, LargestManifest), ref)
	var status *transport.Error
	switch {
	case errors.As(err, &status) && status.StatusCode == http.StatusNotFound:
		return nil, v1.Descriptor{}, ErrNotFound
	case err != nil:
		return nil, v1.Descriptor{}, err
	}
	return got.Manifest, got.Descriptor, nil
}

// Manifest is the manifest of a signature. The error is ErrNotFound where there is none.
func (r *Registry) Manifest(ctx context.Context, ref name.Reference) (*v1.Manifest, error) {
	raw, _, err := r.Raw(ctx, ref)
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, &Malformed{Text: "the manifest of a signature is not a manifest"}
	}
	return manifest, nil
}

// Digest is a reference beside the artifact.
func (r *Registry) Digest(digest v1.Hash) name.Digest {
	return r.image.Context().Digest(digest.String())
}

// Tag is a reference beside the artifact.
func (r *Registry) Tag(tag string) name.Tag { return r.image.Context().Tag(tag) }

// Blob reads a blob of at most some bytes, and compares its digest and size with what
// the manifest says.
func (r *Registry) Blob(ctx context.Context, blob v1.Descriptor, most int64) ([]byte, error) {
	if blob.Size > most {
		return nil, &Malformed{Text: fmt.Sprintf("a signature has more than %d bytes", most)}
	}
	if r.read += max(blob.Size, 0); r.read > mostBytes {
		return nil, &Malformed{Text: fmt.Sprintf("the signatures have more than %d bytes together", int64(mostBytes))}
	}
	layer, err := r.puller.Layer(egress.Bound(ctx, most), r.Digest(blob.Digest))
	if err != nil {
		return nil, err
	}
	content, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer content.Close() //nolint:errcheck // it is read only
	// The end must be seen for the digest to be compared.
	read, err := io.ReadAll(io.LimitReader(content, max(blob.Size, 0)+1))
	switch _, _, network := egress.Explain(ctx, err); {
	case network:
		return nil, err
	case err != nil:
		return nil, &Malformed{Text: "a signature has other bytes than its digest says"}
	case int64(len(read)) != blob.Size:
		return nil, &Malformed{Text: "a signature has another size than its manifest says"}
	}
	return read, nil
}
