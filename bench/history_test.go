package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestHistoryIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	size := historySize{Commits: 40, Files: 120, Large: 3, Bytes: 300_000}
	build := func(seed uint64) *history {
		h, err := historyRepository(t.Context(), size, seed, filepath.Join(t.TempDir(), "r"))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	ask := func(h *history, args ...string) string {
		out, err := h.git(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	a, b, other := build(7), build(7), build(8)
	if ask(a, "rev-parse", "main") != ask(b, "rev-parse", "main") || ask(a, "rev-parse", "main") == ask(other, "rev-parse", "main") {
		t.Error("the seed does not decide")
	}
	if got := ask(a, "rev-list", "--count", "main"); got != "40" {
		t.Errorf("%s commits", got)
	}
	if got := strings.Count(ask(a, "ls-tree", "-r", "main"), "\n") + 1; got != 120 {
		t.Errorf("%d files", got)
	}
	if disk, err := a.disk(); err != nil || disk < size.Bytes {
		t.Errorf("%d bytes in packs, error %v", disk, err)
	}
	for range 2 {
		if err := a.push(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(a, "rev-list", "--count", "main"); got != "42" {
		t.Errorf("%s commits after two more", got)
	}
	if got := ask(a, "diff", "--shortstat", "main~1", "main"); !strings.HasPrefix(got, "1 file changed, 1 insertion(+), 1 deletion(-)") {
		t.Errorf("a commit changes %s", got)
	}
}
