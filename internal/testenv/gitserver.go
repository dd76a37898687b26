package testenv

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitserver"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// GitServer is a Git server over HTTP on the loopback interface. It ends with
// the test.
type GitServer struct {
	// Root is the folder of its repositories.
	Root string
	// CA is the certificate of the server's authority in PEM; empty without TLS.
	CA []byte

	server   *httptest.Server
	requests atomic.Int64
	hang     chan struct{}
	mu       sync.Mutex // guards around
	around   func(http.Handler) http.Handler
}

// GitServerOptions say how a GitServer behaves.
type GitServerOptions struct {
	// Username and Password are asked for by basic authentication.
	Username, Password string
	// BearerToken is asked for by bearer authentication.
	BearerToken string
	// TLS serves https, with a certificate made by GitServer.CA.
	TLS bool
	// ClientCA asks for a client certificate that it signed, in PEM.
	ClientCA []byte
	// OldProtocol speaks version 0 of Git's protocol only.
	OldProtocol bool
}

// NewGitServer starts a Git server over HTTP.
func NewGitServer(t testing.TB, o GitServerOptions) *GitServer {
	t.Helper()
	s := &GitServer{Root: t.TempDir(), hang: make(chan struct{})}
	git := &gitserver.Handler{Resolve: gitserver.Folder(s.Root), OldProtocol: o.OldProtocol}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mu.Lock()
		around := s.around
		s.mu.Unlock()
		if user, password, _ := r.BasicAuth(); o.Username != "" && (user != o.Username || password != o.Password) ||
			o.BearerToken != "" && r.Header.Get("Authorization") != "Bearer "+o.BearerToken {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if around != nil {
			around(git).ServeHTTP(w, r)
			return
		}
		git.ServeHTTP(w, r)
	})
	s.server = httptest.NewUnstartedServer(handler)
	if o.TLS {
		if len(o.ClientCA) > 0 {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(o.ClientCA)
			s.server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		}
		s.server.Config.ErrorLog = quietLog(t)
		s.server.StartTLS()
		s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
	} else {
		s.server.Start()
	}
	t.Cleanup(func() {
		close(s.hang)
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// URL is that of a repository.
func (s *GitServer) URL(repository string) string { return s.server.URL + "/" + repository }

// Requests is the number of HTTP requests so far.
func (s *GitServer) Requests() int64 { return s.requests.Load() }

// Around puts a handler in front of all later requests; nil takes it away.
func (s *GitServer) Around(wrap func(http.Handler) http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.around = wrap
}

// Hang leaves all later requests without an answer until the client goes away.
func (s *GitServer) Hang() {
	s.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			// The server notices that a client is gone only behind the body.
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
			case <-s.hang:
			}
		})
	})
}

// Repository makes an empty repository on the server.
func (s *GitServer) Repository(t testing.TB, name string) *GitRepository {
	t.Helper()
	return NewGitRepository(t, filepath.Join(s.Root, filepath.FromSlash(name)))
}

// SSHServer is a Git server over SSH on the loopback interface. It ends with
// the test.
type SSHServer struct {
	// Root is the folder of its repositories.
	Root string
	// KnownHosts is the line of a known_hosts file for the server.
	KnownHosts []byte
	// Identity is the private key, in PEM, that the server lets in.
	Identity []byte

	address string
	config  *ssh.ServerConfig
	wait    sync.WaitGroup
}

// NewSSHServer starts a Git server over SSH that lets one key in. A passphrase
// that is not empty encrypts the key.
func NewSSHServer(t testing.TB, passphrase string) *SSHServer {
	t.Helper()
	hostPublic, hostKey := newSSHKey(t)
	clientPublic, clientKey := newSSHKey(t)
	s := &SSHServer{Root: t.TempDir()}
	block, err := ssh.MarshalPrivateKey(clientKey, "test")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(clientKey, "test", []byte(passphrase))
	}
	check(t, err)
	s.Identity = pem.EncodeToMemory(block)
	hostSigner, err := ssh.NewSignerFromKey(hostKey)
	check(t, err)
	s.config = &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(key.Marshal(), clientPublic.Marshal()) {
				return nil, fmt.Errorf("unknown key")
			}
			return nil, nil
		},
	}
	s.config.AddHostKey(hostSigner)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	s.address = listener.Addr().String()
	s.KnownHosts = []byte(knownhosts.Line([]string{knownhosts.Normalize(s.address)}, hostPublic) + "\n")
	s.wait.Go(func() { s.accept(t.Context(), listener) })
	t.Cleanup(func() {
		_ = listener.Close()
		s.wait.Wait()
	})
	return s
}

// URL is that of a repository.
func (s *SSHServer) URL(repository string) string {
	return "ssh://git@" + s.address + "/" + repository
}

// Repository makes an empty repository on the server.
func (s *SSHServer) Repository(t testing.TB, name string) *GitRepository {
	t.Helper()
	return NewGitRepository(t, filepath.Join(s.Root, filepath.FromSlash(name)))
}

// accept serves connections, and cuts them when the test ends.
func (s *SSHServer) accept(ctx context.Context, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		s.wait.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			_, channels, requests, err := ssh.NewServerConn(conn, s.config)
			if err != nil {
				return
			}
			s.wait.Go(func() { ssh.DiscardRequests(requests) })
			for offer := range channels {
				channel, requests, err := offer.Accept()
				if err != nil {
					return
				}
				s.wait.Go(func() { s.session(channel, requests) })
			}
		})
	}
}

// session runs upload-pack for one exec request, with the protocol that was
// asked for by an environment variable before it.
func (s *SSHServer) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	protocol := ""
	for request := range requests {
		switch request.Type {
		case "env":
			var env struct{ Name, Value string }
			if ssh.Unmarshal(request.Payload, &env) == nil && env.Name == "GIT_PROTOCOL" {
				protocol = env.Value
			}
			_ = request.Reply(true, nil)
		case "exec":
			var command struct{ Text string }
			err := ssh.Unmarshal(request.Payload, &command)
			_ = request.Reply(err == nil, nil)
			status := s.run(channel, command.Text, protocol)
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			return
		default:
			_ = request.Reply(false, nil)
		}
	}
}

func (s *SSHServer) run(channel ssh.Channel, command, protocol string) uint32 {
	path, ok := strings.CutPrefix(command, "git-upload-pack ")
	if !ok {
		return 128
	}
	folder, err := gitserver.Folder(s.Root)(strings.TrimPrefix(strings.Trim(path, "'"), "/"))
	if err != nil {
		_, _ = io.WriteString(channel.Stderr(), "fatal: repository not found\n")
		return 128
	}
	cmd := exec.Command("git", append(gitserver.UploadPackArgs(), "--", folder)...)
	cmd.Env = gitserver.Environment(protocol)
	cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
	input, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		return 128
	}
	go func() {
		_, _ = io.Copy(input, channel)
		_ = input.Close()
	}()
	if cmd.Wait() != nil {
		return 128
	}
	return 0
}

func newSSHKey(t testing.TB) (ssh.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	key, err := ssh.NewPublicKey(public)
	check(t, err)
	return key, private
}
