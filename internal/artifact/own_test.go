package artifact

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// filesOf is a tree of files with little in them.
func filesOf(t *testing.T, names ...string) gitops.Tree {
	t.Helper()
	c := contents{listing: listing{most: limits{entries: 1 << 30, names: 1 << 30}}}
	for i, name := range names {
		if err := c.add(name, fmt.Append(nil, i%10), false); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := c.tree()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// numbered are names that are numbers, 1000 in a directory.
func numbered(number int) []string {
	names := make([]string, number)
	for i := range names {
		names[i] = fmt.Sprintf("%d/%d", i/1000, i)
	}
	return names
}

// TestWhatWasPackedIsUnpacked: what a Store has packed can be used after a restart, also
// where it is more than is taken of others. What could not be is not packed.
func TestWhatWasPackedIsUnpacked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		names     []string
		mostNames int
		refused   string // by the Store
		others    string // why it would not be taken of others
	}{
		"more files than of others":      {names: numbered(200_001), others: "more than 200000 files"},
		"as deep as is packed":           {names: []string{strings.Repeat("d/", 256) + "a"}, others: "100 folders"},
		"deeper than is packed":          {names: []string{strings.Repeat("d/", 257) + "a"}, refused: "4096 bytes or 256 folders"},
		"a longer path than is packed":   {names: []string{strings.Repeat("d", 4097)}, refused: "4096 bytes or 256 folders"},
		"as much of names as is packed":  {names: []string{"d/aa", "bbbb"}, mostNames: 8},
		"more names than are packed":     {names: []string{"d/aa", "bbbb"}, mostNames: 7, refused: "names of its files have more than 7 bytes"},
		"nothing":                        {},
		"files in and beside each other": {names: []string{"a/b/c", "a/bc", "ab/c", "b", "c/d/e/f", "c/d/g/h"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, err := Open(t.TempDir(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			if test.mostNames > 0 {
				store.limits.names = test.mostNames
			}
			owner := gitops.OwnerRef{Kind: "GitRepository", Namespace: "apps", Name: "app"}
			files := filesOf(t, test.names...)
			made, err := store.Pack(t.Context(), gitops.Artifact{Source: owner}, "x.tar.gz", files)
			if test.refused != "" {
				if gitops.KindOf(err) != gitops.Invalid || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("error %v, want one that says %q", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			of := Packed{Digest: made.Digest, Open: func(context.Context) (io.ReadCloser, error) { return store.Open(owner, "x.tar.gz") }}
			folder := t.TempDir()
			u, err := openCache(t, folder).Load(t.Context(), of)
			if err == nil {
				u.Release()
			}
			if (err != nil) != (test.others != "") || err != nil && !strings.Contains(err.Error(), test.others) {
				t.Errorf("of others: %v, want %q", err, test.others)
			}
			of.Own = true
			for _, from := range []string{"the file", "the disk"} {
				c := openCache(t, folder)
				u, err := c.Load(t.Context(), of)
				if err != nil {
					t.Fatalf("from %s: %v", from, err)
				}
				defer u.Release()
				for range 2 {
					if got, want := sumOf(t, u.Files), sumOf(t, files); got != want {
						t.Errorf("from %s: it is another one", from)
					}
					if n := countOf(t, u.Files); n != len(test.names) {
						t.Errorf("from %s: %d files of %d", from, n, len(test.names))
					}
					// The second time its table is made again.
					c.tables.Drop()
				}
			}
		})
	}
}

func sumOf(t *testing.T, files gitops.Tree) string {
	t.Helper()
	sum, err := files.Sum(".")
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func countOf(t *testing.T, files gitops.Tree) (n int) {
	t.Helper()
	err := fs.WalkDir(files, ".", func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestOwnLimits: for a file of a Store its limits hold, and no others.
func TestOwnLimits(t *testing.T) {
	t.Parallel()
	packed := packedWith(t, file("a/b"), file("c"), tar.Header{Typeflag: tar.TypeDir, Name: "d/"})
	for name, narrow := range map[string]func(*limits){
		"bytes of a file":       func(l *limits) { l.file = 2 },
		"bytes of all files":    func(l *limits) { l.total = 3 },
		"bytes of the archive":  func(l *limits) { l.archive = 1024 },
		"bytes when compressed": func(l *limits) { l.packed = 50 },
		"files":                 func(l *limits) { l.entries = 1 },
		"bytes of names":        func(l *limits) { l.names = 3 },
		"folders":               func(l *limits) { l.folders = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t, t.TempDir())
			load := func(own bool) error {
				opened := 0
				u, err := c.Load(t.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened), Own: own})
				if err == nil {
					u.Release()
				}
				return err
			}
			narrow(&c.most.limits)
			var malformed *Malformed
			if err := load(false); !errors.As(err, &malformed) {
				t.Errorf("of others: %v", err)
			}
			if err := load(true); err != nil {
				t.Errorf("of a Store: %v", err)
			}
			c = openCache(t, t.TempDir())
			narrow(&c.own)
			if err := load(true); !errors.As(err, &malformed) {
				t.Errorf("of a Store that packs less: %v", err)
			}
			if err := load(false); err != nil {
				t.Errorf("of others, where a Store packs less: %v", err)
			}
		})
	}
}

// TestTheLastTableStays: one that is larger than all may be is looked at many times in a row.
func TestTheLastTableStays(t *testing.T) {
	t.Parallel()
	c := openCache(t, t.TempDir())
	c.tables.Limit(1)
	for i := range 2 {
		packed := packedWith(t, file(fmt.Sprint("a", i)))
		opened := 0
		u, err := c.Load(t.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened)})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Release()
		if n, _ := c.tables.Held(); n != 1 {
			t.Errorf("%d tables are in memory", n)
		}
	}
}
