package pack_test

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/pack/packtest"
)

// blobs makes a pack of so many small blobs.
func blobs(count int) []byte {
	var b packtest.Builder
	for i := range count {
		b.Whole("blob", binary.BigEndian.AppendUint32(nil, uint32(i)))
	}
	return b.Pack()
}

// TestLookup finds all that is there and nothing else, in indexes of one block and of several,
// and after a restart.
func TestLookup(t *testing.T) {
	t.Parallel()
	for _, count := range []int{1, 128, 129, 1024, 1025, 2048, 5000} {
		t.Run(fmt.Sprint(count, " objects"), func(t *testing.T) {
			t.Parallel()
			root, _ := openRoot(t)
			p, err := pack.Receive(t.Context(), bytes.NewReader(blobs(count)), root, "p", 1, nil, pack.Limits{})
			must(t, err)
			again, err := pack.Open(root, "p", 2)
			must(t, err)
			for name, set := range map[string]*pack.Set{
				"received":           pack.NewSet(nil, pack.Limits{}, p),
				"opened":             pack.NewSet(pack.NewCache(1<<20), pack.Limits{}, again),
				"opened with others": pack.NewSet(pack.NewCache(1<<20), pack.Limits{}, p, again),
			} {
				defer set.Release()
				for i := range 2 * count {
					id := pack.ID(sha1.Sum(binary.BigEndian.AppendUint32([]byte("blob 4\x00"), uint32(i))))
					if set.Has(id) != (i < count) {
						t.Fatalf("%s: object %d is there: %v", name, i, !(i < count))
					}
					if i%100 != 0 || i >= count {
						continue
					}
					if object, err := set.Object(id); err != nil || !bytes.Equal(object.Data, binary.BigEndian.AppendUint32(nil, uint32(i))) {
						t.Errorf("%s: object %d is %x, %v", name, i, object.Data, err)
					}
				}
			}
			if got := len(p.Names()); got != count || p.Len() != count || again.Len() != count {
				t.Errorf("%d names, %d and %d objects, want %d", got, p.Len(), again.Len(), count)
			}
		})
	}
}

// TestIndexIsCutOff under who reads it: that is an error, and no crash.
func TestIndexIsCutOff(t *testing.T) {
	t.Parallel()
	root, dir := openRoot(t)
	p, err := pack.Receive(t.Context(), bytes.NewReader(blobs(5000)), root, "p", 1, nil, pack.Limits{})
	must(t, err)
	set := pack.NewSet(nil, pack.Limits{}, p)
	defer set.Release()
	names := p.Names()
	must(t, os.Truncate(filepath.Join(dir, "p.idx"), 40_000))
	if _, err := set.Object(names[len(names)-1]); !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("got %v, want %v", err, pack.ErrCorrupt)
	}
	if _, err := pack.Open(root, "p", 2); !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("opened with error %v, want %v", err, pack.ErrCorrupt)
	}
}

// TestIndexesTakeLittleMemory, however many objects a server sends and nobody reads. It is
// not parallel: it looks at the heap of the process.
func TestIndexesTakeLittleMemory(t *testing.T) {
	const packs, count = 10, 20_000
	data := blobs(count)
	root, _ := openRoot(t)
	heap := func() int64 {
		var now runtime.MemStats
		for range 2 {
			runtime.GC()
		}
		runtime.ReadMemStats(&now)
		return int64(now.HeapAlloc)
	}
	before := heap()
	all := make([]*pack.Pack, packs)
	for i := range all {
		var err error
		all[i], err = pack.Receive(t.Context(), bytes.NewReader(data), root, fmt.Sprint("p", i), uint64(i), nil, pack.Limits{})
		must(t, err)
	}
	set := pack.NewSet(nil, pack.Limits{}, all...)
	defer set.Release()
	if kept := heap() - before; kept > packs*20<<10 {
		t.Errorf("%d packs of %d objects keep %d KiB", packs, count, kept>>10)
	}
	runtime.KeepAlive(data)
}

// BenchmarkHas looks objects up at random.
func BenchmarkHas(b *testing.B) {
	for name, count := range map[string]int{"100 objects": 100, "5,000 objects": 5000, "500,000 objects": 500_000} {
		b.Run(name, func(b *testing.B) {
			root, _ := openRoot(b)
			data := blobs(count)
			cache := pack.NewCache(8 << 20)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			p, err := pack.Receive(b.Context(), bytes.NewReader(data), root, "p", 1, nil, pack.Limits{})
			must(b, err)
			runtime.GC()
			runtime.ReadMemStats(&after)
			set := pack.NewSet(cache, pack.Limits{}, p)
			defer set.Release()
			names := p.Names()
			runtime.KeepAlive(data)
			rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			b.Run("alone", func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if !set.Has(names[i%len(names)]) {
						b.Fatal("not there")
					}
				}
				b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/(1<<10), "KiB-kept")
			})
			b.Run("with others", func(b *testing.B) {
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for i := rand.IntN(len(names)); pb.Next(); i++ {
						if !set.Has(names[i%len(names)]) {
							b.Error("not there")
						}
					}
				})
			})
		})
	}
}
