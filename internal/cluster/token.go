package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/client-go/util/cert"
)

// tokenSpare is how long before its end a token is not used any more.
const tokenSpare = time.Minute

// Tokens gives a bearer token and when it ends.
type Tokens func() (token string, ends time.Time, err error)

// ConfigFor is a client configuration without credentials for a cluster at an address,
// which shows a certificate of an authority; of one that the machine trusts where none
// is given.
func ConfigFor(address string, authority []byte) (*rest.Config, error) {
	if !isAddress(address) || !strings.HasPrefix(address, "https://") {
		return nil, fmt.Errorf("address %q is no address as https://host:port", shown(address))
	}
	if len(authority) > 0 {
		if _, err := cert.ParseCertsPEM(authority); err != nil {
			return nil, errors.New("ca.crt has no PEM certificate")
		}
	}
	return &rest.Config{Host: address, TLSClientConfig: rest.TLSClientConfig{CAData: authority}}, nil
}

// UseTokens has every request bear a token. One is asked for before the one in use
// ends.
func UseTokens(config *rest.Config, tokens Tokens) {
	source := oauth2.ReuseTokenSourceWithExpiry(nil, tokens, tokenSpare)
	config.Wrap(transport.TokenSourceWrapTransport(source))
}

// Token implements oauth2.TokenSource.
func (t Tokens) Token() (*oauth2.Token, error) {
	token, ends, err := t()
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: token, TokenType: "Bearer", Expiry: ends}, nil
}

// shown is an address in a length that can be shown, and nothing where a password may
// be in it.
func shown(address string) string {
	const most = 100
	if len(address) > most || !isPlain(address) {
		return "…"
	}
	return address
}

func isPlain(text string) bool {
	for _, r := range text {
		if r == '@' || r < ' ' || r > '~' {
			return false
		}
	}
	return true
}
