package pack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/plumb-gitops/plumb/internal/source/git/pack"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openRoot(t testing.TB) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return root, dir
}

func run(t testing.TB, dir, stdin string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("git %v: %v\n%s", args, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return out
}

// history makes a repository with many versions of similar files.
func history(t testing.TB, commits int) *testenv.GitRepository {
	t.Helper()
	repo := testenv.NewGitRepository(t, filepath.Join(t.TempDir(), "r"))
	random := rand.New(rand.NewPCG(7, 8))
	for i := range commits {
		files := testenv.Files{}
		for range 5 {
			name := fmt.Sprintf("d%d/f%d", random.IntN(5), random.IntN(20))
			files[name] = strings.Repeat(fmt.Sprintf("line of %s\n", name), 50) + fmt.Sprint(i, random.IntN(9))
		}
		repo.Commit(t, "main", files)
	}
	return repo
}

// all gives the names of all objects.
func all(t testing.TB, repo *testenv.GitRepository, revisions string) []pack.ID {
	t.Helper()
	var ids []pack.ID
	for line := range strings.Lines(string(run(t, repo.Dir, "", append([]string{"rev-list", "--objects"}, strings.Fields(revisions)...)...))) {
		id, err := pack.ParseID(line[:40])
		must(t, err)
		ids = append(ids, id)
	}
	return ids
}

// same compares objects of a set with what git says.
func same(t testing.TB, set *pack.Set, repo *testenv.GitRepository, ids []pack.ID) {
	t.Helper()
	for _, id := range ids {
		object, err := set.Object(id)
		if err != nil {
			t.Error(err)
			continue
		}
		if want := run(t, repo.Dir, "", "cat-file", object.Kind.String(), id.String()); !bytes.Equal(want, object.Data) {
			t.Errorf("%s %s differs", object.Kind, id)
		}
		if size, err := set.Size(id); err != nil || size != int64(len(object.Data)) {
			t.Errorf("size of %s: %d, %v; want %d", id, size, err, len(object.Data))
		}
		r, err := set.Reader(id)
		must(t, err)
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, object.Data) {
			t.Errorf("stream of %s: %d bytes, %v", id, len(data), err)
		}
		must(t, r.Close())
	}
}

func receive(t testing.TB, root *os.Root, name string, serial uint64, older *pack.Set, data []byte) *pack.Pack {
	t.Helper()
	p, err := pack.Receive(t.Context(), iotest.HalfReader(bytes.NewReader(data)), root, name, serial, older, pack.Limits{})
	must(t, err)
	return p
}

func TestReadsWhatGitPacked(t *testing.T) {
	t.Parallel()
	repo := history(t, 12)
	root, dir := openRoot(t)
	ids := all(t, repo, "main~4")
	base := receive(t, root, "base", 1, nil, run(t, repo.Dir, "main~4\n", "pack-objects", "--revs", "--stdout", "-q"))
	first := pack.NewSet(pack.NewCache(1<<20), pack.Limits{}, base)
	same(t, first, repo, ids)
	run(t, dir, "", "verify-pack", filepath.Join(dir, "base.idx"))

	// A thin pack builds on the first one.
	thin := run(t, repo.Dir, "main\n^main~4\n", "pack-objects", "--revs", "--thin", "--stdout", "-q")
	second := first.With(receive(t, root, "thin", 2, first, thin))
	first.Release()
	newest := all(t, repo, "main")
	same(t, second, repo, newest)
	if _, err := pack.Receive(t.Context(), bytes.NewReader(thin), root, "alone", 3, nil, pack.Limits{}); !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("a thin pack without its bases: %v", err)
	}

	// What the last commit needs fits into one pack that git takes too.
	needed := all(t, repo, "--max-count=1 main")
	joined, err := pack.Repack(t.Context(), second, needed, root, "joined", 4)
	must(t, err)
	run(t, dir, "", "verify-pack", filepath.Join(dir, "joined.idx"))
	third := pack.NewSet(nil, pack.Limits{}, joined)
	second.Release()
	same(t, third, repo, needed)
	if third.Has(newest[len(newest)-1]) && len(newest) == len(needed) {
		t.Error("nothing was left out")
	}
	third.Release()
	if _, err := third.Object(needed[0]); err == nil {
		t.Error("a released set can be read")
	}
	reopened, err := pack.Open(root, "joined", 5)
	must(t, err)
	fourth := pack.NewSet(nil, pack.Limits{}, reopened)
	defer fourth.Release()
	same(t, fourth, repo, needed)
	if _, err := pack.Open(root, "alone", 6); err == nil {
		t.Error("a refused pack was left behind")
	}
}

