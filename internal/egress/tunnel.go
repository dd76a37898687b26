package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"
)

// Tunnel makes connections for what is not HTTP: through the proxy where there is one,
// else directly. The environment's proxy is not used. The error is Misconfigured.
func Tunnel(via Proxy, policy Policy) (ContextDialer, error) {
	u, err := via.URL()
	if err != nil {
		return nil, err
	}
	if u == nil {
		return policy.Dialer(), nil
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		return &patientDialer{dialer: &connectDialer{via: u, direct: policy.Dialer()}, timeout: proxyTimeout}, nil
	}
	d, err := proxy.FromURL(u, proxyDialer{policy.Dialer()})
	if err != nil {
		return nil, &Misconfigured{"the proxy cannot be used"}
	}
	return &patientDialer{dialer: d.(proxy.ContextDialer), timeout: proxyTimeout}, nil
}

const (
	// proxyTimeout is how long a proxy may take to connect, as in the standard library.
	proxyTimeout = time.Minute
	// proxyAnswer is how many bytes a proxy may answer before the connection begins.
	proxyAnswer = 64 << 10
)

// patientDialer waits for a connection no longer than a timeout.
type patientDialer struct {
	dialer  ContextDialer
	timeout time.Duration
}

// DialContext makes a connection.
func (d *patientDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	return d.dialer.DialContext(ctx, network, address)
}

// proxyDialer is a ContextDialer as the SOCKS library wants it.
type proxyDialer struct{ ContextDialer }

// Dial makes a connection without a deadline; the library does not use it.
func (d proxyDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// connectDialer makes connections through an HTTP proxy.
type connectDialer struct {
	via    *url.URL
	direct ContextDialer
}

// DialContext asks the proxy to connect to the address.
func (d *connectDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	direct, err := d.direct.DialContext(ctx, network, net.JoinHostPort(d.via.Hostname(), portOf(d.via)))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = direct.Close() })
	conn := direct
	if d.via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: d.via.Hostname(), MinVersion: tls.VersionTLS12})
	}
	tunnel, err := d.connect(ctx, conn, address)
	if !stop() {
		err = ctx.Err() // The connection is closed.
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnel, nil
}

// ProxyStatus is the error of an HTTP proxy that makes no connection.
type ProxyStatus struct{ Code int }

// Error is what the proxy answers.
func (e *ProxyStatus) Error() string {
	return fmt.Sprintf("the proxy answers %d %s", e.Code, http.StatusText(e.Code))
}

// ProxyAnswer is the error of an HTTP proxy whose answer is none that can be read.
type ProxyAnswer struct{ Text string }

// Error says what is wrong with the answer.
func (e *ProxyAnswer) Error() string { return e.Text }

func (d *connectDialer) connect(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	request := (&http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{},
	}).WithContext(ctx)
	if user := d.via.User; user != nil {
		password, _ := user.Password()
		request.SetBasicAuth(user.Username(), password)
		request.Header.Set("Proxy-Authorization", request.Header.Get("Authorization"))
		request.Header.Del("Authorization")
	}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: proxyAnswer}
	reader := bufio.NewReader(limited)
	answer, err := http.ReadResponse(reader, request)
	var network net.Error
	switch {
	case err != nil && limited.N <= 0:
		return nil, &ProxyAnswer{fmt.Sprintf("the proxy answers with more than %d bytes before the connection", proxyAnswer)}
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case err != nil:
		return nil, &ProxyAnswer{"the proxy's answer is not HTTP"}
	case answer.StatusCode != http.StatusOK:
		return nil, &ProxyStatus{answer.StatusCode} // The body, which may have no end, is left.
	}
	limited.N = math.MaxInt64
	return &bufferedConn{Conn: conn, reader: reader}, nil
}

// bufferedConn gives what was read ahead before what comes after it.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

// Read gives bytes of the connection.
func (c *bufferedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }
