package sourcetest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// trouble is what is wrong with a server. Its zero value is nothing.
type trouble struct {
	// hang leaves requests without an answer until the client goes away; asked is called
	// for each.
	hang  bool
	asked func()
	// cut ends every answer, or the connection, after some bytes; 0 is never.
	cut int
	// flood sends bytes without an end, which are counted: instead of an answer, or behind
	// the right one, of which a relay knows only the first part.
	flood  *atomic.Int64
	behind bool
	// fail judges each request, by its number from 0 on: those that it is true for fail.
	fail func(n int64) bool
	// drop fails by a connection that ends, instead of by an answer that says so.
	drop bool
	// seen is the number of requests.
	seen *atomic.Int64
}

// trouble gives the Remote a Fetcher, and a way to make something wrong for it; no
// request has failed yet.
func (r *Remote) trouble(t testing.TB) func(trouble) {
	t.Helper()
	if r.Around == nil {
		through := newRelay(t, r.Address)
		r.Fetcher = r.Reach(t, Way{Address: through.address()})
		return through.set
	}
	return func(what trouble) {
		r.Around(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) { what.serve(next, w, request) })
		})
	}
}

// counted counts requests, and tells whether this one is to fail.
func (what trouble) counted() bool {
	n := int64(0)
	if what.seen != nil {
		n = what.seen.Add(1) - 1
	}
	return what.fail != nil && what.fail(n)
}

// serve is the trouble of an HTTP server.
func (what trouble) serve(next http.Handler, w http.ResponseWriter, request *http.Request) {
	switch fails := what.counted(); {
	case what.hang:
		// The server notices that a client is gone only behind the body.
		_, _ = io.Copy(io.Discard, request.Body)
		if what.asked != nil {
			what.asked()
		}
		<-request.Context().Done()
	case what.flood != nil:
		if what.behind {
			next.ServeHTTP(&lengthless{ResponseWriter: w}, request)
		}
		what.pour(request.Context(), w)
	case fails && what.drop:
		panic(http.ErrAbortHandler)
	case fails:
		http.Error(w, "out of order", http.StatusServiceUnavailable)
	case what.cut > 0:
		next.ServeHTTP(&cut{w, what.cut}, request)
	default:
		next.ServeHTTP(w, request)
	}
}

// mostPoured ends a flood that nobody stops.
const mostPoured = 1 << 30

// pour writes until nobody reads any more.
func (what trouble) pour(ctx context.Context, to io.Writer) {
	drop := make([]byte, 32<<10)
	for i := range drop {
		drop[i] = "water, and again "[i%17]
	}
	for ctx.Err() == nil && what.flood.Load() < mostPoured {
		// Counted before it is sent, as a client is quick to go away.
		what.flood.Add(int64(len(drop)))
		if _, err := to.Write(drop); err != nil {
			return
		}
	}
}

// lengthless takes the length out of an answer, which goes on behind what there is.
type lengthless struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader sends the header.
func (l *lengthless) WriteHeader(status int) {
	l.begun = true
	l.Header().Del("Content-Length")
	l.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (l *lengthless) Write(p []byte) (int, error) {
	if !l.begun {
		l.WriteHeader(http.StatusOK)
	}
	return l.ResponseWriter.Write(p)
}

// cut ends every answer after some bytes.
type cut struct {
	http.ResponseWriter
	left int
}

// Write sends what there is place for.
func (c *cut) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	n, _ := c.ResponseWriter.Write(p[:c.left])
	c.left = 0
	control := http.NewResponseController(c.ResponseWriter)
	_ = control.Flush()
	if conn, _, err := control.Hijack(); err == nil {
		_ = conn.Close()
	}
	return n, io.ErrClosedPipe
}

// relay hands connections on to a server, and does to them what is wrong.
type relay struct {
	listener net.Listener
	target   string
	wait     sync.WaitGroup

	mu sync.Mutex // guards all below
	// what is wrong, and over is closed when it changes.
	what trouble
	over chan struct{}
	open map[net.Conn]bool
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	r := &relay{listener: listen(t), target: target, over: make(chan struct{}), open: map[net.Conn]bool{}}
	r.wait.Go(func() { accept(r.listener, &r.wait, r.serve) })
	t.Cleanup(func() {
		_ = r.listener.Close()
		r.set(trouble{drop: true})
		r.wait.Wait()
	})
	return r
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// accept serves connections until the listener is closed.
func accept(listener net.Listener, wait *sync.WaitGroup, serve func(net.Conn)) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		wait.Go(func() {
			defer conn.Close()
			serve(conn)
		})
	}
}

func (r *relay) address() string { return r.listener.Addr().String() }

// set makes something wrong from now on. A connection that is there hangs too, where that
// is the trouble; it ends where it is another one, and stays where it is none.
func (r *relay) set(what trouble) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.what = what
	close(r.over)
	r.over = make(chan struct{})
	if what.cut > 0 || what.flood != nil || what.fail != nil || what.drop {
		for conn := range r.open {
			_ = conn.Close()
		}
	}
}

func (r *relay) now() (what trouble, over <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.what, r.over
}

// keep notes that a connection is open; it is false where all are to end.
func (r *relay) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[conn] = true
	return r.what.fail != nil || !r.what.drop
}

func (r *relay) forget(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, conn)
}

func (r *relay) serve(conn net.Conn) {
	what, _ := r.now()
	if !r.keep(conn) || what.counted() {
		r.forget(conn)
		return
	}
	defer r.forget(conn)
	if what.flood != nil && !what.behind {
		what.pour(context.Background(), conn)
		return
	}
	up, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer up.Close()
	gone := make(chan struct{})
	r.wait.Go(func() {
		defer close(gone)
		_, _ = io.Copy(up, conn)
		_ = up.Close()
	})
	_ = r.down(conn, up, gone)
	_ = conn.Close()
	<-gone
}

// down hands on what the server sends.
func (r *relay) down(conn, up net.Conn, gone <-chan struct{}) error {
	what, _ := r.now()
	left, buffer := what.cut, make([]byte, 4<<10)
	for {
		n, err := up.Read(buffer)
		if err != nil {
			return err
		}
		for what, over := r.now(); what.hang; what, over = r.now() {
			if what.asked != nil {
				what.asked()
			}
			select {
			case <-over:
			case <-gone:
				return net.ErrClosed
			}
		}
		if left > 0 && n >= left {
			_, err := conn.Write(buffer[:left])
			return errors.Join(err, io.ErrClosedPipe)
		}
		left -= min(n, left)
		if _, err := conn.Write(buffer[:n]); err != nil {
			return err
		}
		if what.flood != nil {
			what.pour(context.Background(), conn)
			return nil
		}
	}
}
