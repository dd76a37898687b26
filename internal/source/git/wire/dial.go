package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// contextDialer makes connections.
type contextDialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// proxyDialer is a contextDialer as the SOCKS library wants it.
type proxyDialer struct{ contextDialer }

// Dial makes a connection without a deadline; the library does not use it.
func (d proxyDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// connectDialer makes connections through an HTTP proxy.
type connectDialer struct {
	via    *url.URL
	direct contextDialer
}

// DialContext asks the proxy to connect to the address.
func (d *connectDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host := d.via.Host
	if d.via.Port() == "" {
		port := "80"
		if d.via.Scheme == "https" {
			port = "443"
		}
		host = net.JoinHostPort(d.via.Hostname(), port)
	}
	conn, err := d.direct.DialContext(ctx, network, host)
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
		return nil, &Error{Code: CodeNetwork, Text: fmt.Sprintf("the proxy answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))}
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
