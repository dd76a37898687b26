package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Fetch finds out what a request's reference stands for, and gets what is missing of it.
// Known is the revision that the caller has. See source.Fetcher for what it promises.
func (s *Store) Fetch(ctx context.Context, request Request, known string) (source.Result, error) {
	// Whatever is still open of an answer ends with this.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	result, err := s.fetch(inner, request, known)
	if err != nil {
		return source.Result{}, failure(ctx, request, err)
	}
	return result, nil
}

func (s *Store) fetch(ctx context.Context, request Request, known string) (source.Result, error) {
	if err := ctx.Err(); err != nil {
		return source.Result{}, err
	}
	c, f, err := s.open(request)
	if err != nil {
		return source.Result{}, err
	}
	result, err := s.follow(ctx, c, f, request, known)
	if err != nil && ctx.Err() == nil {
		c.access.forget(err)
	}
	return result, err
}

// found is what a reference stands for.
type found struct {
	digest   v1.Hash
	revision string
	// manifest is that of the digest, where it came with the answer.
	manifest *manifest
}

func (s *Store) follow(ctx context.Context, c *client, f *follower, request Request, known string) (source.Result, error) {
	is, err := c.resolve(ctx, request, s.journal.state(f.keys.request))
	if err != nil {
		return source.Result{}, err
	}
	if err := f.lock(ctx); err != nil {
		return source.Result{}, err
	}
	defer f.unlock()
	last := s.journal.state(f.keys.request)
	next, err := c.choose(ctx, request, last, is)
	if err != nil {
		return source.Result{}, err
	}
	unpacked, err := s.load(ctx, request, next, f.keys, func(ctx context.Context) (io.ReadCloser, error) { return c.layer(ctx, next.Layer) })
	if err != nil {
		return source.Result{}, at(ReasonPull, err)
	}
	if !reflect.DeepEqual(next, last) {
		if err := s.journal.store(f.keys.request, next); err != nil {
			unpacked.Release()
			return source.Result{}, err
		}
	}
	return show(request, next, unpacked, known), nil
}

// resolve finds out what a reference stands for. Where something was fetched before, it
// asks for no more than the digest.
func (c *client) resolve(ctx context.Context, request Request, last state) (found, error) {
	ref := request.Ref
	if ref.Digest != "" {
		digest, err := v1.NewHash(ref.Digest)
		return found{digest: digest, revision: digest.String()}, at(ReasonPull, err)
	}
	tag := cmp.Or(ref.Tag, defaultTag)
	if ref.SemVer != "" {
		tags, err := c.tags(ctx)
		if err != nil {
			return found{}, at(ReasonRead, err)
		}
		if tag, err = newest(ref, request.Layer.MediaType, tags); err != nil {
			return found{}, at(ReasonRead, err)
		}
	}
	if last.Digest != "" {
		digest, ok, err := c.head(ctx, tag)
		if err != nil {
			return found{}, at(ReasonPull, err)
		}
		if ok {
			return found{digest: digest, revision: tag + "@" + digest.String()}, nil
		}
	}
	m, err := c.get(ctx, tag)
	if err != nil {
		return found{}, at(ReasonPull, err)
	}
	return found{digest: m.digest, revision: tag + "@" + m.digest.String(), manifest: &m}, nil
}

// choose verifies what was found, where it has to be, and picks the layer. From here on
// all goes by digest.
func (c *client) choose(ctx context.Context, request Request, last state, is found) (state, error) {
	digest := is.digest.String()
	same := last.Digest == digest
	next := state{Version: stateVersion, Revision: is.revision, Digest: digest}
	if same {
		next = last
		next.Revision = is.revision
	}
	if request.Verify != nil && !(same && last.Verified && last.VerifyKey == request.VerifyKey) {
		by, err := c.verify(ctx, request, digest)
		if err != nil {
			return state{}, err
		}
		next.Verified, next.VerifyKey, next.By = true, request.VerifyKey, by
	}
	if same {
		return next, nil
	}
	if is.manifest == nil {
		m, err := c.get(ctx, digest)
		if err != nil {
			return state{}, at(ReasonPull, err)
		}
		is.manifest = &m
	}
	d, err := c.artifact(ctx, *is.manifest)
	if err != nil {
		return state{}, at(ReasonLayer, err)
	}
	next.Annotations = d.Annotations
	next.Layer, err = d.selectLayer(request.Layer.MediaType, c.limits.LayerBytes)
	next.Layer = v1.Descriptor{MediaType: next.Layer.MediaType, Digest: next.Layer.Digest, Size: next.Layer.Size}
	return next, at(ReasonLayer, err)
}

