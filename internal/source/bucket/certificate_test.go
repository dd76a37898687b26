package bucket

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

func TestCertificatesThatTakeLong(t *testing.T) {
	t.Parallel()
	der := func(value any) []byte {
		raw, err := asn1.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	type kdf struct {
		Salt []byte
		N    *big.Int
	}
	type file struct {
		Version int
		Content []byte
		Mac     struct {
			Digest []byte
			Salt   []byte
			N      *big.Int
		}
	}
	pkcs12 := func(bag, mac int64) []byte {
		f := file{Version: 3, Content: der([]kdf{{[]byte("salt"), big.NewInt(bag)}})}
		f.Mac.Salt, f.Mac.N = []byte("salt"), big.NewInt(mac)
		return der(f)
	}
	one := big.NewInt(1)
	large := der([]*big.Int{new(big.Int), new(big.Int).Lsh(one, 99_999), one})
	for name, test := range map[string]struct {
		certificate []byte
		want        string
	}{
		"hashed as often as others":       {pkcs12(2048, 600_000), ""},
		"hashed as often as is allowed":   {pkcs12(1_000_000, 1_000_000), ""},
		"a bag that is hashed too often":  {pkcs12(1_000_001, 2048), "hashed more than 1000000 times"},
		"a sum that is hashed too often":  {pkcs12(2048, 1<<62), "hashed more than 1000000 times"},
		"no structure":                    {[]byte("x"), ""},
		"nested without an end":           {bytes.Repeat([]byte{0x30, 0x82, 0x40, 0}, 1000), ""},
		"too long":                        {make([]byte, 65<<10), "at most 65536"},
		"a key in PEM that is too large":  {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: large}), "100000 bits"},
		"a certificate in PEM, and a key": {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: large}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := checkCertificate(test.certificate)
			if test.want == "" && err != nil || test.want != "" && !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("error %v, want one that says %q", err, test.want)
			}
		})
	}
}
