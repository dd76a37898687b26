package artifact_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestSameBytesAsFlux packs files whose archive by Flux's own library (pkg/artifact 0.20.0,
// built with Go 1.26) has a known digest: who switches finds the digests, and with them the
// revisions of generated artifacts, that were there before.
func TestSameBytesAsFlux(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{
		"a.yaml": "A", "d/run.sh": testenv.Executable("run"), "d/e/x": "x", "d.yaml": "y",
	})
	store, err := git.Open(t.TempDir(), git.Options{})
	must(t, err)
	defer func() { must(t, store.Close()) }()
	result, err := store.Fetch(t.Context(), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}})
	must(t, err)
	defer result.Release()
	var packed bytes.Buffer
	must(t, artifact.Write(t.Context(), &packed, result.Files))
	sum := sha256.Sum256(packed.Bytes())
	if got, want := hex.EncodeToString(sum[:]), "ad0597d5a493c5405b7fdee5bc2dd5905fcf61e744d36b88cc6babd1586693c1"; got != want {
		t.Errorf("the digest is %s of %d bytes, that of Flux %s", got, packed.Len(), want)
	}
}
