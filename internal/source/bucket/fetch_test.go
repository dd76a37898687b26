package bucket_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// TestRevisionIsThatOfFlux compares with the sum over lines of key and entity tag, in
// the form in which Flux's clients have the latter.
func TestRevisionIsThatOfFlux(t *testing.T) {
	t.Parallel()
	for title, quote := range map[string]string{"S3 with keys": "", "Google with a service account": "", "Azure with an account key": `"`} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			w.server.Fill(name, map[string]string{"b": "2", "a/z": "1", "a-b": "3", "folder/": "", ".sourceignore": "*.md\n", "x.md": "no"})
			result := fetch(t, openStore(t, bucket.Options{}), w.request, "")
			lines := ""
			for _, key := range []string{"a-b", "a/z", "b"} {
				lines += key + " " + quote + w.server.ETag(name, key) + quote + "\n"
			}
			if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(lines))); result.Revision != want {
				t.Errorf("revision %q, want %q, the sum of\n%s", result.Revision, want, lines)
			}
			// Flux's artifact has the file with patterns, too.
			sourcetest.CheckTree(t, result.Files, map[string]string{"b": "2", "a/z": "1", "a-b": "3", ".sourceignore": "*.md\n"})
		})
	}
	t.Run("of known objects", func(t *testing.T) {
		t.Parallel()
		w := s3World(t)
		w.server.Fill(name, map[string]string{"foo": "hello", "bar/baz": ""})
		result := fetch(t, openStore(t, bucket.Options{}), w.request, "")
		// printf 'bar/baz d41d8cd98f00b204e9800998ecf8427e\nfoo 5d41402abc4b2a76b9719d911017c592\n' | sha256sum
		if want := "sha256:803f6186c8e836b49fd52826c0c79c4eb994ee9853acc5b0c8feb47a88539074"; result.Revision != want {
			t.Errorf("revision %q, want %q", result.Revision, want)
		}
	})
	t.Run("of an empty bucket", func(t *testing.T) {
		t.Parallel()
		w := s3World(t)
		w.server.Fill(name, nil)
		result := fetch(t, openStore(t, bucket.Options{}), w.request, "")
		if want := "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; result.Revision != want {
			t.Errorf("revision %q, want %q", result.Revision, want)
		}
		sourcetest.CheckTree(t, result.Files, map[string]string{})
	})
}

func TestOneChangedObjectOfManyIsFetchedAlone(t *testing.T) {
	t.Parallel()
	for _, title := range []string{"S3 with keys", "Google with a service account", "Azure with an account key"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			files := map[string]string{}
			for i := range 1500 {
				files[fmt.Sprintf("d%d/f%d", i%40, i)] = fmt.Sprint("content ", i)
			}
			w.server.Fill(name, files)
			s := openStore(t, bucket.Options{})
			first := fetch(t, s, w.request, "")
			if got := w.server.Requests("get"); got != len(files) {
				t.Errorf("%d objects fetched at first, want %d", got, len(files))
			}
			w.server.Requests("list")
			if same := fetch(t, s, w.request, first.Revision); !same.Unchanged {
				t.Error("an unchanged bucket is not said to be unchanged")
			}
			if lists, gets := w.server.Requests("list"), w.server.Requests("get"); lists != 2 || gets != 0 {
				t.Errorf("an unchanged bucket costs %d pages and %d objects, want 2 and 0", lists, gets)
			}
			w.server.Put(name, "d7/f7", "changed")
			second := fetch(t, s, w.request, first.Revision)
			if lists, gets := w.server.Requests("list"), w.server.Requests("get"); lists != 2 || gets != 1 {
				t.Errorf("a changed object costs %d pages and %d objects, want 2 and 1", lists, gets)
			}
			for want, result := range map[string]source.Result{"content 7": first, "changed": second} {
				if text, err := result.Files.ReadFile("d7/f7"); err != nil || string(text) != want {
					t.Errorf("%q, %v; want %q", text, err, want)
				}
			}
			for path, want := range map[string]bool{"d8": true, "d7/f47": true, "d7/f7": false, "d7": false, ".": false} {
				before, err := first.Files.Sum(path)
				must(t, err)
				if after, err := second.Files.Sum(path); err != nil || (after == before) != want {
					t.Errorf("sum of %q: %q, then %q, %v; the same: want %v", path, before, after, err, want)
				}
			}
			w.server.Delete(name, "d7/f7")
			third := fetch(t, s, w.request, second.Revision)
			if gets := w.server.Requests("get"); gets != 0 || third.Unchanged {
				t.Errorf("a deleted object costs %d objects, unchanged %v", gets, third.Unchanged)
			}
			if _, err := third.Files.Stat("d7/f7"); err == nil {
				t.Error("a deleted object is still there")
			}
		})
	}
}

