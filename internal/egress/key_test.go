package egress

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
)

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// rsaOf is the structure of an RSA key with a modulus of so many bits.
func rsaOf(t testing.TB, bits uint) []byte {
	t.Helper()
	n := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits), big.NewInt(1))
	one := big.NewInt(1)
	der, err := asn1.Marshal([]*big.Int{new(big.Int), n, big.NewInt(65537), one, one, one, one, one, one})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return inPEM("PRIVATE KEY", der)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := asn1.Marshal(struct {
		Version int
		Kind    []asn1.ObjectIdentifier
		Key     []byte
	}{0, []asn1.ObjectIdentifier{{1, 2, 840, 113549, 1, 1, 1}}, rsaOf(t, 100_000)})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		key  []byte
		want string
	}{
		"none":                             {},
		"no key":                           {[]byte("x"), ""},
		"RSA in PKCS #1":                   {inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)), ""},
		"RSA in PKCS #8":                   {pkcs8(small), ""},
		"ECDSA":                            {pkcs8(curve), ""},
		"Ed25519":                          {pkcs8(edwards), ""},
		"RSA as large as is allowed":       {inPEM("RSA PRIVATE KEY", rsaOf(t, 16384)), ""},
		"RSA a little larger":              {inPEM("RSA PRIVATE KEY", rsaOf(t, 16392)), "16392 bits"},
		"RSA far too large":                {inPEM("RSA PRIVATE KEY", rsaOf(t, 100_000)), "100000 bits"},
		"RSA far too large in PKCS #8":     {inPEM("PRIVATE KEY", wrapped), "100000 bits"},
		"one far too large behind another": {append(pkcs8(edwards), inPEM("RSA PRIVATE KEY", rsaOf(t, 50_000))...), "50000 bits"},
		"far too long":                     {inPEM("PRIVATE KEY", bytes.Repeat([]byte{5, 0}, 20_000)), "at most 32768"},
		"nested deeply":                    {inPEM("PRIVATE KEY", bytes.Repeat([]byte{0x30, 0x80}, 5_000)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := CheckKey(test.key)
			var bad *Misconfigured
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want one that says %q", err, test.want)
			}
		})
	}
	if _, err := (TLS{Certificate: []byte("x"), Key: inPEM("RSA PRIVATE KEY", rsaOf(t, 100_000))}).Config(); err == nil || !strings.Contains(err.Error(), "100000 bits") {
		t.Errorf("as the key of a client certificate: %v", err)
	}
}
