package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// clientCertificate makes a certificate and its key, in PEM.
func clientCertificate(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: rawKey})
}

func TestAuthoritiesBesidesThoseOfTheSystem(t *testing.T) {
	t.Parallel()
	own, _ := clientCertificate(t)
	want, err := x509.SystemCertPool()
	if err != nil {
		t.Skip("this machine has no certificate authorities to be added to: ", err)
	}
	want.AppendCertsFromPEM(own)
	config, err := TLS{CA: own}.Config()
	if err != nil {
		t.Fatal(err)
	}
	if !config.RootCAs.Equal(want) {
		t.Error("other authorities than wanted")
	}
}
