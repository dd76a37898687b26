package bucket

import (
	"context"
	"io"
	"net/url"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// object is what a listing says of an object.
type object struct {
	key string
	// etag changes with the content. It is written as it is part of Flux's revision.
	etag string
	size int64
	// generation is Google's name for the content.
	generation string
	// crc is the CRC-32C of the content; nil where the listing does not say it.
	crc *uint32
}

// content is an object that is being read.
type content struct {
	io.ReadCloser
	// converted is set where the store unpacks what it holds, so that size and crc are
	// those of something else.
	converted bool
}

// client speaks the protocol of a kind of store. Errors are faults, or those of the
// connection.
type client interface {
	// list calls visit for each object whose key begins with a prefix, until the first
	// error.
	list(ctx context.Context, prefix string, visit func(object) error) error
	// open reads an object that must still be what the listing said; a codeChanged or
	// codeNoObject fault where it is not.
	open(ctx context.Context, o object) (content, error)
}

// limits bound what a client takes from its server.
type limits struct {
	pages  int
	object int64
}

// mostPage is the most bytes of a page of a listing.
const mostPage = 16 << 20

// connection is a client with all that it stands on.
type connection struct {
	client  client
	session *session
	wires   []*wire
	// external is set where the session logs in by Request.Login.
	external bool
}

func (c *connection) close() {
	for _, w := range c.wires {
		w.close()
	}
}

// connect makes the client of a request; it connects to nothing yet.
func (s *Store) connect(ctx context.Context, request Request) (_ *connection, err error) {
	if err := request.check(); err != nil {
		return nil, err
	}
	u, err := request.endpoint()
	if err != nil {
		return nil, err
	}
	if err := request.checkPlain(u); err != nil {
		return nil, err
	}
	w, err := newWire(egress.Options{TLS: request.TLS, Proxy: request.Proxy, Policy: request.Policy})
	if err != nil {
		return nil, err
	}
	c := &connection{wires: []*wire{w}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	login, fixed, err := s.credentials(ctx, request, c)
	if err != nil {
		return nil, err
	}
	c.session = newSession(s.options.Now, login, fixed)
	// An answer about an object may also be an error, which is longer than small objects.
	l := limits{pages: s.options.Pages, object: max(s.options.ObjectBytes+1, mostLogin)}
	switch request.Provider {
	case GCP:
		c.client = newGCS(request, u, w, c.session, l)
	case Azure:
		c.client, err = newAzure(request, u, w, c.session, l)
	default:
		c.client, err = newS3(request, u, w, c.session, l)
	}
	return c, err
}

// checkPlain refuses what the policy does not send without TLS, where it would not be
// seen in the headers of a request.
func (r Request) checkPlain(u *url.URL) error {
	if !r.Policy.NoPlainCredentials {
		return nil
	}
	sts, err := url.Parse(r.STS.Endpoint)
	if u.Scheme == "http" && !r.anonymous() || err == nil && sts.Scheme == "http" && r.STS.Provider == stsLDAP && r.Auth.AccessKey == "" {
		return &egress.Refused{Text: "a credential would be sent over http, which --no-plain-credentials refuses; use https"}
	}
	return nil
}

// anonymous tells whether no credential is used.
func (r Request) anonymous() bool {
	own := r.Auth.AccessKey != "" || r.STS.Provider == stsLDAP
	switch r.Provider {
	case GCP:
		own = len(r.Auth.ServiceAccountJSON) > 0
	case Azure:
		own = r.Auth.Azure.fixed() || r.Auth.Azure.principal() || r.Auth.Azure.ClientID != ""
	}
	return !own && r.Login == nil
}

// credentials is how a request logs in: by a function, or with a credential that is
// always the same.
func (s *Store) credentials(ctx context.Context, request Request, c *connection) (func(context.Context) (Credential, error), Credential, error) {
	auth := request.Auth
	// Whoever logs in gets no client certificate, and is always verified.
	options := egress.Options{TLS: egress.TLS{CA: request.TLS.CA}, Proxy: request.Proxy, Policy: request.Policy}
	var login func(*wire) (func(context.Context) (Credential, error), error)
	switch {
	case request.Provider == GCP && len(auth.ServiceAccountJSON) > 0:
		login = func(w *wire) (func(context.Context) (Credential, error), error) {
			return googleLogin(auth.ServiceAccountJSON, w, request.Policy)
		}
	case request.Provider == Azure && auth.Azure.principal():
		login = func(w *wire) (func(context.Context) (Credential, error), error) {
			return s.azureLogin(ctx, auth.Azure, w)
		}
	case request.Provider == Azure && auth.Azure.fixed():
		return nil, Credential{}, nil
	case request.Provider == Azure && auth.Azure.ClientID != "" && request.Login == nil:
		return nil, Credential{}, &fault{code: codeCredential, text: "the secret holds the \"clientId\" of a managed identity only, which the operator cannot log in as here"}
	case request.Provider == GCP || request.Provider == Azure:
	case auth.AccessKey != "":
		return nil, Credential{AccessKey: auth.AccessKey, SecretKey: auth.SecretKey}, nil
	case request.STS.Provider == stsLDAP:
		options.TLS = request.STS.TLS
		login = func(w *wire) (func(context.Context) (Credential, error), error) {
			return ldapLogin(request.STS, w), nil
		}
	}
	if login == nil {
		c.external = request.Login != nil
		return request.Login, Credential{}, nil
	}
	w, err := newWire(options)
	if err != nil {
		return nil, Credential{}, err
	}
	c.wires = append(c.wires, w)
	function, err := login(w)
	return function, Credential{}, err
}
