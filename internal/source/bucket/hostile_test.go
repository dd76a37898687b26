package bucket_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// onDisk lists all files below a folder.
func onDisk(t testing.TB, folder string) []string {
	t.Helper()
	var files []string
	must(t, filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			name, err = filepath.Rel(folder, name)
			files = append(files, name)
		}
		return err
	}))
	return files
}

func TestHostileKeysAreRefusedByName(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		key  string
		want string
	}{
		"a parent":                      {"../sibling.yaml", `the key "../sibling.yaml" is no path below the root of the bucket`},
		"a parent in the middle":        {"a/../../b", "is no path below the root"},
		"a parent that comes back":      {"a/../b", "is no path below the root"},
		"a parent alone":                {"..", "is no path below the root"},
		"the root":                      {".", "is no path below the root"},
		"an absolute path":              {"/abs", "is no path below the root"},
		"two slashes":                   {"a//b", "is no path below the root"},
		"an element that is none":       {"a/./b", "is no path below the root"},
		"a slash before nothing":        {"//a", "is no path below the root"},
		"a backslash":                   {`..\sibling`, "holds a backslash"},
		"a drive":                       {`C:\x`, "holds a backslash"},
		"a zero byte":                   {"a\x00b", "holds a control character"},
		"a line that forges a revision": {"a 1\nb", "holds a control character"},
		"a terminal's escape":           {"a\x1b[2J", "holds a control character"},
		"no UTF-8":                      {"a\xff", "is not in UTF-8"},
		"a name of 10 KB":               {strings.Repeat("n", 10_000), "has more than 1024 bytes"},
		"an element of 256 bytes":       {"d/" + strings.Repeat("n", 256), "holds a name of more than 255 bytes"},
		"many directories":              {strings.Repeat("d/", 200) + "f", "is nested deeper than 100 directories"},
		"a file that is a directory":    {"good/below", `the key "good" is a file and, for "good/below", a directory`},
	}
	for _, title := range []string{"S3 with keys", "Google with a service account", "Azure with an account key"} {
		for hostile, tt := range tests {
			if title != "S3 with keys" && (strings.Contains(tt.key, "\xff") || title[0] == 'A' && strings.ContainsAny(tt.key, "\x00\x1b\n")) {
				continue // neither JSON nor XML can say such a key
			}
			t.Run(title+", "+hostile, func(t *testing.T) {
				t.Parallel()
				w := worlds()[title](t)
				w.server.Fill(name, map[string]string{"good": "1", tt.key: "evil"})
				above := t.TempDir()
				s := openAt(t, filepath.Join(above, "store"), bucket.Options{})
				defer func() { must(t, s.Close()) }()
				err := refuse(t, s, w.request, gitops.Invalid)
				if !strings.Contains(err.Error(), tt.want) || err.Reason != bucket.ReasonFailed || len(err.Error()) > 800 {
					t.Errorf("%q of %q, want %q", err, err.Reason, tt.want)
				}
				if gets := w.server.Requests("get"); gets != 0 {
					t.Errorf("%d objects were fetched", gets)
				}
				for _, file := range onDisk(t, above) {
					if !strings.HasPrefix(file, "store/") || strings.Contains(file, "sibling") {
						t.Errorf("file %q", file)
					}
				}
				// What is refused can be excluded; all else is fetched then.
				if tt.key != "good/below" {
					w.request.Ignore = "*\n!/good"
					sourcetest.CheckTree(t, fetch(t, s, w.request, "").Files, map[string]string{"good": "1"})
				}
			})
		}
	}
}

