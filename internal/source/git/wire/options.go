package wire

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/proxy"
)

// Auth is a credential. Its zero value is none.
type Auth struct {
	// Username and Password are sent by basic authentication.
	Username, Password string
	// BearerToken is sent by bearer authentication, before Username.
	BearerToken string
	// CA are certificates, in PEM, of the authorities to be trusted instead of
	// the system's.
	CA []byte
	// Certificate and Key are the client certificate, in PEM.
	Certificate, Key []byte
	// Identity is an SSH private key in PEM, and Passphrase what opens it.
	Identity   []byte
	Passphrase string
	// KnownHosts are the keys of SSH servers, as in a known_hosts file.
	KnownHosts []byte
}

// Proxy is a proxy to be used instead of that of the environment.
type Proxy struct {
	// Address is its URL: http, https or socks5.
	Address string
	// Username and Password are those of the proxy.
	Username, Password string
}

// Options say how a repository is reached.
type Options struct {
	URL    *url.URL
	Auth   Auth
	Proxy  Proxy
	Limits Limits
}

// New makes a client. It connects to nothing yet. The error has the code
// CodeURL or CodeCredential.
func New(o Options) (*Client, error) {
	via, err := o.Proxy.url()
	if err != nil {
		return nil, err
	}
	c := &Client{limits: o.Limits}
	switch o.URL.Scheme {
	case "http", "https":
		c.transport, err = newHTTP(o, via)
	case "ssh":
		c.transport, err = newSSH(o, via)
	default:
		err = &Error{Code: CodeURL, Text: fmt.Sprintf("scheme %q is not supported; use http, https or ssh", o.URL.Scheme)}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (p Proxy) url() (*url.URL, error) {
	if p.Address == "" {
		return nil, nil
	}
	u, err := url.Parse(p.Address)
	if err != nil || u.Host == "" {
		return nil, &Error{Code: CodeURL, Text: "the proxy's address is not a URL"}
	}
	switch u.Scheme {
	case "http", "https", "socks5":
	default:
		return nil, &Error{Code: CodeURL, Text: fmt.Sprintf("scheme %q of the proxy is not supported; use http, https or socks5", u.Scheme)}
	}
	if p.Username != "" {
		u.User = url.UserPassword(p.Username, p.Password)
	}
	return u, nil
}

// proxyFunc picks the proxy for HTTP requests.
func proxyFunc(via *url.URL) func(*http.Request) (*url.URL, error) {
	if via == nil {
		return http.ProxyFromEnvironment
	}
	return http.ProxyURL(via)
}

// dialer connects through a proxy, for what is not HTTP.
func dialer(via *url.URL, direct contextDialer) (contextDialer, error) {
	if via == nil {
		return direct, nil
	}
	if via.Scheme == "http" || via.Scheme == "https" {
		return &connectDialer{via: via, direct: direct}, nil
	}
	d, err := proxy.FromURL(via, proxyDialer{direct})
	if err != nil {
		return nil, &Error{Code: CodeURL, Text: "the proxy cannot be used", Err: err}
	}
	return d.(proxy.ContextDialer), nil
}

func (a Auth) tls(withCertificate bool) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(a.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(a.CA) {
			return nil, &Error{Code: CodeCredential, Text: "the CA is not a certificate in PEM"}
		}
	}
	if len(a.Certificate) == 0 && len(a.Key) == 0 || !withCertificate {
		return config, nil
	}
	certificate, err := tls.X509KeyPair(a.Certificate, a.Key)
	if err != nil {
		return nil, &Error{Code: CodeCredential, Text: "the client certificate and its key cannot be used: " + strings.TrimPrefix(err.Error(), "tls: "), Err: err}
	}
	config.Certificates = []tls.Certificate{certificate}
	return config, nil
}