// verify has the request's own rules judge a digest.
func (c *client) verify(ctx context.Context, request Request, digest string) (by string, err error) {
	options, err := c.remoteOptions(ctx)
	if err != nil {
		return "", at(ReasonVerification, err)
	}
	by, err = guarded(func() (string, error) { return request.Verify(ctx, c.repository.Digest(digest), options...) })
	if err != nil {
		return "", unverified(ctx, request, digest, err)
	}
	return by, nil
}

// longestVerdict is the most of a verifier's words. They name the image and the reasons, and
// what to do stands at their end.
const longestVerdict = 1500

// unverified is the error of a digest that the rules refuse, or could not judge.
func unverified(ctx context.Context, request Request, digest string, err error) error {
	var told *gitops.Error
	if errors.As(err, &told) {
		text := egress.PrintableOf(err.Error(), longestVerdict)
		if !strings.Contains(text, digest) {
			text = fmt.Sprintf("verify %s: %s", digest, text)
		}
		return &fault{kind: told.Kind, reason: cmp.Or(told.Reason, ReasonVerification), text: text}
	}
	_, _, known := egress.Explain(ctx, err)
	status := statusOf(err)
	if known && status == 0 || status != 0 && status != http.StatusNotFound {
		// It could not be judged, which says nothing of the artifact.
		f := explain(ctx, request, err)
		f.reason, f.text = cmp.Or(f.reason, ReasonVerification), fmt.Sprintf("verify %s: %s", digest, f.text)
		return &f
	}
	return &fault{kind: gitops.Denied, reason: ReasonVerification, text: fmt.Sprintf("verify %s: %s", digest, egress.Printable(err.Error()))}
}

// guarded calls a verifier. What makes it panic came from the registry, and is not verified.
func guarded(verify func() (string, error)) (by string, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the verification broke off; the artifact or its signature is not as it should be")
		}
	}()
	return verify()
}

// load gives the files of a layer.
func (s *Store) load(ctx context.Context, request Request, of state, k keys, open func(context.Context) (io.ReadCloser, error)) (artifact.Unpacked, error) {
	isCopy := request.Layer.operation() == Copy
	// Errors of the network lose their meaning in the cache.
	var network error
	unpacked, err := s.cache.Load(ctx, artifact.Packed{
		Digest: of.Layer.Digest.String(), Scope: k.repository, Keep: isCopy, Opaque: isCopy,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			body, err := open(ctx)
			if err != nil {
				network = err
				return nil, err
			}
			return &noted{body, &network}, nil
		},
	})
	switch {
	case err == nil:
		return unpacked, nil
	case network != nil:
		err = network
	}
	return artifact.Unpacked{}, endOf(ctx, err)
}

// noted is a body whose error is kept.
type noted struct {
	io.ReadCloser
	err *error
}

// Read gives bytes of the body.
func (n *noted) Read(p []byte) (int, error) {
	got, err := n.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		*n.err = err
	}
	return got, err
}

// show makes a result of what was brought.
func show(request Request, of state, unpacked artifact.Unpacked, known string) source.Result {
	result := source.Result{
		Revision: of.Revision, Unchanged: known != "" && known == of.Revision,
		Files: unpacked.Files, Release: unpacked.Release, Metadata: maps.Clone(of.Annotations),
	}
	if request.Verify != nil && of.By != "" {
		result.Verified = "verified signature of revision " + of.Revision
	}
	if request.Layer.operation() == Copy {
		result.Packed = unpacked.Packed
	}
	return result
}

// Last gives what an earlier Fetch of the same request brought, also one of an earlier
// process, from disk and without asking the registry. It is an error where there is
// nothing, and where the request is verified and what was brought was not, or in another
// way.
func (s *Store) Last(ctx context.Context, request Request) (source.Result, error) {
	result, err := s.last(ctx, request)
	if err != nil {
		return source.Result{}, fmt.Errorf("last of %q: %w", request.redacted(), err)
	}
	return result, nil
}

func (s *Store) last(ctx context.Context, request Request) (source.Result, error) {
	_, f, err := s.open(request)
	if err != nil {
		return source.Result{}, err
	}
	last := s.journal.state(f.keys.request)
	if last.Digest == "" {
		return source.Result{}, errNothing()
	}
	if request.Verify != nil && (!last.Verified || last.VerifyKey != request.VerifyKey) {
		return source.Result{}, errors.New("it was not verified as it is to be now")
	}
	unpacked, err := s.load(ctx, request, last, f.keys, func(context.Context) (io.ReadCloser, error) {
		return nil, errors.New("its files are not kept any more")
	})
	if err != nil {
		return source.Result{}, err
	}
	return show(request, last, unpacked, ""), nil
}
