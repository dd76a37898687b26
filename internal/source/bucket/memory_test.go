package bucket

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// heap is what is in use after everything was collected that is not.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // it is no exabyte
}

// longKeys are entries with keys of 248 bytes, so many in each directory.
func longKeys(files, each int, seed string) []entry {
	entries := make([]entry, files)
	for i := range entries {
		name := fmt.Sprintf("%05d/%s-%06d", i/each, seed, i)
		entries[i] = entry{key: name + strings.Repeat("k", 248-len(name)), etag: strings.Repeat("e", 32), size: int64(i), sum: sum{byte(i), byte(i >> 8), byte(i >> 16), seed[0]}}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	return entries
}

// follow publishes entries as the tree of a bucket, without their contents.
func follow(t *testing.T, r *remote, revision string, entries []entry) *tree {
	t.Helper()
	v := r.view("v")
	r.fetchBegins()
	defer r.fetchEnds()
	end := r.change()
	for _, e := range entries {
		r.count()[e.sum]++
	}
	end()
	made, err := newTable(entries)
	if err != nil {
		t.Fatal(err)
	}
	published, err := v.publish(t.Context(), revision, entries, made)
	if err != nil {
		t.Fatal(err)
	}
	return published
}

func openRemote(t *testing.T, s *Store, key string) *remote {
	t.Helper()
	r := newRemote(s, key, nil)
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	return r
}

func openEmpty(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBucketsTakeLittleMemory: a bucket may have 100,000 objects, and is held as long as somebody
// follows it. What all of them have in memory together is bounded. It is not parallel, so that
// what others hold does not count.
func TestBucketsTakeLittleMemory(t *testing.T) { //nolint:paralleltest // see above
	const buckets, files, most = 8, 8_000, 4 << 20
	for name, each := range map[string]int{"all in one directory": files, "each in its own": 1} {
		s := openEmpty(t)
		s.tables.Limit(most)
		before := heap()
		var trees []*tree
		for i := range buckets {
			trees = append(trees, follow(t, openRemote(t, s, fmt.Sprint(i)), "x", longKeys(files, each, fmt.Sprint(i))))
		}
		if got := heap() - before; got > most*3/2 {
			t.Errorf("%s: %d buckets hold %d bytes, want at most %d and a half", name, buckets, got, most)
		}
		for i, tree := range trees {
			if paths, err := tree.FindFiles("no"); err != nil || paths != nil {
				t.Errorf("bucket %d: %q, %v", i, paths, err)
			}
		}
		if got := heap() - before; got > most*3/2 {
			t.Errorf("%s: %d buckets hold %d bytes once they were looked at, want at most %d and a half", name, buckets, got, most)
		}
		for _, tree := range trees {
			tree.release()
			if _, err := tree.remote.retain(map[string]bool{}); err != nil {
				t.Error(err)
			}
			tree.remote.settle()
		}
		if number, bytes := s.tables.Held(); number != 0 || bytes != 0 {
			t.Errorf("%s: %d bytes of %d tables are left", name, bytes, number)
		}
	}
}

// weighed calls for the heap that is in use, again and again, while it is written.
type weighed struct {
	bytes.Buffer
	writes int
	most   int64
}

// Write takes bytes.
func (w *weighed) Write(p []byte) (int, error) {
	if w.writes++; w.writes%16 == 1 {
		w.most = max(w.most, heap())
	}
	return w.Buffer.Write(p)
}

// TestStatesAreNotHeld while they are written, and while they are read.
func TestStatesAreNotHeld(t *testing.T) { //nolint:paralleltest // what others hold would count
	const most = 1 << 20
	entries := longKeys(30_000, 100, "<")
	var out weighed
	out.Grow(20 << 20)
	before := heap()
	if err := writeState(&out, "x", entries, nil); err != nil {
		t.Fatal(err)
	}
	if grew := out.most - before; grew > most {
		t.Errorf("%d bytes are in use while a state of %d is written, at most %d were expected", grew, out.Len(), most)
	}
	before = heap()
	grew, n := int64(0), 0
	if _, err := scan(&out, func(e entry) error {
		if e != entries[n] {
			return fmt.Errorf("entry %+v, was %+v", e, entries[n])
		}
		if n++; n%3000 == 0 {
			grew = max(grew, heap()-before)
		}
		return nil
	}); err != nil || n != len(entries) {
		t.Errorf("%d entries, %v", n, err)
	}
	if grew > most {
		t.Errorf("%d bytes are in use while a state is read, at most %d were expected", grew, most)
	}
	runtime.KeepAlive(entries)
	runtime.KeepAlive(&out)
}

// listed is all that a tree tells without reading contents.
func listed(t gitops.Tree) (string, error) {
	var all strings.Builder
	err := fs.WalkDir(t, ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		sum, err := t.Sum(name)
		fmt.Fprintln(&all, name, sum)
		return err
	})
	return all.String(), err
}

// TestTablesAreMadeAgain: what is dropped for others is the same when it is looked at again, by
// many at once, also where the bucket has another revision by then. Damage is an error, after
// which the bucket is fetched again.
func TestTablesAreMadeAgain(t *testing.T) {
	t.Parallel()
	s := openEmpty(t)
	s.tables.Limit(1)
	var trees []*tree
	var want []string
	for i := range 6 {
		var r *remote
		if i%2 == 0 {
			r = openRemote(t, s, fmt.Sprint(i))
		} else { // another revision of the same bucket
			r = trees[i-1].remote
		}
		tree := follow(t, r, fmt.Sprint(i), longKeys(30, 7, fmt.Sprint(i)))
		text, err := listed(tree)
		if err != nil {
			t.Fatal(err)
		}
		trees, want = append(trees, tree), append(want, text)
	}
	var all sync.WaitGroup
	for range 4 {
		for i, tree := range trees {
			all.Go(func() {
				if got, err := listed(tree); err != nil || got != want[i] {
					t.Errorf("tree %d is another one: %v", i, err)
				}
			})
		}
	}
	all.Wait()
	if number, _ := s.tables.Held(); number != 1 {
		t.Errorf("%d tables are in memory, want the last one", number)
	}
	r := trees[1].remote
	trees[0].release()
	r.settle()
	if files, err := fs.ReadDir(r.dir.FS(), incomingFolder); err != nil || len(files) != 0 {
		t.Errorf("%v is left of the revision before, %v", files, err)
	}
	if last := r.view("v").last(); last != trees[1] {
		t.Error("the last revision is not told")
	}
	for name, text := range map[string]string{
		"no JSON":           "{",
		"another revision":  `{"version":1,"revision":"other","objects":[]}`,
		"a key that is two": `{"version":1,"revision":"1","objects":[{"k":"a","s":"` + strings.Repeat("0", 64) + `"},{"k":"a/b","s":"` + strings.Repeat("0", 64) + `"}]}`,
	} {
		if err := r.dir.WriteFile(viewPrefix+"v", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listed(trees[3]); err != nil { // which is in memory instead
			t.Error(err)
		}
		_, err := trees[1].Stat(".")
		var failure *gitops.Error
		if !errors.As(err, &failure) || failure.Kind != gitops.Transient {
			t.Errorf("%s: %v", name, err)
		}
		if last := r.view("v").last(); last != nil {
			t.Errorf("%s: it is shown again", name)
		}
	}
	if got, err := listed(follow(t, r, "6", longKeys(30, 7, "1"))); err != nil || got != want[1] {
		t.Errorf("what is fetched again is another one: %v", err)
	}
}
