package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Tags lists the tags of a request's repository, within the bounds of Options.
func (s *Store) Tags(ctx context.Context, request Request) ([]string, error) {
	c, _, err := s.open(request)
	if err != nil {
		return nil, failure(ctx, request, err)
	}
	tags, err := c.tags(ctx)
	if err != nil {
		return nil, failure(ctx, request, at(ReasonRead, err))
	}
	return tags, nil
}

// Resolve gives the digest of what a request's reference stands for, once it is verified
// as the request wants it, and by what; that is empty where nothing had to be verified,
// also by a rule that lets everything pass. Nothing is kept.
func (s *Store) Resolve(ctx context.Context, request Request) (digest, by string, err error) {
	c, _, err := s.open(request)
	if err != nil {
		return "", "", failure(ctx, request, err)
	}
	is, err := c.resolve(ctx, request, state{})
	var next state
	if err == nil {
		next, err = c.choose(ctx, request, state{}, is)
	}
	if err != nil {
		return "", "", failure(ctx, request, err)
	}
	return is.digest.String(), next.By, nil
}

// Layer opens the layer that a request chooses of the manifest with the digest in its
// reference. What is read has the digest that the manifest says, or the last read is an
// error.
func (s *Store) Layer(ctx context.Context, request Request) (io.ReadCloser, error) {
	c, _, err := s.open(request)
	if err != nil {
		return nil, failure(ctx, request, err)
	}
	request.Verify = nil // it was, when the digest was resolved
	is, err := c.resolve(ctx, request, state{})
	if err != nil {
		return nil, failure(ctx, request, err)
	}
	chosen, err := c.choose(ctx, request, state{}, is)
	if err != nil {
		return nil, failure(ctx, request, err)
	}
	body, err := c.layer(ctx, chosen.Layer)
	if err != nil {
		return nil, failure(ctx, request, at(ReasonPull, err))
	}
	return &checkedBody{ReadCloser: body, sum: sha256.New(), want: chosen.Layer.Digest}, nil
}

// checkedBody ends with an error where what was read has another digest.
type checkedBody struct {
	io.ReadCloser
	sum  hash.Hash
	want v1.Hash
}

// Read gives bytes of the body.
func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	_, _ = b.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && (b.want.Algorithm != "sha256" || hex.EncodeToString(b.sum.Sum(nil)) != b.want.Hex) {
		err = fmt.Errorf("the layer does not have the digest %s: it is truncated or was changed", b.want)
	}
	return n, err
}
