package artifact_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/git"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string, o artifact.Options) *artifact.Store {
	t.Helper()
	s, err := artifact.Open(dir, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func ownerOf(name string) gitops.OwnerRef {
	return gitops.OwnerRef{Kind: "GitRepository", Namespace: "flux-system", Name: name}
}

func get(t testing.TB, s *artifact.Store, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

// listing is what stands in a tarball, by name.
func listing(t testing.TB, r io.Reader) map[string]string {
	t.Helper()
	unzipped, err := gzip.NewReader(r)
	must(t, err)
	found := map[string]string{}
	last := ""
	for in := tar.NewReader(unzipped); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		must(t, err)
		content, err := io.ReadAll(in)
		must(t, err)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 {
			t.Errorf("%s has owner or time: %+v", h.Name, h)
		}
		if h.Name <= last {
			t.Errorf("%q comes after %q", h.Name, last)
		}
		last = h.Name
		found[h.Name] = h.FileInfo().Mode().String() + " " + string(content)
	}
}

func TestTarballHoldsWhatTheTreeShows(t *testing.T) {
	t.Parallel()
	server := testenv.NewGitServer(t, testenv.GitServerOptions{})
	server.Repository(t, "app").Commit(t, "main", testenv.Files{
		"a.yaml": "A", "d/run.sh": testenv.Executable("run"), "d/link": testenv.Symlink("/etc/passwd"), "only/link": testenv.Symlink("x"),
	})
	store, err := git.Open(t.TempDir(), git.Options{})
	must(t, err)
	defer func() { must(t, store.Close()) }()
	result, err := store.Fetch(t.Context(), git.Request{URL: server.URL("app"), Ref: git.Ref{Branch: "main"}})
	must(t, err)
	defer result.Release()

	s := open(t, t.TempDir(), artifact.Options{})
	packed, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app"), Revision: result.Revision}, "x.tar.gz", result.Files)
	must(t, err)
	answer := get(t, s, http.MethodGet, "/gitrepository/flux-system/app/x.tar.gz")
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("status %d", answer.StatusCode)
	}
	sum := sha256.New()
	got := listing(t, io.TeeReader(answer.Body, sum))
	_, err = io.Copy(sum, answer.Body)
	must(t, err)
	want := map[string]string{".": "drwxr-x--- ", "a.yaml": "-rw------- A", "d": "drwxr-x--- ", "d/run.sh": "-rwx------ run"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	walked := map[string]bool{}
	must(t, fs.WalkDir(result.Files, ".", func(name string, _ fs.DirEntry, err error) error {
		walked[name] = true
		return err
	}))
	if len(walked) != len(got) {
		t.Errorf("the tree shows %v, the tarball holds %v", walked, got)
	}
	for name := range walked {
		if _, ok := got[name]; !ok {
			t.Errorf("%q is not in the tarball", name)
		}
	}
	if digest := "sha256:" + hex.EncodeToString(sum.Sum(nil)); digest != packed.Digest || answer.ContentLength != packed.Size {
		t.Errorf("digest %s, size %d; want %s, %d", packed.Digest, packed.Size, digest, answer.ContentLength)
	}
	again, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("other")}, "y.tar.gz", result.Files)
	must(t, err)
	if again.Digest != packed.Digest {
		t.Error("the same files have another digest")
	}
}

func TestServesOnlyWhatIsAdvertised(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600))
	s := open(t, dir, artifact.Options{})
	_, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x.tar.gz", sourcetest.Memory(map[string]string{"a": "1"}))
	must(t, err)
	tests := map[string]struct {
		method, path string
		want         int
	}{
		"the artifact":             {"GET", "/gitrepository/flux-system/app/x.tar.gz", 200},
		"its head":                 {"HEAD", "/gitrepository/flux-system/app/x.tar.gz", 200},
		"the root":                 {"GET", "/", 200},
		"a directory":              {"GET", "/gitrepository/flux-system/app/", 404},
		"a directory without end":  {"GET", "/gitrepository", 404},
		"another file of the disk": {"GET", "/secret", 404},
		"a way around":             {"GET", "/gitrepository/flux-system/app/../../../secret", 404},
		"a file that is missing":   {"GET", "/gitrepository/flux-system/app/y.tar.gz", 404},
		"writing":                  {"PUT", "/gitrepository/flux-system/app/x.tar.gz", 405},
		"deleting":                 {"DELETE", "/gitrepository/flux-system/app/x.tar.gz", 405},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := get(t, s, test.method, test.path).StatusCode; got != test.want {
				t.Errorf("status %d, want %d", got, test.want)
			}
		})
	}
}