func TestKeysThatLookStrangeAreFiles(t *testing.T) {
	t.Parallel()
	for _, title := range []string{"S3 with keys", "Google with a service account", "Azure with an account key"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			files := map[string]string{
				"case": "1", "Case": "2", "CASE/x": "3", "sp ace+plus%2F&x=1?y#z": "4", "ünï/日本": "5", "...": "6", ".git/config": "7",
				"picture.jpg": "8", "a/b/c/d/e/f": "9", "~": "10", "-rf": "11", "*": "12", strings.Repeat("n", 255): "13",
			}
			objects := map[string]string{"folder/": "", "a/b/": "x", "marker": "", "marker/x": "14"}
			for key, content := range files {
				objects[key] = content
			}
			files["marker/x"] = "14"
			w.server.Fill(name, objects)
			sourcetest.CheckTree(t, fetch(t, openStore(t, bucket.Options{}), w.request, "").Files, files)
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		options bucket.Options
		objects map[string]string
		want    string
	}{
		"objects":            {bucket.Options{Objects: 2}, map[string]string{"a": "", "b": "", "c": ""}, "more than 2 objects that are not ignored"},
		"listed":             {bucket.Options{Listed: 2}, map[string]string{"a": "", "b": "", "c": ""}, "more than 2 objects, which is the most that is listed"},
		"pages":              {bucket.Options{Pages: 1}, map[string]string{"a": "", "b": "", "c": "", "d": "", "e": "", "f": "", "g": "", "h": "", "i": "", "j": "", "k": "", "l": ""}, "more pages than are read"},
		"bytes of an object": {bucket.Options{ObjectBytes: 2}, map[string]string{"a": "12", "b": "123"}, `the object "b" has 3 bytes, at most 2`},
		"bytes together":     {bucket.Options{TotalBytes: 4}, map[string]string{"a": "12", "b": "123"}, "more than 4 bytes together"},
		"patterns":           {bucket.Options{}, map[string]string{".sourceignore": strings.Repeat("a\n", 10_001)}, "more than 10000 ignore patterns"},
		"bytes of patterns":  {bucket.Options{}, map[string]string{".sourceignore": strings.Repeat("#", 1<<20+1)}, `the file ".sourceignore" has 1048577 bytes`},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := pagedWorld(t)
			w.request.Region = "eu-west-1"
			w.server.Fill(name, tt.objects)
			s := openStore(t, tt.options)
			if err := refuse(t, s, w.request, gitops.Invalid); !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q, want %q", err, tt.want)
			}
			if gets := w.server.Requests("get"); gets > 1 {
				t.Errorf("%d objects were fetched", gets)
			}
		})
	}
	t.Run("a file that is too large to be read at once", func(t *testing.T) {
		t.Parallel()
		w := s3World(t)
		w.server.Fill(name, map[string]string{"a": "12345"})
		files := fetch(t, openStore(t, bucket.Options{FileBytes: 4}), w.request, "").Files
		if _, err := files.ReadFile("a"); err == nil || !strings.Contains(err.Error(), "has 5 bytes, at most 4 are read at once") {
			t.Error(err)
		}
		in, err := files.Open("a")
		must(t, err)
		if text, err := io.ReadAll(in); err != nil || string(text) != "12345" {
			t.Errorf("%q, %v", text, err)
		}
		must(t, in.Close())
	})
}

// TestListingsWithoutAnEnd are answered forever by servers that have nothing to say.
func TestListingsWithoutAnEnd(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		title, page string
		want        string
	}{
		"empty pages of S3": {
			"S3 with keys", `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>`,
			"more pages than are read",
		},
		"empty pages of Google": {"Google with a service account", `{"kind":"storage#objects","nextPageToken":"x"}`, "more pages than are read"},
		"empty pages of Azure":  {"Azure with an account key", `<EnumerationResults><Blobs></Blobs><NextMarker>x</NextMarker></EnumerationResults>`, "more pages than are read"},
		"a huge page of S3":     {"S3 with keys", "", "has more than 16777216 bytes"},
		"a huge page of Google": {"Google with a service account", "", "has more than 16777216 bytes"},
		"a huge page of Azure":  {"Azure with an account key", "", "has more than 16777216 bytes"},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[tt.title](t)
			w.request.Region = "us-east-1"
			w.server.Fill(name, nil)
			w.server.Around(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if tt.page != "" {
						rw.Header().Set("Content-Type", "application/xml")
						_, _ = io.WriteString(rw, tt.page)
						return
					}
					_, _ = io.WriteString(rw, map[byte]string{'S': "<ListBucketResult>", 'A': "<EnumerationResults>"}[tt.title[0]])
					blank := []byte(strings.Repeat(" ", 1<<16))
					for r.Context().Err() == nil {
						if _, err := rw.Write(blank); err != nil {
							return
						}
					}
				})
			})
			err := refuse(t, openStore(t, bucket.Options{Pages: 20}), w.request, gitops.Invalid)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q, want %q", err, tt.want)
			}
		})
	}
}

