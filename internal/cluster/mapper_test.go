package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func connect(t testing.TB, config *rest.Config, opts cluster.Options) *cluster.Client {
	t.Helper()
	opts.Version, opts.Part = strings.ReplaceAll(t.Name(), "/", "."), "test"
	connection, err := cluster.Connect(config, opts)
	if err != nil {
		t.Fatal(err)
	}
	return connection.Own()
}

// proxied is the real API server behind a handler that may answer instead of it.
func proxied(t testing.TB, env *testenv.Cluster, instead func(http.ResponseWriter, *http.Request) bool) *rest.Config {
	t.Helper()
	target, err := url.Parse(env.REST.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(env.REST)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = target.Host },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if instead == nil || !instead(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

var (
	configMap  = gitops.GroupKind{Kind: "ConfigMap"}
	deployment = gitops.GroupKind{Group: "apps", Kind: "Deployment"}
)

func TestWarmMapperSendsNothing(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	client := connect(t, env.REST, cluster.Options{})
	agent := "plumb/" + t.Name() + " (test)"
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 1000 {
				res, err := client.Resource(t.Context(), deployment, "v1")
				if err != nil || res.GVR.Resource != "deployments" || !res.Namespaced {
					t.Errorf("got %v, %v", res, err)
					return
				}
			}
		})
	}
	group.Wait()
	if got := len(env.Requests(t, agent)); got != 2 {
		t.Errorf("16 users and a cold mapper cost %d requests, want the 2 of aggregated discovery", got)
	}
	res, err := client.Resource(t.Context(), gitops.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}, "")
	if err != nil || res.Namespaced || res.GVR.Version != "v1" {
		t.Errorf("got %v, %v", res, err)
	}
}

