package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func stateOf(n int) state {
	return state{
		Version: stateVersion, Revision: fmt.Sprintf("latest@sha256:%064d", n), Digest: fmt.Sprintf("sha256:%064d", n),
		Layer: v1.Descriptor{MediaType: "x", Size: int64(n), Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064d", n)}},
	}
}

func openJournalIn(t *testing.T, folder string) *journal {
	t.Helper()
	root, err := os.OpenRoot(folder)
	if err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.close(); err != nil {
			t.Error(err)
		}
		_ = root.Close()
	})
	return j
}

func TestJournal(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, journalFile)
	j := openJournalIn(t, folder)
	// Many new states of few requests: the file does not grow without end.
	for i := range 20_000 {
		if err := j.store(fmt.Sprint(i%7), stateOf(i)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Size() > 2*slack {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	want := map[string]state{}
	for i := 19_993; i < 20_000; i++ {
		want[fmt.Sprint(i%7)] = stateOf(i)
	}
	check := func(what string) {
		t.Helper()
		if diff := cmp.Diff(want, openJournalIn(t, folder).states); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("opened again")
	j = openJournalIn(t, folder)
	if err := j.store("7", stateOf(7)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data[:len(data)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	check("a last line that is cut off")
	if err := os.WriteFile(file, []byte("no JSON\n{}\nnull\n"+string(data[:len(data)-10])), 0o600); err != nil {
		t.Fatal(err)
	}
	check("lines that are none")
	j = openJournalIn(t, folder)
	if err := j.retain(map[string]bool{"3": true, "other": true}); err != nil {
		t.Fatal(err)
	}
	want = map[string]state{"3": want["3"]}
	check("only some are wanted")
	if data, err = os.ReadFile(file); err != nil || strings.Count(string(data), "\n") != 1 {
		t.Errorf("%s, %v", data, err)
	}
}
