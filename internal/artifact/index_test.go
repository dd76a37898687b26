package artifact

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestIndexTakesNoMoreThanItsNames: names that a text format has to escape, and that a small
// archive has many of, must not become many times as long in memory. It is not parallel: it
// counts what is allocated.
func TestIndexTakesNoMoreThanItsNames(t *testing.T) { //nolint:paralleltest // see above
	const files = 20_000
	var headers []tar.Header
	for i := range files {
		headers = append(headers, tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint(strings.Repeat("<", 150), "/", i)})
		headers[i].Typeflag = tar.TypeReg
	}
	packed, opened, folder := packedWith(t, headers...), 0, t.TempDir()
	for _, when := range []string{"unpacked", "read again from the disk"} {
		c := openCache(t, folder)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		u, err := c.Load(t.Context(), Packed{Digest: digestOf(packed), Open: from(packed, &opened)})
		if err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if took := int64(after.TotalAlloc-before.TotalAlloc) / files; took > 5000 { //nolint:gosec // it is no exabyte
			t.Errorf("%s: %d bytes are allocated for each file", when, took)
		}
		u.Release()
	}
	if opened != 1 {
		t.Errorf("it was opened %d times", opened)
	}
}

// indexOf is an index with its trailer, behind some content.
func indexOf(content string, parts ...[]byte) []byte {
	var index []byte
	for _, part := range parts {
		index = append(index, part...)
	}
	all := append([]byte(content), index...)
	return append(binary.BigEndian.AppendUint64(all, uint64(len(index))), indexMark...)
}

// head is the beginning of an index of files.
func head() []byte { return append([]byte{indexOfFiles}, make([]byte, sha256.Size)...) }

// damagedIndexes are artifacts, by what is wrong with them, that have no content or "xyz".
func damagedIndexes() map[string][]byte {
	a := listed{size: 3, sum: sha256.Sum256([]byte("xyz"))}.append(nil, "a")
	with := func(name string, size int64, content string) []byte {
		return listed{size: size, sum: sha256.Sum256([]byte(content))}.append(nil, name)
	}
	long := binary.AppendUvarint(nil, math.MaxUint64)
	trailer := func(length uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte("xyz"), length), indexMark...)
	}
	return map[string][]byte{
		"nothing":                            {},
		"a length alone":                     make([]byte, 8),
		"an index of nothing":                trailer(0),
		"an index longer than the file":      trailer(4),
		"an index longer than anything":      trailer(math.MaxUint64),
		"no sum":                             indexOf("xyz", head()[:32]),
		"no sum of that":                     indexOf("xyz", head(), a),
		"another kind":                       indexOf("", []byte("x"), head()[1:]),
		"no reason":                          indexOf("", []byte{indexOfNone}),
		"a long reason":                      indexOf("", []byte{indexOfNone}, make([]byte, mostReason+1)),
		"a name longer than the rest":        indexOf("xyz", head(), binary.AppendUvarint(nil, 100<<1), []byte("a")),
		"a name longer than names are":       indexOf("xyz", head(), binary.AppendUvarint(nil, (maxPathBytes+1)<<1), make([]byte, 2*maxPathBytes)),
		"a name longer than anything":        indexOf("xyz", head(), long, a),
		"a length that is none":              indexOf("xyz", head(), []byte{0xff}),
		"a file larger than the content":     indexOf("xyz", head(), with("a", 4, "")),
		"a file larger than anything":        indexOf("xyz", head(), with("a", -1, "")),
		"files larger than the content":      indexOf("xyz", head(), a, with("b", 1, "")),
		"content that no file has":           indexOf("xyz", head()),
		"half a sum":                         indexOf("xyz", head(), a[:len(a)-16]),
		"a name that leaves it":              indexOf("xyz", head(), with("../a", 3, "xyz")),
		"a name of the root":                 indexOf("xyz", head(), with(".", 3, "xyz")),
		"a name that is none":                indexOf("xyz", head(), with("", 3, "xyz")),
		"a file twice":                       indexOf("xyz", head(), a, with("a", 0, "")),
		"the index of an artifact of others": indexOf("", head(), with("a", 0, "x")),
	}
}

