package server

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/verify/gitsign"
)

// gitSources lets the front end follow Git repositories.
type gitSources struct{ *server }

// gitNews passes on what the store of Git repositories hears, to a front end that is there
// later than the store.
type gitNews struct {
	listener atomic.Pointer[func(follower string)]
}

func (n *gitNews) listen(tell func(follower string)) { n.listener.Store(&tell) }

func (n *gitNews) tell(follower string) {
	if listener := n.listener.Load(); listener != nil {
		(*listener)(follower)
	}
}

// Fetch fetches a request.
func (g gitSources) Fetch(ctx context.Context, request flux.GitRequest, known string) (source.Result, error) {
	r, err := g.gitRequest(request)
	if err != nil {
		return source.Result{}, err
	}
	r.Known = known
	return gitResult(g.git.Fetch(ctx, r))
}

// Last gives what an earlier Fetch brought.
func (g gitSources) Last(ctx context.Context, request flux.GitRequest) (source.Result, error) {
	r, err := g.gitRequest(request)
	if err != nil {
		return source.Result{}, err
	}
	return gitResult(g.git.Last(ctx, r))
}

// Retain removes what none of the requests needs.
func (g gitSources) Retain(requests []flux.GitRequest) error {
	wanted := make([]git.Request, 0, len(requests))
	for _, request := range requests {
		r, err := g.gitRequest(request)
		if err != nil {
			// Keys that cannot be read are a failure of that object. What it brought before,
			// unverified, is of no use to it.
			request.Verification = nil
			if r, err = g.gitRequest(request); err != nil {
				return err
			}
		}
		wanted = append(wanted, r)
	}
	return g.git.Retain(wanted)
}

func (s *server) gitRequest(r flux.GitRequest) (git.Request, error) {
	request := git.Request{
		URL: r.URL, Ref: git.Ref(r.Ref), Auth: s.gitAuth(r), Proxy: r.Proxy,
		RecurseSubmodules: r.RecurseSubmodules, Sparse: r.Sparse, NotBefore: r.NotBefore, Follower: r.Follower,
	}
	v := r.Verification
	if v == nil {
		return request, nil
	}
	keys, err := gitsign.ReadKeys(v.Keys)
	if err != nil {
		return request, &gitops.Error{Stage: gitops.StageFetch, Kind: gitops.Denied, Reason: "VerificationError", Cause: err}
	}
	request.Verify = git.Verify{Check: keys.Verify, Settings: keyOf(v.Keys)}
	switch {
	case v.Head && v.Tag:
		request.Verify.Mode = git.VerifyTagAndHEAD
	case v.Tag:
		request.Verify.Mode = git.VerifyTag
	default:
		request.Verify.Mode = git.VerifyHEAD
	}
	return request, nil
}

// gitAuth is the credential of a request, which a cloud or a GitHub App gives when it is
// needed.
func (s *server) gitAuth(r flux.GitRequest) git.Auth {
	a := git.Auth{
		Username: r.Auth.Username, Password: r.Auth.Password, BearerToken: r.Auth.BearerToken,
		CA: r.Auth.CA, Certificate: r.Auth.Certificate, Key: r.Auth.Key,
		Identity: r.Auth.Identity, Passphrase: r.Auth.Passphrase, KnownHosts: r.Auth.KnownHosts,
	}
	login := func(get func(ctx context.Context) (auth.Login, error)) func(context.Context) (string, string, string, error) {
		return func(ctx context.Context) (username, password, bearer string, err error) {
			l, err := get(ctx)
			return l.Username, l.Password, l.Bearer, err
		}
	}
	switch app := r.Auth.App; {
	case app != nil:
		a.LoginName = keyOf(app)
		a.Login = login(func(ctx context.Context) (auth.Login, error) {
			return s.logins.GitHubApp(ctx, auth.App{
				ID: app.ID, InstallationOwner: app.InstallationOwner, InstallationID: app.InstallationID, PrivateKey: app.PrivateKey,
				BaseURL: app.BaseURL, TLS: egress.TLS{CA: r.Auth.CA, Certificate: r.Auth.Certificate, Key: r.Auth.Key}, Proxy: r.Proxy,
			})
		})
	case r.Login.Provider != "":
		a.LoginName = loginKey(r.Login)
		a.Login = login(func(ctx context.Context) (auth.Login, error) {
			return s.logins.Git(ctx, loginRequest(r.Login, r.Proxy), r.URL)
		})
	}
	return a
}

// gitResult says who signed a revision, in the words of Flux.
func gitResult(result git.Result, err error) (source.Result, error) {
	if err != nil {
		return source.Result{}, err
	}
	lines := make([]string, 0, len(result.Verified))
	for _, v := range result.Verified {
		lines = append(lines, fmt.Sprintf("\t- %s '%s' with key '%s'", v.Object, v.Name, v.Signer))
	}
	if len(lines) > 0 {
		result.Result.Verified = "verified signature of\n" + strings.Join(lines, "\n")
	}
	return result.Result, nil
}
