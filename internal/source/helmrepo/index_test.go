package helmrepo_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestIndexServes: what is served is what Flux stores: all of the index as JSON.
func TestIndexServes(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Index([]byte(`apiVersion: v1
annotations: {x: y}
serverInfo:
  contextPath: /v1
entries:
  b:
  - annotations: {k: v}
    apiVersion: v2
    appVersion: 1.10
    created: 2024-05-06T07:08:09.123Z
    dependencies:
    - name: c
      repository: https://example.com
      version: 1.x
      import-values: [{child: a, parent: b}]
    deprecated: true
    digest: abc
    keywords: [one, two]
    kubeVersion: ">= 1.2"
    maintainers: [{email: a@example.com, name: Ann, url: x}]
    name: b
    sources: [s]
    type: library
    unknown: field
    urls: [b.tgz, c.tgz]
    version: 1.2.3
  "a":
  - name: a
    version: 1.0.0
    urls: []
generated: "2026-01-02T03:04:05.6+01:00"
publicKeys: [k]
`))
	index := getIndex(t, openStore(t, helmrepo.Options{}), helmrepo.Repository{URL: server.URL()}, "")
	want := `{
  "serverInfo": {
    "contextPath": "/v1"
  },
  "apiVersion": "v1",
  "generated": "2026-01-02T03:04:05.6+01:00",
  "entries": {
    "a": [
      {
        "name": "a",
        "version": "1.0.0",
        "apiVersion": "v1",
        "urls": [],
        "created": "0001-01-01T00:00:00Z"
      }
    ],
    "b": [
      {
        "name": "b",
        "sources": [
          "s"
        ],
        "version": "1.2.3",
        "keywords": [
          "one",
          "two"
        ],
        "maintainers": [
          {
            "name": "Ann",
            "email": "a@example.com",
            "url": "x"
          }
        ],
        "apiVersion": "v2",
        "appVersion": "1.10",
        "deprecated": true,
        "annotations": {
          "k": "v"
        },
        "kubeVersion": "\u003e= 1.2",
        "dependencies": [
          {
            "name": "c",
            "version": "1.x",
            "repository": "https://example.com",
            "import-values": [
              {
                "child": "a",
                "parent": "b"
              }
            ]
          }
        ],
        "type": "library",
        "urls": [
          "b.tgz",
          "c.tgz"
        ],
        "created": "2024-05-06T07:08:09.123Z",
        "digest": "abc"
      }
    ]
  },
  "publicKeys": [
    "k"
  ],
  "annotations": {
    "x": "y"
  }
}`
	if diff := cmp.Diff(want, string(readAll(t, index.Open))); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	if index.Warning != "" {
		t.Errorf("warning %q", index.Warning)
	}
}

// TestIndexUnchanged: an index that has not changed is not sent again, where the server can
// tell, also after a restart; and it is the same where it cannot.
func TestIndexUnchanged(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"with validators": false, "without validators": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{NoValidators: plain})
			server.Put(t, "a", "1.0.0", testenv.HelmChart(t, "a", "1.0.0", nil))
			var sent atomic.Int64
			server.Around(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(counting{w, &sent}, r) })
			})
			folder := t.TempDir()
			repository := helmrepo.Repository{URL: server.URL() + "/"}
			s := reopenStore(t, folder, helmrepo.Options{})
			first := getIndex(t, s, repository, "")
			if first.Unchanged || sent.Load() == 0 {
				t.Errorf("first: unchanged %v, %d bytes", first.Unchanged, sent.Load())
			}
			for range 2 {
				sent.Store(0)
				again := getIndex(t, s, repository, first.Revision)
				if !again.Unchanged || again.Revision != first.Revision || !plain && sent.Load() != 0 {
					t.Errorf("unchanged %v, revision %q after %q, %d bytes", again.Unchanged, again.Revision, first.Revision, sent.Load())
				}
				first.Release()
				again.Release()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = reopenStore(t, folder, helmrepo.Options{})
			}
			t.Cleanup(func() { _ = s.Close() })
			server.Put(t, "a", "2.0.0", testenv.HelmChart(t, "a", "2.0.0", nil))
			changed := getIndex(t, s, repository, first.Revision)
			if diff := cmp.Diff(map[string][]string{"a": {"2.0.0", "1.0.0"}}, served(t, changed)); diff != "" || changed.Unchanged {
				t.Errorf("unchanged %v, charts (-want +got):\n%s", changed.Unchanged, diff)
			}
		})
	}
}

// TestIndexOfThisSecond: the time of an index that was written in the second of the answer
// says nothing about whether it was written once more.
func TestIndexOfThisSecond(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0).UTC()
	for name, test := range map[string]struct {
		age  time.Duration
		want bool
	}{"an index of this second": {0, false}, "an index of last year": {365 * 24 * time.Hour, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{NoValidators: true})
			server.Put(t, "a", "1.0.0", testenv.HelmChart(t, "a", "1.0.0", nil))
			asked := make(chan bool, 1)
			server.Around(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked <- r.Header.Get("If-Modified-Since") != ""
					w.Header().Set("Date", now.Format(http.TimeFormat))
					w.Header().Set("Last-Modified", now.Add(-test.age).Format(http.TimeFormat))
					next.ServeHTTP(w, r)
				})
			})
			s := openStore(t, helmrepo.Options{})
			first := getIndex(t, s, helmrepo.Repository{URL: server.URL()}, "")
			if <-asked {
				t.Error("the first request has a condition")
			}
			again := getIndex(t, s, helmrepo.Repository{URL: server.URL()}, first.Revision)
			if got := <-asked; got != test.want || !again.Unchanged {
				t.Errorf("with a condition: %v, unchanged %v", got, again.Unchanged)
			}
		})
	}
}

