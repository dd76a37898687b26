package egress

import (
	"encoding/asn1"
	"encoding/pem"
	"fmt"
)

const (
	// LongestKey is the most bytes of a private key in PEM: those of an RSA key of
	// 16,384 bits are 13,000.
	LongestKey = 32 << 10
	// LargestRSA is the most bits of an RSA key. Its cost grows with the third power: one
	// signature of a key of 65,536 bits takes minutes.
	LargestRSA = 16384
	// deepestKey is how deep the structures of a key are looked into.
	deepestKey = 8
)

// CheckKey refuses a private key in PEM whose mere reading, or whose signatures, would
// take long: whoever gives it need not be trusted. Whether it is a key at all is for
// others to say. The error is Misconfigured.
func CheckKey(key []byte) error {
	if len(key) > LongestKey {
		return &Misconfigured{fmt.Sprintf("the private key has %d bytes, at most %d are taken", len(key), LongestKey)}
	}
	for rest := key; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		// What a block is called does not matter to all who read keys.
		if bits := widest(block.Bytes, 0); bits > LargestRSA {
			return TooManyBits(bits)
		}
	}
}

// TooManyBits is the error of a key of more bits than are taken.
func TooManyBits(bits int) error {
	return &Misconfigured{fmt.Sprintf("the private key has %d bits, at most %d are taken: larger ones take minutes for each use", bits, LargestRSA)}
}

// widest is about the number of bits of the largest number in a structure. What is no
// structure has none.
func widest(der []byte, depth int) int {
	most := 0
	for len(der) > 0 && depth <= deepestKey {
		var value asn1.RawValue
		rest, err := asn1.Unmarshal(der, &value)
		if err != nil {
			break
		}
		der = rest
		switch {
		case value.Tag == asn1.TagInteger && value.Class == asn1.ClassUniversal:
			number := value.Bytes
			if len(number) > 0 && number[0] == 0 {
				number = number[1:]
			}
			most = max(most, 8*len(number))
		case value.IsCompound, value.Tag == asn1.TagOctetString:
			most = max(most, widest(value.Bytes, depth+1))
		}
	}
	return most
}
