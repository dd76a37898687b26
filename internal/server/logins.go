package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/auth/aws"
	"github.com/plumb-gitops/plumb/internal/auth/azure"
	"github.com/plumb-gitops/plumb/internal/auth/gcp"
	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/sops"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
)

// accountTokenLife is how long a token of a service account is valid that is exchanged for
// something else, the shortest that an API server gives.
const accountTokenLife = 10 * time.Minute

// prepareLogins makes what logs in at clouds and at GitHub.
func (s *server) prepareLogins(context.Context) error {
	s.logins = auth.New(auth.Options{
		Clouds:          map[string]auth.Cloud{aws.Name: aws.New(flux.SessionSuffix), azure.Name: azure.New(), gcp.Name: gcp.New(flux.GoogleProviderAnnotation)},
		Tokens:          s.accountToken,
		Annotations:     s.accountAnnotations,
		ServiceAccounts: s.config.Gates.ObjectLevelWorkloadIdentity,
		MaxTokens:       s.config.TokenCacheSize,
		MaxDuration:     s.config.TokenCacheDuration,
		Policy:          s.policy(),
		Clock:           s.clock,
		Transport:       s.options.Clouds,
	})
	return nil
}

// accountToken asks for a token of a service account.
func (s *server) accountToken(ctx context.Context, namespace, name string, audiences []string) (string, time.Time, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, ExpirationSeconds: ptr.To(int64(accountTokenLife / time.Second)),
	}}
	answer, err := s.typed.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, err
	}
	return answer.Status.Token, answer.Status.ExpirationTimestamp.Time, nil
}

// accountAnnotations reads those of a service account.
func (s *server) accountAnnotations(ctx context.Context, namespace, name string) (map[string]string, error) {
	account, err := s.typed.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return account.Annotations, nil
}

// keyLogins log in at services that keep keys, for SOPS.
func (s *server) keyLogins() sops.Options {
	options := sops.Options{Logins: sops.Logins{
		Cloud: func(ctx context.Context, cloud sops.Cloud, as build.Account, scope string) (sops.Credential, error) {
			r := auth.Request{Provider: string(cloud), Identity: auth.Identity{Namespace: as.Namespace, ServiceAccount: as.Name}}
			where := auth.Scope{Resource: scope}
			if cloud == sops.AWS {
				where = auth.Scope{Region: scope}
			}
			c, err := s.logins.Keys(ctx, r, where)
			return sops.Credential{AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken, Token: c.Bearer, Expires: c.Expires}, err
		},
		Kubernetes: s.vaultToken,
	}}
	if s.options.Clouds != nil {
		options.HTTP = &http.Client{Transport: s.options.Clouds}
	}
	return options
}

// vaultToken gives a token of a service account, or of the operator's own, for a Vault.
func (s *server) vaultToken(ctx context.Context, as build.Account, audience string) (string, build.Account, error) {
	who := auth.Identity{Namespace: as.Namespace, ServiceAccount: as.Name}
	if as == (build.Account{}) {
		var err error
		if who, err = ownAccount(ctx, s.typed); err != nil {
			return "", as, err
		}
	}
	login, err := s.logins.Token(ctx, who, []string{audience}, as == build.Account{})
	return login.Bearer, build.Account{Namespace: who.Namespace, Name: who.ServiceAccount}, err
}

// ownAccount is the service account that a client is.
func ownAccount(ctx context.Context, client kubernetes.Interface) (auth.Identity, error) {
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return auth.Identity{}, auth.Misconfigured("the operator cannot find out who it is")
	}
	user := review.Status.UserInfo.Username
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	namespace, name, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return auth.Identity{}, auth.Misconfigured("the operator runs as user %q, which is no service account: name one in spec.decryption.serviceAccountName", user)
	}
	return auth.Identity{Namespace: namespace, ServiceAccount: name}, nil
}
