package bucket

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/plumb-gitops/plumb/internal/egress"
)

const (
	// longestCertificate is the most bytes of a client certificate with its key in PEM, and
	// longestPacked those in PKCS #12: a chain of three with a key has 10,000.
	longestCertificate = 64 << 10
	longestPacked      = 16 << 10
	// mostIterations is how often the password of a PKCS #12 file is hashed, all that it asks
	// for together: 2,048 times for each of three as OpenSSL does it, and up to 600,000 times
	// for the careful.
	mostIterations = 2_000_000
	// sequence is the first byte of a PKCS #12 file.
	sequence = 0x30
	// deepestCertificate is how deep the structures of the file are looked into.
	deepestCertificate = 24
)

// checkCertificate refuses a client certificate, in PEM or PKCS #12, whose mere reading
// would take long, as far as can be seen: what is encrypted may ask for more.
func checkCertificate(certificate []byte) error {
	most := longestCertificate
	if bytes.HasPrefix(certificate, []byte{sequence}) {
		most = longestPacked
	}
	if len(certificate) > most {
		return &fault{code: codeCredential, text: fmt.Sprintf("\"clientCertificate\" in the secret has %d bytes, at most %d are taken", len(certificate), most)}
	}
	// It may be both: who reads it decides by the password.
	if bytes.Contains(certificate, []byte("-----BEGIN ")) {
		if err := egress.CheckKey(certificate); err != nil {
			return err
		}
	}
	if hashed(certificate, 0) > mostIterations {
		return &fault{code: codeCredential, text: fmt.Sprintf("the password of \"clientCertificate\" in the secret is hashed more than %d times, which takes too long; export it anew with openssl pkcs12 -export", mostIterations)}
	}
	return nil
}

// clientCertificate is one that was read.
type clientCertificate struct {
	chain []*x509.Certificate
	key   crypto.PrivateKey
}

// readCertificate reads the client certificate, one at a time: a PKCS #12 file can hide in
// what it encrypts that it takes a minute. Waiting ends with the context.
func (s *Store) readCertificate(ctx context.Context, a AzureAuth) (clientCertificate, error) {
	if err := checkCertificate(a.ClientCertificate); err != nil {
		return clientCertificate{}, err
	}
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return clientCertificate{}, ctx.Err()
	}
	chain, key, err := azidentity.ParseCertificates(a.ClientCertificate, []byte(a.ClientCertificatePassword))
	if err != nil {
		return clientCertificate{}, &fault{code: codeCredential, text: "\"clientCertificate\" in the secret is no certificate with a key, or its password is wrong"}
	}
	if key, ok := key.(*rsa.PrivateKey); ok && key.N.BitLen() > egress.LargestRSA {
		return clientCertificate{}, egress.TooManyBits(key.N.BitLen())
	}
	return clientCertificate{chain: chain, key: key}, nil
}

// hashed is how often a structure asks to hash a password, and not much more than is
// allowed. The number stands behind the salt.
func hashed(der []byte, depth int) int64 {
	salted, sum := false, int64(0)
	for len(der) > 0 && depth <= deepestCertificate && sum <= mostIterations {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(der, &value)
		if err != nil {
			break
		}
		der = rest
		if value.Tag == asn1.TagInteger && value.Class == asn1.ClassUniversal && salted {
			number := new(big.Int).SetBytes(value.Bytes)
			if number.Cmp(big.NewInt(mostIterations)) > 0 {
				return mostIterations + 1
			}
			sum += number.Int64()
		}
		salted = value.Tag == asn1.TagOctetString && value.Class == asn1.ClassUniversal
		if value.IsCompound || salted {
			sum += hashed(value.Bytes, depth+1)
		}
	}
	return sum
}
