package testenv

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// Link is a way to the API server of a cluster that can be cut: a port of its own
// whose connections are handed on, byte by byte.
type Link struct {
	// Kubeconfig is the path of a kubeconfig for the link, of an administrator, and
	// Host the address in it.
	Kubeconfig, Host string

	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu sync.Mutex // guards what follows
	// cut is set while the link is cut, and closed once it has ended.
	cut, closed bool
	// open are both ends of the connections.
	open map[net.Conn]bool
}

// NewLink makes a link that ends with t.
func NewLink(t testing.TB, c *Cluster) *Link {
	t.Helper()
	server, err := url.Parse(c.REST.Host)
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{target: server.Host, Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), open: map[net.Conn]bool{}}
	if l.listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.end)
	l.running.Go(l.accept)
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	l.Host = "https://" + l.listener.Addr().String()
	for _, of := range config.Clusters {
		of.Server = l.Host
	}
	if err := clientcmd.WriteToFile(*config, l.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	return l
}

// Cut ends all connections, and those that are made from now on at once.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	l.drop()
}

// Restore has connections handed on again.
func (l *Link) Restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

func (l *Link) end() {
	l.mu.Lock()
	l.closed = true
	l.drop()
	l.mu.Unlock()
	_ = l.listener.Close()
	l.running.Wait()
}

// drop ends all connections; called with mu held.
func (l *Link) drop() {
	for conn := range l.open {
		_ = conn.Close()
	}
	clear(l.open)
}

// keep tells whether a connection may live on, and remembers it.
func (l *Link) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut || l.closed {
		_ = conn.Close()
		return false
	}
	l.open[conn] = true
	return true
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // it is closed
		}
		if !l.keep(near) {
			continue
		}
		far, err := (&net.Dialer{}).Dial("tcp", l.target)
		if err != nil || !l.keep(far) {
			_ = near.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			l.running.Go(func() {
				_, _ = io.Copy(way[0], way[1]) // one of them was closed
				l.forget(near, far)
			})
		}
	}
}

// forget ends a connection with both its ends.
func (l *Link) forget(ends ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range ends {
		_ = conn.Close()
		delete(l.open, conn)
	}
}
