package git_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// The server has a key of kind ssh-ed25519, and no broken key exchange.
func TestSSHAlgorithms(t *testing.T) {
	t.Parallel()
	server := testenv.NewSSHServer(t, "")
	server.Repository(t, "app").Commit(t, "main", testenv.Files{"f": "1"})
	request := git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}, Auth: git.Auth{Identity: server.Identity, KnownHosts: server.KnownHosts}}
	for name, test := range map[string]struct {
		offer git.SSH
		words string
	}{
		"what the server has":            {offer: git.SSH{KeyExchanges: []string{"ecdh-sha2-nistp256"}, HostKeys: []string{"ssh-ed25519"}}},
		"one that the server has":        {offer: git.SSH{KeyExchanges: []string{"diffie-hellman-group1-sha1", "curve25519-sha256"}, HostKeys: []string{"rsa-sha2-512", "ssh-ed25519"}}},
		"a key exchange that is broken":  {offer: git.SSH{KeyExchanges: []string{"diffie-hellman-group1-sha1"}}, words: "no key exchange that is offered; --ssh-kex-algos"},
		"a kind of key that it has not":  {offer: git.SSH{HostKeys: []string{"rsa-sha2-512"}}, words: "no host key of a kind that known_hosts, or --ssh-hostkey-algos, has"},
		"a kind of key that nobody uses": {offer: git.SSH{HostKeys: []string{"ssh-dss"}}, words: "no host key of a kind"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, git.Options{SSH: test.offer})
			result, err := s.Fetch(t.Context(), request)
			if err == nil {
				result.Release()
			}
			var e *gitops.Error
			if (err == nil) != (test.words == "") || err != nil && (!errors.As(err, &e) || e.Reason != git.ReasonFailed || !strings.Contains(err.Error(), test.words)) {
				t.Errorf("got %v, want %q", err, test.words)
			}
		})
	}
	for name, offer := range map[string]git.SSH{
		`"rot13" is no key exchange for --ssh-kex-algos; there are `:         {KeyExchanges: []string{"rot13"}},
		`"rot13" is no kind of host key for --ssh-hostkey-algos; there are `: {HostKeys: []string{"ssh-ed25519", "rot13"}},
		`"ssh-ed25519" is no key exchange for --ssh-kex-algos; there are `:   {KeyExchanges: []string{"ssh-ed25519"}},
	} {
		s, err := git.Open(t.TempDir(), git.Options{SSH: offer})
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}
