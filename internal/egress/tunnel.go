package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"

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
		return &connectDialer{via: u, direct: policy.Dialer()}, nil
	}
	d, err := proxy.FromURL(u, proxyDialer{policy.Dialer()})
	if err != nil {
		return nil, &Misconfigured{"the proxy cannot be used"}
	}
	return d.(proxy.ContextDialer), nil
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
	conn, err := d.direct.DialContext(ctx, network, net.JoinHostPort(d.via.Hostname(), portOf(d.via)))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if d.via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: d.via.Hostname(), MinVersion: tls.VersionTLS12})
	}
	tunnel, err := d.connect(ctx, conn, address)
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
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, err
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, &ProxyStatus{answer.StatusCode}
	}
	return &bufferedConn{Conn: conn, reader: reader}, nil
}

// bufferedConn gives what was read ahead before what comes after it.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

// Read gives bytes of the connection.
func (c *bufferedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }
