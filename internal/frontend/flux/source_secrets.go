package flux

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// sourceSecrets reads what the spec of a source refers to, in its own namespace.
type sourceSecrets struct {
	references *references
	// retry is the pause after which what could not be read is looked at again.
	retry time.Duration
}

// want declares all that a source refers to; refs may be nil.
func (s sourceSecrets) want(owner gitops.OwnerRef, refs ...*meta.LocalObjectReference) error {
	return s.references.want(owner, s.wanted(owner, refs))
}

func (sourceSecrets) wanted(owner gitops.OwnerRef, refs []*meta.LocalObjectReference) []reference {
	var wanted []reference
	for _, ref := range refs {
		if ref == nil || ref.Name == "" {
			continue
		}
		r := reference{kind: secretKind, namespace: owner.Namespace, name: ref.Name}
		if !slices.Contains(wanted, r) {
			wanted = append(wanted, r)
		}
	}
	return wanted
}

// secret reads a Secret that is wanted.
func (s sourceSecrets) secret(owner gitops.OwnerRef, name string) (map[string][]byte, error) {
	return s.read(reference{kind: secretKind, namespace: owner.Namespace, name: name})
}

// trust reads a Secret that is wanted and says who is trusted. Where it cannot be read
// nothing can be verified, which is the reason.
func (s sourceSecrets) trust(owner gitops.OwnerRef, name string) (map[string][]byte, error) {
	data, err := s.secret(owner, name)
	var b *blocked
	if errors.As(err, &b) && !b.quiet {
		b.reason = sourcev1.VerificationError
	}
	return data, err
}

func (s sourceSecrets) read(ref reference) (map[string][]byte, error) {
	data, err := s.references.read(ref)
	if err != nil {
		return nil, s.unread(ref, err)
	}
	return data, nil
}

// unread says why a reference has no data.
func (s sourceSecrets) unread(ref reference, err error) *blocked {
	if errors.Is(err, errReferenceUnread) {
		return &blocked{reason: meta.ProgressingReason, quiet: true, waiting: true, retry: s.retry, cause: err}
	}
	return &blocked{reason: sourcev1.AuthenticationFailedReason, retry: s.retry,
		cause: fmt.Errorf("failed to get %s '%s/%s': %w", strings.ToLower(ref.kind), ref.namespace, ref.name, err)}
}

// mostPullSecrets is how many pull secrets a ServiceAccount may have: each is watched.
const mostPullSecrets = 50

// pullSecrets reads the pull secrets of a ServiceAccount, together with what else is
// wanted; each is a docker configuration.
func (s sourceSecrets) pullSecrets(owner gitops.OwnerRef, account string, others ...*meta.LocalObjectReference) ([][]byte, error) {
	from := reference{kind: serviceAccountKind, namespace: owner.Namespace, name: account}
	wanted := append(s.wanted(owner, others), from)
	// What is wanted already stays so until it is known what the account names.
	known, err := s.references.read(from)
	names := strings.Fields(string(known[pullSecretsKey]))
	if len(names) > mostPullSecrets {
		return nil, &blocked{reason: sourcev1.AuthenticationFailedReason,
			cause: fmt.Errorf("serviceaccount '%s/%s' has %d pull secrets, at most %d are used", owner.Namespace, account, len(names), mostPullSecrets)}
	}
	for _, name := range names {
		wanted = append(wanted, reference{kind: secretKind, namespace: owner.Namespace, name: name})
	}
	if err := s.references.want(owner, wanted); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, s.unread(from, err)
	}
	var configs [][]byte
	for _, name := range names {
		data, err := s.secret(owner, name)
		if err != nil {
			return nil, err
		}
		// As the kubelet does, it passes over those of other types.
		if config, err := dockerConfig(owner, name, data); err == nil {
			configs = append(configs, config)
		}
	}
	return configs, nil
}

// dockerConfig is the docker configuration in a Secret.
func dockerConfig(owner gitops.OwnerRef, name string, data map[string][]byte) ([]byte, error) {
	for _, key := range []string{corev1.DockerConfigJsonKey, corev1.DockerConfigKey} {
		if config := data[key]; len(config) > 0 {
			return config, nil
		}
	}
	return nil, badSecret(owner, name, "has no key '"+corev1.DockerConfigJsonKey+"': it is to be of type "+string(corev1.SecretTypeDockerConfigJson))
}

// tls reads certificates. What is there under Flux's older names is used too.
func (s sourceSecrets) tls(owner gitops.OwnerRef, ref *meta.LocalObjectReference) (egress.TLS, error) {
	if ref == nil {
		return egress.TLS{}, nil
	}
	data, err := s.secret(owner, ref.Name)
	if err != nil {
		return egress.TLS{}, err
	}
	t, err := certificates(owner, ref.Name, data)
	if err == nil && len(t.CA) == 0 && len(t.Certificate) == 0 {
		return t, badSecret(owner, ref.Name, "must contain either 'ca.crt' or both 'tls.crt' and 'tls.key'")
	}
	return t, err
}

func certificates(owner gitops.OwnerRef, name string, data map[string][]byte) (egress.TLS, error) {
	first := func(keys ...string) []byte {
		for _, key := range keys {
			if v := data[key]; len(v) > 0 {
				return v
			}
		}
		return nil
	}
	t := egress.TLS{CA: first("ca.crt", "caFile"), Certificate: first("tls.crt", "certFile"), Key: first("tls.key", "keyFile")}
	if (len(t.Certificate) == 0) != (len(t.Key) == 0) {
		return t, badSecret(owner, name, "needs both 'tls.crt' and 'tls.key'")
	}
	return t, nil
}

// basic reads a user name and a password, which go together.
func basic(owner gitops.OwnerRef, name string, data map[string][]byte) (username, password string, err error) {
	username, password = string(data["username"]), string(data["password"])
	if (username == "") != (password == "") {
		return "", "", badSecret(owner, name, "needs both 'username' and 'password'")
	}
	return username, password, nil
}

// proxy reads a proxy.
func (s sourceSecrets) proxy(owner gitops.OwnerRef, ref *meta.LocalObjectReference) (egress.Proxy, error) {
	if ref == nil {
		return egress.Proxy{}, nil
	}
	data, err := s.secret(owner, ref.Name)
	if err != nil {
		return egress.Proxy{}, err
	}
	if len(data["address"]) == 0 {
		return egress.Proxy{}, badSecret(owner, ref.Name, "has no key 'address' with the URL of the proxy")
	}
	return egress.Proxy{Address: string(data["address"]), Username: string(data["username"]), Password: string(data["password"])}, nil
}

func badSecret(owner gitops.OwnerRef, name, what string) *blocked {
	return &blocked{reason: sourcev1.AuthenticationFailedReason, cause: fmt.Errorf("secret '%s/%s' %s", owner.Namespace, name, what)}
}

// unsafeURL refuses a URL of a source for what can be seen without asking anybody.
func unsafeURL(text string, schemes ...string) *blocked {
	u, err := url.Parse(text)
	cause := error(nil)
	switch {
	case err != nil || u.Host == "":
		cause = errors.New("spec.url is not a URL with a host")
	case !slices.Contains(schemes, u.Scheme):
		cause = fmt.Errorf("scheme %s of spec.url is not supported; use %s", egress.Quote(u.Scheme), strings.Join(schemes, " or "))
	}
	if cause == nil {
		return nil
	}
	return &blocked{reason: sourcev1.URLInvalidReason, stalled: true, cause: cause}
}

// redactedURL is a URL without credentials.
func redactedURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "the repository"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
