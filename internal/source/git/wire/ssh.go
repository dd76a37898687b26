package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// sshTransport reaches a repository over SSH, by a session for each exchange.
type sshTransport struct {
	host    string
	port    string
	address string
	command string
	config  ssh.ClientConfig
	dial    egress.ContextDialer
	policy  egress.Policy
	kept    keeper
}

func newSSH(o Options) (*sshTransport, error) {
	host, port := o.URL.Hostname(), o.URL.Port()
	if port == "" {
		port = "22"
	}
	path := o.URL.Path
	if after, ok := strings.CutPrefix(path, "/~"); ok {
		path = "~" + after
	}
	if host == "" || path == "" || strings.ContainsAny(path, "\x00\n") {
		return nil, &Error{Code: CodeURL, Text: "the URL has no host or no path"}
	}
	t := &sshTransport{
		host:    host,
		port:    port,
		address: net.JoinHostPort(host, port),
		command: "git-upload-pack '" + strings.ReplaceAll(path, "'", `'\''`) + "'",
		config:  ssh.ClientConfig{User: "git"},
	}
	if name := o.URL.User.Username(); name != "" {
		t.config.User = name
	} else if o.Auth.Username != "" {
		t.config.User = o.Auth.Username
	}
	var err error
	if t.config.Auth, err = o.Auth.method(); err != nil {
		return nil, err
	}
	if err := t.trust(o.Auth.KnownHosts); err != nil {
		return nil, err
	}
	t.config.KeyExchanges = o.SSH.KeyExchanges
	if len(o.SSH.HostKeys) > 0 {
		t.config.HostKeyAlgorithms = o.SSH.HostKeys
	}
	t.policy = o.Policy
	t.dial, err = egress.Tunnel(o.Proxy, o.Policy)
	return t, unusable(CodeURL, err)
}

// trust accepts the host keys of a known_hosts file and no others. The library
// reads such files only from disk, where ours is for a moment.
func (t *sshTransport) trust(knownHosts []byte) (err error) {
	if len(knownHosts) == 0 {
		return &Error{Code: CodeCredential, Text: "a repository over ssh needs the keys of its host; put them under \"known_hosts\" of the secret"}
	}
	file, err := os.CreateTemp("", "known_hosts-*")
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, os.Remove(file.Name())) }()
	_, err = file.Write(knownHosts)
	if err = firstError(err, file.Close()); err != nil {
		return err
	}
	db, err := knownhosts.NewDB(file.Name())
	if err != nil {
		return &Error{Code: CodeCredential, Text: "\"known_hosts\" cannot be read", Err: err}
	}
	check := db.HostKeyCallback()
	t.config.HostKeyAlgorithms = db.HostKeyAlgorithms(t.address)
	t.config.HostKeyCallback = func(host string, remote net.Addr, key ssh.PublicKey) error {
		err := check(host, remote, key)
		switch {
		case err == nil:
			return nil
		case knownhosts.IsHostUnknown(err):
			return &Error{Code: CodeHostKey, Text: fmt.Sprintf("the ssh host %s is not in known_hosts; its key is %s %s", host, key.Type(), ssh.FingerprintSHA256(key))}
		case knownhosts.IsHostKeyChanged(err):
			return &Error{Code: CodeHostKey, Text: fmt.Sprintf("the ssh host %s has another key than in known_hosts; its key is %s %s", host, key.Type(), ssh.FingerprintSHA256(key))}
		default:
			return &Error{Code: CodeHostKey, Text: fmt.Sprintf("the key of the ssh host %s is refused", host), Err: err}
		}
	}
	return nil
}

func sshError(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	if text := err.Error(); strings.Contains(text, "unable to authenticate") {
		return &Error{Code: CodeDenied, Text: "the server refuses the ssh key", Err: err}
	} else if strings.Contains(text, "no common algorithm for host key") {
		return &Error{Code: CodeHostKey, Text: "the server has no host key of a kind that known_hosts, or --ssh-hostkey-algos, has", Err: err}
	} else if strings.Contains(text, "no common algorithm for key exchange") {
		return &Error{Code: CodeUnsupported, Text: "the server knows no key exchange that is offered; --ssh-kex-algos offers others", Err: err}
	}
	return err
}

// longestTail is the most of a server's complaint that is kept, in bytes.
const longestTail = 600

// tail keeps the first words of what a server says beside its output.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

// Write takes what there is room for, and drops the rest.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[:min(len(p), longestTail-len(t.text))]...)
	return len(p), nil
}

// String is the text so far.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
