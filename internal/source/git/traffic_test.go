package git_test

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// meter stands before a server and counts the bytes in both directions.
type meter struct {
	address string
	bytes   atomic.Int64
	opened  atomic.Int64

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

// cut ends all connections.
func (m *meter) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.conns {
		_ = conn.Close()
	}
}

func newMeter(t testing.TB, target string) *meter {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	m := &meter{address: listener.Addr().String()}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			m.opened.Add(1)
			m.mu.Lock()
			m.conns = append(m.conns, from)
			m.mu.Unlock()
			wait.Go(func() { m.relay(t, from, target) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wait.Wait()
	})
	return m
}

func (m *meter) relay(t testing.TB, from net.Conn, target string) {
	defer from.Close()
	to, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	var wait sync.WaitGroup
	copyTo := func(to, from net.Conn) {
		_, _ = io.Copy(io.MultiWriter(to, counter{m}), from)
		_ = to.Close()
		_ = from.Close()
	}
	wait.Go(func() { copyTo(to, from) })
	copyTo(from, to)
	wait.Wait()
}

// counter counts what is written to it.
type counter struct{ m *meter }

// Write counts.
func (c counter) Write(p []byte) (int, error) {
	c.m.bytes.Add(int64(len(p)))
	return len(p), nil
}

// through puts a meter before the server of a request.
func through(t testing.TB, request git.Request) (*meter, git.Request) {
	t.Helper()
	u, err := url.Parse(request.URL)
	must(t, err)
	m := newMeter(t, u.Host)
	_, old, _ := net.SplitHostPort(u.Host)
	_, port, _ := net.SplitHostPort(m.address)
	request.Auth.KnownHosts = []byte(strings.ReplaceAll(string(request.Auth.KnownHosts), old, port))
	request.URL = strings.Replace(request.URL, u.Host, m.address, 1)
	return m, request
}

// TestUnchangedPollsAreSmall: less than two kilobytes in both directions together,
// however many refs the repository has.
func TestUnchangedPollsAreSmall(t *testing.T) {
	t.Parallel()
	web := testenv.NewGitServer(t, testenv.GitServerOptions{Username: "ann", Password: "a password as long as a token is, forty"})
	secure := testenv.NewGitServer(t, testenv.GitServerOptions{TLS: true})
	shell := testenv.NewSSHServer(t, "")
	for name, test := range map[string]struct {
		repository func(testing.TB, string) *testenv.GitRepository
		request    git.Request
	}{
		"http":  {web.Repository, git.Request{URL: web.URL("app"), Auth: git.Auth{Username: "ann", Password: "a password as long as a token is, forty"}}},
		"https": {secure.Repository, git.Request{URL: secure.URL("app"), Auth: git.Auth{CA: secure.CA}}},
		"ssh":   {shell.Repository, git.Request{URL: shell.URL("app"), Auth: git.Auth{Identity: shell.Identity, KnownHosts: shell.KnownHosts}}},
	} {
		repo := test.repository(t, "app")
		commit := repo.Commit(t, "main", testenv.Files{"f": "1"})
		for _, refs := range []int{1, 500} {
			var packed strings.Builder
			for i := range refs - 1 {
				fmt.Fprintf(&packed, "create refs/heads/branch-%d %s\n", i, commit)
			}
			if refs > 1 {
				repo.Feed(t, packed.String(), "update-ref", "--stdin")
			}
			m, request := through(t, test.request)
			request.Ref.Branch = "main"
			s := openStore(t, git.Options{})
			request.Known = fetch(t, s, request).Revision
			fetch(t, s, request)
			const polls = 5
			bytes, opened := m.bytes.Load(), m.opened.Load()
			for range polls {
				if !fetch(t, s, request).Unchanged {
					t.Errorf("%s: unchanged branch: not said so", name)
				}
			}
			each := (m.bytes.Load() - bytes) / polls
			t.Logf("%s, %d refs: %d bytes for an unchanged poll", name, refs, each)
			if each == 0 || each > 2000 {
				t.Errorf("%s, %d refs: an unchanged poll moves %d bytes, at most 2000 are allowed", name, refs, each)
			}
			if again := m.opened.Load() - opened; again > 0 {
				t.Errorf("%s, %d refs: %d more connections for %d polls", name, refs, again, polls)
			}
		}
	}
}

// TestLostConnectionsAreMadeAnew: a connection that was kept may be gone.
func TestLostConnectionsAreMadeAnew(t *testing.T) {
	t.Parallel()
	shell := testenv.NewSSHServer(t, "")
	repo := shell.Repository(t, "app")
	repo.Commit(t, "main", testenv.Files{"f": "1"})
	m, request := through(t, git.Request{
		URL: shell.URL("app"), Ref: git.Ref{Branch: "main"}, Auth: git.Auth{Identity: shell.Identity, KnownHosts: shell.KnownHosts},
	})
	s := openStore(t, git.Options{})
	for i := range 3 {
		want := repo.Commit(t, "main", testenv.Files{"f": fmt.Sprint("v", i)})
		if got := fetch(t, s, request).Commit.Hash; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		m.cut()
	}
	if got := m.opened.Load(); got < 3 {
		t.Errorf("%d connections: none was lost", got)
	}
	// A session that ends early leaves nothing behind that the next one trips over.
	expect(t, git.Request{URL: request.URL[:len(request.URL)-3] + "nope", Auth: request.Auth}, gitops.Transient, git.ReasonFailed, "not found")
	fetch(t, s, request)
}
