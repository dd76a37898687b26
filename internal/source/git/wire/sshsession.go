package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// idleFor is how long a connection is kept for the next session, as with HTTP: who
	// looks every minute pays for one handshake.
	idleFor = 90 * time.Second
	// wakesWithin is how soon a connection that was kept has to answer. A connection
	// that a router has forgotten never does.
	wakesWithin = 10 * time.Second
)

// sshConn is a connection that sessions are run on, one after the other.
type sshConn struct {
	net.Conn
	client *ssh.Client
}

func (c *sshConn) close() {
	_ = c.client.Close()
	_ = c.Conn.Close()
}

// keeper keeps one connection for the next session.
type keeper struct {
	mu   sync.Mutex // guards all below
	conn *sshConn
	end  *time.Timer
}

// take gives the connection that is kept; nil where there is none.
func (k *keeper) take() *sshConn {
	k.mu.Lock()
	defer k.mu.Unlock()
	conn := k.conn
	if conn != nil {
		k.end.Stop()
		k.conn = nil
	}
	return conn
}

// keep keeps a connection for a while. One that is kept already makes place.
func (k *keeper) keep(conn *sshConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != nil {
		k.end.Stop()
		k.conn.close()
	}
	k.conn = conn
	k.end = time.AfterFunc(idleFor, func() { k.drop(conn) })
}

// drop closes a connection if it is still kept; nil is any.
func (k *keeper) drop(conn *sshConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != nil && (conn == nil || k.conn == conn) {
		k.end.Stop()
		k.conn.close()
		k.conn = nil
	}
}

func (*sshTransport) resume() session { return nil }

func (t *sshTransport) close() { t.kept.drop(nil) }

// open runs upload-pack, on the connection of the session before where there is one.
func (t *sshTransport) open(ctx context.Context) (session, error) {
	if err := t.policy.CheckServer(ctx, t.host, t.port); err != nil {
		return nil, err
	}
	if conn := t.kept.take(); conn != nil {
		s, err := t.run(ctx, conn, wakesWithin)
		if known := (*Error)(nil); err == nil || ctx.Err() != nil || errors.As(err, &known) {
			return sessionOf(s, err)
		}
	}
	conn, err := t.dial.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	// The library knows no context; this ends a handshake that hangs.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, t.address, &t.config)
	stop()
	if err != nil {
		_ = conn.Close()
		return nil, sshError(err)
	}
	s, err := t.run(ctx, &sshConn{Conn: conn, client: ssh.NewClient(c, channels, requests)}, 0)
	return sessionOf(s, err)
}

// sessionOf keeps a nil session from becoming an interface that is not nil.
func sessionOf(s *sshSession, err error) (session, error) {
	if err != nil {
		return nil, sshError(err)
	}
	return s, nil
}

// run starts upload-pack on a connection, which it closes where that fails. With a
// limit the server has to greet within it.
func (t *sshTransport) run(ctx context.Context, conn *sshConn, limit time.Duration) (*sshSession, error) {
	s := &sshSession{transport: t, conn: conn, stop: context.AfterFunc(ctx, func() { _ = conn.Conn.Close() })}
	// The deadline of the context is not that of the connection: it may move, while the
	// operator itself keeps the fetch waiting.
	if limit > 0 {
		_ = conn.SetDeadline(time.Now().Add(limit))
	}
	if err := s.start(); err != nil {
		s.stop()
		conn.close()
		return nil, err
	}
	if limit > 0 {
		_ = conn.SetDeadline(time.Time{})
	}
	return s, nil
}

// sshSession is one run of upload-pack on the server.
type sshSession struct {
	transport *sshTransport
	conn      *sshConn
	stop      func() bool
	in        io.WriteCloser
	out       *bufio.Reader
	errors    *tail
	exec      *ssh.Session
}

func (s *sshSession) start() error {
	var err error
	if s.exec, err = s.conn.client.NewSession(); err != nil {
		return err
	}
	// Servers that do not take the variable speak version 0.
	_ = s.exec.Setenv("GIT_PROTOCOL", "version=2")
	if s.in, err = s.exec.StdinPipe(); err != nil {
		return err
	}
	out, err := s.exec.StdoutPipe()
	if err != nil {
		return err
	}
	s.out = bufio.NewReaderSize(out, 8<<10)
	s.errors = &tail{}
	s.exec.Stderr = s.errors
	if err := s.exec.Start(s.transport.command); err != nil {
		return err
	}
	if _, err := s.out.Peek(4); err != nil {
		// Without a greeting, the server says why beside its output.
		_ = s.exec.Wait()
		if text := s.errors.String(); text != "" {
			return remoteError(text)
		}
		return err
	}
	return nil
}

func (*sshSession) stateless() bool { return false }

func (s *sshSession) greeting() io.Reader { return s.out }

func (s *sshSession) request(_ context.Context, body []byte) (io.ReadCloser, error) {
	if _, err := s.in.Write(body); err != nil {
		return nil, err
	}
	return io.NopCloser(s.out), nil
}

func (s *sshSession) close() error {
	_, bye := io.WriteString(s.in, "0000")
	_ = s.in.Close()
	alive := s.stop()
	// What the server still sends is thrown away by the library.
	_ = s.exec.Close()
	if bye != nil || !alive || s.conn.SetDeadline(time.Time{}) != nil {
		s.conn.close()
		return nil
	}
	s.transport.kept.keep(s.conn)
	return nil
}
