package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// contentsOf are the names of the contents that a store has on disk, and other those
// of all other files.
func contentsOf(t testing.TB, folder string) (contents, other []string) {
	t.Helper()
	for _, file := range onDisk(t, folder) {
		if strings.Contains(file, "/contents/") {
			contents = append(contents, file)
		} else {
			other = append(other, file)
		}
	}
	return contents, other
}

func TestRestartFetchesNothingAgain(t *testing.T) {
	t.Parallel()
	for _, title := range []string{"S3 with keys", "Google with a service account", "Azure with an account key"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			files := map[string]string{"a": "1", "b/c": "2", ".sourceignore": "*.md\n"}
			w.server.Fill(name, map[string]string{"a": "1", "b/c": "2", ".sourceignore": "*.md\n", "x.md": ""})
			folder := t.TempDir()
			s := openAt(t, folder, bucket.Options{})
			if _, err := s.Last(within(t), w.request); err == nil {
				t.Error("there is something before anything was fetched")
			}
			known := fetch(t, s, w.request, "").Revision
			must(t, s.Close())
			w.server.Requests("get")

			s = openAt(t, folder, bucket.Options{})
			w.server.Around(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "away", http.StatusServiceUnavailable) })
			})
			last, err := s.Last(within(t), w.request)
			must(t, err)
			if last.Revision != known {
				t.Errorf("the last revision is %q, want %q", last.Revision, known)
			}
			sourcetest.CheckTree(t, last.Files, files)
			last.Release()
			w.server.Around(nil)
			result := fetch(t, s, w.request, known)
			if !result.Unchanged || w.server.Requests("get") != 0 {
				t.Error("something is fetched again after a restart")
			}
			w.server.Put(name, "a", "changed")
			fetch(t, s, w.request, known)
			if gets := w.server.Requests("get"); gets != 1 {
				t.Errorf("%d objects for one that changed", gets)
			}
			other := w.request
			other.Ignore = "x"
			if _, err := s.Last(within(t), other); err == nil {
				t.Error("another request is shown what was fetched for this one")
			}
			must(t, s.Close())
		})
	}
}

// TestGivesUpWhatItDoesNotNeed: what a fetch brought before it failed is kept for the next
// one, and not beyond where that finds the bucket as it was before.
func TestGivesUpWhatItDoesNotNeed(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a": "1"})
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{Downloads: 1})
	defer func() { must(t, s.Close()) }()
	known := fetch(t, s, w.request, "").Revision
	before, _ := contentsOf(t, folder)
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/c") {
			http.Error(rw, "no", http.StatusForbidden)
			return true
		}
		return false
	})
	w.server.Put(name, "b", "2")
	w.server.Put(name, "c", "3")
	refuse(t, s, w.request, gitops.Denied)
	if kept, _ := contentsOf(t, folder); len(kept) != 2 {
		t.Fatalf("after a failure there are %q", kept)
	}
	w.server.Delete(name, "b")
	w.server.Delete(name, "c")
	if again := fetch(t, s, w.request, known); !again.Unchanged {
		t.Errorf("got %q", again.Revision)
	}
	left, _ := contentsOf(t, folder)
	if diff := cmp.Diff(before, left); diff != "" {
		t.Errorf("contents (-before +after):\n%s", diff)
	}
}