func TestKeepsTheOnesBeforeForAWhile(t *testing.T) {
	t.Parallel()
	// Five artifacts come a second after each other: which files are there then, and each
	// after a collection at the instant that the one before has named.
	for name, test := range map[string]struct {
		records int
		ttl     time.Duration
		want    []string
		after   []time.Duration
	}{
		"two for a minute":                             {2, time.Minute, []string{"4 5", "5"}, []time.Duration{time.Minute}},
		"many for two seconds":                         {10, 2 * time.Second, []string{"3 4 5", "4 5", "5"}, []time.Duration{time.Second, 5 * time.Second}},
		"many for a minute":                            {10, time.Minute, []string{"1 2 3 4 5", "2 3 4 5"}, []time.Duration{57 * time.Second}},
		"many for no time: until the newest is told":   {10, 0, []string{"4 5", "5"}, []time.Duration{5 * time.Second}},
		"only one: until the newest is told":           {1, time.Minute, []string{"4 5", "5"}, []time.Duration{5 * time.Second}},
		"none, which is the newest":                    {0, time.Minute, []string{"4 5", "5"}, []time.Duration{5 * time.Second}},
		"two for no time, the first at once":           {2, 0, []string{"4 5", "5"}, []time.Duration{5 * time.Second}},
		"three for four seconds, the second for grace": {3, 4 * time.Second, []string{"3 4 5", "4 5", "5"}, []time.Duration{3 * time.Second, 5 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Unix(1000, 0)
			dir := t.TempDir()
			s := open(t, dir, artifact.Options{Records: test.records, TTL: test.ttl, Now: func() time.Time { return now }})
			expect := func(want string) {
				t.Helper()
				names, err := filepath.Glob(filepath.Join(dir, "gitrepository/flux-system/app/*"))
				must(t, err)
				for i := range names {
					names[i] = filepath.Base(names[i])
				}
				if got := strings.Join(names, " "); got != want {
					t.Errorf("after %s there are %q, want %q", now.Sub(time.Unix(1004, 0)), got, want)
				}
			}
			pack := func(file string) {
				_, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, file, sourcetest.Memory(map[string]string{"a": file}))
				must(t, err)
			}
			for i, file := range []string{"1", "2", "3", "4", "5"} {
				now = time.Unix(1000+int64(i), 0)
				pack(file)
			}
			last := now
			expect(test.want[0])
			for i, after := range test.after {
				next, err := s.Collect()
				must(t, err)
				if want := last.Add(after); !next.Equal(want) {
					t.Errorf("the next collection is after %s, want %s", next.Sub(last), after)
				}
				now = next.Add(-time.Nanosecond)
				_, err = s.Collect()
				must(t, err)
				expect(test.want[i])
				now = next
				_, err = s.Collect()
				must(t, err)
				expect(test.want[i+1])
			}
			now = last.Add(time.Hour)
			_, err := s.Collect()
			must(t, err)
			expect("5")
			pack("5")
			expect("5")
			must(t, s.Remove(ownerOf("app")))
			expect("")
			if got := get(t, s, "GET", "/gitrepository/flux-system/app/5").StatusCode; got != 404 {
				t.Errorf("status %d after removal", got)
			}
		})
	}
}

