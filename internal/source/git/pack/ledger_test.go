package pack

import (
	"io/fs"
	"math"
	"os"
	"slices"
	"testing"
)

// TestLedger: what is on disk meanwhile comes back as it was and in order, and nothing is
// left behind.
func TestLedger(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, count := range []int{0, 1, 9, 10, 11, 20, 25, 20_000} {
		l := &ledger{dir: root, name: "pack", most: 10}
		var want []received
		for i := range count {
			e := received{
				offset: int64(i), dataAt: math.MaxInt64 - int64(i), size: int64(i) << 40, id: ID{byte(i), 19: 1}, base: ID{1: byte(i), 19: 2},
				baseAt: int64(i) * 3, crc: math.MaxUint32 - uint32(i), kind: Kind(i % 8), depth: int32(i),
			}
			want = append(want, e)
			if err := l.add(e); err != nil {
				t.Fatal(err)
			}
		}
		got, err := l.all()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d entries come back as %d others, error %v", count, len(got), err)
		}
		if len(l.tail) > 10 {
			t.Errorf("%d entries are in memory", len(l.tail))
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
		if left, err := fs.ReadDir(root.FS(), "."); err != nil || len(left) > 0 {
			t.Errorf("%v is left behind, error %v", left, err)
		}
	}
}