// counting counts the bytes of bodies.
type counting struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

// Write passes bytes on.
func (c counting) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// TestIndexIsCutAtTheLimit: of an index of half a gigabyte, or without end, little more is
// taken than the limit.
func TestIndexIsCutAtTheLimit(t *testing.T) {
	t.Parallel()
	for name, announced := range map[string]string{"announced": "536870912", "without end": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			var sent atomic.Int64
			server.Around(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if announced != "" {
						w.Header().Set("Content-Length", announced)
					}
					line := []byte("# " + strings.Repeat("x", 1<<16) + "\n")
					for r.Context().Err() == nil {
						n, err := w.Write(line)
						sent.Add(int64(n))
						if err != nil {
							return
						}
					}
				})
			})
			s := openStore(t, helmrepo.Options{IndexBytes: 1 << 20})
			_, err := s.Index(t.Context(), helmrepo.Repository{URL: server.URL()}, "")
			if e := refused(t, err); e.Kind != gitops.Invalid || !strings.Contains(e.Error(), "1048576") {
				t.Errorf("got %s: %s", e.Kind, e)
			}
			if sent.Load() > 64<<20 {
				t.Errorf("%d bytes were sent", sent.Load())
			}
		})
	}
}

// TestIndexIsSharedByAllWhoAskAtOnce: many objects with one repository cost few requests.
func TestIndexIsSharedByAllWhoAskAtOnce(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "a", "1.0.0", testenv.HelmChart(t, "a", "1.0.0", nil))
	arrived, gate := make(chan struct{}, 100), make(chan struct{})
	server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			arrived <- struct{}{}
			<-gate
			next.ServeHTTP(w, r)
		})
	})
	s := openStore(t, helmrepo.Options{})
	var wait sync.WaitGroup
	ask := func() {
		wait.Go(func() {
			index, err := s.Index(t.Context(), helmrepo.Repository{URL: server.URL()}, "")
			if err != nil {
				t.Error(err)
				return
			}
			index.Release()
		})
	}
	ask()
	<-arrived
	for range 50 {
		ask()
	}
	helmrepo.AwaitWaiting(s, helmrepo.Repository{URL: server.URL()}, 51)
	close(gate)
	wait.Wait()
	if n := server.Requests("index.yaml"); n != 2 {
		t.Errorf("51 at once cost %d requests, want 2", n)
	}
}

// TestIndexDamaged: an index whose file was changed on the disk is fetched again.
func TestIndexDamaged(t *testing.T) {
	t.Parallel()
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "a", "1.0.0", testenv.HelmChart(t, "a", "1.0.0", nil))
	request := helmrepo.ChartRequest{Repository: helmrepo.Repository{URL: server.URL()}, Name: "a", Cached: true}
	s := openStore(t, helmrepo.Options{})
	getIndex(t, s, request.Repository, "").Release()
	for i := 0; i < helmrepo.IndexLength(t, s, request.Repository); i += 5 {
		helmrepo.FlipIndex(t, s, request.Repository, i)
		before := server.Requests("index.yaml")
		chart := getChart(t, s, request, "")
		if chart.Version != "1.0.0" {
			t.Errorf("byte %d: got version %q", i, chart.Version)
		}
		chart.Release()
		if server.Requests("index.yaml") != before+1 {
			t.Errorf("byte %d was changed, and the index was not fetched again", i)
		}
	}
	helmrepo.FlipIndex(t, s, request.Repository, 0)
	last, err := s.LastIndex(t.Context(), request.Repository)
	if err != nil {
		t.Fatal(err)
	}
	in, err := last.Open()
	if err == nil {
		_, err = io.ReadAll(in)
		_ = in.Close()
	}
	if err == nil {
		t.Error("an index that was changed on the disk is served")
	}
}

// TestIndexNeedsARepository: what cannot be asked says so.
func TestIndexNeedsARepository(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		repository helmrepo.Repository
		kind       gitops.ErrorKind
		reason     string
		want       string
	}{
		"no URL":         {helmrepo.Repository{URL: "::"}, gitops.Stalled, helmrepo.ReasonURL, "it is not a URL"},
		"another scheme": {helmrepo.Repository{URL: "file:///etc"}, gitops.Stalled, helmrepo.ReasonURL, `scheme "file" is not supported`},
		"a registry":     {helmrepo.Repository{URL: "oci://example.com/x"}, gitops.Stalled, helmrepo.ReasonURL, `for repositories of type "oci"`},
		"no host":        {helmrepo.Repository{URL: "http:///x"}, gitops.Stalled, helmrepo.ReasonURL, "it names no host"},
		"metadata":       {helmrepo.Repository{URL: "http://169.254.169.254/x"}, gitops.Invalid, helmrepo.ReasonFailed, "link-local"},
		"bad CA":         {helmrepo.Repository{URL: "http://localhost/x", TLS: tlsWithCA("x")}, gitops.Stalled, helmrepo.ReasonAuthentication, "the CA is not a certificate"},
		"its registry":   {helmrepo.Repository{URL: "oci://example.com/x", Registry: &helmrepo.Registry{}}, gitops.Stalled, helmrepo.ReasonURL, "has no index"},
		"secrets in it":  {helmrepo.Repository{URL: "http://ann:s3cret@127.0.0.1:1/x?token=s3cret"}, gitops.Transient, helmrepo.ReasonFailed, `fetch index of "http://127.0.0.1:1/x/"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := openStore(t, helmrepo.Options{}).Index(context.Background(), test.repository, "")
			e := refused(t, err)
			if e.Kind != test.kind || e.Reason != test.reason || !strings.Contains(e.Error(), test.want) || strings.Contains(e.Error(), "s3cret") {
				t.Errorf("got %s, %s: %s", e.Kind, e.Reason, e)
			}
		})
	}
}
