package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// plain unzips what packedWith gives.
func plain(f *testing.F, packed []byte) []byte {
	f.Helper()
	in, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		f.Fatal(err)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		f.Fatal(err)
	}
	return text
}

// zip makes an archive of a tar, so that what is tried is the tar and not the sums of gzip.
func zip(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&out, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zipped.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// whole reads a tree to its end: all names are inside of it, and all files can be read.
func whole(t *testing.T, tree gitops.Tree) (sum string, files int) {
	t.Helper()
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := tree.ReadFile(name)
		if err == nil && int64(len(content)) != info.Size() {
			t.Errorf("%q has %d bytes instead of %d", name, len(content), info.Size())
		}
		if !fs.ValidPath(name) || !info.Mode().IsRegular() {
			t.Errorf("%q, with mode %s, is in the tree", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if sum, err = tree.Sum("."); err != nil {
		t.Fatal(err)
	}
	return sum, files
}

// FuzzUnpack reads an archive by both ways that there are, into memory and into the cache,
// and once more from the disk.
func FuzzUnpack(f *testing.F) {
	for _, headers := range [][]tar.Header{
		{file("a"), file("b/c"), {Typeflag: tar.TypeDir, Name: "d/"}, {Typeflag: tar.TypeReg, Name: "run", Mode: 0o755}},
		{file("../a")}, {file("/etc/a")}, {file("a"), file("a/b")}, {file("a/b"), file("a")}, {file("a"), file("a")}, {file(".")}, {file("./a/../b")},
		{{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc"}, file("a/b")}, {{Typeflag: tar.TypeLink, Name: "a", Linkname: "../b"}},
		{{Typeflag: tar.TypeChar, Name: "a", Devmajor: 1, Devminor: 3}}, {{Typeflag: tar.TypeDir, Name: "../a/"}},
		{{Typeflag: tar.TypeReg, Name: "a", Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": "x"}}}, {file("nul\x01"), file("ä\xff")},
	} {
		packed := packedWith(f, headers...)
		f.Add(packed, false)
		f.Add(plain(f, packed), true)
	}
	f.Add([]byte("\x1f\x8b"), false)
	f.Add([]byte("no archive"), true)
	f.Fuzz(func(t *testing.T, raw []byte, bare bool) {
		packed := raw
		if bare {
			packed = zip(t, raw)
		}
		inMemory, readErr := Read(bytes.NewReader(packed))
		folder := t.TempDir()
		cache := openCache(t, folder)
		cache.most.total, cache.most.archive = 1<<20, 1<<20
		opened := 0
		of := Packed{Digest: digestOf(packed), Open: from(packed, &opened)}
		unpacked, err := cache.Load(t.Context(), of)
		if err != nil {
			var malformed *Malformed
			if !errors.As(err, &malformed) {
				t.Errorf("an error that is none of the content: %v", err)
			}
			return
		}
		defer unpacked.Release()
		sum, files := whole(t, unpacked.Files)
		again, err := openCache(t, folder).Load(t.Context(), of)
		if err != nil || opened != 1 {
			t.Fatalf("from the disk: %v, opened %d times", err, opened)
		}
		defer again.Release()
		if got, n := whole(t, again.Files); got != sum || n != files {
			t.Errorf("from the disk there are %d files, at first %d", n, files)
		}
		if readErr != nil {
			t.Fatalf("it is in the cache, and cannot be read: %v", readErr)
		}
		if got, n := whole(t, inMemory); got != sum || n != files {
			t.Errorf("in memory there are %d files, in the cache %d", n, files)
		}
		var out bytes.Buffer
		if err := Write(t.Context(), &out, inMemory); err != nil {
			t.Fatal(err)
		}
		packedAgain, err := Read(&out)
		if err != nil {
			t.Fatal(err)
		}
		if got, n := whole(t, packedAgain); got != sum || n != files {
			t.Errorf("packed again there are %d files, at first %d", n, files)
		}
	})
}

// FuzzCached reads a file of the cache that something has damaged: it shows either what was
// written, as the sums in it say, or nothing.
func FuzzCached(f *testing.F) {
	folder := f.TempDir()
	cache, err := OpenCache(folder)
	if err != nil {
		f.Fatal(err)
	}
	packed := packedWith(f, file("a"), file("b/c"), tar.Header{Typeflag: tar.TypeReg, Name: "run", Mode: 0o755})
	opened := 0
	unpacked, err := cache.Load(f.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened)})
	if err != nil {
		f.Fatal(err)
	}
	unpacked.Release()
	written, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(written) != 1 {
		f.Fatalf("files of the cache: %q, %v", written, err)
	}
	good, err := os.ReadFile(written[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[1:])
	for _, index := range damagedIndexes() {
		f.Add(index)
	}
	f.Add(bytes.Repeat([]byte{0xff}, 16))
	f.Fuzz(func(t *testing.T, content []byte) {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "content"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		cache := openCache(t, folder)
		in, err := cache.root.Open("content")
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if tree := cache.readTree(Packed{}, in, "content"); tree != nil {
			whole(t, tree)
		}
	})
}