// TestListingsThatAreNone are answers of a server that is none of an object store.
func TestListingsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, title := range []string{"S3 with keys", "Google with a service account", "Azure with an account key"} {
		for what, page := range map[string]string{
			"an HTML page":          "<html><body>Welcome to our portal &amp; more",
			"a page in XML":         "<?xml version='1.0'?><html><body>Welcome to our portal</body></html>",
			"JSON of something":     `{"status": "ok"}`,
			"nothing":               "",
			"JSON of another shape": `{"items": {"name": 1}}`,
			"an unknown size":       `{"items": [{"name": "a", "etag": "x", "size": "-5"}]}`,
		} {
			t.Run(title+", "+what, func(t *testing.T) {
				t.Parallel()
				w := worlds()[title](t)
				w.request.Region = "us-east-1"
				w.server.Fill(name, map[string]string{"a": "1"})
				s := openStore(t, bucket.Options{})
				first := fetch(t, s, w.request, "")
				w.server.Around(func(http.Handler) http.Handler {
					return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, page) })
				})
				one := refuse(t, s, w.request, gitops.Transient)
				if two := refuse(t, s, w.request, gitops.Transient); one.Error() != two.Error() {
					t.Errorf("two texts:\n%s\n%s", one, two)
				}
				sourcetest.CheckTree(t, first.Files, map[string]string{"a": "1"})
			})
		}
	}
}

func TestFoldersOfTheStoreAreOurs(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"a": "1"})
	folder := filepath.Join(t.TempDir(), "store")
	s := openAt(t, folder, bucket.Options{})
	defer func() { must(t, s.Close()) }()
	fetch(t, s, w.request, "")
	modes := map[string]int{}
	must(t, filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		modes[fmt.Sprint(info.Mode())]++
		return err
	}))
	for mode := range modes {
		if mode != "-rw-------" && mode != "drwx------" {
			t.Errorf("something has mode %s: %v", mode, modes)
		}
	}
	for _, file := range onDisk(t, folder) {
		text, err := os.ReadFile(filepath.Join(folder, file))
		must(t, err)
		if strings.Contains(file+string(text), "s3cret-word") {
			t.Errorf("%q holds the credential", file)
		}
	}
}

// TestListingsThatLie are well-formed, and say what cannot be.
func TestListingsThatLie(t *testing.T) {
	t.Parallel()
	item := func(key, etag, size string) string {
		return "<Contents><Key>" + key + "</Key><ETag>" + etag + "</ETag><Size>" + size + "</Size></Contents>"
	}
	tests := map[string]struct {
		prefix, items string
		kind          gitops.ErrorKind
		want          string
	}{
		"an entity tag that forges a line": {"", item("a", "1&#10;b 2", "1"), gitops.Invalid, `the object "a" has an entity tag that is not printable`},
		"an entity tag without an end":     {"", item("a", strings.Repeat("e", 2000), "1"), gitops.Invalid, "too long"},
		"a size below nothing":             {"", item("a", "e", "-1"), gitops.Invalid, `the object "a" has -1 bytes`},
		"what was not asked for":           {"mine/", item("other/a", "e", "1"), gitops.Invalid, `the key "other/a", which does not begin with the prefix`},
		"an object twice, not the same":    {"", item("a", "e", "1") + item("a", "f", "1"), gitops.Transient, "the bucket changes while it is fetched"},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := s3World(t)
			w.request.Region, w.request.Prefix = "us-east-1", tt.prefix
			w.server.Around(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					_, _ = io.WriteString(rw, "<ListBucketResult>"+tt.items+"</ListBucketResult>")
				})
			})
			if err := refuse(t, openStore(t, bucket.Options{}), w.request, tt.kind); !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q, want %q", err, tt.want)
			}
		})
	}
	t.Run("an object twice, the same", func(t *testing.T) {
		t.Parallel()
		w := pagedWorld(t)
		w.server.Fill(name, map[string]string{"a": "1", "b": "2", "c": "3"})
		// The page that begins with the last object of the one before it.
		w.server.Around(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if !r.URL.Query().Has("continuation-token") {
					next.ServeHTTP(rw, r)
					return
				}
				_, _ = io.WriteString(rw, "<ListBucketResult>"+item("b", w.server.ETag(name, "b"), "1")+item("c", w.server.ETag(name, "c"), "1")+"</ListBucketResult>")
			})
		})
		sourcetest.CheckTree(t, fetch(t, openStore(t, bucket.Options{}), w.request, "").Files, map[string]string{"a": "1", "b": "2", "c": "3"})
	})
}
