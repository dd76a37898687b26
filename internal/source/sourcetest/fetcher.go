package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Remote is a source that a test can change, and a Fetcher of it. It is reached
// over HTTP, through a handler that the test can put in front of the server.
type Remote struct {
	// Fetcher follows the source, with a credential that the server asks for.
	Fetcher source.Fetcher
	// Stranger follows it with a wrong credential.
	Stranger source.Fetcher
	// Address is where the server is reached: host and port.
	Address string
	// Secrets are the parts of the credential; none of them may be in an error.
	Secrets []string
	// Folder is where the files that are put stand in what is fetched; empty where that is
	// its root.
	Folder string
	// Besides are the files that a revision has besides those that are put; nil for none.
	Besides func(revision string) map[string]string
	// Put makes the source hold exactly these files.
	Put func(t testing.TB, files map[string]string)
	// Gone takes away what the Fetcher follows, but not the server.
	Gone func(t testing.TB)
	// Around puts a handler in front of the server; nil takes it away.
	Around func(func(http.Handler) http.Handler)
}

// CheckFetcher runs the tests that every Fetcher has to pass. Start makes a new
// Remote for each of them, which holds nothing yet.
func CheckFetcher(t *testing.T, start func(t *testing.T) Remote) {
	t.Helper()
	tests := map[string]func(*testing.T, Remote){
		"a changed source has another revision and other files": checkChanged,
		"an unchanged source says so":                           checkUnchanged,
		"a source that is gone is an error":                     checkGone,
		"a wrong credential is refused without naming it":       checkStranger,
		"a server that hangs ends at the deadline":              checkHanging,
		"a cancelled fetch ends at once":                        checkCanceled,
		"a truncated answer is an error and no files":           checkTruncated,
		"a server error is an error":                            checkServerError,
		"a redirect to another host carries no credential":      checkRedirect,
		"many at once get the same":                             checkConcurrent,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// shown are the files that a revision has when some were put.
func (r Remote) shown(files map[string]string, revision string) map[string]string {
	all := map[string]string{}
	if r.Besides != nil {
		maps.Copy(all, r.Besides(revision))
	}
	for name, content := range files {
		all[path.Join(r.Folder, name)] = content
	}
	return all
}

// check checks that what was fetched has the files that were put.
func (r Remote) check(t testing.TB, result source.Result, files map[string]string) {
	t.Helper()
	CheckTree(t, result.Files, r.shown(files, result.Revision))
}

const patience = 30 * time.Second

// get fetches and expects it to work.
func (r Remote) get(t testing.TB, known string) source.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := r.Fetcher.Fetch(ctx, known)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(result.Release)
	return result
}

// refuse fetches twice and expects it to fail, both times with the same words.
func (r Remote) refuse(t testing.TB, f source.Fetcher, timeout time.Duration) *gitops.Error {
	t.Helper()
	var first *gitops.Error
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		result, err := f.Fetch(ctx, "")
		cancel()
		if err == nil {
			result.Release()
			t.Fatal("no error")
		}
		var e *gitops.Error
		if !errors.As(err, &e) {
			t.Fatalf("error %v has no kind", err)
		}
		if e.Stage != gitops.StageFetch || e.Kind == "" || e.Reason == "" {
			t.Errorf("error %v has stage %q, kind %q, reason %q", err, e.Stage, e.Kind, e.Reason)
		}
		for _, secret := range r.Secrets {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error %q names the credential", err)
			}
		}
		if first != nil && first.Error() != e.Error() {
			t.Errorf("the same failure has two texts:\n%s\n%s", first, e)
		}
		first = e
	}
	return first
}

func checkChanged(t *testing.T, r Remote) {
	one := map[string]string{"a": "1", "d/b": "2", "d/e/c": "3"}
	r.Put(t, one)
	first := r.get(t, "")
	if first.Revision == "" || first.Unchanged || first.Rewritten {
		t.Errorf("first fetch: revision %q, unchanged %v, rewritten %v", first.Revision, first.Unchanged, first.Rewritten)
	}
	r.check(t, first, one)
	two := map[string]string{"a": "1", "d/b": "other"}
	r.Put(t, two)
	second := r.get(t, first.Revision)
	if second.Revision == first.Revision || second.Unchanged {
		t.Errorf("second fetch: revision %q after %q, unchanged %v", second.Revision, first.Revision, second.Unchanged)
	}
	r.check(t, second, two)
	r.check(t, first, one)
	CheckSums(t, first.Files, second.Files, path.Join(r.Folder, "a"))
}

func checkUnchanged(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	first := r.get(t, "")
	again := r.get(t, first.Revision)
	if !again.Unchanged || again.Rewritten || again.Revision != first.Revision {
		t.Errorf("unchanged %v, rewritten %v, revision %q", again.Unchanged, again.Rewritten, again.Revision)
	}
	r.check(t, again, map[string]string{"a": "1"})
	if fresh := r.get(t, ""); fresh.Unchanged {
		t.Error("a caller that knows no revision is told that nothing changed")
	}
}

