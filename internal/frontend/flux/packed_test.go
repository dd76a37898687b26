package flux

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestPackedLoadsWhatIsStored: what was stored before a restart can be used after it, also
// where an artifact of somebody else would be refused: here it is deeper.
func TestPackedLoadsWhatIsStored(t *testing.T) {
	t.Parallel()
	store, err := artifact.Open(t.TempDir(), artifact.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	cache, err := artifact.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d/", 120) + "a"
	files, err := artifact.ReadFolder(fstest.MapFS{name: {Data: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := store.Pack(t.Context(), gitops.Artifact{Source: gitops.OwnerRef{Kind: "GitRepository", Namespace: "apps", Name: "app"}}, "x.tar.gz", files)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := packed{store: store}.load(t.Context(), cache, stored, "x.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer unpacked.Release()
	if text, err := unpacked.Files.ReadFile(name); err != nil || string(text) != "1" {
		t.Errorf("%q, %v", text, err)
	}
}
