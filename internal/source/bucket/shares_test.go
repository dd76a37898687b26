package bucket_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
)

// TestNamespacesShareABucket: who follows much of a bucket does not fill the room of another
// namespace that follows a little of it.
func TestNamespacesShareABucket(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"small/1": "one", "large/2": strings.Repeat("x", 2<<20)})
	small, large := w.request, w.request
	small.Prefix, large.Prefix = "small/", "large/"
	folder := t.TempDir()
	s := openAt(t, folder, bucket.Options{})
	rooms := artifact.NewRooms(1<<30, time.Now)
	charged := func(when string) {
		t.Helper()
		got := map[string]int64{}
		must(t, s.Measure(func(namespace string, bytes int64) { got[namespace] += bytes }))
		if got["small"] > 16<<10 || got["large"] < 2<<20 {
			t.Errorf("%s: %v", when, got)
		}
	}
	for namespace, request := range map[string]bucket.Request{"small": small, "large": large} {
		result, err := s.Fetch(rooms.In(t.Context(), namespace), request, "")
		must(t, err)
		result.Release()
	}
	charged("fetched")
	must(t, s.Retain([]bucket.Request{small, large}))
	charged("retained")
	must(t, s.Close())
	s = openAt(t, folder, bucket.Options{})
	for namespace, request := range map[string]bucket.Request{"small": small, "large": large} {
		result, err := s.Last(rooms.In(t.Context(), namespace), request)
		must(t, err)
		result.Release()
	}
	charged("after a restart")
	must(t, s.Close())
}

// TestWhatAFailedFetchBroughtIsCounted for who fetched it, not for another who follows a
// little of the bucket.
func TestWhatAFailedFetchBroughtIsCounted(t *testing.T) {
	t.Parallel()
	w := s3World(t)
	w.server.Fill(name, map[string]string{"small/1": "one", "large/2": strings.Repeat("x", 2<<20), "large/3": "x"})
	small, large := w.request, w.request
	small.Prefix, large.Prefix = "small/", "large/"
	s := openStore(t, bucket.Options{Downloads: 1})
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		refused := strings.HasSuffix(r.URL.Path, "/3")
		if refused {
			http.Error(rw, "no", http.StatusForbidden)
		}
		return refused
	})
	rooms := artifact.NewRooms(1<<30, time.Now)
	result, err := s.Fetch(rooms.In(t.Context(), "small"), small, "")
	must(t, err)
	defer result.Release()
	if _, err := s.Fetch(rooms.In(t.Context(), "large"), large, ""); err == nil {
		t.Fatal("what is refused is fetched")
	}
	got := map[string]int64{}
	must(t, s.Measure(func(namespace string, bytes int64) { got[namespace] += bytes }))
	if got["small"] > 16<<10 || got["large"] < 2<<20 {
		t.Errorf("counted %v", got)
	}
}

// TestNothingIsKeptUncounted: views of the same contents bring nothing, and each has a list of
// all of them; and small objects take more of the disk than their lengths.
func TestNothingIsKeptUncounted(t *testing.T) {
	t.Parallel()
	const room, objects, views = 256 << 10, 400, 10
	for what, content := range map[string]func(int) string{
		"lists of empty objects": func(int) string { return "" },
		"small objects":          func(i int) string { return fmt.Sprint(i) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := s3World(t)
			files := map[string]string{}
			for i := range objects {
				files[fmt.Sprintf("%d/%s", i, strings.Repeat("k", 100))] = content(i)
			}
			w.server.Fill(name, files)
			folder := t.TempDir()
			s := openAt(t, folder, bucket.Options{})
			defer func() { must(t, s.Close()) }()
			rooms := artifact.NewRooms(room, time.Now)
			rooms.Add(s)
			refused := 0
			for i := range views {
				request := w.request
				request.Ignore = fmt.Sprint("# ", i)
				ctx := rooms.In(t.Context(), "a")
				result, err := s.Fetch(ctx, request, "")
				switch {
				case err == nil:
					result.Release()
				case artifact.Full(ctx) != nil:
					refused++
				default:
					t.Fatal(err)
				}
			}
			taken, err := artifact.Size(os.DirFS(folder), ".")
			must(t, err)
			if refused == 0 || taken > room+16<<10 { // with the key of the store
				t.Errorf("%d bytes are taken of a room of %d, and %d of %d fetches were refused", taken, room, refused, views)
			}
		})
	}
}

// TestWhatFailedFetchesListIsCounted too, also when the data folder has been measured since.
func TestWhatFailedFetchesListIsCounted(t *testing.T) {
	t.Parallel()
	const room, objects, views = 256 << 10, 400, 10
	w := s3World(t)
	files := map[string]string{"z": "never sent"}
	for i := range objects {
		files[fmt.Sprintf("%d/%s", i, strings.Repeat("k", 100))] = ""
	}
	w.server.Fill(name, files)
	w.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/z") {
			return false
		}
		rw.WriteHeader(http.StatusForbidden)
		return true
	})
	folder, now := t.TempDir(), time.Unix(1, 0)
	s := openAt(t, folder, bucket.Options{Downloads: 1})
	defer func() { must(t, s.Close()) }()
	rooms := artifact.NewRooms(room, func() time.Time { return now })
	rooms.Add(s)
	for i := range views {
		now = now.Add(time.Minute)
		request := w.request
		request.Ignore = fmt.Sprint("# ", i)
		if _, err := s.Fetch(rooms.In(t.Context(), "a"), request, ""); err == nil {
			t.Fatal("what is never sent has come")
		}
	}
	if taken, err := artifact.Size(os.DirFS(folder), "."); err != nil || taken > room+16<<10 {
		t.Errorf("%d bytes are taken of a room of %d, error %v", taken, room, err)
	}
}