// TestKeepsWhatIsAdvertised: however many newer ones there are, and for how long.
func TestKeepsWhatIsAdvertised(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	dir := t.TempDir()
	s := open(t, dir, artifact.Options{Records: 2, TTL: time.Minute, Now: func() time.Time { return now }})
	expect := func(when, want string) {
		t.Helper()
		_, err := s.Collect()
		must(t, err)
		names, err := filepath.Glob(filepath.Join(dir, "gitrepository/flux-system/app/*"))
		must(t, err)
		for i := range names {
			names[i] = filepath.Base(names[i])
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s there are %q, want %q", when, got, want)
		}
	}
	pack := func(file string) {
		now = now.Add(time.Second)
		_, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, file, sourcetest.Memory(map[string]string{"a": file}))
		must(t, err)
	}
	keep := func(file string) {
		t.Helper()
		must(t, s.Keep(ownerOf("app"), file))
	}
	pack("1")
	keep("1")
	pack("2")
	pack("3")
	pack("4")
	expect("when none of the newer ones is told", "1 3 4")
	now = now.Add(time.Hour)
	expect("an hour later", "1 4")
	if got := get(t, s, "GET", "/gitrepository/flux-system/app/1").StatusCode; got != 200 {
		t.Errorf("what is advertised is answered with %d", got)
	}
	keep("4")
	expect("when the newest is told", "1 4")
	keep("4")
	now = now.Add(time.Minute)
	expect("a minute later", "4")
	pack("5")
	pack("6")
	keep("5")
	now = now.Add(time.Hour)
	expect("when one is told late", "5 6")
	pack("5")
	now = now.Add(time.Hour)
	expect("when that is stored again", "5")
	keep("missing")
	pack("7")
	now = now.Add(time.Hour)
	expect("when what is advertised is not there", "7")
	if err := s.Keep(ownerOf("app"), "a/b"); err == nil {
		t.Error("what is no name is kept")
	}
	must(t, s.Keep(ownerOf("other"), "x"))
}

// failing is a tree of which one file cannot be read.
type failing struct{ gitops.Tree }

func (f failing) Open(name string) (fs.File, error) {
	if name == "b" {
		return nil, errors.New("cannot be read")
	}
	return f.Tree.Open(name)
}

func TestAFailureLeavesTheOldOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, artifact.Options{})
	files := sourcetest.Memory(map[string]string{"a": "1", "b": "2"})
	old, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "old", files)
	must(t, err)
	if _, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "new", failing{files}); err == nil {
		t.Fatal("no error")
	}
	names, err := filepath.Glob(filepath.Join(dir, "*/*/*/*"))
	must(t, err)
	hidden, err := filepath.Glob(filepath.Join(dir, "*/*/*/.*"))
	must(t, err)
	if names = append(names, hidden...); len(slices.Compact(names)) != 1 {
		t.Errorf("files %q, want the old one only", names)
	}
	if got := get(t, s, "GET", "/gitrepository/flux-system/app/old"); got.ContentLength != old.Size {
		t.Errorf("the old one has %d bytes, want %d", got.ContentLength, old.Size)
	}
}

// TestUnfinishedFilesAreNew: what stands already where a file is going to be written is not
// written into, nor is what it leads to.
func TestUnfinishedFilesAreNew(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(at string) error{
		"a link to another artifact": func(at string) error { return os.Symlink("../other/old", at) },
		"a hard link to it":          func(at string) error { return os.Link(filepath.Join(filepath.Dir(at), "../other/old"), at) },
		"a folder":                   func(at string) error { return os.MkdirAll(filepath.Join(at, "x"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, artifact.Options{})
			pack := func(owner, file, content string) gitops.Artifact {
				stored, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf(owner)}, file, sourcetest.Memory(map[string]string{"a": content}))
				must(t, err)
				return stored
			}
			pack("app", "1", "1")
			pack("other", "old", "theirs")
			must(t, put(filepath.Join(dir, "gitrepository/flux-system/app/.unfinished-2")))
			pack("app", "2", "ours")
			for at, want := range map[string]string{"other/old": "theirs", "app/2": "ours"} {
				response := get(t, s, "GET", "/gitrepository/flux-system/"+at)
				if response.StatusCode != http.StatusOK {
					t.Fatalf("%s: %s", at, response.Status)
				}
				if got := listing(t, response.Body)["a"]; !strings.HasSuffix(got, " "+want) {
					t.Errorf("%s has %q, want %q", at, got, want)
				}
			}
		})
	}
}

