package cluster

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// maxKubeconfig bounds a kubeconfig, in bytes: as much as a Secret can hold.
const maxKubeconfig = 1 << 20

// KubeconfigPolicy says what a kubeconfig that comes from a user may ask for. The
// zero value allows neither.
type KubeconfigPolicy struct {
	// Exec allows credential plugins: programs that run with the operator's rights.
	Exec bool
	// InsecureTLS allows a server whose certificate is not looked at.
	InsecureTLS bool
}

// ParseKubeconfig makes a client configuration of the current context of a
// kubeconfig that somebody else wrote. It reads no file and runs no program: what
// asks for that is an error that names the field, and none that holds a value.
func ParseKubeconfig(data []byte, policy KubeconfigPolicy) (*rest.Config, error) {
	if len(data) > maxKubeconfig {
		return nil, fmt.Errorf("kubeconfig is %d bytes, the limit is %d", len(data), maxKubeconfig)
	}
	parsed, err := clientcmd.Load(data)
	if err != nil {
		// The parser quotes what it cannot read, which may be a credential.
		return nil, errors.New("kubeconfig is no YAML document of kind Config")
	}
	context := parsed.Contexts[parsed.CurrentContext]
	if context == nil {
		return nil, fmt.Errorf("kubeconfig: current-context %q is not among its contexts", parsed.CurrentContext)
	}
	server, user := parsed.Clusters[context.Cluster], parsed.AuthInfos[context.AuthInfo]
	if server == nil {
		return nil, fmt.Errorf("kubeconfig: cluster %q of the current context is missing", context.Cluster)
	}
	if context.AuthInfo != "" && user == nil {
		return nil, fmt.Errorf("kubeconfig: user %q of the current context is missing", context.AuthInfo)
	}
	if err := checkServer(server, policy); err != nil {
		return nil, fmt.Errorf("kubeconfig: cluster %q: %w", context.Cluster, err)
	}
	if err := checkUser(user, policy); err != nil {
		return nil, fmt.Errorf("kubeconfig: user %q: %w", context.AuthInfo, err)
	}
	// A configuration of its own, so that nothing else in the document counts.
	only := clientcmdapi.NewConfig()
	only.CurrentContext = "context"
	only.Contexts["context"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: "user"}
	only.Clusters["cluster"], only.AuthInfos["user"] = server, user
	if user == nil {
		only.AuthInfos["user"] = clientcmdapi.NewAuthInfo()
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*only, nil).ClientConfig()
	if err != nil {
		return nil, errors.New("kubeconfig: its credentials or addresses cannot be used")
	}
	return cfg, nil
}

func checkServer(server *clientcmdapi.Cluster, policy KubeconfigPolicy) error {
	switch {
	case server.Server == "":
		return errors.New("server is missing")
	case strings.HasPrefix(server.Server, "http://") && !policy.InsecureTLS:
		return errors.New("server is http:, without encryption, which is not allowed; use https:, or start the operator with --insecure-kubeconfig-tls")
	case !isAddress(server.Server):
		return errors.New("server is no address as https://host:port; credentials belong into users")
	case server.CertificateAuthority != "":
		return errors.New("certificate-authority names a file; put its content into certificate-authority-data")
	case server.InsecureSkipTLSVerify && !policy.InsecureTLS:
		return errors.New("insecure-skip-tls-verify is not allowed; put the certificate into certificate-authority-data, or start the operator with --insecure-kubeconfig-tls")
	}
	return nil
}

// isAddress tells whether a text is an address that can be shown.
func isAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == ""
}

func checkUser(user *clientcmdapi.AuthInfo, policy KubeconfigPolicy) error {
	switch {
	case user == nil:
		return nil
	case user.ClientCertificate != "":
		return errors.New("client-certificate names a file; put its content into client-certificate-data")
	case user.ClientKey != "":
		return errors.New("client-key names a file; put its content into client-key-data")
	case user.TokenFile != "":
		return errors.New("tokenFile names a file; put its content into token")
	case user.AuthProvider != nil:
		return errors.New("auth-provider is not supported; use a token or a client certificate")
	case user.Exec != nil && !policy.Exec:
		return errors.New("exec would run a program in the operator's container and is not allowed; use a token or a client certificate, or start the operator with --insecure-kubeconfig-exec")
	}
	return nil
}
