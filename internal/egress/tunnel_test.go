package egress

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// proxyThat is a proxy that reads what it is asked and then answers in its own way.
func proxyThat(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					answer(conn)
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// withoutEnd writes a text again and again, and waits until the other side hangs up.
func withoutEnd(first, again string) func(net.Conn) {
	return func(conn net.Conn) {
		_, err := io.WriteString(conn, first)
		for more := strings.Repeat(again, 1000); err == nil && again != ""; {
			_, err = io.WriteString(conn, more)
		}
		_, _ = io.Copy(io.Discard, conn)
	}
}

func TestTunnelBoundsTheProxy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(net.Conn)
		code   Code
		want   string
	}{
		"headers without end":   {withoutEnd("HTTP/1.1 200 OK\r\n", "X: y\r\n"), Network, "the proxy answers with more than 65536 bytes before the connection"},
		"a header without end":  {withoutEnd("HTTP/1.1 200 OK\r\nX: ", "y"), Network, "the proxy answers with more than 65536 bytes before the connection"},
		"a status without end":  {withoutEnd("HTTP/1.1 200 ", "x"), Network, "the proxy answers with more than 65536 bytes before the connection"},
		"an error without end":  {withoutEnd("HTTP/1.1 403 Forbidden\r\n\r\n", "x"), Network, "the proxy answers 403 Forbidden"},
		"another protocol":      {withoutEnd("SSH-2.0-canary\r\n", ""), Network, "the proxy's answer is not HTTP"},
		"no answer":             {withoutEnd("", ""), Timeout, "no answer within the timeout"},
		"an answer that stops":  {withoutEnd("HTTP/1.1 200 OK\r\nX: ", ""), Timeout, "no answer within the timeout"},
		"a proxy that hangs up": {func(net.Conn) {}, Network, "the server hung up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dialer, err := Tunnel(Proxy{Address: proxyThat(t, test.answer)}, Policy{})
			if err != nil {
				t.Fatal(err)
			}
			tunnel := dialer.(*patientDialer)
			if tunnel.timeout != time.Minute {
				t.Errorf("it waits for %s", tunnel.timeout)
			}
			if test.code == Timeout {
				tunnel.timeout = 50 * time.Millisecond
			}
			_, err = tunnel.DialContext(t.Context(), "tcp", "host:22")
			if code, text, _ := Explain(t.Context(), err); code != test.code || text != test.want {
				t.Errorf("%s, %q (%v)", code, text, err)
			}
		})
	}
}

// TestTunnelBoundsSOCKS: a proxy that does not answer is not waited for.
func TestTunnelBoundsSOCKS(t *testing.T) {
	t.Parallel()
	address := proxyThat(t, withoutEnd("", ""))
	dialer, err := Tunnel(Proxy{Address: strings.Replace(address, "http:", "socks5:", 1)}, Policy{})
	if err != nil {
		t.Fatal(err)
	}
	tunnel := dialer.(*patientDialer)
	if tunnel.timeout != time.Minute {
		t.Errorf("it waits for %s", tunnel.timeout)
	}
	tunnel.timeout = 50 * time.Millisecond
	_, err = tunnel.DialContext(t.Context(), "tcp", "host:22")
	if code, text, _ := Explain(t.Context(), err); code != Timeout {
		t.Errorf("%s, %q (%v)", code, text, err)
	}
}

// TestTunnelGivesWhatComesAfterTheAnswer, however much that is.
func TestTunnelGivesWhatComesAfterTheAnswer(t *testing.T) {
	t.Parallel()
	sent := strings.Repeat("x", 3*proxyAnswer)
	dialer, err := Tunnel(Proxy{Address: proxyThat(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+sent)
	})}, Policy{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", "host:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != sent {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
}
