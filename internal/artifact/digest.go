package artifact

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Algorithm is that of a digest, which is written algorithm:hex.
type Algorithm string

// The algorithms.
const (
	SHA256 Algorithm = "sha256"
	SHA384 Algorithm = "sha384"
	SHA512 Algorithm = "sha512"
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
		return "", nil, fmt.Errorf("digest %q is none of sha256, sha384 and sha512", digest)
	}
	return Algorithm(name), sum, nil
}
