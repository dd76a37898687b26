package artifact_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zeebo/blake3"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// A digest of any algorithm is that of what is served, and whoever has it finds out what is
// not the same: the reader, the cache, and a later process with another algorithm.
func TestDigests(t *testing.T) {
	t.Parallel()
	for algorithm, sum := range map[artifact.Algorithm]hash.Hash{"": sha256.New(), artifact.SHA256: sha256.New(), artifact.SHA384: sha512.New384(), artifact.SHA512: sha512.New(), artifact.BLAKE3: blake3.New()} {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, artifact.Options{Digest: algorithm})
			packed, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x.tar.gz", sourcetest.Memory(map[string]string{"a": "1"}))
			must(t, err)
			const at = "/gitrepository/flux-system/app/x.tar.gz"
			answer := get(t, s, http.MethodGet, at)
			_, err = io.Copy(sum, answer.Body)
			must(t, err)
			name := algorithm
			if name == "" {
				name = artifact.SHA256
			}
			if want := string(name) + ":" + hex.EncodeToString(sum.Sum(nil)); packed.Digest != want || answer.Header.Get("Etag") != `"`+want+`"` {
				t.Errorf("digest %s, ETag %s; want %s", packed.Digest, answer.Header.Get("Etag"), want)
			}
			server := httptest.NewServer(s.Handler())
			defer server.Close()
			if files, err := artifact.Fetch(t.Context(), server.URL+at, packed.Digest); err != nil {
				t.Error(err)
			} else if content, err := files.ReadFile("a"); err != nil || string(content) != "1" {
				t.Errorf("read %q, %v", content, err)
			}
			other := packed.Digest[:len(packed.Digest)-1] + "x"
			for _, wrong := range []string{other, "md5:00", strings.TrimPrefix(packed.Digest, string(name)+":")} {
				if _, err := artifact.Fetch(t.Context(), server.URL+at, wrong); err == nil {
					t.Errorf("it is taken for that of %s", wrong)
				}
			}
			later := open(t, dir, artifact.Options{Digest: artifact.SHA384})
			for digest, want := range map[string]bool{packed.Digest: true, other: false, "md5:00": false, "": false} {
				again := packed
				again.Digest = digest
				var damaged *artifact.Damaged
				if got, err := later.Adopt(again, "x.tar.gz"); got != want || got != (err == nil) || err != nil && !errors.As(err, &damaged) {
					t.Errorf("adopted as %q: %v, %v; want %v", digest, got, err, want)
				}
			}
		})
	}
	if _, err := artifact.Open(t.TempDir(), artifact.Options{Digest: "md5"}); err == nil {
		t.Error("a store with a digest that there is not")
	}
}

// TestBLAKE3 has the published digests of nothing and of "abc", so that others find the same.
func TestBLAKE3(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), artifact.Options{Digest: artifact.BLAKE3})
	for content, want := range map[string]string{
		"":    "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
		"abc": "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
	} {
		stored, err := s.Put(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil })
		must(t, err)
		if stored.Digest != want {
			t.Errorf("%q has the digest %s, want %s", content, stored.Digest, want)
		}
	}
}
