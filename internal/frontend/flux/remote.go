package flux

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/engine"
)

// genericProvider is the provider of access to any cluster that trusts tokens of this
// one. The others are clouds.
const genericProvider = "generic"

const (
	// tokenLife is how long a token for a remote cluster is valid, the shortest that
	// an API server gives; it is asked for anew before it ends.
	tokenLife = 10 * time.Minute
	// tokenTimeout bounds the request for one.
	tokenTimeout = 30 * time.Second
)

// remoteReference is what the kubeConfig of a Kustomization names; without name where
// it has none.
func remoteReference(obj *kustomizev1.Kustomization, options KustomizationOptions) reference {
	switch c := obj.Spec.KubeConfig; {
	case c == nil:
		return reference{}
	case c.ConfigMapRef != nil:
		return options.ownReference(obj, configMapKind, c.ConfigMapRef.Name)
	case c.SecretRef != nil:
		return options.ownReference(obj, secretKind, c.SecretRef.Name)
	}
	return reference{}
}

// remote is the cluster that a Kustomization is applied to; nil for the operator's own.
func (k *kustomizations) remote(obj *kustomizev1.Kustomization) (*engine.Remote, error) {
	if obj.Spec.KubeConfig == nil {
		return nil, nil
	}
	ref := remoteReference(obj, k.options)
	from := fmt.Sprintf("%s '%s/%s', which spec.kubeConfig names", ref.kind, ref.namespace, ref.name)
	data, err := k.references.read(ref)
	switch {
	case errors.Is(err, errReferenceUnread):
		return nil, &blocked{reason: meta.ReconciliationFailedReason, waiting: true, quiet: true, retry: k.options.RequeueDependency,
			cause: fmt.Errorf("%s: %w", from, err)}
	case errors.Is(err, errReferenceDenied):
		return nil, noAccess(obj, fmt.Errorf("%s: %w", from, err))
	case err != nil:
		return nil, noAccess(obj, fmt.Errorf("%s: %w; create it, or correct spec.kubeConfig", from, err))
	}
	var remote *engine.Remote
	if ref.kind == secretKind {
		remote, err = k.fromKubeconfig(obj.Spec.KubeConfig.SecretRef.Key, data)
	} else {
		remote, err = k.fromProvider(obj.Namespace, data)
	}
	if errors.Is(err, errReferenceUnread) {
		return nil, &blocked{reason: meta.ReconciliationFailedReason, waiting: true, quiet: true, retry: loginPause, cause: fmt.Errorf("%s: %w", from, err)}
	}
	if err != nil {
		return nil, noAccess(obj, fmt.Errorf("%s: %w", from, err))
	}
	return remote, nil
}

func noAccess(obj *kustomizev1.Kustomization, err error) *blocked {
	return &blocked{reason: meta.ReconciliationFailedReason, retry: retryOf(obj), cause: err}
}

// fromKubeconfig reads the kubeconfig in an entry of a Secret; in value or value.yaml
// where no entry is named.
func (k *kustomizations) fromKubeconfig(entry string, data map[string][]byte) (*engine.Remote, error) {
	entries := []string{entry}
	if entry == "" {
		entries = []string{"value", "value.yaml"}
	}
	for _, name := range entries {
		content, ok := data[name]
		if !ok {
			continue
		}
		config, err := cluster.ParseKubeconfig(content, k.options.Kubeconfigs)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", name, err)
		}
		return &engine.Remote{Name: config.Host, Key: digestOf("kubeconfig", string(content)), Config: config}, nil
	}
	return nil, fmt.Errorf(`it has no entry "%s"`, strings.Join(entries, `" and no "`))
}