// slow is a tree that says when it is read, and goes on when it is told to.
type slow struct {
	gitops.Tree
	reading, goOn chan struct{}
}

func (s slow) Open(name string) (fs.File, error) {
	s.reading <- struct{}{}
	<-s.goOn
	return s.Tree.Open(name)
}

func TestANewerPackEndsAnOlderOne(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), artifact.Options{})
	files := sourcetest.Memory(map[string]string{"a": "1", "b": "2"})
	waits := slow{files, make(chan struct{}), make(chan struct{})}
	first := make(chan error)
	go func() {
		_, err := s.Pack(context.Background(), gitops.Artifact{Source: ownerOf("app")}, "1", waits)
		first <- err
	}()
	<-waits.reading
	second := make(chan error)
	go func() {
		_, err := s.Pack(context.Background(), gitops.Artifact{Source: ownerOf("app")}, "2", files)
		second <- err
	}()
	// The first one may read on until it notices.
	go func() {
		for range waits.reading {
		}
	}()
	close(waits.goOn)
	err := <-first
	close(waits.reading)
	must(t, <-second)
	if err != nil && !errors.Is(err, artifact.ErrSuperseded) {
		t.Errorf("error %v, want %v", err, artifact.ErrSuperseded)
	}
	if got := get(t, s, "GET", "/gitrepository/flux-system/app/2").StatusCode; got != 200 {
		t.Errorf("status %d of the newer one", got)
	}
}

func TestARestartAdoptsWhatIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := artifact.Open(dir, artifact.Options{})
	must(t, err)
	packed, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x", sourcetest.Memory(map[string]string{"a": "1"}))
	must(t, err)
	must(t, s.Close())
	file := filepath.Join(dir, "gitrepository/flux-system/app/x")
	must(t, os.WriteFile(filepath.Join(filepath.Dir(file), ".unfinished-y"), []byte("half"), 0o600))

	s = open(t, dir, artifact.Options{})
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); err != nil || len(left) > 0 {
		t.Errorf("unfinished files %q, %v", left, err)
	}
	before, err := os.Stat(file)
	must(t, err)
	if ok, err := s.Adopt(packed, "x"); !ok || err != nil {
		t.Fatalf("adopted %v, %v", ok, err)
	}
	after, err := os.Stat(file)
	must(t, err)
	if !before.ModTime().Equal(after.ModTime()) {
		t.Error("the file was written")
	}
	if got := get(t, s, "GET", "/gitrepository/flux-system/app/x").StatusCode; got != 200 {
		t.Errorf("status %d", got)
	}
	data, err := os.ReadFile(file)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(file, data, 0o600))
	var damaged *artifact.Damaged
	if ok, err := s.Adopt(packed, "x"); ok || !errors.As(err, &damaged) {
		t.Errorf("a changed file: adopted %v, %v", ok, err)
	}
	if ok, err := s.Adopt(packed, "missing"); ok || err != nil {
		t.Errorf("a missing file: adopted %v, %v", ok, err)
	}
}

func TestPathRefusesWhatIsNoName(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"", ".", "..", "a/b", `a\b`} {
		if path, err := artifact.Path(ownerOf("app"), file); err == nil {
			t.Errorf("file %q: path %q", file, path)
		}
	}
	if path, err := artifact.Path(ownerOf(".."), "x"); err == nil {
		t.Errorf("name ..: path %q", path)
	}
}

