package pack

import (
	"bytes"
	"os"
	"testing"
)

// FuzzPatch: a delta makes what it says, within the limit, or nothing.
func FuzzPatch(f *testing.F) {
	base := []byte("the base of a delta, of some fifty bytes in the end.")
	f.Add(base, []byte{52, 4, 0x90, 4})
	f.Add(base, []byte{52, 5, 0x91, 4, 4, 1, 'x'})
	f.Add(base, []byte{52, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x80})
	f.Add(base, []byte{52, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		const limit = 1 << 16
		out, err := patch(base, delta, limit)
		if err != nil {
			return
		}
		_, size, _, err := deltaSizes(delta)
		if err != nil || int64(len(out)) != size || size > limit {
			t.Errorf("%d bytes of a delta that says %d", len(out), size)
		}
	})
}

// FuzzIndex: an index that is taken can be asked for anything.
func FuzzIndex(f *testing.F) {
	f.Add(encodeIndex([]slot{{id: ID{1}, offset: 12}, {id: ID{2}, offset: 1 << 33}}, ID{9}))
	f.Add(encodeIndex(nil, ID{}))
	// More than are held in memory.
	var many []slot
	for i := range 2 * heldNames {
		many = append(many, slot{id: ID{byte(i), 1}, offset: 1 << (i % 50)})
	}
	f.Add(encodeIndex(many, ID{}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > trailerSize {
			raw = Sealed(raw) // the checksum is not what is to be guessed
		}
		x, err := parseIndex(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		for n := range min(x.blocks(), 3) {
			b, err := x.read(n)
			if err != nil {
				t.Fatalf("block %d: %v", n, err)
			}
			for i, offset := range b.offsets {
				if found, ok, err := x.find(b.id(i), x.read); err != nil || ok && found < 0 {
					t.Errorf("%s at %d is found at %d, %v", b.id(i), offset, found, err)
				}
			}
		}
		for _, id := range []ID{{1}, {255}} {
			if _, _, err := x.find(id, x.read); err != nil {
				t.Error(err)
			}
		}
	})
}

// FuzzOpen: pack and index on disk may hold anything.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x32\x78\x9c\x4b\x04\x00\x00\x62\x00\x62"), int64(12))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x75aaaaaaaaaaaaaaaaaaaa"), int64(12))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x6f\x01"), int64(1<<40))
	f.Fuzz(func(t *testing.T, data []byte, offset int64) {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		sum := ID{7}
		x := encodeIndex([]slot{{id: ID{1}, offset: offset & (1<<62 - 1)}}, sum)
		if err := root.WriteFile("p"+packEnding, append(bytes.Clone(data), sum[:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile("p"+indexEnding, x, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := Open(root, "p", 1)
		if err != nil {
			return
		}
		set := NewSet(nil, Limits{Object: 1 << 20}, p)
		defer set.Release()
		if o, err := set.Object(ID{1}); err == nil {
			t.Errorf("an object of another name is given: %q", o.Data)
		}
		_, _ = set.Size(ID{1})
		if r, err := set.Reader(ID{1}); err == nil {
			_ = r.Close()
		}
	})
}
