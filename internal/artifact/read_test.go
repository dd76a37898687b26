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
