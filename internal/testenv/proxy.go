package testenv

import (
	"context"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Proxy stands between one client and the API server of a cluster. It forwards
// everything, watches too, numbers the writes, and does to a request what a test
// wants to go wrong. Once the client is gone, a write that was forwarded is still
// carried out, so that a test knows what the API server was told.
type Proxy struct {
	// Kubeconfig is the path of a kubeconfig for the proxy, of an administrator.
	Kubeconfig string

	server *httptest.Server
	next   *httputil.ReverseProxy

	mu sync.Mutex // guards what follows
	// idle is signalled when busy becomes 0.
	idle   *sync.Cond
	busy   int
	writes int
	fault  func(Call) Fault
}

// Call is a request that the proxy was asked to forward.
type Call struct {
	*http.Request
	// Write is the number of a write since Inject, from 1; 0 for requests that
	// change nothing, for leases and for events.
	Write int
}

// Fault is what happens to a request. The zero value is that nothing does.
type Fault struct {
	// Before is called before the request is forwarded.
	Before func()
	// Drop ends the connection instead of forwarding the request.
	Drop bool
	// Status is answered instead of forwarding the request, where it is not 0.
	Status int
	// After is called when the API server has answered a write, before the
	// answer is handed on.
	After func()
	// Lose ends the connection instead of handing on the answer to a write.
	Lose bool
	// Edit changes the body of the answer to a request that is no write and no watch
	// before it is handed on.
	Edit func(body []byte) []byte
}

// NewProxy starts a proxy that ends with t.
func NewProxy(t testing.TB, c *Cluster) *Proxy {
	t.Helper()
	transport, err := rest.TransportFor(c.REST)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(c.REST.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	p.idle = sync.NewCond(&p.mu)
	p.next = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	p.server = httptest.NewUnstartedServer(p)
	p.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.server.Start()
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	config := clientcmdapi.NewConfig()
	config.Clusters["proxy"] = &clientcmdapi.Cluster{Server: p.server.URL}
	config.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	config.CurrentContext = "proxy"
	if err := clientcmd.WriteToFile(*config, p.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	return p
}

// Inject begins to count writes at 1 and has each request that comes from now on
// judged by fault, by many goroutines at once; nil lets all pass.
func (p *Proxy) Inject(fault func(Call) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes, p.fault = 0, fault
}

// Writes is the number of writes since Inject.
func (p *Proxy) Writes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes
}

// Settle waits until no write is under way.
func (p *Proxy) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.busy > 0 {
		p.idle.Wait()
	}
}

// isWrite tells whether a request changes something that a test is to count.
func isWrite(r *http.Request) bool {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return false
	}
	if r.URL.Query().Has("dryRun") {
		return false
	}
	for _, kind := range []string{"/leases", "/events", "/selfsubject"} {
		if strings.Contains(r.URL.Path, kind) {
			return false
		}
	}
	return true
}

func (p *Proxy) begin(r *http.Request) (fault Fault, write bool) {
	write = isWrite(r)
	p.mu.Lock()
	judge, call := p.fault, Call{Request: r}
	if write {
		p.writes++
		p.busy++
		call.Write = p.writes
	}
	p.mu.Unlock()
	if judge != nil {
		fault = judge(call)
	}
	return fault, write
}

func (p *Proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy--; p.busy == 0 {
		p.idle.Broadcast()
	}
}

// ServeHTTP forwards a request, or does with it what the test wants.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, write := p.begin(r)
	if write {
		defer p.end()
	}
	if fault.Before != nil {
		fault.Before()
	}
	switch {
	case fault.Drop:
		panic(http.ErrAbortHandler)
	case fault.Status != 0:
		http.Error(w, "injected by a test", fault.Status)
		return
	case !write && fault.Edit != nil:
		answer := httptest.NewRecorder()
		p.next.ServeHTTP(answer, r)
		answer.Header().Del("Content-Length")
		handOn(w, answer, fault.Edit(answer.Body.Bytes()))
		return
	case !write:
		p.next.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	p.next.ServeHTTP(answer, r.WithContext(context.WithoutCancel(r.Context())))
	if fault.After != nil {
		fault.After()
	}
	if fault.Lose {
		panic(http.ErrAbortHandler)
	}
	handOn(w, answer, answer.Body.Bytes())
}

func handOn(w http.ResponseWriter, answer *httptest.ResponseRecorder, body []byte) {
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(body) // the client may be gone
}