// TestIndexThatIsDamaged counts as none, and nobody is given memory because it says so.
func TestIndexThatIsDamaged(t *testing.T) { //nolint:paralleltest // it counts what is allocated
	folder := t.TempDir()
	c := openCache(t, folder)
	for name, content := range damagedIndexes() {
		if err := os.WriteFile(filepath.Join(folder, "content"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := c.root.Open("content")
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if tree := c.readTree(Packed{Opaque: true}, in, "content"); tree != nil {
			t.Errorf("%s is a tree", name)
		}
		if _, err := c.readTable(in); err == nil {
			t.Errorf("%s is a table", name)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("%s: %d bytes are allocated", name, took)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestIndexHasNoMoreThanAnArtifact may have.
func TestIndexHasNoMoreThanAnArtifact(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("aa"), file("bb"))
	for name, test := range map[string]struct {
		entries, names int
		opened         int
	}{
		"as much as it may have": {2, 4, 1},
		"too many files":         {1, 4, 2},
		"too many names":         {2, 3, 2},
	} {
		opened, folder := 0, t.TempDir()
		of := Packed{Digest: digestOf(content), Open: from(content, &opened)}
		if _, err := openCache(t, folder).Load(t.Context(), of); err != nil {
			t.Fatal(err)
		}
		c := openCache(t, folder)
		c.most.entries, c.most.names = test.entries, test.names
		c.own = c.most.limits
		_, err := c.Load(t.Context(), of)
		if tooMuch := test.opened == 2; opened != test.opened || (err != nil) != tooMuch {
			t.Errorf("%s: opened %d times, %v", name, opened, err)
		}
	}
}

// TestIndexOfAnEarlierVersion has its artifact loaded again, and an earlier version, which
// reads the last eight bytes as a length, finds no index of its own in what is written now.
func TestIndexOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	content := packedWith(t, file("a"))
	sum := sha256.Sum256([]byte("a"))
	dir := sha256.Sum256(fmt.Appendf(nil, "a\x00file:%x\x00", sum))
	text, err := json.Marshal(map[string]any{
		"files": []any{map[string]any{"name": "a", "size": 1, "sum": hex.EncodeToString(sum[:])}},
		"sum":   "dir:" + hex.EncodeToString(dir[:]),
	})
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	at := filepath.Join(folder, strings.Replace(digestOf(content), ":", "-", 1))
	if err := os.WriteFile(at, binary.BigEndian.AppendUint64(append([]byte("a"), text...), uint64(len(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	opened := 0
	u, err := openCache(t, folder).Load(t.Context(), Packed{Digest: digestOf(content), Open: from(content, &opened)})
	if err != nil || opened != 1 {
		t.Fatalf("opened %d times, %v", opened, err)
	}
	if got, err := u.Files.ReadFile("a"); err != nil || string(got) != "a" {
		t.Errorf("%q, %v", got, err)
	}
	written, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	if length := binary.BigEndian.Uint64(written[len(written)-8:]); length <= uint64(len(written)) {
		t.Errorf("an earlier version takes the last %d bytes for an index", length)
	}
}

// TestVastArtifactsTakeTurns: of those with very many files two are unpacked at once, of a
// namespace one, and all others do not wait.
func TestVastArtifactsTakeTurns(t *testing.T) {
	t.Parallel()
	vast, small := packedWith(t, file("a"), file("b"), file("c")), packedWith(t, file("a"))
	rooms := NewRooms(1<<30, time.Now)
	for name, test := range map[string]struct {
		// busy are the namespaces that unpack vast ones.
		busy    []string
		content []byte
		fails   bool
	}{
		"nobody is busy":                 {nil, vast, false},
		"one is":                         {[]string{"a"}, vast, false},
		"two are":                        {[]string{"a", "b"}, vast, true},
		"two are, and it is a small one": {[]string{"a", "b"}, small, false},
		"the namespace itself is":        {[]string{"mine"}, vast, true},
		"the namespace itself is, and it is a small one": {[]string{"mine"}, small, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := openCache(t, t.TempDir())
			c.vast.least = 2 * (listedBytes + 1)
			var left []func()
			for _, namespace := range test.busy {
				leave, err := c.vast.take(rooms.In(t.Context(), namespace))
				if err != nil {
					t.Fatal(err)
				}
				left = append(left, leave)
			}
			opened := 0
			load := func(patience time.Duration) error {
				ctx, cancel := context.WithTimeout(rooms.In(t.Context(), "mine"), patience)
				defer cancel()
				_, err := c.Load(ctx, Packed{Digest: digestOf(test.content), Open: from(test.content, &opened)})
				return err
			}
			patience := time.Minute
			if test.fails {
				patience = 50 * time.Millisecond
			}
			if err := load(patience); errors.Is(err, context.DeadlineExceeded) != test.fails || (err != nil) != test.fails {
				t.Errorf("got %v", err)
			}
			for _, leave := range left {
				leave()
			}
			if err := load(time.Minute); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if len(c.vast.places) > 0 || len(c.vast.turns) > 0 {
				t.Errorf("%d places and %d turns are still taken", len(c.vast.places), len(c.vast.turns))
			}
		})
	}
}
