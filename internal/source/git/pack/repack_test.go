package pack_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/source/git/pack/packtest"
)

// TestRepackIsNoLarger than what it is made of, whatever stands on objects that nothing
// needs; and what stands on them does not pile up where there is no need.
func TestRepackIsNoLarger(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		build func(b *packtest.Builder) (needed []packtest.Object)
		// most is how long the new pack may be; that of the old one where it is 0. Objects is
		// how many it holds; as many as are needed where it is 0.
		most    int
		objects int
		want    error
	}{
		"many on one base": {build: func(b *packtest.Builder) (needed []packtest.Object) {
			base := b.Whole("blob", packtest.Random(1<<20))
			for i := range 50 {
				needed = append(needed, b.Delta(base, 1, fmt.Sprint("leaf ", i)))
			}
			return needed
		}, objects: 51},
		"many on a base that is there twice": {build: func(b *packtest.Builder) (needed []packtest.Object) {
			b.Whole("blob", packtest.Random(1<<20))
			base := b.Whole("blob", packtest.Random(1<<20))
			for i := range 20 {
				needed = append(needed, b.Delta(base, 1, fmt.Sprint("leaf ", i)))
			}
			return needed
		}, objects: 21},
		"one that repeats its base": {build: func(b *packtest.Builder) []packtest.Object {
			return []packtest.Object{b.Delta(b.Whole("blob", packtest.Random(64<<10)), 100, "leaf")}
		}, objects: 2},
		"many on a chain": {build: func(b *packtest.Builder) (needed []packtest.Object) {
			base := b.Whole("blob", packtest.Random(256<<10))
			for i := range 100 {
				base = b.Delta(base, 1, fmt.Sprint("link ", i))
			}
			for i := range 20 {
				needed = append(needed, b.Delta(base, 1, fmt.Sprint("leaf ", i)))
			}
			return needed
		}, objects: 121},
		"many on a chain that is too long": {build: func(b *packtest.Builder) (needed []packtest.Object) {
			base := b.Whole("blob", packtest.Random(256<<10))
			for i := range 201 {
				base = b.Delta(base, 1, fmt.Sprint("link ", i))
			}
			for i := range 20 {
				needed = append(needed, b.Delta(base, 1, fmt.Sprint("leaf ", i)))
			}
			return needed
		}, want: pack.ErrDeep},
		"the last of a chain": {build: func(b *packtest.Builder) []packtest.Object {
			base := b.Whole("blob", packtest.Random(256<<10))
			for i := range 300 {
				base = b.Delta(base, 1, fmt.Sprint("link ", i))
			}
			return []packtest.Object{base}
		}, most: 256<<10 + 10<<10},
		"some on one base, and there is room": {build: func(b *packtest.Builder) (needed []packtest.Object) {
			b.Whole("blob", packtest.Random(101<<10))
			base := b.Whole("blob", packtest.Random(32<<10))
			for i := range 3 {
				needed = append(needed, b.Delta(base, 1, fmt.Sprint("leaf ", i)))
			}
			return needed
		}},
		"some whose base is needed, beside rubbish": {build: func(b *packtest.Builder) (needed []packtest.Object) {
			b.Whole("blob", packtest.Random(300<<10))
			base := b.Whole("blob", packtest.Random(100<<10))
			needed = append(needed, base)
			for i := range 10 {
				needed = append(needed, b.Delta(base, 1, fmt.Sprint("leaf ", i)))
			}
			return needed
		}, most: 101 << 10},
		"all files of two directories": {build: func(b *packtest.Builder) (needed []packtest.Object) {
			one, two := b.Whole("blob", packtest.Random(100<<10)), b.Whole("blob", packtest.Random(101<<10))
			for i := range 10 {
				needed = append(needed, b.Delta(one, 1, fmt.Sprint("leaf ", i)), b.Delta(two, 1, fmt.Sprint("leaf ", i)))
			}
			return append(needed, two)
		}, objects: 22},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b packtest.Builder
			needed := test.build(&b)
			root, dir := openRoot(t)
			old := receive(t, root, "old", 1, nil, b.Pack())
			set := pack.NewSet(nil, pack.Limits{}, old)
			defer set.Release()
			names := make([]pack.ID, len(needed))
			for i, m := range needed {
				names[i] = m.ID()
			}
			p, err := pack.Repack(t.Context(), set, names, root, "new", 2)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			run(t, dir, "", "verify-pack", filepath.Join(dir, "new.idx"))
			fresh := pack.NewSet(nil, pack.Limits{}, p)
			defer fresh.Release()
			for i, m := range needed {
				if object, err := fresh.Object(names[i]); err != nil || !bytes.Equal(object.Data, m.Data) {
					t.Errorf("object %d: %d bytes, %v", i, len(object.Data), err)
				}
			}
			// A base has a name in the new pack, which may be longer than a distance.
			most := int64(test.most)
			if most == 0 {
				most = old.Size + 20*int64(old.Len())
			}
			if p.Size > most {
				t.Errorf("a pack of %d bytes became one of %d, want at most %d", old.Size, p.Size, most)
			}
			objects := test.objects
			if objects == 0 {
				objects = len(needed)
			}
			if p.Len() != objects {
				t.Errorf("it holds %d objects, want %d", p.Len(), objects)
			}
			if all := p.Names(); !slices.IsSortedFunc(all, func(a, b pack.ID) int { return bytes.Compare(a[:], b[:]) }) {
				t.Error("the index is not in order")
			}
		})
	}
}
