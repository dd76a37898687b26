package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// FuzzCheckKey: a key that passes is none that takes minutes.
func FuzzCheckKey(f *testing.F) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		f.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		f.Fatal(err)
	}
	for _, key := range [][]byte{
		inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)), inPEM("RSA PRIVATE KEY", rsaOf(f, LargestRSA)), inPEM("RSA PRIVATE KEY", rsaOf(f, LargestRSA+8)),
		inPEM("RSA PRIVATE KEY", rsaOf(f, 8*LongestKey)), inPEM("PRIVATE KEY", pkcs8), inPEM("CERTIFICATE", pkcs8),
		append(inPEM("CERTIFICATE", []byte("x")), inPEM("PRIVATE KEY", []byte(strings.Repeat("\x30\x80", 1000)))...),
		[]byte("-----BEGIN PRIVATE KEY-----\n"), nil,
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		err := CheckKey(key)
		if err != nil || len(key) > LongestKey {
			if err == nil {
				t.Errorf("%d bytes pass", len(key))
			}
			return
		}
		block, _ := pem.Decode(key)
		if block == nil {
			return
		}
		var numbers []*big.Int
		if _, err := asn1.Unmarshal(block.Bytes, &numbers); err != nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return
		}
		for _, number := range numbers {
			if number.BitLen() > LargestRSA {
				t.Errorf("a key of %d bits passes", number.BitLen())
			}
		}
	})
}

// FuzzRetryAfter: no server is left alone for longer than it may ask for, or until before now.
func FuzzRetryAfter(f *testing.F) {
	for _, header := range []string{"", "0", "120", "2000000000", "-1", "99999999999999999999", " 7 ", "1e9", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec", "٣"} {
		f.Add(header)
	}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, header string) {
		if pause := retryAfter(header, now); pause < 0 || pause > LongestWish {
			t.Errorf("%q asks for %s", header, pause)
		}
	})
}

// FuzzProxy: a proxy's address is a URL of a scheme that is known, and an error has nothing
// of what is secret in it.
func FuzzProxy(f *testing.F) {
	for _, address := range []string{"", "http://proxy.test:3128", "https://[::1]:1", "socks5://ann:canary@proxy.test", "ftp://canary@x", "proxy.test:3128", "http://", "http://canary:%zz@x", "\x00", "HTTP://x"} {
		f.Add(address, "ann", "canary-word")
	}
	f.Fuzz(func(t *testing.T, address, user, password string) {
		u, err := Proxy{Address: address, Username: user, Password: password}.URL()
		switch {
		case err != nil:
			if len(password) > 8 && !strings.Contains(address, password) && strings.Contains(err.Error(), password) {
				t.Errorf("the error has the password in it: %v", err)
			}
		case address == "":
		case u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5":
			t.Errorf("%q is taken: %s", address, u.Redacted())
		}
	})
}
