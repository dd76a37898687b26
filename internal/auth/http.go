package auth

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	// answerTimeout bounds one request.
	answerTimeout = 10 * time.Second
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 1 << 20
)

// ownTransport is for logins of the operator itself: it reaches the metadata service of
// the machine, and goes through the proxy of the environment elsewhere.
func ownTransport() http.RoundTripper {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: answerTimeout}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          10,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   answerTimeout,
		ResponseHeaderTimeout: answerTimeout,
	}
}

// client gives a client whose answers are bounded and that follows no redirect: no service
// for logins has any.
func client(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     bounded{transport},
		Timeout:       answerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// way is how a server is reached.
type way struct {
	proxy egress.Proxy
	tls   egress.TLS
	// named says that an object names the server. A cloud's may have a private address.
	named bool
}

// way gives the client for a way, and keeps it.
func (l *Logins) way(w way) (*http.Client, error) {
	if l.options.Transport != nil {
		return client(l.options.Transport), nil
	}
	key := keyOf(w.proxy.Address, w.proxy.Username, w.proxy.Password,
		string(w.tls.CA), string(w.tls.Certificate), string(w.tls.Key), fmt.Sprint(w.tls.Insecure, w.named))
	l.mu.Lock()
	defer l.mu.Unlock()
	if made := l.ways[key]; made != nil {
		return made, nil
	}
	policy := l.options.Policy
	policy.NoPrivate = policy.NoPrivate && w.named
	transport, err := egress.NewTransport(egress.Options{Proxy: w.proxy, TLS: w.tls, Policy: policy})
	if err != nil {
		return nil, err
	}
	if len(l.ways) >= maxWays {
		for _, made := range l.ways {
			made.CloseIdleConnections()
		}
		clear(l.ways)
	}
	made := client(transport)
	l.ways[key] = made
	return made, nil
}

// bounded is a transport whose answers end after a number of bytes.
type bounded struct{ next http.RoundTripper }

// RoundTrip sends a request.
func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	answer.Body = &body{ReadCloser: answer.Body, left: maxAnswer}
	return answer, nil
}

// CloseIdleConnections closes connections that are not in use.
func (b bounded) CloseIdleConnections() {
	if c, ok := b.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// body is one that fails behind a number of bytes.
type body struct {
	io.ReadCloser
	left int64
}

// Read gives bytes as long as there may be more.
func (b *body) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	if b.left -= int64(n); b.left < 0 {
		return 0, &Problem{Kind: gitops.Transient, Text: fmt.Sprintf("its answer has more than %d bytes", maxAnswer)}
	}
	return n, err
}

// Ask sends a request and reads the JSON of an answer that is well; another one is a
// *Refusal, with the code that code finds in it.
func Ask(client *http.Client, request *http.Request, to any, code func(header http.Header, body []byte) string) error {
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		refusal := &Refusal{Status: answer.StatusCode}
		if code != nil {
			refusal.Code = code(answer.Header, content)
		}
		return refusal
	}
	if err := json.Unmarshal(content, to); err != nil {
		return &Problem{Kind: gitops.Transient, Text: "its answer cannot be read"}
	}
	return nil
}
