package operator_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestOperatorIsNoSource: what the operator serves of one tenant is not had by another one
// who names the operator's own servers, while sources at the same address are fetched.
func TestOperatorIsNoSource(t *testing.T) {
	t.Parallel()
	victim := newWorld(t)
	tenant := *victim
	tenant.namespace = victim.cluster.Namespace(t)
	w := &tenant
	addresses := [2]string{fixedAddress(t), fixedAddress(t)}
	victim.runOwn(t.TempDir(), func(c *config.Operator) { c.MetricsAddress, c.HealthAddress = addresses[0], addresses[1] })
	mine := func(obj client.Object) { obj.SetLabels(map[string]string{ownOperator: victim.namespace}) }
	repository := func(of *world, name, url string) *sourcev1.HelmRepository {
		obj := &sourcev1.HelmRepository{ObjectMeta: of.meta(name), Spec: sourcev1.HelmRepositorySpec{URL: url, Interval: metav1.Duration{Duration: time.Hour}}}
		mine(obj)
		of.check(of.client.Create(of.context(), obj))
		return obj
	}
	chart := func(of *world, name, from string) *sourcev1.HelmChart {
		obj := &sourcev1.HelmChart{ObjectMeta: of.meta(name), Spec: sourcev1.HelmChartSpec{
			Chart: "web", Interval: metav1.Duration{Duration: time.Hour}, SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: from},
		}}
		mine(obj)
		of.check(of.client.Create(of.context(), obj))
		return obj
	}
	charts := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	charts.Put(t, "web", "1.0.0", testenv.HelmChart(t, "web", "1.0.0", map[string]string{"values.yaml": "password: canary\n"}))
	index := stored(victim, repository(victim, "charts", charts.URL()), "sha256:")
	web := stored(victim, chart(victim, "web", "charts"), "1.0.0")
	// What each of them asks for is there, for whoever may ask.
	latest, base := web.Status.URL, strings.TrimSuffix(index.Status.URL, "/index.yaml")
	metrics, health := "http://"+addresses[0], "http://"+addresses[1]
	for _, url := range []string{latest, base + "/index.yaml", metrics + "/metrics", metrics + "/debug/pprof/", health + "/healthz"} {
		victim.body(url)
	}
	const why = "the operator itself answers there"
	services := map[string]string{}
	for _, server := range []string{base, metrics, health} {
		services[server] = behindService(t, server)
		// It leads there, for others.
		victim.body(services[server] + map[string]string{base: "/index.yaml", metrics: "/metrics", health: "/healthz"}[server])
	}
	for name, attack := range map[string]func(w *world){
		"an index names a chart anywhere, without a digest": func(w *world) {
			lying := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
			lying.Index([]byte("apiVersion: v1\nentries:\n  web:\n  - {name: web, version: 1.0.0, urls: [" + latest + "]}\n"))
			stored(w, repository(w, "lying", lying.URL()), "sha256:")
			unstored(w, chart(w, "lying", "lying"), "ChartPullError", why)
		},
		"a repository is the operator's own": func(w *world) {
			unstored(w, repository(w, "copy", base), "Failed", why)
		},
		"a repository is where the metrics are": func(w *world) {
			unstored(w, repository(w, "metrics", metrics+"/debug/pprof"), "Failed", why)
		},
		"a repository is where the health is told": func(w *world) {
			unstored(w, repository(w, "health", health), "Failed", why)
		},
		"a Service is in front of it": func(w *world) {
			unstored(w, repository(w, "copy-by-service", services[base]), "Failed", why)
			unstored(w, repository(w, "metrics-by-service", services[metrics]+"/debug/pprof"), "Failed", why)
			unstored(w, repository(w, "health-by-service", services[health]), "Failed", why)
		},
		"a status names another one's artifact, whose digest is no secret": func(w *world) {
			obj := w.external("external")
			mine(obj)
			w.check(w.client.Create(w.context(), obj))
			publishes := func(url string) {
				before := obj.DeepCopy()
				obj.Status.Artifact = web.Status.Artifact.DeepCopy()
				obj.Status.Artifact.URL = url
				w.check(w.client.Status().Patch(w.context(), obj, client.MergeFrom(before)))
			}
			publishes(web.Status.Artifact.URL)
			w.kustomization("external", of("ExternalArtifact", "external"), func(k *kustomizev1.Kustomization) { mine(k) })
			folder := "externalartifact/" + w.namespace + "/external/"
			w.notReady("external", "ArtifactFailed", "artifact at "+web.Status.Artifact.URL+"|the path is refused; the artifacts of this object are in "+folder)
			// Nor does a path that could be its own lead there.
			server, _, _ := strings.Cut(web.Status.Artifact.URL, "/helmchart/")
			publishes(server + "/" + folder + "x.tar.gz")
			w.notReady("external", "ArtifactFailed", why)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			as := *w
			as.t = t
			attack(&as)
		})
	}
}

// behindService is the URL of something by another address, as through a Service.
func behindService(t *testing.T, to string) string {
	t.Helper()
	at, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: at.Scheme, Host: at.Host})
	service := httptest.NewServer(proxy)
	t.Cleanup(service.Close)
	return service.URL + at.Path
}

// fixedAddress is an address that nobody listens at, and that no server gets who leaves the
// port to the system: these ports are above.
func fixedAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return listener.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}
