package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func TestReadGivesWhatWasPacked(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"a.yaml":         {Data: []byte("a: 1\n"), Mode: 0o644},
		"sub/run.sh":     {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"sub/deep/b.txt": {Data: []byte("b"), Mode: 0o644},
		".git/HEAD":      {Data: []byte("ref"), Mode: 0o644},
	}
	folder, err := ReadFolder(files)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := Write(t.Context(), &packed, folder); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(packed.Bytes()) }))
	defer server.Close()
	tree, err := Fetch(t.Context(), server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(tree, "a.yaml", "sub/run.sh", "sub/deep/b.txt"); err != nil {
		t.Error(err)
	}
	if _, err := tree.Stat(".git"); err == nil {
		t.Error("Git's own files are in the tree")
	}
	for _, name := range []string{".", "sub", "sub/run.sh", "a.yaml"} {
		want, err1 := folder.Sum(name)
		got, err2 := tree.Sum(name)
		if err1 != nil || err2 != nil || want != got {
			t.Errorf("sum of %q is %q and %q (%v, %v)", name, want, got, err1, err2)
		}
	}
	if _, err := Fetch(t.Context(), server.URL, "sha256:"+strings.Repeat("0", 64)); err == nil {
		t.Error("content with another digest is taken")
	}
}

func TestReadRefusesWhatIsNoArtifact(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]tar.Header{
		"a name above the artifact":     {Typeflag: tar.TypeReg, Name: "../a"},
		"an absolute name":              {Typeflag: tar.TypeReg, Name: "/etc/a"},
		"a directory above the archive": {Typeflag: tar.TypeDir, Name: "../a/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var packed bytes.Buffer
			zipped := gzip.NewWriter(&packed)
			archive := tar.NewWriter(zipped)
			if err := archive.WriteHeader(&header); err != nil {
				t.Fatal(err)
			}
			if err := archive.Close(); err != nil {
				t.Fatal(err)
			}
			if err := zipped.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(&packed); err == nil {
				t.Error("it is taken")
			}
		})
	}
	if _, err := Read(strings.NewReader("no gzip")); err == nil {
		t.Error("text is taken for an artifact")
	}
}

// TestReadJudgesAsACache: what one of the two takes the other one takes too, for the same
// reason where it does not: `plumb diff` reads what the operator will.
func TestReadJudgesAsACache(t *testing.T) {
	t.Parallel()
	many := func(headers ...tar.Header) []tar.Header { return headers }
	for name, test := range map[string]struct {
		headers []tar.Header
		want    string // the error
	}{
		"files and what leads to them": {headers: many(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, file("d/a"), file("./b"))},
		"as deep as is allowed":        {headers: many(file(strings.Repeat("d/", 100) + "a"))},
		"a folder too deep":            {headers: many(file(strings.Repeat("d/", 101) + "a")), want: "4096 bytes or 100 folders"},
		"a path that is long enough":   {headers: many(file(strings.Repeat(strings.Repeat("d", 1023)+"/", 3) + strings.Repeat("a", 1024)))},
		"a path that is too long":      {headers: many(file(strings.Repeat(strings.Repeat("d", 1023)+"/", 3) + strings.Repeat("a", 1025))), want: "4096 bytes or 100 folders"},
		"a link that leads out":        {headers: many(file("a"), tar.Header{Typeflag: tar.TypeSymlink, Name: "b", Linkname: "../c"})},
		"a link that is outside":       {headers: many(file("a"), tar.Header{Typeflag: tar.TypeSymlink, Name: "../b", Linkname: "a"}), want: `"../b" is outside of it`},
		"a link in place of the root":  {headers: many(file("a"), tar.Header{Typeflag: tar.TypeSymlink, Name: ".", Linkname: "a"})},
		"a file in place of the root":  {headers: many(file("a"), file(".")), want: "a file without a name"},
		"a file twice":                 {headers: many(file("a"), file("a")), want: `"a" is in it twice`},
		"a file and a directory":       {headers: many(file("a"), file("a/b")), want: `"a" is a file and a directory`},
		"a device":                     {headers: many(file("a"), tar.Header{Typeflag: tar.TypeChar, Name: "b", Devmajor: 1})},
		"nothing":                      {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			judge(t, packedWith(t, test.headers...), test.want)
		})
	}
	t.Run("a sparse file", func(t *testing.T) {
		t.Parallel()
		judge(t, sparse(t), "is a sparse file")
	})
	t.Run("what is no archive", func(t *testing.T) {
		t.Parallel()
		judge(t, []byte("text"), "it is no gzipped tar")
	})
}

func judge(t *testing.T, packed []byte, want string) {
	t.Helper()
	_, read := Read(bytes.NewReader(packed))
	opened := 0
	unpacked, unpack := openCache(t, t.TempDir()).Load(t.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened)})
	if unpack == nil {
		unpacked.Release()
	}
	for _, err := range []error{read, unpack} {
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("read: %v; unpacked: %v; want %q", read, unpack, want)
			return
		}
	}
	if read != nil && read.Error() != "read artifact: "+unpack.Error() {
		t.Errorf("one says %q and the other %q", read, unpack)
	}
}
