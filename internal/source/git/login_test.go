package git_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestLoginIsAskedWhenItIsNeeded: a token is used until the server refuses it.
func TestLoginIsAskedWhenItIsNeeded(t *testing.T) {
	t.Parallel()
	for kind, status := range map[string]int{"refused": http.StatusUnauthorized, "forbidden": http.StatusForbidden, "a page to sign in at": http.StatusNonAuthoritativeInfo} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewGitServer(t, testenv.GitServerOptions{})
			repo := server.Repository(t, "app")
			repo.Commit(t, "main", testenv.Files{"f": "1"})
			var good atomic.Value
			good.Store("token 1")
			server.Around(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Authorization") != "Bearer "+good.Load().(string) {
						w.WriteHeader(status)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			var logins atomic.Int64
			broken := errors.New("no token today")
			request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Auth: git.Auth{
				LoginName: "azure of apps", BearerToken: "not this one",
				Login: func(context.Context) (string, string, string, error) {
					n := logins.Add(1)
					if n > 3 {
						return "", "", "", broken
					}
					return "", "", fmt.Sprintf("token %d", n), nil
				},
			}}
			s := openStore(t, git.Options{})
			must(t, s.Retain([]git.Request{request}))
			if logins.Load() != 0 {
				t.Error("somebody logged in before it was needed")
			}
			fetch(t, s, request)
			fetch(t, s, request)
			repo.Commit(t, "main", testenv.Files{"f": "2"})
			fetch(t, s, request)
			if got := logins.Load(); got != 1 {
				t.Errorf("%d logins while the token is good", got)
			}
			good.Store("token 2")
			fetch(t, s, request)
			fetch(t, s, request)
			if got := logins.Load(); got != 2 {
				t.Errorf("%d logins for two tokens", got)
			}
			good.Store("token 9")
			refuse := func(code string) string {
				t.Helper()
				_, err := s.Fetch(within(t), request)
				var e *gitops.Error
				if !errors.As(err, &e) || e.Kind != gitops.Denied || e.Reason != git.ReasonAuthentication || !strings.Contains(err.Error(), code) || strings.Contains(err.Error(), "token 3") {
					t.Errorf("error %v, want one that says %q", err, code)
				}
				return fmt.Sprint(err)
			}
			refuse(fmt.Sprint(status))
			if got := logins.Load(); got != 3 {
				t.Errorf("%d logins: a new token that is refused is got once", got)
			}
			if first := refuse("log in: no token today"); first != refuse("log in") {
				t.Error("the error changes")
			}
		})
	}
}

// TestPolicyIsKept: the store hands its rules on.
func TestPolicyIsKept(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	shell := testenv.NewSSHServer(t, "")
	plain := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
	password := plain
	password.Auth = git.Auth{Username: "a", Password: "b"}
	for name, test := range map[string]struct {
		policy  egress.Policy
		request git.Request
		word    string
	}{
		"a private address":           {egress.Policy{NoPrivate: true}, plain, "--no-private-sources"},
		"a private address over ssh":  {egress.Policy{NoPrivate: true}, git.Request{URL: shell.URL("app"), Auth: git.Auth{Identity: shell.Identity, KnownHosts: shell.KnownHosts}}, "--no-private-sources"},
		"a password over plain http":  {egress.Policy{NoPlainCredentials: true}, password, "--no-plain-credentials"},
		"no password over plain http": {egress.Policy{NoPlainCredentials: true}, plain, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result, err := openStore(t, git.Options{Policy: test.policy}).Fetch(within(t), test.request)
			if test.word == "" {
				must(t, err)
				result.Release()
				return
			}
			if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(fmt.Sprint(err), test.word) {
				t.Errorf("error %v of kind %q, want one that says %q", err, gitops.KindOf(err), test.word)
			}
		})
	}
}