func TestPrefixAndPatterns(t *testing.T) {
	t.Parallel()
	objects := map[string]string{"app/a": "1", "app/b.md": "2", "app/c/d.md": "3", "other/e": "4", "app.txt": "5", "app/.sourceignore": "!*"}
	with := func(text string) map[string]string {
		all := map[string]string{source.IgnoreFile: text}
		for key, content := range objects {
			all[key] = content
		}
		return all
	}
	tests := map[string]struct {
		objects        map[string]string
		prefix, ignore string
		want           []string // besides .sourceignore
		lists          int
	}{
		"everything":                               {objects, "", "", []string{"app/a", "app/b.md", "app/c/d.md", "other/e", "app.txt", "app/.sourceignore"}, 1},
		"a prefix is a beginning of keys":          {objects, "app", "", []string{"app/a", "app/b.md", "app/c/d.md", "app.txt", "app/.sourceignore"}, 2},
		"or a folder":                              {objects, "app/", "", []string{"app/a", "app/b.md", "app/c/d.md", "app/.sourceignore"}, 2},
		"the file at the root excludes":            {with("*.md\n"), "", "", []string{"app/a", "other/e", "app.txt", "app/.sourceignore"}, 1},
		"also where it is not below the prefix":    {with("*.md\n"), "app/", "", []string{"app/a", "app/.sourceignore"}, 2},
		"the request excludes more":                {with("*.md\n"), "", "/other/", []string{"app/a", "app.txt", "app/.sourceignore"}, 1},
		"the request brings back":                  {with("*.md\n"), "", "!d.md", []string{"app/a", "app/c/d.md", "other/e", "app.txt", "app/.sourceignore"}, 1},
		"the request alone":                        {objects, "", "*\n!/app/a", []string{"app/a"}, 1},
		"a prefix that the file at the root is in": {with("*.md\n"), ".source", "", nil, 1},
		"a prefix of nothing":                      {objects, "none/", "", nil, 2},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := s3World(t)
			w.server.Fill(name, tt.objects)
			w.request.Prefix, w.request.Ignore = tt.prefix, tt.ignore
			s := openStore(t, bucket.Options{})
			result := fetch(t, s, w.request, "")
			want := map[string]string{}
			for _, key := range tt.want {
				want[key] = tt.objects[key]
			}
			if text, ok := tt.objects[source.IgnoreFile]; ok {
				want[source.IgnoreFile] = text
			}
			sourcetest.CheckTree(t, result.Files, want)
			if lists, gets := w.server.Requests("list"), w.server.Requests("get"); lists != tt.lists || gets != len(want) {
				t.Errorf("%d pages and %d objects, want %d and %d", lists, gets, tt.lists, len(want))
			}
			fetch(t, s, w.request, result.Revision)
			if gets := w.server.Requests("get"); gets != 0 {
				t.Errorf("%d objects of an unchanged bucket", gets)
			}
		})
	}
}

func TestPatternsThatChangeFetchNothingAgain(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a": "1", "b.md": "2", "c": "3"})
	s := openStore(t, bucket.Options{})
	first := fetch(t, s, w.request, "")
	w.server.Requests("get")
	w.request.Ignore = "*.md"
	second := fetch(t, s, w.request, first.Revision)
	if gets := w.server.Requests("get"); gets != 0 || second.Unchanged {
		t.Errorf("%d objects, unchanged %v", gets, second.Unchanged)
	}
	w.server.Put(name, source.IgnoreFile, "/c\n")
	third := fetch(t, s, w.request, second.Revision)
	if gets := w.server.Requests("get"); gets != 1 {
		t.Errorf("%d objects, want the new file with patterns alone", gets)
	}
	sourcetest.CheckTree(t, third.Files, map[string]string{"a": "1", source.IgnoreFile: "/c\n"})
}

// intercept runs a function before the answer to each request for an object.
func (w world) intercept(before func(http.ResponseWriter, *http.Request) bool) {
	w.server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			listing := r.URL.Query().Has("list-type") || r.URL.Query().Has("comp") || strings.HasSuffix(r.URL.Path, "/o") || r.URL.Query().Has("location")
			if listing || !before(rw, r) {
				next.ServeHTTP(rw, r)
			}
		})
	})
}

