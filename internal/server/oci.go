package server

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/oci"
)

// ociSources lets the front end follow artifacts in OCI registries.
type ociSources struct{ *server }

// Fetch fetches a request.
func (o ociSources) Fetch(ctx context.Context, request flux.OCIRequest, known string) (source.Result, error) {
	r, err := o.ociRequest(request)
	if err != nil {
		return source.Result{}, err
	}
	return o.oci.Fetch(ctx, r, known)
}

// Last gives what an earlier Fetch brought.
func (o ociSources) Last(ctx context.Context, request flux.OCIRequest) (source.Result, error) {
	r, err := o.ociRequest(request)
	if err != nil {
		return source.Result{}, err
	}
	return o.oci.Last(ctx, r)
}

// Retain removes what none of the requests needs.
func (o ociSources) Retain(requests []flux.OCIRequest) error {
	var wanted []oci.Request
	var errs []error
	for _, request := range requests {
		r, err := o.ociRequest(request)
		if err != nil {
			// What it brought before is still in use.
			request.Verification = nil
			r, err = o.ociRequest(request)
		}
		wanted, errs = append(wanted, r), append(errs, err)
	}
	return errors.Join(append(errs, o.oci.Retain(wanted))...)
}

func (s *server) ociRequest(r flux.OCIRequest) (oci.Request, error) {
	request := oci.Request{
		URL: r.URL, Ref: oci.Ref(r.Ref), Layer: oci.Layer{MediaType: r.Layer.MediaType}, Insecure: r.Insecure,
		Auth: oci.Auth(r.Auth), TLS: r.TLS, Proxy: r.Proxy, Policy: s.policy(),
	}
	request.TLS.Insecure = r.Insecure && len(r.TLS.CA) == 0
	if r.Layer.Copy {
		request.Layer.Operation = oci.Copy
	}
	if r.Login.Provider != "" {
		request.LoginKey = loginKey(r.Login)
		request.Login = func(ctx context.Context) (username, password string, err error) {
			login, err := s.logins.Registry(ctx, loginRequest(r.Login, r.Proxy), r.URL)
			return login.Username, login.Password, err
		}
	}
	if r.Verification == nil {
		return request, nil
	}
	verify, err := s.verifierOf(r.Verification)
	request.Verify, request.VerifyKey = verify, keyOf(r.Verification)
	return request, err
}

// chartLayer is the media type of a Helm chart in a registry.
const chartLayer = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

// registry gets charts from the registry of a HelmRepository.
func (s *server) registry(r flux.HelmRepositoryRequest, v *flux.Verification) *helmrepo.Registry {
	request := func(repository string, ref oci.Ref) (oci.Request, error) {
		made, err := s.ociRequest(flux.OCIRequest{
			URL: "oci://" + repository, Auth: r.Auth, Login: r.Login, TLS: r.TLS, Insecure: r.Insecure, Verification: v,
		})
		made.Ref, made.Layer.MediaType = ref, chartLayer
		return made, err
	}
	return &helmrepo.Registry{
		Identity: keyOf(r.Auth, loginKey(r.Login), r.TLS, r.Insecure, v),
		Tags: func(ctx context.Context, repository string) ([]string, error) {
			of, err := request(repository, oci.Ref{})
			if err != nil {
				return nil, err
			}
			return s.oci.Tags(ctx, of)
		},
		Resolve: func(ctx context.Context, repository, tag string) (digest, verified string, err error) {
			of, err := request(repository, oci.Ref{Tag: tag})
			if err != nil {
				return "", "", err
			}
			return s.oci.Resolve(ctx, of)
		},
		Pull: func(ctx context.Context, repository, digest string) (io.ReadCloser, error) {
			of, err := request(repository, oci.Ref{Digest: digest})
			if err != nil {
				return nil, err
			}
			return s.oci.Layer(ctx, of)
		},
	}
}

// isOCI tells whether a repository is a registry.
func isOCI(url string) bool { return strings.HasPrefix(url, "oci://") }
