package bucket_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

func TestObjectsThatChangeMeanwhile(t *testing.T) {
	t.Parallel()
	for _, title := range []string{"S3 with keys", "Google with a service account", "Azure with an account key"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[title](t)
			// Both objects belong together; after the listing both change.
			w.server.Fill(name, map[string]string{"a": "old", "b": "old", "c": "same"})
			s := openStore(t, bucket.Options{Downloads: 1})
			var done atomic.Bool
			w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/b") && done.CompareAndSwap(false, true) {
					w.server.Fill(name, map[string]string{"a": "new", "b": "new", "c": "same"})
				}
				return false
			})
			result := fetch(t, s, w.request, "")
			sourcetest.CheckTree(t, result.Files, map[string]string{"a": "new", "b": "new", "c": "same"})
			done.Store(false)
			w.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/b") && done.CompareAndSwap(false, true) {
					w.server.Delete(name, "b")
				}
				return false
			})
			w.server.Put(name, "b", "newer")
			result = fetch(t, s, w.request, result.Revision)
			sourcetest.CheckTree(t, result.Files, map[string]string{"a": "new", "c": "same"})

			changes := 0
			w.intercept(func(http.ResponseWriter, *http.Request) bool {
				changes++
				w.server.Put(name, "a", fmt.Sprint("change ", changes))
				return false
			})
			w.server.Put(name, "a", "changes all the time")
			if err := refuse(t, s, w.request, gitops.Transient); !strings.Contains(err.Error(), "the bucket changes while it is fetched") {
				t.Error(err)
			}
			sourcetest.CheckTree(t, result.Files, map[string]string{"a": "new", "c": "same"})
		})
	}
}

func TestServersThatLieAboutObjects(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		title string
		lie   func(w world, rw http.ResponseWriter, r *http.Request) bool
		want  string
	}{
		"S3 that does not look at the condition": {"S3 with keys", func(_ world, rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("ETag", `"another"`)
			rw.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			_, _ = rw.Write([]byte("sixteen others!!"))
			return true
		}, "the bucket changes while it is fetched"},
		"fewer bytes than are listed": {"S3 with keys", func(w world, rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("ETag", `"`+w.server.ETag(name, "a")+`"`)
			rw.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			_, _ = rw.Write([]byte("short"))
			return true
		}, `object "a": the server lists 16 bytes and sends another number`},
		"more bytes than are listed": {"S3 with keys", func(w world, rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("ETag", `"`+w.server.ETag(name, "a")+`"`)
			rw.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			for range 1000 {
				_, _ = rw.Write(make([]byte, 1<<10))
			}
			return true
		}, `object "a": the server lists 16 bytes and sends another number`},
		"other bytes than are listed": {"Google with a service account", func(_ world, rw http.ResponseWriter, _ *http.Request) bool {
			_, _ = rw.Write([]byte("sixteen others!!"))
			return true
		}, `object "a": what the server sends does not have the checksum that it lists`},
		"an object that unpacks to too much": {"Google with a service account", func(_ world, rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("X-Goog-Stored-Content-Encoding", "gzip")
			_, _ = rw.Write(make([]byte, 200))
			return true
		}, `object "a": it unpacks to more than 100 bytes`},
		"a connection that ends early": {"Azure with an account key", func(w world, rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("ETag", `"`+w.server.ETag(name, "a")+`"`)
			rw.Header().Set("Content-Length", "16")
			_, _ = rw.Write([]byte("short"))
			return true
		}, "the server hung up"},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := worlds()[tt.title](t)
			w.server.Fill(name, map[string]string{"a": "sixteen in total", "b": "2"})
			s := openStore(t, bucket.Options{ObjectBytes: 100})
			w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
				return strings.HasSuffix(r.URL.Path, "/a") && tt.lie(w, rw, r)
			})
			kind := gitops.Transient
			if strings.Contains(tt.want, "unpacks") {
				kind = gitops.Invalid
			}
			err := refuse(t, s, w.request, kind)
			if !strings.Contains(err.Error(), tt.want) || err.Reason != bucket.ReasonFailed {
				t.Errorf("%q of %q, want %q", err, err.Reason, tt.want)
			}
			if again := refuse(t, s, w.request, kind); again.Error() != err.Error() {
				t.Errorf("the same failure has two texts:\n%s\n%s", err, again)
			}
			w.server.Around(nil)
			result := fetch(t, s, w.request, "")
			if got := sourcetest.Contents(t, result.Files); len(got) != 2 || got["b"] != "2" {
				t.Errorf("afterwards: %q", got)
			}
		})
	}
}

func TestGoogleUnpacksWhatItStoresPacked(t *testing.T) {
	t.Parallel()
	w := googleWorld(t)
	w.server.Fill(name, map[string]string{"a": "packed", "b": "2"})
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/a") {
			return false
		}
		rw.Header().Set("X-Goog-Stored-Content-Encoding", "gzip")
		_, _ = rw.Write([]byte("unpacked, and longer"))
		return true
	})
	s := openStore(t, bucket.Options{})
	result := fetch(t, s, w.request, "")
	sourcetest.CheckTree(t, result.Files, map[string]string{"a": "unpacked, and longer", "b": "2"})
	w.server.Requests("get")
	if again := fetch(t, s, w.request, result.Revision); !again.Unchanged || w.server.Requests("get") != 0 {
		t.Error("it is fetched again")
	}
}
