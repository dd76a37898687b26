package bucket

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/plumb-gitops/plumb/internal/egress"
)

const (
	// longestCertificate is the most bytes of a client certificate with its key.
	longestCertificate = 64 << 10
	// mostIterations is how often the password of a PKCS #12 file is hashed: 2,048 times
	// as OpenSSL does it, and up to 600,000 times for the careful.
	mostIterations = 1_000_000
	// deepestCertificate is how deep the structures of the file are looked into.
	deepestCertificate = 24
)

// checkCertificate refuses a client certificate, in PEM or PKCS #12, whose mere reading
// would take long.
func checkCertificate(certificate []byte) error {
	if len(certificate) > longestCertificate {
		return &fault{code: codeCredential, text: fmt.Sprintf("\"clientCertificate\" in the secret has %d bytes, at most %d are taken", len(certificate), longestCertificate)}
	}
	if bytes.Contains(certificate, []byte("-----BEGIN ")) {
		return egress.CheckKey(certificate)
	}
	if hashed(certificate, 0) {
		return &fault{code: codeCredential, text: fmt.Sprintf("the password of \"clientCertificate\" in the secret is hashed more than %d times, which takes too long; export it anew with openssl pkcs12 -export", mostIterations)}
	}
	return nil
}

// hashed tells whether a structure asks to hash a password too often. The number stands
// behind the salt.
func hashed(der []byte, depth int) bool {
	salted := false
	for len(der) > 0 && depth <= deepestCertificate {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(der, &value)
		if err != nil {
			return false
		}
		der = rest
		if value.Tag == asn1.TagInteger && value.Class == asn1.ClassUniversal && salted {
			return new(big.Int).SetBytes(value.Bytes).Cmp(big.NewInt(mostIterations)) > 0
		}
		salted = value.Tag == asn1.TagOctetString && value.Class == asn1.ClassUniversal
		if (value.IsCompound || salted) && hashed(value.Bytes, depth+1) {
			return true
		}
	}
	return false
}
