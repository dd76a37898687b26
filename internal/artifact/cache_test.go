package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// packedWith is a gzipped tar with the given headers, each with its name as content.
func packedWith(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := archive.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600} }

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// server serves one content and counts how often it is asked for.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	asked int
}

func serve(t *testing.T, content []byte, status int) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		s.asked++
		s.mu.Unlock()
		w.WriteHeader(status)
		_, _ = w.Write(content)
	}))
	t.Cleanup(s.Close)
	return s
}

func openCache(t *testing.T, folder string) *Cache {
	t.Helper()
	c, err := OpenCache(folder)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCache(t *testing.T) {
	t.Parallel()
	content := packedWith(t, tar.Header{Typeflag: tar.TypeDir, Name: "a/"}, file("a/one"), tar.Header{Typeflag: tar.TypeReg, Name: "run", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/etc/passwd"})
	server := serve(t, content, http.StatusOK)
	folder := t.TempDir()
	c := openCache(t, folder)
	files, release, err := c.Get(t.Context(), server.URL, digestOf(content), "")
	if err != nil {
		t.Fatal(err)
	}
	again, releaseAgain, err := c.Get(t.Context(), server.URL+"/elsewhere", digestOf(content), "")
	if err != nil || again != files {
		t.Errorf("one digest is two trees: %v", err)
	}
	if got, err := files.ReadFile("a/one"); err != nil || string(got) != "a/one" {
		t.Errorf("got %q and %v", got, err)
	}
	if info, err := files.Stat("run"); err != nil || info.Mode() != 0o755 || info.Size() != 3 {
		t.Errorf("got %+v and %v", info, err)
	}
	if _, err := files.Stat("link"); err == nil {
		t.Error("a link is in it")
	}
	want, err := Read(bytes.NewReader(packedWith(t, file("a/one"), tar.Header{Typeflag: tar.TypeReg, Name: "run", Mode: 0o755})))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "a", "a/one", "run"} {
		got, _ := files.Sum(name)
		if wanted, _ := want.Sum(name); got != wanted || got == "" {
			t.Errorf("the sum of %s is %s, that of the same in memory %s", name, got, wanted)
		}
	}

	// Another process finds it on the disk.
	other, releaseOther, err := openCache(t, folder).Get(t.Context(), server.URL, digestOf(content), "")
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := other.Sum("."); a == "" {
		t.Error("it has no sum")
	}
	releaseOther()
	if server.asked != 1 {
		t.Errorf("it was loaded %d times", server.asked)
	}

	// What a crash has left in pieces is loaded again.
	broken := filepath.Join(folder, strings.Replace(digestOf(content), ":", "-", 1))
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mended, releaseMended, err := openCache(t, folder).Get(t.Context(), server.URL, digestOf(content), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := mended.ReadFile("a/one"); err != nil || string(got) != "a/one" || server.asked != 2 {
		t.Errorf("got %q and %v after %d downloads", got, err, server.asked)
	}
	releaseMended()

	// It stays while somebody uses it, and for a while afterwards.
	later := func(d time.Duration) { c.now = func() time.Time { return time.Now().Add(d) } }
	there := func(want bool) {
		t.Helper()
		if err := c.Collect(); err != nil {
			t.Error(err)
		}
		if names, _ := fs.Glob(os.DirFS(folder), "*"); (len(names) == 1) != want {
			t.Errorf("the folder has %v", names)
		}
	}
	release()
	release()
	later(2 * keepUnused)
	there(true)
	later(0)
	releaseAgain()
	later(keepUnused / 2)
	there(true)
	later(2 * keepUnused)
	there(false)
}

func TestCacheDigests(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("a"))
	server := serve(t, content, http.StatusOK)
	c := openCache(t, t.TempDir())
	long, longer := sha512.Sum384(content), sha512.Sum512(content)
	for _, digest := range []string{"sha384:" + hex.EncodeToString(long[:]), "sha512:" + hex.EncodeToString(longer[:])} {
		if _, release, err := c.Get(t.Context(), server.URL, digest, ""); err != nil {
			t.Error(err)
		} else {
			release()
		}
	}
}

func TestCacheRefuses(t *testing.T) {
	t.Parallel()
	good := packedWith(t, file("a"))
	for name, test := range map[string]struct {
		content []byte
		digest  string
		status  int
		want    string
	}{
		"a truncated one":        {content: good[:len(good)-5], digest: digestOf(good), want: "truncated or was changed"},
		"another one":            {content: packedWith(t, file("b")), digest: digestOf(good), want: "truncated or was changed"},
		"none":                   {content: []byte("not found"), digest: digestOf(good), status: http.StatusNotFound, want: "404"},
		"no archive":             {content: []byte("text"), digest: digestOf([]byte("text")), want: "no gzipped tar"},
		"a digest that is none":  {content: good, digest: "sha256:abc", want: "is no sha256 sum"},
		"another algorithm":      {content: good, digest: "md5:abc", want: "is none of"},
		"no digest":              {content: good, want: "is none of"},
		"a way out":              {content: packedWith(t, file("../a")), want: "outside of it"},
		"an absolute name":       {content: packedWith(t, file("/a")), want: "outside of it"},
		"a name twice":           {content: packedWith(t, file("a"), file("a")), want: "in it twice"},
		"a file and a directory": {content: packedWith(t, file("a"), file("a/b")), want: "a file and a directory"},
		"a deep path":            {content: packedWith(t, file(strings.Repeat("a/", 200)+"f")), want: "more than 4096 bytes or 100 folders"},
		"a sparse file":          {content: sparse(t), want: "is a sparse file"},
		"many files":             {content: packedWith(t, file("a"), file("b"), file("c"), file("d")), want: "more than 3 files"},
		"long names":             {content: packedWith(t, file(strings.Repeat("a", 75)), file(strings.Repeat("b", 76))), want: "names of its files have more than 150 bytes"},
		"a large file":           {content: zeros(t, 2049), digest: digestOf(zeros(t, 2049)), want: `"zeros" has 2049 bytes, at most 2048 are unpacked of a file`},
		"many bytes":             {content: packedWith(t, file(strings.Repeat("a", 10_000))), want: "more than 8192 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.digest == "" && name != "no digest" {
				test.digest = digestOf(test.content)
			}
			if test.status == 0 {
				test.status = http.StatusOK
			}
			folder := t.TempDir()
			server := serve(t, test.content, test.status)
			c := openCache(t, folder)
			c.most.file, c.most.total, c.most.archive, c.most.entries, c.most.names = 2048, 8192, 8192, 3, 150
			_, _, err := c.Get(t.Context(), server.URL, test.digest, "")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if names, _ := filepath.Glob(folder + "/*"); len(names) > 0 {
				t.Errorf("it leaves %v", names)
			}
		})
	}
}

