package wire

import (
	"bytes"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// mostRounds is how often the passphrase of a key is hashed: ssh-keygen does it 16 or 24
// times, and a hundred times for the careful. Each round costs milliseconds.
const mostRounds = 128

// method is how we are known to a server.
func (a Auth) method() ([]ssh.AuthMethod, error) {
	if len(a.Identity) == 0 {
		if a.Password != "" {
			return []ssh.AuthMethod{ssh.Password(a.Password)}, nil
		}
		return nil, &Error{Code: CodeCredential, Text: "a repository over ssh needs a key; put it under \"identity\" of the secret"}
	}
	if err := checkIdentity(a.Identity); err != nil {
		return nil, unusable(CodeCredential, err)
	}
	var signer ssh.Signer
	var err error
	if a.Passphrase != "" {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(a.Identity, []byte(a.Passphrase))
	} else {
		signer, err = ssh.ParsePrivateKey(a.Identity)
	}
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing):
		return nil, &Error{Code: CodeCredential, Text: "the ssh key is encrypted; put its passphrase under \"password\" of the secret"}
	case err != nil:
		return nil, &Error{Code: CodeCredential, Text: "the ssh key cannot be read; it or its passphrase is wrong"}
	}
	// Of a key that is encrypted it is seen only now.
	if public, ok := signer.PublicKey().(ssh.CryptoPublicKey); ok {
		if key, ok := public.CryptoPublicKey().(*rsa.PublicKey); ok && key.N.BitLen() > egress.LargestRSA {
			return nil, unusable(CodeCredential, egress.TooManyBits(key.N.BitLen()))
		}
	}
	return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
}

// checkIdentity refuses a key whose mere reading would take long.
func checkIdentity(identity []byte) error {
	if err := egress.CheckKey(identity); err != nil {
		return err
	}
	block, _ := pem.Decode(identity)
	if block == nil || block.Type != "OPENSSH PRIVATE KEY" {
		return nil
	}
	body, ok := bytes.CutPrefix(block.Bytes, []byte("openssh-key-v1\x00"))
	var key struct {
		Cipher, Function, Options string
		Rest                      []byte `ssh:"rest"`
	}
	if !ok || ssh.Unmarshal(body, &key) != nil || key.Function != "bcrypt" {
		return nil
	}
	var options struct {
		Salt   string
		Rounds uint32
	}
	if ssh.Unmarshal([]byte(key.Options), &options) != nil || options.Rounds <= mostRounds {
		return nil
	}
	return &egress.Misconfigured{Text: fmt.Sprintf("the passphrase of the ssh key is hashed %d times, at most %d are taken, for each takes time; encrypt it anew with ssh-keygen -p -a 16",
		options.Rounds, mostRounds)}
}
