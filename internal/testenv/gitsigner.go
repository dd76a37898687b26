package testenv

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/pem"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// GitSigner signs commits and tags with an SSH key, as git does by ssh-keygen.
type GitSigner struct{ key ssh.Signer }

// NewGitSigner makes a signer with a key of its own.
func NewGitSigner(t testing.TB) *GitSigner {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	key, err := ssh.NewSignerFromKey(private)
	check(t, err)
	return &GitSigner{key}
}

// Fingerprint names the key.
func (s *GitSigner) Fingerprint() string { return ssh.FingerprintSHA256(s.key.PublicKey()) }

// AuthorizedKey is the public key as a line of authorized_keys.
func (s *GitSigner) AuthorizedKey() []byte { return ssh.MarshalAuthorizedKey(s.key.PublicKey()) }

// Signature is that of ssh-keygen.
func (s *GitSigner) Signature(t testing.TB, payload string) string {
	t.Helper()
	sum := sha512.Sum512([]byte(payload))
	message := ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Digest                    []byte
	}{"git", "", "sha512", sum[:]})
	made, err := s.key.Sign(rand.Reader, append([]byte("SSHSIG"), message...))
	check(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: append([]byte("SSHSIG\x00\x00\x00\x01"), ssh.Marshal(struct {
		PublicKey                 []byte
		Namespace, Reserved, Hash string
		Signature                 []byte
	}{s.key.PublicKey().Marshal(), "git", "", "sha512", ssh.Marshal(made)})...)}))
}

// Sign makes a signed twin of the last commit of a branch; see SignCommit.
func (s *GitSigner) Sign(t testing.TB, repo *GitRepository, branch string) string {
	t.Helper()
	return SignCommit(t, repo, branch, s)
}

// Tag makes a signed tag; see SignTag.
func (s *GitSigner) Tag(t testing.TB, repo *GitRepository, at, name, commit string) string {
	t.Helper()
	return SignTag(t, repo, at, name, commit, s)
}

// Signs makes signatures in armor.
type Signs interface {
	Signature(t testing.TB, payload string) string
}

// SignCommit makes a signed twin of the last commit of a branch, and moves the branch to it.
// It gives its hash.
func SignCommit(t testing.TB, repo *GitRepository, branch string, s Signs) string {
	t.Helper()
	head, body, _ := strings.Cut(repo.Git(t, "cat-file", "commit", "refs/heads/"+branch), "\n\n")
	signature := s.Signature(t, head+"\n\n"+body)
	folded := strings.ReplaceAll(strings.TrimSuffix(signature, "\n"), "\n", "\n ")
	hash := repo.Write(t, "commit", head+"\ngpgsig "+folded+"\n\n"+body)
	repo.Branch(t, branch, hash)
	return hash
}

// SignTag makes a signed tag that calls itself name and puts it at refs/tags/at. It gives its
// hash.
func SignTag(t testing.TB, repo *GitRepository, at, name, commit string, s Signs) string {
	t.Helper()
	payload := fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger Ann <ann@example.com> 1700000000 +0000\n\n%s\n", commit, name, name)
	hash := repo.Write(t, "tag", payload+s.Signature(t, payload))
	repo.Ref(t, "refs/tags/"+at, hash)
	return hash
}

// Write stores an object as it is and gives its hash.
func (r *GitRepository) Write(t testing.TB, kind, content string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "--git-dir", r.Dir, "hash-object", "-t", kind, "-w", "--stdin", "--literally")
	cmd.Stdin = strings.NewReader(content)
	out, err := cmd.Output()
	check(t, err)
	return strings.TrimSpace(string(out))
}