func TestAKillLeavesWhatOpens(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("d%d/f%d", i%5, i)] = fmt.Sprint("content ", i)
	}
	w.server.Fill(name, files)
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{})
	known := fetch(t, s, w.request, "").Revision
	contents, _ := contentsOf(t, folder)
	must(t, s.Close())
	// What is written by then: half a content, one that no view names yet, half a view,
	// and files of whoever.
	remote := strings.SplitN(contents[0], "/", 2)[0]
	for file, text := range map[string]string{
		"incoming/7":  "half",
		"contents/ab": "in the place of a folder",
		"contents/cd/" + strings.Repeat("cd", 32): "named by no view",
		"contents/cd/nonsense":                    "",
		"view-0123":                               `{"version":1,"objects":[{"k":"a`,
		"view-4567":                               `{"version":1,"revision":"x","objects":[{"k":"../a","s":"` + strings.Repeat("0", 64) + `"}]}`,
		"view-89ab":                               `{"version":2}`,
		"new-thing":                               "x",
	} {
		path := filepath.Join(folder, remote, file)
		if file == "contents/ab" {
			if _, err := os.Stat(path); err == nil {
				continue // a content begins so
			}
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	s = openAt(t, folder, bucket.Options{})
	defer func() { must(t, s.Close()) }()
	w.server.Requests("get")
	result := fetch(t, s, w.request, known)
	if !result.Unchanged || w.server.Requests("get") != 0 {
		t.Error("what was whole is fetched again")
	}
	sourcetest.CheckTree(t, result.Files, files)
	left, other := contentsOf(t, folder)
	if diff := cmp.Diff(contents, left); diff != "" {
		t.Errorf("contents (-before +after):\n%s", diff)
	}
	if len(other) != 2 {
		t.Errorf("other files %q, want the key and one view", other)
	}
}

// TestAKillInTheMiddleOfAFetch ends a fetch between two objects, as far as the disk can
// tell, and opens what is there with another store.
func TestAKillInTheMiddleOfAFetch(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a": "1", "b": "2", "c": "3"})
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{Downloads: 1})
	known := fetch(t, s, w.request, "").Revision
	w.server.Fill(name, map[string]string{"a": "new 1", "b": "new 2", "c": "3"})
	frozen := t.TempDir()
	w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/b") {
			must(t, os.CopyFS(frozen, os.DirFS(folder)))
		}
		return false
	})
	fetch(t, s, w.request, known)
	w.server.Around(nil)
	must(t, s.Close())

	again := openAt(t, frozen, bucket.Options{})
	defer func() { must(t, again.Close()) }()
	last, err := again.Last(within(t), w.request)
	must(t, err)
	if last.Revision != known {
		t.Errorf("the last revision is %q, want %q", last.Revision, known)
	}
	sourcetest.CheckTree(t, last.Files, map[string]string{"a": "1", "b": "2", "c": "3"})
	last.Release()
	sourcetest.CheckTree(t, fetch(t, again, w.request, known).Files, map[string]string{"a": "new 1", "b": "new 2", "c": "3"})
	if contents, _ := contentsOf(t, frozen); len(contents) != 3 {
		t.Errorf("%d contents are left, want 3", len(contents))
	}
}

func TestDamageIsRepairedByFetchingAgain(t *testing.T) {
	t.Parallel()
	each := func(pattern string, change func(path string) error) func(t testing.TB, folder string) {
		return func(t testing.TB, folder string) {
			t.Helper()
			files, err := filepath.Glob(filepath.Join(folder, "*", pattern))
			must(t, err)
			if len(files) == 0 {
				t.Fatalf("no file %q", pattern)
			}
			for _, file := range files {
				must(t, change(file))
			}
		}
	}
	tests := map[string]func(t testing.TB, folder string){
		"contents are cut off": each("contents/*/*", func(path string) error { return os.Truncate(path, 3) }),
		"contents are gone":    each("contents/*/*", os.Remove),
		"bits flip": each("contents/*/*", func(path string) error {
			text, err := os.ReadFile(path)
			text[0] ^= 4
			return errors.Join(err, os.WriteFile(path, text, 0o600))
		}),
		"a content is a link": each("contents/*/*", func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path))
		}),
		"the view is no JSON": each("view-*", func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }),
		"the view is gone":    each("view-*", os.Remove),
		"the key is gone":     func(t testing.TB, folder string) { must(t, os.Remove(filepath.Join(folder, "key"))) },
		"everything is gone":  func(t testing.TB, folder string) { must(t, os.RemoveAll(folder)) },
	}
	for title, hurt := range tests {
		for _, running := range []bool{false, true} {
			if running && (title == "everything is gone" || title == "contents are cut off") {
				continue // of a store that runs the root is open, and lengths are looked at when it opens
			}
			t.Run(fmt.Sprintf("%s, running %v", title, running), func(t *testing.T) {
				t.Parallel()
				w := s3World(t)
				files := map[string]string{}
				for i := range 20 {
					files[fmt.Sprintf("f%d", i)] = fmt.Sprint("content ", i)
				}
				w.server.Fill(name, files)
				folder := filepath.Join(t.TempDir(), "store")
				s := openAt(t, folder, bucket.Options{})
				known := fetch(t, s, w.request, "").Revision
				if !running {
					must(t, s.Close())
				}
				hurt(t, folder)
				if !running {
					s = openAt(t, folder, bucket.Options{})
				}
				defer func() { must(t, s.Close()) }()
				// A flipped bit is found when it is read; then the next fetch repairs.
				for attempt := 0; ; attempt++ {
					result, err := s.Fetch(within(t), w.request, known)
					must(t, err)
					got, err := readAll(result.Files)
					result.Release()
					if err == nil {
						if diff := cmp.Diff(files, got); diff != "" {
							t.Error(diff)
						}
						return
					}
					if strings.Contains(err.Error(), folder) {
						t.Errorf("%q names our own file", err)
					}
					if attempt == 2 {
						t.Fatalf("not repaired: %v", err)
					}
				}
			})
		}
	}
}

// readAll reads all files, in one go and in pieces, and goes on behind an error.
func readAll(tree gitops.Tree) (map[string]string, error) {
	files := map[string]string{}
	var errs []error
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := tree.ReadFile(name)
		if err == nil {
			files[name] = string(text)
			var in fs.File
			if in, err = tree.Open(name); err == nil {
				_, err = io.ReadAll(in)
				_ = in.Close()
			}
		}
		errs = append(errs, err)
		return nil
	})
	return files, errors.Join(append(errs, err)...)
}

