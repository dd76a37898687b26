package pack_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // Git's own checksum
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/iotest"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// bomb makes a small pack of a blob of so many zeros and of deltas that change its last
// byte: each of the nested ones has one on it that comes after all those further in, so
// that it is held until then; on the innermost there are so many leaves.
func bomb(size, nested, leaves int) []byte {
	count := 1 + 2*nested + leaves
	out := bytes.NewBuffer(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(count)))
	entry := func(kind byte, baseAt int, data []byte) (at int) {
		at = out.Len()
		b, n := kind<<4|byte(len(data)&15), len(data)>>4
		for ; n > 0; n >>= 7 {
			out.WriteByte(b | 0x80)
			b = byte(n & 0x7f)
		}
		out.WriteByte(b)
		if kind == 6 {
			distance := at - baseAt
			encoded := []byte{byte(distance & 0x7f)}
			for distance >>= 7; distance > 0; distance >>= 7 {
				distance--
				encoded = append([]byte{byte(distance&0x7f) | 0x80}, encoded...)
			}
			out.Write(encoded)
		}
		z := zlib.NewWriter(out)
		_, _ = z.Write(data)
		_ = z.Close()
		return at
	}
	changes := 0
	delta := func(baseAt int) int {
		changes++
		d := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(size)), uint64(size))
		d = append(d, 0xf0, byte(size-2), byte((size-2)>>8), byte((size-2)>>16))
		return entry(6, baseAt, append(d, 2, byte(changes>>8), byte(changes)))
	}
	at := entry(3, 0, make([]byte, size))
	for range nested {
		next := delta(at)
		delta(at)
		at = next
	}
	for range leaves {
		delta(at)
	}
	sum := sha1.Sum(out.Bytes())
	out.Write(sum[:])
	return out.Bytes()
}

// TestInflatingIsBounded: a pack is inflated as it comes in, with no slot, so that a small one
// must not take any time.
func TestInflatingIsBounded(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	// The deltas and what they make do not count alike: a delta has 13 bytes.
	data := bomb(size, 0, 3)
	for name, test := range map[string]struct {
		made int64
		want error
	}{
		"without a bound":         {0, nil},
		"as much as is allowed":   {size + 3*13, nil},
		"a byte too many":         {size + 3*13 - 1, pack.ErrTooLarge},
		"a blob that is too long": {size - 1, pack.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, _ := openRoot(t)
			in := bytes.NewReader(data)
			p, err := pack.Receive(t.Context(), iotest.OneByteReader(in), root, "p", 1, nil, pack.Limits{Made: test.made})
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil {
				if test.made < size && in.Len() < len(data)-100 {
					t.Errorf("%d of %d bytes were read before it was refused", len(data)-in.Len(), len(data))
				}
				return
			}
			defer pack.NewSet(nil, pack.Limits{}, p).Release()
			if p.Made != size+3*13 {
				t.Errorf("made %d bytes, want %d", p.Made, size+3*13)
			}
		})
	}
}

// TestBombsAreIndexedOneByOne: what a pack holds in memory is bounded over all packs that
// come in at once, however small they are. It is not parallel: it looks at the heap of the
// process.
func TestBombsAreIndexedOneByOne(t *testing.T) {
	const object, packs = 16 << 20, 6
	const most = (4 + 6) * object // one may hold four objects; the rest is garbage
	data := bomb(object-4096, 2, 6)
	if len(data) > 1<<20 {
		t.Fatalf("a bomb of %d bytes is not small", len(data))
	}
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	limits := pack.Limits{Object: object, Slots: pack.NewSlots()}
	done := make(chan error)
	for range packs {
		root, err := os.OpenRoot(t.TempDir())
		must(t, err)
		t.Cleanup(func() { must(t, root.Close()) })
		go func() {
			p, err := pack.Receive(context.Background(), bytes.NewReader(data), root, "p", 1, nil, limits)
			if err == nil {
				pack.NewSet(nil, limits, p).Release()
			}
			done <- err
		}()
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	peak := uint64(0)
	for left := packs; left > 0; {
		select {
		case err := <-done:
			must(t, err)
			left--
		case <-look.C:
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
	}
	if peak > before.HeapAlloc+most {
		t.Errorf("indexing %d packs of %d bytes holds %d MiB", packs, len(data), (peak-before.HeapAlloc)>>20)
	}
}
