package cosign

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"

	"github.com/plumb-gitops/plumb/internal/verify"
)

// bundleType is how the media type of a bundle begins, whatever its version.
const bundleType = "application/vnd.dev.sigstore.bundle"

// bundles looks through the bundles that refer to the image. It is done where one is
// accepted, or where nothing more can be read.
func (s search) bundles(ctx context.Context) (by string, done bool) {
	referrers, err := s.registry.Referrers(ctx)
	if err != nil {
		return "", s.attempts.Unread(ctx, err)
	}
	// Not every registry says what a referrer is. Those that are said to be bundles come
	// first, so that no crowd of others hides them.
	slices.SortStableFunc(referrers, func(a, b v1.Descriptor) int { return cmp.Compare(rank(a), rank(b)) })
	for i, referrer := range referrers {
		if i == verify.MostSignatures {
			s.attempts.More()
			break
		}
		read, err := s.readBundle(ctx, referrer)
		if errors.Is(err, errNoBundle) {
			continue
		}
		s.attempts.Next()
		if err != nil {
			if s.attempts.Unread(ctx, err) {
				return "", true
			}
			continue
		}
		by, err := s.check.checkBundle(read, s.image)
		if err == nil {
			return by, true
		}
		s.attempts.Skip(err.Error())
	}
	return "", false
}

func rank(referrer v1.Descriptor) int {
	if strings.HasPrefix(referrer.ArtifactType, bundleType) {
		return 0
	}
	return 1
}

// errNoBundle is the error of a referrer that is something else.
var errNoBundle = errors.New("not a bundle")

func (s search) readBundle(ctx context.Context, referrer v1.Descriptor) (*bundle.Bundle, error) {
	manifest, err := s.registry.Manifest(ctx, s.registry.Digest(referrer.Digest))
	if err != nil {
		return nil, err
	}
	if len(manifest.Layers) != 1 || !strings.HasPrefix(string(manifest.Layers[0].MediaType), bundleType) {
		return nil, errNoBundle
	}
	raw, err := s.registry.Blob(ctx, manifest.Layers[0], verify.LargestBlob)
	if err != nil {
		return nil, err
	}
	return parseBundle(raw)
}

// parseBundle reads a bundle that cosign 3 can have made: of version 0.3, with a statement
// in an envelope.
func parseBundle(raw []byte) (*bundle.Bundle, error) {
	read := &bundle.Bundle{}
	if err := read.UnmarshalJSON(raw); err != nil {
		return nil, &verify.Malformed{Text: "a bundle is not one of Sigstore, or of a version that is not known"}
	}
	if !read.MinVersion("v0.3") {
		return nil, &verify.Malformed{Text: "a bundle is of a version before 0.3"}
	}
	if _, err := read.Envelope(); err != nil {
		return nil, &verify.Malformed{Text: "a bundle holds no statement about an artifact"}
	}
	return read, nil
}