// sparse is an archive of a file that consists of a hole.
func sparse(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	record := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=hole1\n31 GNU.sparse.realsize=1000000\n"
	// The writer makes no sparse files, so the blocks are written by hand.
	block := func(name string, kind byte, body []byte) []byte {
		b := make([]byte, 512, 512+len(body)+512)
		copy(b, name)
		copy(b[100:], "0000600\x00")
		copy(b[108:], "0000000\x00")
		copy(b[116:], "0000000\x00")
		copy(b[124:], fmt.Sprintf("%011o\x00", len(body)))
		copy(b[136:], "00000000000\x00")
		copy(b[148:], "        ")
		b[156] = kind
		copy(b[257:], "ustar\x0000")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		b = append(b, body...)
		return append(b, make([]byte, (512-len(body)%512)%512)...)
	}
	sparseMap := make([]byte, 512)
	copy(sparseMap, "1\n1000000\n0\n")
	for _, part := range [][]byte{block("x", tar.TypeXHeader, []byte(record)), block("GNUSparseFile.0/hole", tar.TypeReg, sparseMap), make([]byte, 1024)} {
		if _, err := zipped.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCacheSize: what nobody uses goes when it takes too much, the oldest first.
func TestCacheSize(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := openCache(t, folder)
	c.most.unused = 6 << 10 // one with its index, and not two
	now := time.Now()
	var digests []string
	for i := range 4 {
		content := packedWith(t, file(strings.Repeat(string(rune('a'+i)), 20)))
		digests = append(digests, strings.Replace(digestOf(content), ":", "-", 1))
		c.now = func() time.Time { return now.Add(time.Duration(i) * time.Second) }
		_, release, err := c.Get(t.Context(), serve(t, content, http.StatusOK).URL, digestOf(content), "")
		if err != nil {
			t.Fatal(err)
		}
		if i != 0 { // The first one stays in use.
			release()
		}
	}
	if err := c.Collect(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false, true} {
		if _, err := os.Stat(filepath.Join(folder, digests[i])); (err == nil) != want {
			t.Errorf("artifact %d: %v", i, err)
		}
	}
}

func TestCacheKeepsThePackedFile(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("a/b"))
	folder := t.TempDir()
	opened := 0
	load := func(c *Cache, keep bool) Unpacked {
		t.Helper()
		u, err := c.Load(t.Context(), Packed{Digest: digestOf(content), Keep: keep, Open: func(context.Context) (io.ReadCloser, error) {
			opened++
			return io.NopCloser(bytes.NewReader(content)), nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(u.Release)
		return u
	}
	c := openCache(t, folder)
	if _, err := load(c, false).Packed(); err == nil {
		t.Error("the packed file is kept though nobody wants it")
	}
	for _, c := range []*Cache{c, openCache(t, folder)} {
		kept := load(c, true)
		packed, err := kept.Packed()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(packed)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes of %d, %v", len(got), len(content), err)
		}
		if err := packed.Close(); err != nil {
			t.Error(err)
		}
		if text, err := kept.Files.ReadFile("a/b"); err != nil || string(text) != "a/b" {
			t.Errorf("%q, %v", text, err)
		}
	}
	if opened != 2 {
		t.Errorf("it was opened %d times", opened)
	}
}

// TestCacheSizeIsShared: whoever leaves the most behind loses it first, not who came first.
func TestCacheSizeIsShared(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := openCache(t, folder)
	c.most.unused = 14 << 10 // three with their indexes, and not four
	rooms, now := NewRooms(1<<30, time.Now), time.Now()
	var digests []string
	for i, namespace := range []string{"a", "b", "b", "b", "b"} {
		content, opened := packedWith(t, file(strings.Repeat(string(rune('a'+i)), 20))), 0
		digests = append(digests, strings.Replace(digestOf(content), ":", "-", 1))
		c.now = func() time.Time { return now.Add(time.Duration(i) * time.Second) }
		u, err := c.Load(rooms.In(t.Context(), namespace), Packed{Digest: digestOf(content), Open: from(content, &opened)})
		if err != nil {
			t.Fatal(err)
		}
		u.Release()
	}
	if err := c.Collect(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false, true, true} {
		if _, err := os.Stat(filepath.Join(folder, digests[i])); (err == nil) != want {
			t.Errorf("artifact %d: %v", i, err)
		}
	}
	if len(c.left) != 3 {
		t.Errorf("%v are counted", c.left)
	}
}