// fromProvider reads the entries of a ConfigMap that say how to get into a cluster.
func (k *kustomizations) fromProvider(namespace string, data map[string][]byte) (*engine.Remote, error) {
	text := func(name string) string { return strings.TrimSpace(string(data[name])) }
	account := text("serviceAccountName")
	if account == "" {
		account = k.options.DefaultKubeconfigServiceAccount
	}
	if account != "" && len(validation.IsDNS1123Subdomain(account)) > 0 {
		return nil, fmt.Errorf("serviceAccountName %q is no name of a service account", account)
	}
	audiences := strings.Fields(strings.ReplaceAll(text("audiences"), ",", " "))
	parts := []string{"provider", namespace, account}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		parts = append(parts, name, string(data[name]))
	}
	switch provider := text("provider"); provider {
	case genericProvider:
		return k.fromTrust(namespace, account, audiences, text("address"), data["ca.crt"], parts)
	case "":
		return nil, errors.New("it has no entry provider: aws, azure, gcp or generic")
	default:
		r := auth.Request{Provider: provider, Audiences: audiences}
		if account != "" {
			r.Identity = auth.Identity{Namespace: namespace, ServiceAccount: account}
		}
		address := text("address")
		if address != "" && !strings.Contains(address, "://") {
			address = "https://" + address
		}
		return k.fromCloud(r, auth.Cluster{Name: text("cluster"), Address: address, CA: data["ca.crt"]}, parts)
	}
}

// fromTrust is a cluster that trusts the tokens of this one.
func (k *kustomizations) fromTrust(namespace, account string, audiences []string, address string, authority []byte, parts []string) (*engine.Remote, error) {
	if account == "" {
		return nil, errors.New("it needs serviceAccountName: tokens of the operator itself are not given to other clusters")
	}
	config, err := cluster.ConfigFor(address, authority)
	if err != nil {
		return nil, err
	}
	if len(audiences) == 0 {
		audiences = []string{config.Host}
	}
	cluster.UseTokens(config, tokensOf(k.references.client, namespace, account, audiences))
	return &engine.Remote{Name: config.Host, Key: digestOf(parts...), Config: config}, nil
}

const (
	// loginWait is how long a worker waits for the answer of a cloud, which goes on to be
	// waited for without it: after loginPause it is looked at again.
	loginWait  = 500 * time.Millisecond
	loginPause = time.Second
)

// fromCloud is a cluster of a cloud.
func (k *kustomizations) fromCloud(r auth.Request, described auth.Cluster, parts []string) (*engine.Remote, error) {
	if k.logins == nil {
		return nil, fmt.Errorf("provider %q is for the operator: this command does not log in there", r.Provider)
	}
	ctx, cancel := context.WithTimeout(context.Background(), loginWait)
	defer cancel()
	found, _, err := k.logins.Cluster(ctx, r, described)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("where the cluster is: %w", errReferenceUnread)
	case err != nil:
		return nil, err
	}
	config, err := cluster.ConfigFor(found.Address, found.CA)
	if err != nil {
		return nil, err
	}
	logins := k.logins
	cluster.UseTokens(config, func() (string, time.Time, error) {
		_, login, err := logins.Cluster(context.Background(), r, described)
		return login.Bearer, login.Expires, err
	})
	return &engine.Remote{Name: config.Host, Key: digestOf(append(parts, "at", found.Address, string(found.CA))...), Config: config}, nil
}

// tokensOf asks for tokens of a service account.
func tokensOf(client kubernetes.Interface, namespace, account string, audiences []string) cluster.Tokens {
	return func() (string, time.Time, error) {
		ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
		defer cancel()
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: audiences, ExpirationSeconds: ptr.To(int64(tokenLife / time.Second)),
		}}
		answer, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
		if err != nil {
			return "", time.Time{}, fmt.Errorf("get a token of service account '%s/%s': %w", namespace, account, err)
		}
		return answer.Status.Token, answer.Status.ExpirationTimestamp.Time, nil
	}
}

// digestOf tells texts apart without showing them.
func digestOf(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s\n", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// lostRemote tells whether what a kubeConfig names is gone for certain.
func (k *kustomizations) lostRemote(ctx context.Context, ref reference) (bool, error) {
	api, err := k.references.core(ref.as)
	if err == nil && ref.kind == secretKind {
		_, err = api.Secrets(ref.namespace).Get(ctx, ref.name, metav1.GetOptions{})
	} else if err == nil {
		_, err = api.ConfigMaps(ref.namespace).Get(ctx, ref.name, metav1.GetOptions{})
	}
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s %q: %w", ref.kind, ref.name, err)
	}
	return false, nil
}
