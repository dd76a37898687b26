package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestKeysThatTakeLong: a key is refused before work is done whose amount its maker
// has chosen.
func TestKeysThatTakeLong(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret-word"))
	if err != nil {
		t.Fatal(err)
	}
	// The number of rounds stands behind the salt, of sixteen bytes.
	head := strings.Index(string(locked.Bytes), "bcrypt") + len("bcrypt") + 4 + 4 + 16
	rounds := func(n uint32) []byte {
		b := append([]byte(nil), locked.Bytes...)
		binary.BigEndian.PutUint32(b[head:], n)
		return pem.EncodeToMemory(&pem.Block{Type: locked.Type, Bytes: b})
	}
	one := big.NewInt(1)
	large, err := asn1.Marshal([]*big.Int{new(big.Int), new(big.Int).Lsh(one, 99_999), big.NewInt(65537), one, one, one, one, one, one})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		identity []byte
		want     string
	}{
		"as it was made":                 {pem.EncodeToMemory(locked), ""},
		"as many rounds as are allowed":  {rounds(128), "passphrase is wrong"},
		"a round too many":               {rounds(129), "hashed 129 times, at most 128"},
		"as many rounds as can be said":  {rounds(1<<32 - 1), "hashed 4294967295 times"},
		"an RSA key that is too large":   {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: large}), "100000 bits, at most 16384"},
		"a key that is too long":         {append(pem.EncodeToMemory(locked), strings.Repeat("x\n", 20_000)...), "at most 32768 are taken"},
		"an OpenSSH key that is cut off": {pem.EncodeToMemory(&pem.Block{Type: locked.Type, Bytes: locked.Bytes[:head+2]}), "passphrase is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Auth{Identity: test.identity, Passphrase: "secret-word"}.method()
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if CodeOf(err) != CodeCredential || !strings.Contains(fmt.Sprint(err), test.want) || strings.Contains(fmt.Sprint(err), "secret-word") {
				t.Errorf("error %v of code %q, want one that says %q", err, CodeOf(err), test.want)
			}
		})
	}
}
