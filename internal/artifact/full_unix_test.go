//go:build unix

package artifact

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// fullDisk is set in the environment of the process that has no room for long files.
const fullDisk = "PLUMB_TEST_FULL_DISK"

// TestFullDisk runs itself in a process of its own, whose limit for files is what a full disk
// is: a write fails in the middle of a file.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getenv(fullDisk) == "" {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v") //nolint:gosec // this program
		command.Env = append(os.Environ(), fullDisk+"=yes")
		out, err := command.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("PASS: TestFullDisk")) {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	const room = 1 << 20
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: room, Max: room}); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 2*room)
	_, _ = rand.Read(noise)
	small, large := packedOf(t, "a", noise[:room/4]), packedOf(t, "a", noise)

	stored, kept := t.TempDir(), t.TempDir()
	store, err := Open(stored, Options{})
	if err != nil {
		t.Fatal(err)
	}
	owner := gitops.OwnerRef{Kind: "GitRepository", Namespace: "apps", Name: "app"}
	pack := func(file string, content []byte) error {
		files := contents{listing: listing{most: inMemory()}}
		if err := files.add("a", content, false); err != nil {
			t.Fatal(err)
		}
		tree, err := files.tree()
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Pack(t.Context(), gitops.Artifact{Source: owner}, file, tree)
		return err
	}
	if err := pack("old.tar.gz", noise[:room/4]); err != nil {
		t.Fatal(err)
	}
	if err := pack("new.tar.gz", noise); !errors.Is(err, syscall.EFBIG) || !strings.Contains(err.Error(), "storage: ") || strings.Contains(err.Error(), stored) {
		t.Errorf("an artifact is packed that does not fit: %v", err)
	}
	if last, err := store.Open(owner, "old.tar.gz"); err != nil {
		t.Errorf("the last artifact is gone: %v", err)
	} else if err := last.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(stored + "/*/*/*/*"); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
	if err := pack("next.tar.gz", noise[:room/8]); err != nil {
		t.Errorf("what fits is not packed afterwards: %v", err)
	}

	cache, opened := openCache(t, kept), 0
	for _, packed := range []Packed{
		{Digest: digestOf(large), Open: from(large, &opened)},                           // which does not fit itself
		{Digest: digestOf(large), Open: from(large, &opened), Keep: true, Opaque: true}, // and must not be taken for opaque
		{Digest: digestOf(zeros(t, 2*room)), Open: from(zeros(t, 2*room), &opened)},     // whose files do not fit
	} {
		var malformed *Malformed
		if _, err := cache.Load(t.Context(), packed); !errors.Is(err, syscall.EFBIG) || errors.As(err, &malformed) || strings.Contains(err.Error(), kept) {
			t.Errorf("an artifact is unpacked that does not fit: %v", err)
		}
	}
	if left, _ := filepath.Glob(kept + "/*"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if u, err := cache.Load(t.Context(), Packed{Digest: digestOf(small), Open: from(small, &opened)}); err != nil {
		t.Errorf("what fits is not unpacked afterwards: %v", err)
	} else {
		u.Release()
	}
}
