package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// manyFiles is an artifact of empty files, so many in each directory.
func manyFiles(t *testing.T, files, each int) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for i := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/e%d/file-%06d", i/each/100, i/each, i), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// heap is what is in use after everything was collected that is not.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // it is no exabyte
}

// TestFilesTakeLittleMemory: an artifact may have a million files, and is held as long as
// somebody follows it. It is not parallel, so that what others hold does not count.
func TestFilesTakeLittleMemory(t *testing.T) { //nolint:paralleltest // see above
	const files = 50_000
	for name, test := range map[string]struct {
		each        int   // in a directory
		table, most int64 // bytes of a file
	}{
		"in one directory":           {files, mostTables, 100},
		"in many directories":        {20, mostTables, 120},
		"each in its own":            {1, mostTables, 200},
		"and nothing but for a look": {20, 0, 5},
	} {
		packed := manyFiles(t, files, test.each)
		c := openCache(t, t.TempDir())
		c.tables.Limit(test.table)
		opened, before := 0, heap()
		u, err := c.Load(t.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened)})
		if err != nil {
			t.Fatal(err)
		}
		if test.table == 0 { // another one takes its place
			other := packedWith(t, file("a"))
			v, err := c.Load(t.Context(), Packed{Digest: digestOf(other), Open: from(other, &opened)})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Release()
		}
		if got := (heap() - before) / files; got > test.most {
			t.Errorf("%s: %d bytes for each file, want at most %d", name, got, test.most)
		}
		if _, err := u.Files.Stat("d0/e0/file-000000"); err != nil {
			t.Error(err)
		}
		u.Release()
		if number, bytes := c.tables.Held(); number != 0 || bytes != 0 {
			t.Errorf("%s: %d bytes of %d tables are left", name, bytes, number)
		}
		runtime.KeepAlive(packed)
	}
}

// TestTablesAreMadeAgain: what is dropped for others is the same when it is looked at again,
// by many at once, and damage in between is an error.
func TestTablesAreMadeAgain(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := openCache(t, folder)
	c.tables.Limit(1200) // two of them
	var trees []Unpacked
	var digests []string
	for i := range 4 {
		packed := packedWith(t, file("a/b/"+strings.Repeat(fmt.Sprint(i), 100)), file("a.b"), file("a/c"), file("z"))
		opened := 0
		u, err := c.Load(t.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened)})
		if err != nil {
			t.Fatal(err)
		}
		trees, digests = append(trees, u), append(digests, digestOf(packed))
	}
	seen := func(u Unpacked) (string, error) {
		var all strings.Builder
		err := fs.WalkDir(u.Files, ".", func(name string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			sum, err := u.Files.Sum(name)
			fmt.Fprintln(&all, name, sum)
			return err
		})
		return all.String(), err
	}
	var want []string
	for _, u := range trees {
		text, err := seen(u)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, text)
	}
	var all sync.WaitGroup
	for range 4 {
		for i, u := range trees {
			all.Go(func() {
				if got, err := seen(u); err != nil || got != want[i] {
					t.Errorf("tree %d: %v\n%s\nwas\n%s", i, err, got, want[i])
				}
			})
		}
	}
	all.Wait()
	if number, bytes := c.tables.Held(); bytes > 1200 || number != 2 {
		t.Errorf("%d bytes of %d tables, want two of at most 1200", bytes, number)
	}

	// The first one is not in memory after the last ones were looked at.
	for _, u := range trees {
		if _, err := u.Files.Stat("a/b"); err != nil {
			t.Error(err)
		}
	}
	other, err := c.root.ReadFile(strings.Replace(digests[1], ":", "-", 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.root.WriteFile(strings.Replace(digests[0], ":", "-", 1), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := trees[0].Files.Stat("z"); err == nil || !strings.Contains(err.Error(), "was changed") {
		t.Errorf("a changed one: %v", err)
	}
	if in, err := trees[1].Files.Open("z"); err != nil {
		t.Error(err)
	} else if _, err := io.ReadAll(in); err != nil {
		t.Error(err)
	}
}

// TestFailedLoadsHoldNothing: what could not be put into place is not in memory either.
func TestFailedLoadsHoldNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := openCache(t, folder)
	packed := packedWith(t, file("a/b"))
	u, err := c.Load(t.Context(), Packed{Digest: digestOf(packed), Open: func(context.Context) (io.ReadCloser, error) {
		// Something stands where it is to be put.
		err := os.MkdirAll(filepath.Join(folder, strings.Replace(digestOf(packed), ":", "-", 1), "x"), 0o700)
		return io.NopCloser(bytes.NewReader(packed)), err
	}})
	if err == nil {
		u.Release()
		t.Fatal("it is loaded")
	}
	if number, bytes := c.tables.Held(); number != 0 || bytes != 0 || len(c.held) != 0 {
		t.Errorf("%d bytes of %d tables, and %d artifacts, are held", bytes, number, len(c.held))
	}
}