func BenchmarkResource(b *testing.B) {
	client := connect(b, testenv.Get(b).REST, cluster.Options{})
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.Resource(context.Background(), deployment, "v1"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestKindsComeAndGo(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	clk := testingclock.NewFakePassiveClock(time.Now())
	client := connect(t, env.REST, cluster.Options{Clock: clk})
	agent := "plumb/" + t.Name() + " (test)"
	kind := gitops.GroupKind{Group: "comeandgo.example.test", Kind: "Widget"}
	definition := `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.comeandgo.example.test}
spec:
  group: comeandgo.example.test
  scope: Cluster
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - {name: v1beta1, served: true, storage: false, schema: {openAPIV3Schema: {type: object}}}
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`
	for range 5 {
		_, err := client.Resource(t.Context(), kind, "v1")
		if !cluster.IsNotServed(err) || cluster.IsDiscoveryFailed(err) || !strings.Contains(err.Error(), "Widget.comeandgo.example.test") {
			t.Fatalf("got %v", err)
		}
	}
	if got := len(env.Requests(t, agent)); got > 3 {
		t.Errorf("asking for a missing kind five times cost %d requests", got)
	}
	env.Apply(t, definition)
	env.Kubectl(t, "wait", "--for=condition=Established", "crd/widgets.comeandgo.example.test")
	learn(t, client, kind, "v1")
	res, err := client.Resource(t.Context(), kind, "v1")
	if err != nil || res.Namespaced {
		t.Fatalf("got %v, %v", res, err)
	}
	client.Invalidate()
	if res, err := client.Resource(t.Context(), kind, "v1beta1"); err != nil || res.GVR.Version != "v1beta1" {
		t.Errorf("got %v, %v", res, err)
	}
	if res, err := client.Resource(t.Context(), kind, ""); err != nil || res.GVR.Version != "v1" {
		t.Errorf("got %v, %v", res, err)
	}
	old, err := client.Resource(t.Context(), kind, "v1beta1")
	if err != nil {
		t.Fatal(err)
	}

	// A path that is not served any more is not an object that does not exist.
	env.Apply(t, strings.Replace(definition, "{name: v1beta1, served: true", "{name: v1beta1, served: false", 1))
	eventually(t, func() error {
		if _, err := client.Get(t.Context(), old, "", "missing"); !cluster.IsNotServed(err) || cluster.IsNotFound(err) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	clk.SetTime(clk.Now().Add(time.Minute))
	eventually(t, func() error {
		if _, err := client.Resource(t.Context(), kind, "v1beta1"); !cluster.IsNotServed(err) {
			return fmt.Errorf("the mapper still has the old version: %v", err)
		}
		return nil
	})
	if _, err := client.Get(t.Context(), res, "", "missing"); !cluster.IsNotFound(err) || cluster.IsNotServed(err) {
		t.Errorf("an object that does not exist: %v", err)
	}
	env.Kubectl(t, "delete", "crd/widgets.comeandgo.example.test")
	if _, err := client.Get(t.Context(), res, "", "missing"); err == nil {
		t.Error("the kind is gone")
	}
}

// learn asks until the kind is served.
func learn(t *testing.T, client *cluster.Client, kind gitops.GroupKind, version string) {
	t.Helper()
	eventually(t, func() error {
		if err := client.Learn(t.Context(), kind.Group, version); err != nil {
			return err
		}
		_, err := client.Resource(t.Context(), kind, version)
		return err
	})
}

// eventually asks again until there is no error, for at most 20 seconds.
func eventually(t *testing.T, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

func TestAGroupThatIsDownBreaksNoOther(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t) // it would disturb the other tests
	env.Apply(t, `
apiVersion: v1
kind: Service
metadata: {name: broken, namespace: default}
spec: {ports: [{port: 443}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.broken.example.test}
spec: {group: broken.example.test, version: v1, service: {name: broken, namespace: default}, insecureSkipTLSVerify: true, groupPriorityMinimum: 100, versionPriority: 100}
`)
	client := connect(t, env.REST, cluster.Options{})
	if _, err := client.Resource(t.Context(), deployment, "v1"); err != nil {
		t.Errorf("a kind of a healthy group: %v", err)
	}
	eventually(t, func() error {
		_, err := client.Resource(t.Context(), gitops.GroupKind{Group: "broken.example.test", Kind: "Thing"}, "v1")
		if !cluster.IsDiscoveryFailed(err) || cluster.IsNotServed(err) {
			return fmt.Errorf("a kind of the broken group: %v", err)
		}
		return nil
	})
	client.Invalidate()
	if _, err := client.Resource(t.Context(), deployment, "v1"); err != nil {
		t.Errorf("after invalidation: %v", err)
	}
	if _, err := client.Resource(t.Context(), gitops.GroupKind{Group: "healthy.example.test", Kind: "Thing"}, "v1"); !cluster.IsNotServed(err) {
		t.Errorf("a kind that nobody serves: %v", err)
	}
}

func TestDiscoveryOutage(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	clk := testingclock.NewFakePassiveClock(time.Now())
	var down atomic.Bool
	var asked atomic.Int64
	down.Store(true)
	config := proxied(t, env, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/apis" && r.URL.Path != "/api" {
			return false
		}
		asked.Add(1)
		if down.Load() {
			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		}
		return down.Load()
	})
	client := connect(t, config, cluster.Options{Clock: clk})
	for range 10 {
		if _, err := client.Resource(t.Context(), deployment, "v1"); !cluster.IsDiscoveryFailed(err) || cluster.IsNotServed(err) {
			t.Fatalf("got %v", err)
		}
	}
	if got := asked.Load(); got > 2 {
		t.Errorf("an outage was asked about %d times within a second", got)
	}
	down.Store(false)
	clk.SetTime(clk.Now().Add(2 * time.Second))
	if _, err := client.Resource(t.Context(), deployment, "v1"); err != nil {
		t.Errorf("after the outage: %v", err)
	}
	// What is known serves through the next one.
	down.Store(true)
	client.Invalidate()
	if _, err := client.Resource(t.Context(), deployment, "v1"); err != nil {
		t.Errorf("in the second outage: %v", err)
	}
}

func TestLeavingAFlightLeavesOthers(t *testing.T) {
	t.Parallel()
	env := testenv.Get(t)
	arrived, hold := make(chan struct{}, 10), make(chan struct{})
	config := proxied(t, env, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api" {
			arrived <- struct{}{}
			<-hold
		}
		return false
	})
	client := connect(t, config, cluster.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := client.Resource(ctx, deployment, "v1"); first <- err }()
	<-arrived
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	second := make(chan error, 1)
	go func() { _, err := client.Resource(t.Context(), deployment, "v1"); second <- err }()
	close(hold)
	if err := <-second; err != nil {
		t.Errorf("who stayed got %v", err)
	}
}
