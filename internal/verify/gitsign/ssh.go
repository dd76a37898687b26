package gitsign

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshKey is a key with the bytes by which a signature names it.
type sshKey struct {
	key ssh.PublicKey
	raw []byte
}

// smallestRSA is the fewest bits of an RSA key, as in OpenSSH.
const smallestRSA = 2048

// readSSH reads the lines of an authorized_keys or allowed_signers file. A line with a
// restriction that is not kept here is an error.
func readSSH(text []byte) ([]sshKey, error) {
	var keys []sshKey
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, options, rest, err := ssh.ParseAuthorizedKey(line)
		if err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("line %d is no SSH key", number)
		}
		for _, option := range options {
			name, _, _ := strings.Cut(strings.ToLower(option), "=")
			if slices.Contains([]string{"cert-authority", "namespaces", "valid-after", "valid-before", "expiry-time"}, name) {
				return nil, fmt.Errorf("line %d has the option %q, which is not supported", number, name)
			}
		}
		if err := usable(key); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		keys = append(keys, sshKey{key: key, raw: key.Marshal()})
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no SSH key")
	}
	return keys, nil
}

// usable refuses kinds of keys that are weak, and certificates.
func usable(key ssh.PublicKey) error {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		plain, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return errors.New("the RSA key cannot be read")
		}
		if rsaKey, ok := plain.CryptoPublicKey().(*rsa.PublicKey); !ok || rsaKey.N.BitLen() < smallestRSA {
			return fmt.Errorf("the RSA key has fewer than %d bits", smallestRSA)
		}
		return nil
	default:
		return fmt.Errorf("keys of type %q are not supported", key.Type())
	}
}

const (
	sshMagic     = "SSHSIG"
	sshNamespace = "git"
)

// envelope is a signature as OpenSSH writes it (PROTOCOL.sshsig).
type envelope struct {
	Magic     [len(sshMagic)]byte
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  []byte
	Hash      string
	Signature []byte
}

// statement is what is signed, behind the magic word.
type statement struct {
	Namespace string
	Reserved  []byte
	Hash      string
	Digest    []byte
}

// verifySSH checks an SSH signature. The signer is the fingerprint of the key.
func (k *Keys) verifySSH(o object) (string, error) {
	block, rest := pem.Decode(o.signature)
	if block == nil || block.Type != "SSH SIGNATURE" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return "", errors.New("the SSH signature cannot be read; its armor is broken")
	}
	var e envelope
	if err := ssh.Unmarshal(block.Bytes, &e); err != nil || string(e.Magic[:]) != sshMagic {
		return "", errors.New("the SSH signature cannot be read")
	}
	switch {
	case e.Version != 1:
		return "", fmt.Errorf("SSH signatures of version %d are not supported", e.Version)
	case e.Namespace != sshNamespace:
		return "", errors.New("the SSH signature was made for something else than Git")
	}
	i := slices.IndexFunc(k.ssh, func(key sshKey) bool { return bytes.Equal(key.raw, e.PublicKey) })
	if i < 0 {
		return "", &unknownSigner{fingerprint(e.PublicKey)}
	}
	message, err := e.message(o.payload)
	if err != nil {
		return "", err
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(e.Signature, &signature); err != nil {
		return "", errors.New("the SSH signature cannot be read")
	}
	if hardware := strings.HasPrefix(signature.Format, "sk-"); len(signature.Rest) > 0 && !hardware {
		return "", errors.New("there is something behind the SSH signature")
	}
	if signature.Format == ssh.KeyAlgoRSA {
		return "", errors.New("the SSH signature is made with SHA-1, which is not supported")
	}
	if err := k.ssh[i].key.Verify(message, &signature); err != nil {
		return "", fmt.Errorf("the signature of key %s does not fit the object", fingerprint(e.PublicKey))
	}
	return fingerprint(e.PublicKey), nil
}

// message is what the key signed for a payload.
func (e envelope) message(payload []byte) ([]byte, error) {
	s := statement{Namespace: e.Namespace, Reserved: e.Reserved, Hash: e.Hash}
	switch e.Hash {
	case "sha256":
		sum := sha256.Sum256(payload)
		s.Digest = sum[:]
	case "sha512":
		sum := sha512.Sum512(payload)
		s.Digest = sum[:]
	default:
		return nil, errors.New("the SSH signature is over a hash that is not supported; sha256 and sha512 are")
	}
	return append([]byte(sshMagic), ssh.Marshal(s)...), nil
}

// fingerprint is the usual name of a key. It is not read for it: who signed may have
// sent anything.
func fingerprint(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