func TestManyReadAtOnce(t *testing.T) {
	t.Parallel()
	repo := history(t, 10)
	root, _ := openRoot(t)
	ids := all(t, repo, "main")
	set := pack.NewSet(pack.NewCache(20<<10), pack.Limits{}, receive(t, root, "p", 1, nil, run(t, repo.Dir, "main\n", "pack-objects", "--revs", "--stdout", "-q")))
	var wait sync.WaitGroup
	for range 8 {
		set.Acquire()
		wait.Go(func() {
			defer set.Release()
			for _, id := range ids {
				if _, err := set.Object(id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	set.Release()
	wait.Wait()
}

func TestReceiveEnds(t *testing.T) {
	t.Parallel()
	repo := history(t, 3)
	whole := run(t, repo.Dir, "main\n", "pack-objects", "--revs", "--stdout", "-q")
	root, dir := openRoot(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := map[string]struct {
		ctx    context.Context
		data   []byte
		limits pack.Limits
		want   error
	}{
		"a pack that is cut off":   {data: whole[:len(whole)/2], want: io.ErrUnexpectedEOF},
		"a pack without its sum":   {data: whole[:len(whole)-10], want: io.ErrUnexpectedEOF},
		"a wrong sum":              {data: append(bytes.Clone(whole[:len(whole)-1]), 0), want: pack.ErrCorrupt},
		"something else":           {data: []byte("<html>nothing to see here, move along</html>"), want: pack.ErrCorrupt},
		"too many objects":         {data: whole, limits: pack.Limits{Objects: 3}, want: pack.ErrTooLarge},
		"too large an object":      {data: whole, limits: pack.Limits{Object: 10}, want: pack.ErrTooLarge},
		"a caller that went away":  {data: whole, ctx: canceled, want: context.Canceled},
		"an absurd object count":   {data: []byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"), want: io.ErrUnexpectedEOF},
		"a version of the future":  {data: []byte("PACK\x00\x00\x00\x09\x00\x00\x00\x01"), want: pack.ErrCorrupt},
		"an object of absurd size": {data: []byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\xbf\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), want: pack.ErrCorrupt},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := test.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			if _, err := pack.Receive(ctx, bytes.NewReader(test.data), root, "x", 1, nil, test.limits); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("%d files are left behind", len(left))
	}
}

// FuzzReceive feeds mangled packs. Nothing may crash or hang, and whatever is
// taken must be readable under its own name.
func FuzzReceive(f *testing.F) {
	repo := history(f, 2)
	whole := run(f, repo.Dir, "main\n", "pack-objects", "--revs", "--stdout", "-q")
	f.Add(whole)
	f.Add(run(f, repo.Dir, "main\n^main~1\n", "pack-objects", "--revs", "--thin", "--stdout", "-q"))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		root, _ := openRoot(t)
		base, err := pack.Receive(t.Context(), bytes.NewReader(whole), root, "base", 1, nil, pack.Limits{})
		must(t, err)
		older := pack.NewSet(nil, pack.Limits{}, base)
		defer older.Release()
		limits := pack.Limits{Bytes: 1 << 20, Objects: 1000, Object: 1 << 20}
		p, err := pack.Receive(t.Context(), bytes.NewReader(pack.Sealed(data)), root, "p", 2, older, limits)
		if err != nil || p == nil {
			return
		}
		set := older.With(p)
		defer set.Release()
		for _, id := range p.Names() {
			if _, err := set.Object(id); err != nil {
				t.Errorf("taken, but not readable: %v", err)
			}
		}
		// So it is after some of it was copied without the rest.
		var some []pack.ID
		for i, id := range p.Names() {
			if (id[0]+byte(i))%3 > 0 {
				some = append(some, id)
			}
		}
		joined, err := pack.Repack(t.Context(), set, some, root, "joined", 3)
		if errors.Is(err, pack.ErrTooLarge) {
			return
		}
		must(t, err)
		fresh := pack.NewSet(nil, pack.Limits{}, joined)
		defer fresh.Release()
		if joined.Size > base.Size+p.Size+20*int64(base.Len()+p.Len()) {
			t.Errorf("packs of %d and %d bytes became one of %d", base.Size, p.Size, joined.Size)
		}
		for _, id := range some {
			if _, err := fresh.Object(id); err != nil {
				t.Errorf("copied, but not readable: %v", err)
			}
		}
	})
}
