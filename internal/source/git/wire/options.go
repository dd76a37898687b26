package wire

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// Auth is a credential. Its zero value is none.
type Auth struct {
	// Username and Password are sent by basic authentication.
	Username, Password string
	// BearerToken is sent by bearer authentication, before Username.
	BearerToken string
	// CA are certificates, in PEM, of the authorities to be trusted besides the
	// system's, as in Flux.
	CA []byte
	// Certificate and Key are the client certificate, in PEM.
	Certificate, Key []byte
	// Identity is an SSH private key in PEM, and Passphrase what opens it.
	Identity   []byte
	Passphrase string
	// KnownHosts are the keys of SSH servers, as in a known_hosts file.
	KnownHosts []byte
	// Login gets the credential for HTTP, where it is set, in place of Username, Password
	// and BearerToken: a token that does not live long. It is called when a credential is
	// needed first, and again when the server has refused the last one.
	Login func(ctx context.Context) (username, password, bearer string, err error)
	// LoginName says whom Login logs in as, in words that differ where the rights may:
	// what one has fetched is not shown to another one.
	LoginName string
}

// credential is what is sent to a server over HTTP.
type credential struct{ username, password, bearer string }

// Proxy is a proxy to be used instead of that of the environment.
type Proxy = egress.Proxy

// Options say how a repository is reached.
type Options struct {
	URL    *url.URL
	Auth   Auth
	Proxy  Proxy
	Policy egress.Policy
	SSH    SSH
	Limits Limits
}

// SSH are the algorithms that are offered to a server over ssh, the most wanted first. Where
// there are none it is the library's choice, and that of known_hosts for keys of hosts.
type SSH struct {
	KeyExchanges, HostKeys []string
}

// Check refuses algorithms that there are not: to offer them alone is to reach nobody.
// Those that are broken are taken; whoever needs one has to name it.
func (s SSH) Check() error {
	known, broken := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	for _, list := range []struct {
		what         string
		given, known []string
	}{
		{"key exchange for --ssh-kex-algos", s.KeyExchanges, slices.Concat(known.KeyExchanges, broken.KeyExchanges)},
		{"kind of host key for --ssh-hostkey-algos", s.HostKeys, slices.Concat(known.HostKeys, broken.HostKeys)},
	} {
		for _, name := range list.given {
			if !slices.Contains(list.known, name) {
				return fmt.Errorf("%q is no %s; there are %s", name, list.what, strings.Join(list.known, ", "))
			}
		}
	}
	return nil
}

// New makes a client. It connects to nothing yet. The error has the code
// CodeURL or CodeCredential.
func New(o Options) (*Client, error) {
	if _, err := o.Proxy.URL(); err != nil {
		return nil, unusable(CodeURL, err)
	}
	var err error
	c := &Client{limits: o.Limits}
	switch o.URL.Scheme {
	case "http", "https":
		c.transport, err = newHTTP(o)
	case "ssh":
		c.transport, err = newSSH(o)
	default:
		err = &Error{Code: CodeURL, Text: fmt.Sprintf("scheme %q is not supported; use http, https or ssh", o.URL.Scheme)}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// unusable makes an Error of options that cannot be used.
func unusable(code Code, err error) error {
	var bad *egress.Misconfigured
	if errors.As(err, &bad) {
		return &Error{Code: code, Text: bad.Text, Err: err}
	}
	return err
}
