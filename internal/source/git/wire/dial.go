package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
)

// contextDialer makes connections.
type contextDialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// newDialer makes connections, but to no place that gives out the credentials of
// the machine that we run on.
func newDialer() *net.Dialer {
	return &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &Error{Code: CodeUnsupported, Text: fmt.Sprintf("%q is not an address", printable(address))}
		}
		return checkAddress(to.Addr())
	}}
}

// checkHost refuses a host that is written as an address which is refused. It
// is for connections that a proxy makes for us.
func checkHost(host string) error {
	address, err := netip.ParseAddr(host)
	if err != nil {
		return nil //nolint:nilerr // a name; what it stands for is looked at when it is dialed
	}
	return checkAddress(address)
}

// checkAddress refuses link-local addresses and those where clouds keep the
// metadata of a machine, also where they are written as addresses of IPv6.
func checkAddress(address netip.Addr) error {
	plain := address.Unmap().WithZone("")
	if translated := netip.MustParsePrefix("64:ff9b::/96"); translated.Contains(plain) {
		bytes := plain.As16()
		plain = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	if plain.IsLinkLocalUnicast() || plain == netip.MustParseAddr("fd00:ec2::254") {
		return &Error{Code: CodeUnsupported, Text: fmt.Sprintf("connections to %s are refused; it is a link-local or metadata address", plain)}
	}
	return nil
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
