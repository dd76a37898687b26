package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// from opens some content, and counts how often.
func from(content []byte, opened *int) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		*opened++
		return io.NopCloser(bytes.NewReader(content)), nil
	}
}

func TestCacheKeepsWhatCannotBeUnpacked(t *testing.T) {
	t.Parallel()
	content := []byte("this is no archive")
	folder := t.TempDir()
	opened := 0
	of := Packed{Digest: digestOf(content), Keep: true, Opaque: true, Open: from(content, &opened)}
	for range 2 { // the second time from the disk
		u, err := openCache(t, folder).Load(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := u.Packed()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(packed); err != nil || !bytes.Equal(got, content) {
			t.Errorf("packed file: %q, %v", got, err)
		}
		_ = packed.Close()
		_, readErr := u.Files.ReadFile("a")
		_, listErr := u.Files.ReadDir(".")
		_, sumErr := u.Files.Sum(".")
		for _, err := range []error{readErr, listErr, sumErr} {
			if err == nil || !strings.Contains(err.Error(), "no gzipped tar") {
				t.Errorf("use of the files: %v", err)
			}
		}
		u.Release()
	}
	if opened != 1 {
		t.Errorf("it was opened %d times", opened)
	}
	of.Opaque = false
	var malformed *Malformed
	if _, err := openCache(t, folder).Load(t.Context(), of); !errors.As(err, &malformed) {
		t.Errorf("a caller that needs files: %v", err)
	}
}

func TestCacheShowsNothingOfAnotherScope(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("a"))
	c := openCache(t, t.TempDir())
	opened := 0
	u, err := c.Load(t.Context(), Packed{Digest: digestOf(content), Scope: "one", Open: from(content, &opened)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Release()
	for _, scope := range []string{"two", ""} {
		if _, err := c.Load(t.Context(), Packed{Digest: digestOf(content), Scope: scope, Open: func(context.Context) (io.ReadCloser, error) {
			return nil, io.ErrUnexpectedEOF
		}}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("scope %q: %v", scope, err)
		}
	}
	if _, err := c.Load(t.Context(), Packed{Digest: digestOf(content), Scope: "../x", Open: from(content, &opened)}); err == nil {
		t.Error("a scope that leaves the folder is taken")
	}
}

// TestCacheCounts what it unpacks for the namespaces that use it, as long as they do: many
// bytes come of a few. What nobody uses counts for the one that used it last, until it is
// removed, which it is where the namespace needs the room.
func TestCacheCounts(t *testing.T) {
	t.Parallel()
	content := packedOf(t, "a", make([]byte, 1<<20))
	c := openCache(t, t.TempDir())
	now := time.Now()
	rooms := NewRooms(1<<20+5<<17, func() time.Time { return now })
	rooms.Add(c)
	later := func() { now = now.Add(time.Minute) }
	measured := func(want map[string]int64) {
		t.Helper()
		got := map[string]int64{}
		if err := c.Measure(func(namespace string, bytes int64) { got[namespace] += (bytes + 1<<16) >> 17 }); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("measured %v eighths of a MiB, want %v", got, want)
		}
	}
	load := func(namespace, scope string) (Unpacked, error) {
		opened := 0
		return c.Load(rooms.In(t.Context(), namespace), Packed{Digest: digestOf(content), Scope: scope, Open: from(content, &opened)})
	}
	loaded := func(namespace, scope string) Unpacked {
		t.Helper()
		later()
		u, err := load(namespace, scope)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	a := loaded("a", "one")
	measured(map[string]int64{"a": 8})
	later()
	var full *NoRoom
	if _, err := load("a", "two"); !errors.As(err, &full) {
		t.Errorf("what does not fit: %v", err)
	}
	b, again := loaded("b", "one"), loaded("b", "one")
	measured(map[string]int64{"a": 4, "b": 4})
	other := loaded("b", "two")
	measured(map[string]int64{"a": 4, "b": 12})
	b.Release()
	measured(map[string]int64{"a": 4, "b": 12})
	again.Release()
	measured(map[string]int64{"a": 8, "b": 8})
	a.Release()
	measured(map[string]int64{"a": 8, "b": 8})
	other.Release()
	measured(map[string]int64{"a": 8, "b": 8})

	// It is used again, by another one.
	b = loaded("b", "one")
	measured(map[string]int64{"b": 16})
	later()
	if _, err := load("b", "three"); !errors.As(err, &full) {
		t.Errorf("what does not fit beside what is in use: %v", err)
	}
	// Of a room that was full, what is not used is gone.
	measured(map[string]int64{"b": 8})
	b.Release()
	loaded("b", "three").Release()
	measured(map[string]int64{"b": 8})
	c.now = func() time.Time { return time.Now().Add(2 * keepUnused) }
	if err := c.Collect(); err != nil {
		t.Fatal(err)
	}
	measured(map[string]int64{})
	if len(c.left) > 0 {
		t.Errorf("%v are still counted", c.left)
	}
}

// TestCacheCountsWhatIsNotTakenUp: who gives up before an unused artifact is read does not
// have it counted for nobody.
func TestCacheCountsWhatIsNotTakenUp(t *testing.T) {
	t.Parallel()
	content, opened := packedWith(t, file("a")), 0
	c := openCache(t, t.TempDir())
	rooms := NewRooms(1<<20, time.Now)
	of := Packed{Digest: digestOf(content), Open: from(content, &opened)}
	u, err := c.Load(rooms.In(t.Context(), "a"), of)
	if err != nil {
		t.Fatal(err)
	}
	u.Release()
	ended, cancel := context.WithCancel(rooms.In(t.Context(), "b"))
	cancel()
	for range 100 { // whether it waits is up to the runtime
		u, err := c.Load(ended, of)
		if err != nil {
			break
		}
		u.Release()
		if u, err = c.Load(rooms.In(t.Context(), "a"), of); err != nil {
			t.Fatal(err)
		}
		u.Release()
	}
	got := map[string]int64{}
	if err := c.Measure(func(namespace string, bytes int64) { got[namespace] += bytes }); err != nil {
		t.Fatal(err)
	}
	if got["a"] == 0 || len(got) != 1 {
		t.Errorf("measured %v", got)
	}
}

func TestCacheFindsADamagedPackedFile(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("a"))
	folder := t.TempDir()
	opened := 0
	of := Packed{Digest: digestOf(content), Keep: true, Open: from(content, &opened)}
	if _, err := openCache(t, folder).Load(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	at, err := filepath.Glob(filepath.Join(folder, "*", packedFile))
	if err != nil || len(at) != 1 {
		t.Fatal(at, err)
	}
	damaged := bytes.Clone(content)
	damaged[len(damaged)-1] ^= 1
	if err := os.WriteFile(at[0], damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openCache(t, folder).Load(t.Context(), of); err != nil || opened != 2 {
		t.Errorf("opened %d times, %v", opened, err)
	}
}

// TestCacheWaitsNoLongerThanItsCaller has one caller load what another waits for.
func TestCacheWaitsNoLongerThanItsCaller(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("a"))
	c := openCache(t, t.TempDir())
	begun, end := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		_, err := c.Load(t.Context(), Packed{Digest: digestOf(content), Open: func(context.Context) (io.ReadCloser, error) {
			close(begun)
			<-end
			return nil, io.EOF
		}})
		done <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	opened := 0
	if _, err := c.Load(ctx, Packed{Digest: digestOf(content), Open: from(content, &opened)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the one that waits: %v", err)
	}
	close(end)
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Errorf("the one that loads: %v", err)
	}
	if _, err := c.Load(t.Context(), Packed{Digest: digestOf(content), Open: from(content, &opened)}); err != nil || opened != 1 {
		t.Errorf("afterwards: opened %d times, %v", opened, err)
	}
}

func TestCacheTellsContentFromTheRest(t *testing.T) {
	t.Parallel()
	c := openCache(t, t.TempDir())
	opened := 0
	for name, test := range map[string]struct {
		content []byte
		want    bool
	}{
		"a name that leaves it":      {packedWith(t, file("../a")), true},
		"a file that is there twice": {packedWith(t, file("a"), file("a")), true},
		"a file that is a folder":    {packedWith(t, file("a"), file("a/b")), true},
		"no archive":                 {[]byte("x"), true},
		"a good one":                 {packedWith(t, tar.Header{Typeflag: tar.TypeDir, Name: "./"}, file("a")), false},
	} {
		_, err := c.Load(t.Context(), Packed{Digest: digestOf(test.content), Open: from(test.content, &opened)})
		var malformed *Malformed
		if got := errors.As(err, &malformed); got != test.want || test.want == (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := c.Load(t.Context(), Packed{Digest: digestOf([]byte("x")), Open: from([]byte("y"), &opened)})
	var malformed *Malformed
	if err == nil || errors.As(err, &malformed) {
		t.Errorf("another content than was asked for: %v", err)
	}
}

// TestCacheUnpacksWhatIsLargerThanItHoldsInMemory has the packed file go through the disk.
func TestCacheUnpacksWhatIsLargerThanItHoldsInMemory(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 3*mostInMemory)
	for i := range noise {
		noise[i] = byte(rand.Uint32()) //nolint:gosec // it only must not compress
	}
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	for _, name := range []string{"first", "d/empty", "d/noise", "last"} {
		content := map[string][]byte{"first": []byte("1"), "d/noise": noise, "last": []byte("2")}[name]
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	opened := 0
	for range 2 {
		u, err := openCache(t, folder).Load(t.Context(), Packed{Digest: digestOf(packed.Bytes()), Open: from(packed.Bytes(), &opened)})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]byte{"first": []byte("1"), "d/empty": {}, "d/noise": noise, "last": []byte("2")} {
			if got, err := u.Files.ReadFile(name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s has %d bytes, %v", name, len(got), err)
			}
		}
		u.Release()
	}
	if opened != 1 {
		t.Errorf("it was opened %d times", opened)
	}
	if left, err := filepath.Glob(filepath.Join(folder, "*", packedFile)); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// zeros is an artifact of one file that takes nearly nothing while it is packed.
func zeros(t *testing.T, size int64) []byte {
	t.Helper()
	return packedFrom(t, "zeros", endless{}, size)
}

// packedOf is an artifact of one file.
func packedOf(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	return packedFrom(t, name, bytes.NewReader(content), int64(len(content)))
}

func packedFrom(t *testing.T, name string, content io.Reader, size int64) []byte {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(archive, content, size); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// endless has zeros.
type endless struct{}

// Read gives zeros.
func (endless) Read(to []byte) (int, error) { clear(to); return len(to), nil }

// TestCacheHoldsNoLargeFileInMemory is not parallel: it counts what is allocated.
func TestCacheHoldsNoLargeFileInMemory(t *testing.T) { //nolint:paralleltest // see above
	const size = mostReadFile + 1
	packed, opened := zeros(t, size), 0
	cache := openCache(t, t.TempDir())
	store, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	u, err := cache.Load(t.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Release()
	if _, err := store.Pack(t.Context(), gitops.Artifact{Source: gitops.OwnerRef{Kind: "OCIRepository", Namespace: "apps", Name: "app"}}, "x.tar.gz", u.Files); err != nil {
		t.Error(err)
	}
	if _, err := u.Files.ReadFile("zeros"); err == nil || !strings.Contains(err.Error(), "at most 67108864 are read of a file") {
		t.Errorf("it is read: %v", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > size/4 {
		t.Errorf("%d bytes are allocated for a file of %d", took, size)
	}
}