func TestRetainRemovesOtherSources(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, artifact.Options{})
	for _, name := range []string{"one", "two"} {
		_, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf(name)}, "x", sourcetest.Memory(map[string]string{"a": "1"}))
		must(t, err)
	}
	must(t, s.Retain("GitRepository", []gitops.OwnerRef{ownerOf("one")}))
	for name, want := range map[string]int{"one": 200, "two": 404} {
		if got := get(t, s, "GET", "/gitrepository/flux-system/"+name+"/x").StatusCode; got != want {
			t.Errorf("%s: status %d, want %d", name, got, want)
		}
	}
}

func TestPutStoresAFileAsItIs(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), artifact.Options{FileBytes: 10})
	of := gitops.Artifact{Source: gitops.OwnerRef{Kind: "HelmRepository", Namespace: "apps", Name: "charts"}, Revision: "sha256:1"}
	put := func(text string) (gitops.Artifact, error) {
		return s.Put(t.Context(), of, "index-1.yaml", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil })
	}
	stored, err := put("entries: x")
	must(t, err)
	sum := sha256.Sum256([]byte("entries: x"))
	if stored.Digest != "sha256:"+hex.EncodeToString(sum[:]) || stored.Size != 10 {
		t.Errorf("stored %+v", stored)
	}
	served := get(t, s, http.MethodGet, "/helmrepository/apps/charts/index-1.yaml")
	text, err := io.ReadAll(served.Body)
	must(t, err)
	if string(text) != "entries: x" || served.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("served %q as %q", text, served.Header.Get("Content-Type"))
	}
	if lasting := get(t, s, http.MethodHead, "/helmrepository/apps/charts/"+artifact.LatestIndex); lasting.Header.Get("Etag") != `"`+stored.Digest+`"` {
		t.Errorf("the lasting name is answered with %s, %q", lasting.Status, lasting.Header.Get("Etag"))
	}
	if other := get(t, s, http.MethodHead, "/helmrepository/apps/charts/"+artifact.LatestArchive); other.StatusCode != http.StatusNotFound {
		t.Errorf("the lasting name of another kind of file is answered with %s", other.Status)
	}
	if _, err := put("entries: xx"); gitops.KindOf(err) != gitops.Invalid {
		t.Errorf("a file over the limit: %v", err)
	}
	if again := get(t, s, http.MethodGet, "/helmrepository/apps/charts/index-1.yaml"); again.StatusCode != http.StatusOK {
		t.Errorf("after it the old one is answered with %s", again.Status)
	}
}

// TestAStoredArtifactIsStoredAgainAsItWas: one that has a digest is stored with that digest, or
// not at all.
func TestAStoredArtifactIsStoredAgainAsItWas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before, err := open(t, dir, artifact.Options{}).Pack(t.Context(), gitops.Artifact{Source: ownerOf("app")}, "x", sourcetest.Memory(map[string]string{"a": "1"}))
	must(t, err)
	must(t, os.RemoveAll(filepath.Join(dir, "gitrepository")))
	// Another algorithm for new artifacts changes nothing.
	s := open(t, dir, artifact.Options{Digest: artifact.SHA512})
	const path = "/gitrepository/flux-system/app/x"
	if _, err := s.Pack(t.Context(), before, "x", sourcetest.Memory(map[string]string{"a": "2"})); err == nil || !strings.Contains(err.Error(), "and not "+before.Digest) {
		t.Errorf("other files are stored as the artifact: %v", err)
	}
	if status := get(t, s, http.MethodGet, path).StatusCode; status != http.StatusNotFound {
		t.Errorf("other files are served: %d", status)
	}
	again, err := s.Pack(t.Context(), before, "x", sourcetest.Memory(map[string]string{"a": "1"}))
	must(t, err)
	if diff := cmp.Diff(before, again); diff != "" {
		t.Error(diff)
	}
	if status := get(t, s, http.MethodGet, path).StatusCode; status != http.StatusOK {
		t.Errorf("the same files are not served: %d", status)
	}
	if _, err := s.Pack(t.Context(), gitops.Artifact{Source: ownerOf("app"), Digest: "md5:1"}, "x", sourcetest.Memory(nil)); err == nil {
		t.Error("a digest that nobody knows is taken")
	}
}
