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

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// A digest of any algorithm is that of what is served, and whoever has it finds out what is
// not the same: the reader, the cache, and a later process with another algorithm.
func TestDigests(t *testing.T) {
	t.Parallel()
	for algorithm, sum := range map[artifact.Algorithm]hash.Hash{"": sha256.New(), artifact.SHA256: sha256.New(), artifact.SHA384: sha512.New384(), artifact.SHA512: sha512.New()} {
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
				if got, err := later.Adopt(again, "x.tar.gz"); got != want || errors.As(err, &damaged) == want {
					t.Errorf("adopted as %q: %v, %v; want %v", digest, got, err, want)
				}
			}
		})
	}
	if _, err := artifact.Open(t.TempDir(), artifact.Options{Digest: "md5"}); err == nil {
		t.Error("a store with a digest that there is not")
	}
}
