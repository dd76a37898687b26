package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Place is where the artifacts of an object are at a server that serves those of many, of
// all namespaces: in a folder of its own.
type Place struct {
	// Folder is the path of the object's folder, without slashes at its ends.
	Folder string
	// Tops are the folders at the top that such a server has. A path that begins with one
	// leads to the object's own folder, whichever server it is at.
	Tops []string
}

// placeKey is where a context keeps the place of a request.
type placeKey struct{}

// At gives a context for requests for the artifacts of an object.
func At(ctx context.Context, place Place) context.Context {
	return context.WithValue(ctx, placeKey{}, place)
}

// allows refuses a path that is not in the object's own folder. An undeclared server may have
// paths of its own, but for those that a server of many has: it may be one, by another name.
func (p Place) allows(u *url.URL, declared bool) error {
	plain := path.Clean("/" + u.Path)
	own := p.Folder != "" && u.EscapedPath() == plain && strings.HasPrefix(plain, "/"+p.Folder+"/")
	segments := strings.Split(strings.ToLower(plain[1:]), "/")
	if own || !declared && (len(segments) < 4 || !slices.Contains(p.Tops, segments[0])) {
		return nil
	}
	return &Refused{Text: fmt.Sprintf("the path is refused; the artifacts of this object are in %s/ there", p.Folder)}
}

// Artifacts gives an HTTP client for artifacts that others publish. The policy is for the
// servers that somebody else names. Those that are declared, as host or host:port, are whom
// the operator is told to trust, and may be at private addresses; what they redirect to is
// judged by its own name. The context of each request has the Place of its object: without it
// nothing is got from a declared server. It sends no credential.
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
	declared := a.isDeclared(request.URL)
	place, _ := request.Context().Value(placeKey{}).(Place)
	if err := place.allows(request.URL, declared); err != nil {
		return nil, err
	}
	if declared {
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
