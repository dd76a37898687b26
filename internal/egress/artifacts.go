package egress

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Artifacts gives an HTTP client for artifacts that others publish. The policy is for the
// servers that somebody else names. Those that are declared, as host or host:port, are whom
// the operator is told to trust, and may be at private addresses; what they redirect to is
// judged by its own name. It sends no credential.
func Artifacts(policy Policy, declared []string) (*http.Client, error) {
	others, err := NewTransport(Options{Policy: policy})
	if err != nil {
		return nil, err
	}
	policy.NoPrivate = false
	trusted, err := NewTransport(Options{Policy: policy})
	if err != nil {
		return nil, err
	}
	a := &artifacts{declared: map[string]bool{}, trusted: trusted, others: others}
	for _, server := range declared {
		a.declared[plainServer(server)] = true
	}
	return &http.Client{Transport: a, CheckRedirect: others.Client().CheckRedirect}, nil
}

// artifacts sends requests for artifacts.
type artifacts struct {
	declared        map[string]bool
	trusted, others *Transport
}

// RoundTrip sends a request by the policy that its server has.
func (a *artifacts) RoundTrip(request *http.Request) (*http.Response, error) {
	if a.isDeclared(request.URL) {
		return a.trusted.RoundTrip(request)
	}
	response, err := a.others.RoundTrip(request)
	if refused := (*Refused)(nil); errors.As(err, &refused) && refused.private {
		err = &Refused{Text: refused.Text + " unless --artifact-server names the server"}
	}
	return response, err
}

func (a *artifacts) isDeclared(u *url.URL) bool {
	host := plainServer(u.Hostname())
	return a.declared[host] || a.declared[net.JoinHostPort(host, portOf(u))]
}

// plainServer is a host or host:port in one of its ways to be written: in lower case, without
// the dot that ends a name, and an address of IPv6 alone without brackets.
func plainServer(server string) string {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port = strings.Trim(server, "[]"), ""
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if port == "" {
		return host
	}
	return net.JoinHostPort(host, port)
}
