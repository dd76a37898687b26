package artifact

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/zeebo/blake3"
)

// Algorithm is that of a digest, which is written algorithm:hex.
type Algorithm string

// The algorithms.
const (
	SHA256 Algorithm = "sha256"
	SHA384 Algorithm = "sha384"
	SHA512 Algorithm = "sha512"
	BLAKE3 Algorithm = "blake3"
)

// hash sums; nil for an algorithm that is not known.
func (a Algorithm) hash() hash.Hash {
	switch a {
	case SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	case BLAKE3:
		return blake3.New() // 256 bits, as all who write such digests have
	}
	return nil
}

// digest is that of what was summed.
func (a Algorithm) digest(sum hash.Hash) string {
	return string(a) + ":" + hex.EncodeToString(sum.Sum(nil))
}

// summing gives what to sum with for a digest.
func summing(digest string) (Algorithm, hash.Hash, error) {
	name, _, _ := strings.Cut(digest, ":")
	sum := Algorithm(name).hash()
	if sum == nil {
		return "", nil, fmt.Errorf("digest %q is none of sha256, sha384, sha512 and blake3", digest)
	}
	return Algorithm(name), sum, nil
}
