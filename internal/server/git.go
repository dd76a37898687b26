package server

import (
	"context"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git"
)

// gitSources lets the front end follow Git repositories through a store.
type gitSources struct {
	store *git.Store
}

// Fetch fetches a request.
func (g gitSources) Fetch(ctx context.Context, request flux.GitRequest, known string) (source.Result, error) {
	return g.store.Fetcher(gitRequest(request)).Fetch(ctx, known)
}

// Last gives what an earlier Fetch brought.
func (g gitSources) Last(ctx context.Context, request flux.GitRequest) (source.Result, error) {
	result, err := g.store.Last(ctx, gitRequest(request))
	return result.Result, err
}

// Retain removes what none of the requests needs.
func (g gitSources) Retain(requests []flux.GitRequest) error {
	wanted := make([]git.Request, 0, len(requests))
	for _, request := range requests {
		wanted = append(wanted, gitRequest(request))
	}
	return g.store.Retain(wanted)
}

func gitRequest(r flux.GitRequest) git.Request {
	return git.Request{
		URL:   r.URL,
		Ref:   git.Ref(r.Ref),
		Auth:  gitAuth(r.Auth),
		Proxy: git.Proxy(r.Proxy),

		RecurseSubmodules: r.RecurseSubmodules,
		Sparse:            r.Sparse,
	}
}

func gitAuth(a flux.GitAuth) git.Auth {
	return git.Auth{
		Username: a.Username, Password: a.Password, BearerToken: a.BearerToken,
		CA: a.CA, Certificate: a.Certificate, Key: a.Key,
		Identity: a.Identity, Passphrase: a.Passphrase, KnownHosts: a.KnownHosts,
	}
}
