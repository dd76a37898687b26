package sourcetest

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Remote is a source that a test can change, and ways to follow it.
type Remote struct {
	// Fetcher follows the source, with a credential that the server asks for.
	Fetcher source.Fetcher
	// Stranger follows it with a wrong credential.
	Stranger source.Fetcher
	// Reach makes another Fetcher with the right credential, which knows nothing yet and
	// ends with the test.
	Reach func(t testing.TB, way Way) source.Fetcher
	// Address is where the server is reached: host and port.
	Address string
	// Secrets are the parts of the credential; none of them may be in an error.
	Secrets []string
	// Limits name limits of the adapter, for Way, each of which leaves room for one short
	// file and neither for a second one nor for one of a megabyte.
	Limits []string
	// Retries says that the adapter asks again itself where a request fails. Without it a
	// failure ends the Fetch, and the next one works.
	Retries bool
	// Folder is where the files that are put stand in what is fetched; empty where that is
	// its root.
	Folder string
	// Besides are the files that a revision has besides those that are put; nil for none.
	Besides func(revision string) map[string]string
	// Put makes the source hold exactly these files.
	Put func(t testing.TB, files map[string]string)
	// Gone takes away what the Fetcher follows, but not the server.
	Gone func(t testing.TB)
	// Around puts a handler in front of a server that speaks HTTP; nil takes it away. It
	// is nil for another server, whose connections are relayed.
	Around func(func(http.Handler) http.Handler)
}

// Way is how a Fetcher reaches a server. Its zero value is directly, without TLS.
type Way struct {
	// Address is host and port; empty is the server's own. The host may be one that only
	// the proxy knows.
	Address string
	// Proxy is what the server is reached through.
	Proxy egress.Proxy
	// TLS asks for it, with the authority CA in PEM, where that is not empty.
	TLS bool
	CA  []byte
	// Limit is that of Remote.Limits that is to be low; empty for none.
	Limit string
}

// Part is a part of the tests that has no meaning for some adapters.
type Part string

const (
	// Redirects are answers that lead to another host.
	Redirects Part = "redirects"
	// Proxies are those that a Request names.
	Proxies Part = "proxies"
	// Certificates are those of TLS.
	Certificates Part = "certificates"
)

// row is a test of the suite and the parts that it belongs to.
type row struct {
	check func(*testing.T, Remote)
	of    []Part
}

func rows() map[string]row {
	return map[string]row{
		"a changed source has another revision and other files": {check: checkChanged},
		"an unchanged source says so":                           {check: checkUnchanged},
		"a source that is gone is an error":                     {check: checkGone},
		"a wrong credential is refused without naming it":       {check: checkStranger},
		"a server that hangs ends at the deadline":              {check: checkHanging},
		"a cancelled fetch ends at once":                        {check: checkCanceled},
		"a truncated answer is an error and no files":           {check: checkTruncated},
		"what is too large is refused":                          {check: checkOversized},
		"an answer without an end is not read to its end":       {check: checkEndless},
		"a server error is an error":                            {check: checkServerError},
		"a server that fails twice is asked again":              {check: checkRetry},
		"a redirect to another host carries no credential":      {check: checkRedirect, of: []Part{Redirects}},
		"a proxy is asked, and known by its password":           {check: checkProxy, of: []Part{Proxies}},
		"a proxy is asked for a server with TLS":                {check: checkSecureProxy, of: []Part{Proxies, Certificates}},
		"a proxy that does not serve is an error":               {check: checkBadProxy, of: []Part{Proxies}},
		"only a certificate that is right is accepted":          {check: checkCertificates, of: []Part{Certificates}},
		"a full disk is an error, and the last revision stays":  {check: checkFullDisk},
		"many at once get the same":                             {check: checkConcurrent},
	}
}

// CheckFetcher runs the tests that every Fetcher has to pass. Start makes a new
// Remote for each of them, which holds nothing yet. Without says of the parts that have
// no meaning for the adapter why they have none.
func CheckFetcher(t *testing.T, without map[Part]string, start func(t *testing.T) Remote) {
	t.Helper()
	for part, reason := range without {
		if !slices.Contains([]Part{Redirects, Proxies, Certificates}, part) || reason == "" {
			t.Fatalf("part %q is left out because of %q", part, reason)
		}
	}
	for name, row := range rows() {
		if slices.ContainsFunc(row.of, func(p Part) bool { return without[p] != "" }) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t)
			r.whole(t, without)
			row.check(t, r)
		})
	}
}

// whole checks that a Remote has all that the tests need.
func (r Remote) whole(t testing.TB, without map[Part]string) {
	t.Helper()
	if host, _, err := net.SplitHostPort(r.Address); err != nil || host == "" {
		t.Fatalf("address %q", r.Address)
	}
	if r.Reach == nil || len(r.Limits) == 0 || len(r.Secrets) == 0 || r.Around == nil && without[Redirects] == "" {
		t.Fatal("the Remote is not whole")
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
