package cluster_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	var refused atomic.Int64
	config := proxied(t, env, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/configmaps/") || refused.Add(1) > 1 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return true
	})
	client := connect(t, config, cluster.Options{})
	res, err := client.Resource(t.Context(), configMap, "v1")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := client.Get(t.Context(), res, "kube-system", "extension-apiserver-authentication"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < time.Second {
		t.Errorf("came back after %v", took)
	}
}

func TestLimitOnlyWithoutFairness(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	for name, tc := range map[string]struct {
		fair    bool
		atLeast time.Duration
	}{
		"a server with priority and fairness is not limited": {fair: true},
		"a server without it is":                             {atLeast: 900 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tc.fair {
					w.Header().Set("X-Kubernetes-Pf-Flowschema-Uid", "some")
				}
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"metadata":{"name":"a"}}`)
			}))
			t.Cleanup(server.Close)
			client := connect(t, &rest.Config{Host: server.URL}, cluster.Options{QPS: 20, Burst: 1})
			begin := time.Now()
			for range 20 {
				if _, err := client.NamespaceState(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(begin); took < tc.atLeast || tc.atLeast == 0 && took > 500*time.Millisecond {
				t.Errorf("20 requests at 20 a second took %v", took)
			}
		})
	}
	// The real one is fair.
	client := connect(t, env.REST, cluster.Options{QPS: 1, Burst: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 30 {
		if _, err := client.NamespaceState(ctx, "default"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOddAnswers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		code int
		kind string
		body string
	}{
		"no body":                {200, "application/json", ""},
		"not JSON":               {200, "application/json", "<html>"},
		"a null":                 {200, "application/json", "null"},
		"a list":                 {200, "application/json", "[1,2]"},
		"a broken object":        {200, "application/json", `{"a":`},
		"a page of a proxy":      {502, "text/html", "<html>bad gateway</html>"},
		"an error that is empty": {500, "application/json", "{}"},
		"an error of odd types":  {422, "application/json", `{"kind":"Status","apiVersion":"v1","details":7,"code":"x"}`},
		"a content type of none": {200, "", "\x00\x01"},
		"a teapot":               {418, "text/plain", "short and stout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.kind)
				w.WriteHeader(tc.code)
				fmt.Fprint(w, tc.body)
			}))
			t.Cleanup(server.Close)
			client := connect(t, &rest.Config{Host: server.URL}, cluster.Options{})
			if state, err := client.NamespaceState(t.Context(), "a"); err == nil {
				t.Errorf("got %q", state)
			}
			if _, err := client.Resource(t.Context(), deployment, "v1"); err == nil {
				t.Error("found a kind")
			}
		})
	}
}

func TestNamespaceState(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	client := connect(t, env.REST, cluster.Options{})
	namespace := env.Namespace(t)
	got := map[string]cluster.NamespaceState{}
	for _, name := range []string{namespace, namespace + "-missing"} {
		state, err := client.NamespaceState(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = state
	}
	want := map[string]cluster.NamespaceState{namespace: cluster.NamespaceActive, namespace + "-missing": cluster.NamespaceMissing}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDeleteKeepsToItsPreconditions(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	client := connect(t, env.REST, cluster.Options{})
	namespace := env.Namespace(t)
	res, err := client.Resource(t.Context(), configMap, "v1")
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":%q}}`, namespace)
	obj, created, err := client.Apply(t.Context(), res, namespace, "a", []byte(body), cluster.ApplyOptions{FieldManager: "test"})
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	if _, again, err := client.Apply(t.Context(), res, namespace, "a", []byte(body), cluster.ApplyOptions{FieldManager: "test"}); err != nil || again {
		t.Errorf("created again: %v, %v", again, err)
	}
	for _, pre := range []cluster.Preconditions{{UID: "other"}, {UID: string(obj.GetUID()), ResourceVersion: "1"}} {
		if err := client.Delete(t.Context(), res, namespace, "a", pre); err == nil || cluster.IsNotFound(err) {
			t.Errorf("%+v: got %v", pre, err)
		}
	}
	if err := client.Delete(t.Context(), res, namespace, "a", cluster.Preconditions{UID: string(obj.GetUID()), ResourceVersion: obj.GetResourceVersion()}); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(t.Context(), res, namespace, "a"); !cluster.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

func TestAs(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	connection, err := cluster.Connect(env.REST, cluster.Options{Version: "as"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connection.As(""); err == nil {
		t.Error("a client without a user was made: it would have the connection's own rights")
	}
	client, err := connection.As("system:serviceaccount:default:nobody")
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Resource(t.Context(), configMap, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(t.Context(), res, "kube-system", "extension-apiserver-authentication"); !apierrors.IsForbidden(err) {
		t.Errorf("got %v, want that it is forbidden", err)
	}
	if _, err := connection.Own().Get(t.Context(), res, "kube-system", "extension-apiserver-authentication"); err != nil {
		t.Errorf("the connection itself lost its rights: %v", err)
	}
}
