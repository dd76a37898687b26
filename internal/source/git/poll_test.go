package git_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestPollsOfOneMomentShareAnAnswer(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	const branches = 20
	for b := range branches {
		repo.Commit(t, fmt.Sprintf("b%d", b), testenv.Files{"f": fmt.Sprint(b)})
	}
	s := openStore(t, git.Options{})
	request := func(b int) git.Request {
		return git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: fmt.Sprintf("b%d", b)}}
	}
	for b := range branches {
		fetch(t, s, request(b))
	}
	// The first poll is held until all others wait.
	before := server.Requests()
	var arrived atomic.Int64
	enough := make(chan struct{})
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-enough
			next.ServeHTTP(w, r)
		})
	})
	var wait sync.WaitGroup
	for b := range branches {
		wait.Go(func() {
			if arrived.Add(1) == branches {
				close(enough)
			}
			result, err := s.Fetch(within(t), request(b))
			if err != nil {
				t.Error(err)
				return
			}
			result.Release()
		})
	}
	wait.Wait()
	if got := server.Requests() - before; got > branches/2 {
		t.Errorf("%d requests for %d polls at once", got, branches)
	}
	server.Around(nil)

	// A poll sees what was pushed before it began, whatever else is under way.
	for i := range 20 {
		var polls sync.WaitGroup
		for range 4 {
			polls.Go(func() {
				if result, err := s.Fetch(within(t), request(0)); err == nil {
					result.Release()
				}
			})
		}
		want := repo.Commit(t, "b0", testenv.Files{"f": fmt.Sprint("new", i)})
		if got := fetch(t, s, request(0)).Commit.Hash; got != want {
			t.Errorf("a poll after the push sees %s, want %s", got, want)
		}
		polls.Wait()
	}
}

// TestAllWhoFollowCostOnePoll: whatever branches five hundred objects follow, one after
// the other.
func TestAllWhoFollowCostOnePoll(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	const objects, branches = 500, 25
	for b := range branches {
		repo.Commit(t, fmt.Sprintf("b%d", b), testenv.Files{"f": fmt.Sprint(b)})
	}
	var clock atomic.Int64 // seconds
	start := time.Unix(1_700_000_000, 0)
	now := func() time.Time { return start.Add(time.Duration(clock.Load()) * time.Second) }
	s := openStore(t, git.Options{Now: now})
	request := func(i int, notBefore time.Time) git.Request {
		return git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: fmt.Sprintf("b%d", i%branches)}, NotBefore: notBefore}
	}
	for i := range branches {
		fetch(t, s, request(i, time.Time{}))
	}
	for round := range 5 {
		clock.Add(30)
		before, due := server.Requests(), now()
		for i := range objects {
			if i%50 == 0 {
				clock.Add(1)
			}
			fetch(t, s, request(i, due))
		}
		if got := server.Requests() - before; got != 1 {
			t.Errorf("round %d: %d requests for %d polls", round, got, objects)
		}
		clock.Add(20)
	}
	// Who asks for what is new gets it, and so do all after it.
	pushed := repo.Commit(t, "b7", testenv.Files{"f": "new"})
	asked := now()
	if got := fetch(t, s, request(7, asked.Add(-time.Minute))).Commit.Hash; got == pushed {
		t.Error("an answer of a minute ago was not taken")
	}
	clock.Add(1)
	before := server.Requests()
	if got := fetch(t, s, request(7, asked)).Commit.Hash; got != pushed {
		t.Error("a poll that was asked for after a push does not see it")
	}
	for i := range branches {
		fetch(t, s, request(i, asked))
	}
	if got := server.Requests() - before; got != 2 { // the refs and the commit
		t.Errorf("%d requests for %d polls that were asked for at once", got, branches)
	}
	second := repo.Commit(t, "b7", testenv.Files{"f": "newer"})
	if got := fetch(t, s, request(7, time.Time{})).Commit.Hash; got != second {
		t.Error("a call does not see what was pushed before it")
	}
	// What nobody asks for any more is not asked for.
	var asks atomic.Int64
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			asks.Store(int64(strings.Count(string(body), "ref-prefix")))
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			next.ServeHTTP(w, r)
		})
	})
	clock.Add(24 * 3600)
	fetch(t, s, request(7, time.Time{}))
	if got := asks.Load(); got != 1 {
		t.Errorf("%d refs are asked for, one is followed", got)
	}
}

// TestFailuresAreNotShared: a failure is asked about again by whoever comes later.
func TestFailuresAreNotShared(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	s := openStore(t, git.Options{})
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, NotBefore: time.Now().Add(-time.Hour)}
	server.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	if _, err := s.Fetch(within(t), request); err == nil {
		t.Fatal("a server that fails gives a revision")
	}
	server.Around(nil)
	fetch(t, s, request)
}

