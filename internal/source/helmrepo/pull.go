package helmrepo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// release is a version of a chart in a repository, and where it is.
type release struct {
	version string
	// digest is that in the index, or of the manifest in the registry.
	digest string
	urls   []string
	// verified says by what it was verified; empty where it was not.
	verified string
}

// choose finds the version that is looked for.
func (r *remote) choose(ctx context.Context, request ChartRequest, want wanted) (release, error) {
	if registry := request.Repository.Registry; registry != nil {
		return r.chooseTag(ctx, registry, request.Name, want)
	}
	found, err := r.find(ctx, request.Name, want, request.Cached)
	return release{version: found.Version, digest: found.Digest, urls: found.URLs}, err
}

// pull opens the packed chart where it comes from.
func (r *remote) pull(ctx context.Context, request ChartRequest, found release) (io.ReadCloser, error) {
	if registry := request.Repository.Registry; registry != nil {
		in, err := registry.Pull(ctx, r.repository(request.Name), found.digest)
		if err != nil {
			return nil, because(gitops.Transient, ReasonPull, err)
		}
		return in, nil
	}
	if len(found.urls) == 0 || found.urls[0] == "" {
		return nil, fault(gitops.Invalid, ReasonPull, errors.New("the index has no URL for it"))
	}
	u, err := resolve(r.base, found.urls[0])
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the index has a URL for it with scheme %s, which is not supported; use http or https", egress.Quote(u.Scheme))
	}
	response, err := r.get(ctx, u, http.Header{}, http.StatusOK)
	if err != nil {
		return nil, within(fmt.Sprintf("get %q", egress.Printable(shown(u))), r.failure(ctx, ReasonPull, err))
	}
	if most := r.store.options.ChartBytes; response.ContentLength > most {
		_ = response.Body.Close()
		return nil, fmt.Errorf("the packed chart has %d bytes, at most %d are taken", response.ContentLength, most)
	}
	return response.Body, nil
}

// repository is host/path of a chart in the registry.
func (r *remote) repository(name string) string {
	return strings.TrimSuffix(r.base.Host+r.base.Path, "/") + "/" + name
}

// mostTags bounds the tags that are looked at.
const mostTags = 100_000

// chooseTag finds the tag of the version that is looked for. Tags have no plus sign; there
// is an underscore in its place.
func (r *remote) chooseTag(ctx context.Context, registry *Registry, name string, want wanted) (release, error) {
	repository := r.repository(name)
	version := want.text
	if !want.exact() {
		tags, err := registry.Tags(ctx, repository)
		if err != nil {
			return release{}, because(gitops.Transient, ReasonPull, err)
		}
		if len(tags) > mostTags {
			return release{}, fault(gitops.Invalid, ReasonPull, fmt.Errorf("repository %q has more than %d tags", repository, mostTags))
		}
		choice := chosen{wanted: want}
		for _, tag := range tags {
			choice.see(candidate{Version: strings.ReplaceAll(tag, "_", "+")})
		}
		if !choice.found {
			// A registry does not tell of new tags: as in Flux it is asked again.
			return release{}, fault(gitops.Invalid, ReasonPull, fmt.Errorf("the repository %q has no tag in the range %q", repository, want))
		}
		version = choice.best.Version
	}
	digest, verified, err := registry.Resolve(ctx, repository, strings.ReplaceAll(version, "+", "_"))
	if err != nil {
		return release{}, because(gitops.Transient, ReasonPull, err)
	}
	return release{version: version, digest: digest, verified: verified}, nil
}