func TestWhatAFailedFetchBroughtIsKept(t *testing.T) {
	t.Parallel()
	for title, restart := range map[string]bool{"by the same process": false, "by the next one": true} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			testFailedFetch(t, restart)
		})
	}
}

func testFailedFetch(t *testing.T, restart bool) {
	t.Helper()
	w := s3World(t)
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("f%02d", i)] = fmt.Sprint(i)
	}
	w.server.Fill(name, files)
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{})
	defer func() { must(t, s.Close()) }()
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/f60") {
			http.Error(rw, "no", http.StatusForbidden)
			return true
		}
		return false
	})
	err := refuse(t, s, w.request, gitops.Denied)
	if !strings.Contains(err.Error(), `object "f60": the server answers 403 AccessDenied`) {
		t.Error(err)
	}
	brought := w.server.Requests("get")
	w.server.Around(nil)
	if restart {
		must(t, s.Close())
		s = openAt(t, folder, bucket.Options{})
	}
	result := fetch(t, s, w.request, "")
	defer result.Release()
	sourcetest.CheckTree(t, result.Files, files)
	if contents, other := contentsOf(t, folder); len(contents) != len(files) || len(other) != 2 {
		t.Errorf("%d contents of %d and files %q, want the key and one view", len(contents), len(files), other)
	}
	if rest := w.server.Requests("get"); brought < 60 || rest != len(files)-brought {
		t.Errorf("%d objects before the failure, %d after it, of %d", brought, rest, len(files))
	}
}

// TestOfSeveralFailuresTheFirstIsNamed fetches with many objects under way, of which
// several fail.
func TestOfSeveralFailuresTheFirstIsNamed(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	for i := range 60 {
		w.server.Put(name, fmt.Sprintf("f%02d", i), fmt.Sprint(i))
	}
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path[len(r.URL.Path)-3:] < "f20" {
			return false
		}
		http.Error(rw, "no", http.StatusForbidden)
		return true
	})
	for range 10 {
		err := refuse(t, openStore(t, bucket.Options{}), w.request, gitops.Denied)
		if !strings.Contains(err.Error(), `object "f20": `) {
			t.Error(err)
		}
	}
}

// TestManyShareOneListing has others wait for a listing under way, and after it for one
// that began when they had come.
func TestManyShareOneListing(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.request.Region = "us-east-1"
	w.server.Fill(name, map[string]string{"a": "1"})
	s := openStore(t, bucket.Options{})
	const many = 32
	listing, others := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			once.Do(func() { close(listing); <-others })
			next.ServeHTTP(rw, r)
		})
	})
	var wait, come sync.WaitGroup
	get := func() {
		result, err := s.Fetch(within(t), w.request, "")
		if err != nil {
			t.Error(err)
			return
		}
		result.Release()
	}
	wait.Go(get)
	<-listing
	for range many {
		come.Add(1)
		wait.Go(func() { come.Done(); get() })
	}
	come.Wait()
	close(others)
	wait.Wait()
	if lists := w.server.Requests("list"); lists < 2 || lists > many/2 {
		t.Errorf("%d listings for one and %d others", lists, many)
	}
}

// TestTreesAreReadWhileTheBucketChanges reads a tree all the time while others are
// fetched and given back.
func TestTreesAreReadWhileTheBucketChanges(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	s := openStore(t, bucket.Options{})
	for round := range 20 {
		want := map[string]string{"same": "same"}
		for i := range 10 {
			want[fmt.Sprintf("d/f%d", i)] = fmt.Sprint(round / (i + 1))
		}
		w.server.Fill(name, want)
		result, err := s.Fetch(within(t), w.request, "")
		must(t, err)
		t.Run("reader", func(t *testing.T) {
			t.Parallel()
			defer result.Release()
			if diff := cmp.Diff(want, sourcetest.Contents(t, result.Files)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilesAreFoundByName(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"z": "", "b/z": "", "b/a/z": "", "a/z/y": "", "c": ""})
	files := fetch(t, openStore(t, bucket.Options{}), w.request, "").Files
	got, err := files.(source.FileFinder).FindFiles("z")
	must(t, err)
	if diff := cmp.Diff([]string{"z", "b/z", "b/a/z"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := files.(fs.ReadFileFS).ReadFile("a/z"); err == nil {
		t.Error("a directory is read as a file")
	}
}