func TestRetainRemovesWhatIsNotFollowed(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a/1": "one", "b/2": "two", "c": "three"})
	w.server.Fill("other-bucket", map[string]string{"x": "four"})
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{})
	all, part, other := w.request, w.request, w.request
	part.Prefix, other.Bucket = "a/", "other-bucket"
	kept, gone, elsewhere := fetch(t, s, part, ""), fetch(t, s, all, ""), fetch(t, s, other, "")
	check := func(when string, wantContents, wantOther int) {
		t.Helper()
		s.Settle()
		if contents, others := contentsOf(t, folder); len(contents) != wantContents || len(others) != wantOther {
			t.Errorf("%s: contents %q and files %q, want %d and %d", when, contents, others, wantContents, wantOther)
		}
	}
	check("with three views", 4, 4)
	must(t, s.Retain([]bucket.Request{part}))
	check("while all are read", 4, 4) // with the states of the two that only readers use
	for file, tree := range map[string]gitops.Tree{"a/1": kept.Files, "b/2": gone.Files, "x": elsewhere.Files} {
		if _, err := tree.ReadFile(file); err != nil {
			t.Errorf("a reader of %q: %v", file, err)
		}
	}
	gone.Release()
	gone.Release()
	elsewhere.Release()
	check("when two are released", 1, 2)
	must(t, s.Retain([]bucket.Request{part}))
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 2 {
		t.Errorf("folders %v, %v, want one and the key", entries, err)
	}
	w.server.Requests("get")
	sourcetest.CheckTree(t, fetch(t, s, other, "").Files, map[string]string{"x": "four"})
	fetch(t, s, part, kept.Revision)
	if gets := w.server.Requests("get"); gets != 1 {
		t.Errorf("%d objects, want that of the bucket that was forgotten", gets)
	}
	must(t, s.Close())
	s = openAt(t, folder, bucket.Options{})
	must(t, s.Retain(nil))
	check("with nothing followed after a restart", 0, 1)
	must(t, s.Close())
}

func TestReadersOutliveTheStore(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a": "1"})
	s := openAt(t, t.TempDir(), bucket.Options{})
	result, err := s.Fetch(within(t), w.request, "")
	must(t, err)
	must(t, s.Close())
	sourcetest.CheckTree(t, result.Files, map[string]string{"a": "1"})
	result.Release()
	if _, err := result.Files.ReadFile("a"); err == nil {
		t.Error("a tree is read that was given back to a closed store")
	}
	if _, err := s.Fetch(within(t), w.request, ""); err == nil || !strings.Contains(err.Error(), "the store is closed") {
		t.Error(err)
	}
}

// TestGrowthIsBounded follows a bucket through many changes.
func TestGrowthIsBounded(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprint("f", i)] = strings.Repeat(fmt.Sprint(i), 100)
	}
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{})
	defer func() { must(t, s.Close()) }()
	known := ""
	for round := range 60 {
		for i := range 10 {
			files[fmt.Sprint("f", (round*7+i)%40)] = strings.Repeat(fmt.Sprint(round, i), 100)
		}
		w.server.Fill(name, files)
		if round%5 == 4 {
			ctx, cancel := context.WithCancel(t.Context())
			w.intercept(func(http.ResponseWriter, *http.Request) bool { cancel(); return false })
			if result, err := s.Fetch(ctx, w.request, known); err == nil {
				result.Release()
			}
			w.server.Around(nil)
		}
		result, err := s.Fetch(within(t), w.request, known)
		must(t, err)
		known = result.Revision
		if round%7 == 0 {
			if diff := cmp.Diff(files, sourcetest.Contents(t, result.Files)); diff != "" {
				t.Error(diff)
			}
		}
		result.Release()
		if contents, other := contentsOf(t, folder); len(contents) != 40 || len(other) != 2 {
			t.Fatalf("round %d: %d contents and files %q, want 40 and two", round, len(contents), other)
		}
	}
}

func TestEqualContentsAreKeptOnce(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	files := map[string]string{}
	for i := range 30 {
		files[fmt.Sprint("f", i)] = "the same"
	}
	w.server.Fill(name, files)
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{})
	defer func() { must(t, s.Close()) }()
	first := fetch(t, s, w.request, "")
	if contents, _ := contentsOf(t, folder); len(contents) != 1 {
		t.Errorf("%d contents, want 1", len(contents))
	}
	w.server.Fill(name, map[string]string{"f0": "the same", "f1": "another"})
	second := fetch(t, s, w.request, "")
	first.Release()
	sourcetest.CheckTree(t, second.Files, map[string]string{"f0": "the same", "f1": "another"})
}
