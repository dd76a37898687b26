package bucket

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
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
	named := func(salt string, mac int64, bags ...int64) []byte {
		var content []kdf
		for _, bag := range bags {
			content = append(content, kdf{[]byte(salt), big.NewInt(bag)})
		}
		f := file{Version: 3, Content: der(content)}
		f.Mac.Salt, f.Mac.N = []byte("salt"), big.NewInt(mac)
		return der(f)
	}
	pkcs12 := func(bag, mac int64) []byte { return named("salt", mac, bag) }
	one := big.NewInt(1)
	large := der([]*big.Int{new(big.Int), new(big.Int).Lsh(one, 99_999), one})
	for name, test := range map[string]struct {
		certificate []byte
		want        string
	}{
		"hashed as often as others":               {pkcs12(2048, 600_000), ""},
		"hashed as often as is allowed":           {pkcs12(1_000_000, 1_000_000), ""},
		"a bag that is hashed too often":          {pkcs12(2_000_001, 2048), "hashed more than 2000000 times"},
		"a sum that is hashed too often":          {pkcs12(2048, 1<<62), "hashed more than 2000000 times"},
		"no structure":                            {[]byte("x"), ""},
		"nested without an end":                   {bytes.Repeat([]byte{0x30, 0x82, 0x40, 0}, 1000), ""},
		"too long":                                {make([]byte, 65<<10), "at most 65536"},
		"PKCS #12 that is too long":               {bytes.Repeat([]byte{0x30}, 17<<10), "at most 16384"},
		"as often as for the careful":             {named("salt", 600_000, 600_000, 600_000), ""},
		"bags that are hashed too often together": {named("salt", 2048, slices.Repeat([]int64{100_000}, 300)...), "hashed more than 2000000 times"},
		"such bags, in what has a name like PEM":  {named("-----BEGIN X-----", 2048, slices.Repeat([]int64{100_000}, 300)...), "hashed more than 2000000 times"},
		"a key in PEM that is too large":          {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: large}), "100000 bits"},
		"such a key under another name":           {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: large}), "100000 bits"},
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
