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
	"strconv"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
)

// chain makes a pack of a blob and n deltas, each on the one before. Each delta
// inserts size bytes; without a size it copies its base and adds a byte. The
// name is that of the last object.
func chain(t *testing.T, n, size int) ([]byte, pack.ID) {
	t.Helper()
	var out bytes.Buffer
	z := zlib.NewWriter(&out)
	zip := func(data []byte) {
		z.Reset(&out)
		_, _ = z.Write(data)
		_ = z.Close()
	}
	head := func(kind byte, size int) {
		b := kind<<4 | byte(size&15)
		for size >>= 4; size > 0; size >>= 7 {
			out.WriteByte(b | 0x80)
			b = byte(size & 0x7f)
		}
		out.WriteByte(b)
	}
	out.WriteString("PACK")
	out.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 2}, uint32(n+1)))
	content := []byte("base")
	at := out.Len()
	head(3, len(content))
	zip(content)
	for i := range n {
		var next, operations []byte
		if size == 0 {
			next = append(bytes.Clone(content), 'x')
			operations = []byte{0xb0, byte(len(content)), byte(len(content) >> 8), 1, 'x'}
		}
		for len(next) < size {
			part := bytes.Repeat([]byte{byte(i)}, min(127, size-len(next)))
			next = append(next, part...)
			operations = append(append(operations, byte(len(part))), part...)
		}
		delta := binary.AppendUvarint(nil, uint64(len(content)))
		delta = append(binary.AppendUvarint(delta, uint64(len(next))), operations...)
		content = next
		distance := out.Len() - at
		at = out.Len()
		head(6, len(delta))
		encoded := []byte{byte(distance & 0x7f)}
		for distance >>= 7; distance > 0; distance >>= 7 {
			distance--
			encoded = append([]byte{byte(distance&0x7f) | 0x80}, encoded...)
		}
		out.Write(encoded)
		zip(delta)
	}
	sum := sha1.Sum(out.Bytes())
	out.Write(sum[:])
	name := sha1.Sum(append([]byte("blob "+strconv.Itoa(len(content))+"\x00"), content...))
	return out.Bytes(), pack.ID(name)
}

func receiveChain(t *testing.T, data []byte, limits pack.Limits) (*pack.Pack, error) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return pack.Receive(context.Background(), bytes.NewReader(data), root, "p", 1, nil, limits)
}

// TestReceiveRefusesDeepChains: reading an object costs a step for each delta.
func TestReceiveRefusesDeepChains(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deltas int
		want   error
	}{
		"as deep as is allowed": {4096, nil},
		"one too deep":          {4097, pack.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, id := chain(t, c.deltas, 0)
			p, err := receiveChain(t, data, pack.Limits{Object: 1 << 20})
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err != nil {
				return
			}
			set := pack.NewSet(nil, pack.Limits{}, p)
			defer set.Release()
			if _, err := set.Object(id); err != nil {
				t.Errorf("the object cannot be read: %v", err)
			}
		})
	}
}

// TestChainWorkIsBounded: small files in a pack may stand for very many bytes.
func TestChainWorkIsBounded(t *testing.T) {
	t.Parallel()
	const size = 8 << 10
	limits := pack.Limits{Object: size + 300}
	for name, c := range map[string]struct {
		deltas int
		want   error
	}{
		"less work than is allowed": {100, nil},
		"too much work":             {200, pack.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, id := chain(t, c.deltas, size)
			p, err := receiveChain(t, data, limits)
			if err != nil {
				t.Fatal(err)
			}
			set := pack.NewSet(nil, limits, p)
			defer set.Release()
			if _, err := set.Object(id); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestChainMemoryIsBounded is not parallel: it looks at the heap of the process.
func TestChainMemoryIsBounded(t *testing.T) {
	const size, most = 2 << 20, 48 << 20
	data, id := chain(t, 40, size)
	limits := pack.Limits{Object: 4 << 20}
	p, err := receiveChain(t, data, limits)
	if err != nil {
		t.Fatal(err)
	}
	set := pack.NewSet(nil, limits, p)
	defer set.Release()
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	read := make(chan error)
	go func() {
		_, err := set.Object(id)
		read <- err
	}()
	peak := uint64(0)
	for {
		select {
		case err := <-read:
			if err != nil {
				t.Fatal(err)
			}
			if peak > before.HeapAlloc+most {
				t.Errorf("reading an object of %d MiB holds %d MiB", size>>20, (peak-before.HeapAlloc)>>20)
			}
			return
		default:
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
	}
}
