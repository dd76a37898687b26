package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/plumb-gitops/plumb/internal/egress"
)

// client reads one repository.
type client struct {
	access     *access
	repository name.Repository
	http       *http.Client
	limits     Options
}

// mostRedirects is the most redirects that are followed.
const mostRedirects = 10

func newClient(s *session, repository name.Repository, login login, o Options) *client {
	a := &access{session: s, scope: repository.Scope(transport.PullScope), login: login}
	return &client{access: a, repository: repository, limits: o, http: &http.Client{
		Transport: a,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > mostRedirects {
				return &egress.Refused{Text: fmt.Sprintf("the server redirects more than %d times", mostRedirects)}
			}
			return nil
		},
	}}
}

// remoteOptions reach the repository for whoever verifies what is in it.
func (c *client) remoteOptions(ctx context.Context) ([]remote.Option, error) {
	through, err := c.access.wrapped()
	if err != nil {
		return nil, err
	}
	return []remote.Option{remote.WithTransport(through), remote.WithContext(ctx)}, nil
}

// url is that of a resource of the repository.
func (c *client) url(ctx context.Context, kind, which string) (*url.URL, error) {
	challenge, err := c.access.session.ask(ctx)
	if err != nil {
		return nil, err
	}
	u := &url.URL{Scheme: schemeOf(challenge), Host: c.repository.RegistryStr(), Path: "/v2/" + c.repository.RepositoryStr() + "/" + kind + "/" + which}
	return u, nil
}

// ask asks for a resource of the repository.
func (c *client) ask(ctx context.Context, method, kind, which, accept string) (*http.Response, error) {
	at, err := c.url(ctx, kind, which)
	if err != nil {
		return nil, endOf(ctx, err)
	}
	return c.do(ctx, method, at, accept)
}

// do asks for something. The caller closes the body of the answer, whose status is 200.
func (c *client) do(ctx context.Context, method string, at *url.URL, accept string) (*http.Response, error) {
	request := (&http.Request{Method: method, URL: at, Host: at.Host, Header: http.Header{}}).WithContext(ctx)
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, endOf(ctx, err)
	}
	if err := transport.CheckError(response, http.StatusOK); err != nil {
		_ = response.Body.Close()
		return nil, endOf(ctx, err)
	}
	return response, nil
}

// manifestTypes are those that are understood, as the Accept header has them.
func manifestTypes() string {
	return strings.Join([]string{
		string(types.OCIManifestSchema1), string(types.DockerManifestSchema2), string(types.OCIImageIndex), string(types.DockerManifestList),
	}, ",")
}

// manifest is a manifest as it came.
type manifest struct {
	digest    v1.Hash
	mediaType string
	content   []byte
}

// head finds out the digest that a tag stands for. It is false where the registry does not
// say it, or only to those that get the manifest.
func (c *client) head(ctx context.Context, tag string) (v1.Hash, bool, error) {
	response, err := c.ask(ctx, http.MethodHead, "manifests", tag, manifestTypes())
	if statusOf(err) != 0 && tokenless(err) {
		return v1.Hash{}, false, nil
	}
	if err != nil {
		return v1.Hash{}, false, err
	}
	_ = response.Body.Close()
	digest, err := v1.NewHash(response.Header.Get("Docker-Content-Digest"))
	return digest, err == nil, nil
}

// tokenless tells whether an error is none of a token server.
func tokenless(err error) bool {
	var e *tokenError
	return !errors.As(err, &e)
}

// get gets a manifest by its tag or its digest.
func (c *client) get(ctx context.Context, reference string) (manifest, error) {
	response, err := c.ask(ctx, http.MethodGet, "manifests", reference, manifestTypes())
	if err != nil {
		return manifest{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return manifest{}, endOf(ctx, err)
	}
	m := manifest{content: content}
	if m.mediaType, _, err = mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil {
		m.mediaType = ""
	}
	if want, err := v1.NewHash(reference); err == nil {
		if m.digest = want; !hasDigest(content, want) {
			return manifest{}, wrongDigest("the manifest", want.String())
		}
		return m, nil
	}
	// A registry may have another kind of digest, as long as it is the right one.
	if said, err := v1.NewHash(response.Header.Get("Docker-Content-Digest")); err == nil && hasDigest(content, said) {
		m.digest = said
		return m, nil
	}
	m.digest, _, err = v1.SHA256(strings.NewReader(string(content)))
	return m, err
}

// hasDigest tells whether some content has a digest.
func hasDigest(content []byte, want v1.Hash) bool {
	sum, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return false
	}
	_, _ = sum.Write(content)
	return fmt.Sprintf("%x", sum.Sum(nil)) == want.Hex
}

// layer opens a layer. What it gives is at most as long as the manifest says; whether it
// has the digest is found out by whoever reads it.
func (c *client) layer(ctx context.Context, l v1.Descriptor) (io.ReadCloser, error) {
	response, err := c.ask(ctx, http.MethodGet, "blobs", l.Digest.String(), "")
	if err != nil {
		return nil, err
	}
	return &boundedBody{ReadCloser: response.Body, left: l.Size, err: &tooLarge{"the layer, of which the manifest says that it has no more,", l.Size}}, nil
}
