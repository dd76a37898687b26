package apply_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/plan"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// faulty is the API server behind a proxy that a test may answer instead of.
func faulty(t *testing.T, handle func(rw http.ResponseWriter, r *http.Request, next http.Handler)) *rest.Config {
	t.Helper()
	env := testenv.Get(t)
	target, err := url.Parse(env.REST.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(env.REST)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = target.Host }}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handle(rw, r, proxy) }))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

func TestFaultsOnTheWay(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		code   int
		header map[string]string
		body   string
		delay  int // seconds to wait that the error suggests
	}{
		"the server is overloaded":     {code: 503, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"ServiceUnavailable","code":503}`},
		"the server asks to wait":      {code: 429, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","details":{"retryAfterSeconds":7},"code":429}`, delay: 7},
		"a proxy has no gateway":       {code: 502, body: "<html>", header: map[string]string{"Content-Type": "text/html"}},
		"the answer is no JSON":        {code: 200, body: "<html>"},
		"the answer is null":           {code: 200, body: "null"},
		"etcd does not answer":         {code: 500, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcdserver: request timed out","code":500}`},
		"the conversion webhook fails": {code: 500, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"failed to convert new object (a) to proper version (v1): conversion webhook for a failed: Post","code":500}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var on atomic.Bool
			w := newWorldAt(t, testenv.Get(t), faulty(t, func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if !on.Load() || r.Method != http.MethodPatch {
					next.ServeHTTP(rw, r)
					return
				}
				rw.Header().Set("Content-Type", "application/json")
				for k, v := range tc.header {
					rw.Header().Set(k, v)
				}
				rw.WriteHeader(tc.code)
				fmt.Fprint(rw, tc.body)
			}))
			w.mustApply(app)
			on.Store(true)
			for _, docs := range []string{strings.Replace(app, "port: 80", "port: 81", 1), strings.NewReplacer("port: 80", "port: 81", "replicas: 0", "replicas: 1").Replace(app)} {
				out := w.apply(docs)
				if kind := gitops.KindOf(out.err); kind != gitops.Transient || len(out.done) > 0 {
					t.Errorf("got %q %v, %v", kind, out.err, out.actions())
				}
				if delay, _ := apierrors.SuggestsClientDelay(failure(t, out.err)); delay != tc.delay {
					t.Errorf("suggests to wait %d s, want %d", delay, tc.delay)
				}
			}
			on.Store(false)
			w.mustApply(strings.Replace(app, "port: 80", "port: 81", 1))
		})
	}
}

func TestAnswersOfOddShapesDoNotPanic(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{}`, `{"metadata":null}`, `{"metadata":7}`, `{"metadata":{"managedFields":7,"labels":[],"annotations":"x","uid":1}}`,
		`{"metadata":{"uid":"a","managedFields":[{"manager":"kubectl-edit","operation":"Update","fieldsType":"x","fieldsV1":{"f:a":7}}]}}`,
		`{"spec":[],"status":"odd","metadata":{"uid":"a","resourceVersion":"1"}}`,
	} {
		var on atomic.Bool
		w := newWorldAt(t, testenv.Get(t), faulty(t, func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if !on.Load() || !strings.Contains(r.URL.Path, "/namespaces/") {
				next.ServeHTTP(rw, r)
				return
			}
			rw.Header().Set("Content-Type", "application/json")
			fmt.Fprint(rw, body)
		}))
		w.mustApply(app)
		on.Store(true)
		w.apply(strings.Replace(app, "port: 80", "port: 81", 1))
		w.applied, w.blind = map[gitops.ObjectRef]plan.Applied{}, true
		w.apply(app)
		w.apply("")
	}
}

// TestStoppedAnywhere ends a run at every write, before and after the API server
// has carried it out, and has the next run find its way from there.
func TestStoppedAnywhere(t *testing.T) {
	t.Parallel()
	updated := strings.NewReplacer("port: 80", "port: 81", "replicas: 0", "replicas: 1").Replace(app)
	pruned := updated[strings.Index(updated, "---"):]
	for name, tc := range map[string]struct{ from, to string }{
		"install": {"", app},
		"update":  {app, updated},
		"prune":   {updated, pruned},
		"all":     {updated, ""},
	} {
		for _, lost := range []bool{false, true} {
			for at := int64(1); at <= 3; at++ {
				t.Run(fmt.Sprintf("%s, write %d, answer lost %v", name, at, lost), func(t *testing.T) {
					t.Parallel()
					stoppedAt(t, tc.from, tc.to, at, lost)
				})
			}
		}
	}
}

func stoppedAt(t *testing.T, from, to string, at int64, lost bool) {
	var writes atomic.Int64
	var on atomic.Bool
	w := newWorldAt(t, testenv.Get(t), faulty(t, func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		write := on.Load() && (r.Method == http.MethodDelete || r.Method == http.MethodPatch && !r.URL.Query().Has("dryRun"))
		if !write || writes.Add(1) < at {
			next.ServeHTTP(rw, r)
			return
		}
		if lost {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		rw.WriteHeader(http.StatusBadGateway)
	}))
	if from != "" {
		w.mustApply(from)
	}
	var stored gitops.Inventory
	p := w.compute(w.manifests(to))
	request := w.request(p)
	request.WriteAhead = func(context.Context) error { stored = p.WriteAhead; return nil }
	on.Store(true)
	if _, err := w.applier.Run(t.Context(), request); err == nil && writes.Load() >= at {
		t.Fatal("the fault was not noticed")
	}
	on.Store(false)

	// Of the run only what was stored before it is left.
	if stored == nil {
		stored = w.inventory
	}
	everything := []gitops.ObjectRef{w.ref("", "ServiceAccount", "app"), w.ref("", "Service", "app"), w.ref("apps", "Deployment", "app")}
	for _, ref := range everything {
		if w.find(ref) != nil && !stored.Has(ref) {
			t.Errorf("%s exists and is not in the stored inventory", ref)
		}
	}
	w.inventory, w.applied = stored, map[gitops.ObjectRef]plan.Applied{}
	w.mustApply(to)
	declared := w.manifests(to)
	for _, ref := range everything {
		want := slices.ContainsFunc(declared, func(m gitops.Manifest) bool { return m.Ref == ref })
		if got := w.find(ref) != nil; got != want || w.inventory.Has(ref) != want {
			t.Errorf("%s: exists %v, in the inventory %v, want %v", ref, got, w.inventory.Has(ref), want)
		}
	}
	if out := w.mustApply(to); !out.plan.Empty() {
		t.Errorf("not at rest: %v", out.plan.Stages)
	}
}