func checkGone(t *testing.T, r Remote) {
	files := map[string]string{"a": "1"}
	r.Put(t, files)
	first := r.get(t, "")
	r.Gone(t)
	r.refuse(t, r.Fetcher, patience)
	r.check(t, first, files)
	r.Put(t, files)
	r.get(t, first.Revision)
}

func checkStranger(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	r.get(t, "")
	if err := r.refuse(t, r.Stranger, patience); err.Kind != gitops.Denied {
		t.Errorf("kind %q of %q, want %q", err.Kind, err, gitops.Denied)
	}
}

func checkHanging(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	first := r.get(t, "")
	r.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			// The server notices that a client is gone only behind the body.
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
	})
	began := time.Now()
	if err := r.refuse(t, r.Fetcher, 200*time.Millisecond); err.Kind != gitops.Transient {
		t.Errorf("kind %q of %q, want %q", err.Kind, err, gitops.Transient)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("two fetches with a deadline of 200ms took %s", took)
	}
	r.check(t, first, map[string]string{"a": "1"})
	r.Around(nil)
	r.get(t, first.Revision)
}

func checkCanceled(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	ctx, cancel := context.WithCancel(t.Context())
	r.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		})
	})
	if result, err := r.Fetcher.Fetch(ctx, ""); err == nil {
		result.Release()
		t.Fatal("no error")
	}
	r.Around(nil)
	r.get(t, "")
}

// cut ends every answer after some bytes.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	n, _ := c.ResponseWriter.Write(p[:c.left])
	c.left = 0
	control := http.NewResponseController(c.ResponseWriter)
	_ = control.Flush()
	if conn, _, err := control.Hijack(); err == nil {
		_ = conn.Close()
	}
	return n, io.ErrClosedPipe
}

func checkTruncated(t *testing.T, r Remote) {
	files := map[string]string{"a": strings.Repeat("some text of which not all comes ", 50)}
	r.Put(t, files)
	for _, after := range []int{1, 10, 50, 100, 200, 300} {
		r.Around(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
				next.ServeHTTP(&cut{w, after}, request)
			})
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		result, err := r.Fetcher.Fetch(ctx, "")
		cancel()
		if err == nil {
			// Whatever was cut off was not needed.
			r.check(t, result, files)
			result.Release()
		} else if kind := gitops.KindOf(err); kind != gitops.Transient {
			t.Errorf("cut after %d bytes: kind %q of %q, want %q", after, kind, err, gitops.Transient)
		}
	}
	r.Around(nil)
	r.check(t, r.get(t, ""), files)
}

func checkServerError(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	r.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
		})
	})
	if err := r.refuse(t, r.Fetcher, patience); err.Kind != gitops.Transient {
		t.Errorf("kind %q of %q, want %q", err.Kind, err, gitops.Transient)
	}
	r.Around(nil)
	r.get(t, "")
}

func checkRedirect(t *testing.T, r Remote) {
	r.Put(t, map[string]string{"a": "1"})
	var mu sync.Mutex
	var seen bytes.Buffer
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		mu.Lock()
		_ = request.Header.Write(&seen)
		mu.Unlock()
		http.NotFound(w, request)
	}))
	defer elsewhere.Close()
	// Another port is another host; the same name must not be enough.
	if host, _, _ := net.SplitHostPort(r.Address); host == "" {
		t.Fatalf("address %q", r.Address)
	}
	r.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			http.Redirect(w, request, elsewhere.URL+request.URL.RequestURI(), http.StatusMovedPermanently)
		})
	})
	r.refuse(t, r.Fetcher, patience)
	mu.Lock()
	defer mu.Unlock()
	if seen.Len() == 0 {
		t.Error("the redirect was not followed, so that nothing was proven")
	}
	for _, header := range []string{"Authorization", "Cookie", "Private-Token"} {
		if strings.Contains(seen.String(), header+":") {
			t.Errorf("%s was sent to another host", header)
		}
	}
}

func checkConcurrent(t *testing.T, r Remote) {
	files := map[string]string{"a": "1", "b/c": "2"}
	r.Put(t, files)
	var wait sync.WaitGroup
	results := make([]source.Result, 16)
	for i := range results {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var err error
			if results[i], err = r.Fetcher.Fetch(ctx, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, result := range results {
		if result.Files == nil {
			continue
		}
		if result.Revision != results[0].Revision {
			t.Errorf("revisions %q and %q", result.Revision, results[0].Revision)
		}
		wait.Go(func() {
			r.check(t, result, files)
			result.Release()
			result.Release()
		})
	}
	wait.Wait()
}