// TestOldAnswersLeadNowhere: what was heard a while ago may be gone.
func TestOldAnswersLeadNowhere(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	repo := server.Repository(t, "app")
	repo.Commit(t, "main", testenv.Files{"f": "1"})
	repo.Commit(t, "dev", testenv.Files{"f": "1"})
	s := openStore(t, git.Options{})
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}}
	other := request
	other.Ref.Branch = "dev"
	fetch(t, s, request)
	fetch(t, s, other)
	repo.Amend(t, "dev", testenv.Files{"f": "2"})
	fetch(t, s, request) // hears of both
	want := repo.Amend(t, "dev", testenv.Files{"f": "3"})
	repo.Pack(t)
	other.NotBefore = time.Now().Add(-time.Hour)
	if got := fetch(t, s, other).Commit.Hash; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRedirectOnTheSameHostIsFollowed(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{Username: "a", Password: "b"})
	server.Repository(t, "new/app").Commit(t, "main", testenv.Files{"f": "1"})
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if after, ok := strings.CutPrefix(r.URL.RequestURI(), "/old/"); ok {
				http.Redirect(w, r, "/new/"+after, http.StatusMovedPermanently)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	s := openStore(t, git.Options{})
	request := git.Request{URL: server.URL("old/app"), Ref: git.Ref{Branch: "main"}, Auth: git.Auth{Username: "a", Password: "b"}}
	request.Known = fetch(t, s, request).Revision
	if !fetch(t, s, request).Unchanged {
		t.Error("unchanged branch: not said so")
	}
	server.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.RequestURI(), http.StatusFound)
		})
	})
	expect(t, request, gitops.Transient, git.ReasonFailed, "redirects more than")
}

// tunnel is an HTTP proxy that wants a password.
func tunnel(t *testing.T, used *atomic.Int64) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if !ok || user != "p" || password != "q" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		used.Add(1)
		if r.Method != http.MethodConnect {
			r.RequestURI = ""
			r.Header.Del("Proxy-Authorization")
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer answer.Body.Close()
			w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
			w.WriteHeader(answer.StatusCode)
			_, _ = io.Copy(w, answer.Body)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		_, _ = io.WriteString(from, "HTTP/1.1 200 Connected\r\n\r\n")
		go func() {
			_, _ = io.Copy(to, buffered)
			_ = to.Close()
		}()
		_, _ = io.Copy(from, to)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// socks is a SOCKS5 proxy without authentication.
func socks(t *testing.T, used *atomic.Int64) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				head := make([]byte, 2)
				if _, err := io.ReadFull(in, head); err != nil {
					return
				}
				_, _ = in.Discard(int(head[1]))
				_, _ = conn.Write([]byte{5, 0})
				request := make([]byte, 4)
				if _, err := io.ReadFull(in, request); err != nil || request[3] != 1 {
					return
				}
				address := make([]byte, 6)
				if _, err := io.ReadFull(in, address); err != nil {
					return
				}
				to, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: address[:4], Port: int(address[4])<<8 | int(address[5])})
				if err != nil {
					return
				}
				defer to.Close()
				used.Add(1)
				_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
				go func() {
					_, _ = io.Copy(to, in)
					_ = to.Close()
				}()
				_, _ = io.Copy(conn, to)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wait.Wait()
	})
	return "socks5://" + listener.Addr().String()
}

func TestProxies(t *testing.T) {
	t.Parallel()
	plain := testenv.NewGitServer(t, testenv.GitServerOptions{})
	secure := testenv.NewGitServer(t, testenv.GitServerOptions{TLS: true})
	shell := testenv.NewSSHServer(t, "")
	for _, repo := range []*testenv.GitRepository{plain.Repository(t, "app"), secure.Repository(t, "app"), shell.Repository(t, "app")} {
		repo.Commit(t, "main", testenv.Files{"f": "1"})
	}
	targets := map[string]git.Request{
		"http":  {URL: plain.URL("app")},
		"https": {URL: secure.URL("app"), Auth: git.Auth{CA: secure.CA}},
		"ssh":   {URL: shell.URL("app"), Auth: git.Auth{Identity: shell.Identity, KnownHosts: shell.KnownHosts}},
	}
	for scheme, request := range targets {
		request.Ref.Branch = "main"
		for kind, start := range map[string]func(*testing.T, *atomic.Int64) string{"an http proxy": tunnel, "a socks5 proxy": socks} {
			t.Run(scheme+" through "+kind, func(t *testing.T) {
				t.Parallel()
				var used atomic.Int64
				request := request
				request.Proxy.Address = start(t, &used)
				if kind == "an http proxy" {
					request.Proxy.Username, request.Proxy.Password = "p", "q"
				}
				expect(t, request, "", "")
				if used.Load() == 0 {
					t.Error("the proxy was not used")
				}
			})
		}
	}
	for what, address := range map[string]string{"another scheme": "ftp://x", "no URL": "x"} {
		request := targets["http"]
		request.Proxy.Address = address
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			expect(t, request, gitops.Stalled, git.ReasonURL, "proxy")
		})
	}
}
