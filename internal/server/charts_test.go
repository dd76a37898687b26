package server

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/helmrepo"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// chartFetcher follows a chart as the front end does.
type chartFetcher struct {
	helmCharts
	request flux.HelmChartRequest
}

// Fetch finds the chart and gets it.
func (f chartFetcher) Fetch(ctx context.Context, known string) (source.Result, error) {
	return f.helmCharts.Fetch(ctx, f.request, known)
}

// withCharts is a server of which there is what charts of registries need.
func withCharts(t testing.TB, layers oci.Options, charts helmrepo.Options) *server {
	t.Helper()
	folder := t.TempDir()
	cache, err := artifact.OpenCache(filepath.Join(folder, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{}
	if s.oci, err = oci.Open(cache, filepath.Join(folder, "oci"), layers); err != nil {
		t.Fatal(err)
	}
	if s.charts, err = helmrepo.Open(filepath.Join(folder, "charts"), cache, charts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.oci.Close(); err != nil {
			t.Error(err)
		}
		if err := s.charts.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestChartsOfRegistriesConform runs the tests of every source on charts of OCI registries,
// which the store of charts and that of artifacts get together.
func TestChartsOfRegistriesConform(t *testing.T) {
	t.Parallel()
	without := map[sourcetest.Part]string{
		sourcetest.Proxies: "a HelmRepository has no proxySecretRef; that of the environment is taken",
	}
	for name, bearer := range map[string]bool{"basic authentication": false, "tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.CheckFetcher(t, without, func(t *testing.T) sourcetest.Remote {
				registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "s3cret-word", Bearer: bearer})
				registry.PushChart(t, "charts/app", "0.1.0", testenv.HelmChart(t, "app", "0.1.0", nil), nil)
				request := func(address, password string, way sourcetest.Way) flux.HelmChartRequest {
					r := &flux.HelmRepositoryRequest{URL: "oci://" + address + "/charts", Auth: flux.RegistryAuth{Username: "ann", Password: password}}
					r.TLS.CA = way.CA
					return flux.HelmChartRequest{Repository: r, Chart: "app", Version: "1.x"}
				}
				s := helmCharts{withCharts(t, oci.Options{}, helmrepo.Options{})}
				var puts atomic.Int64
				return sourcetest.Remote{
					Fetcher:  chartFetcher{s, request(registry.Host(), "s3cret-word", sourcetest.Way{})},
					Stranger: chartFetcher{s, request(registry.Host(), "wr0ng-word", sourcetest.Way{})},
					Reach: func(t testing.TB, way sourcetest.Way) source.Fetcher {
						address := registry.Host()
						if way.Address != "" {
							address = way.Address
							registry.SetRealm(map[bool]string{false: "http://", true: "https://"}[way.TLS] + address + "/token")
						}
						o := map[string]oci.Options{"bytes of a layer": {LayerBytes: 64 << 10}}[way.Limit]
						c := map[string]helmrepo.Options{"bytes of a chart": {ChartBytes: 64 << 10}, "bytes of a file": {FileBytes: 64 << 10}}[way.Limit]
						return chartFetcher{helmCharts{withCharts(t, o, c)}, request(address, "s3cret-word", way)}
					},
					Address: registry.Host(), Secrets: []string{"s3cret-word", "wr0ng-word"},
					Limits:  []string{"bytes of a layer", "bytes of a chart", "bytes of a file"},
					Retries: true,
					Folder:  "app",
					Besides: func(revision string) map[string]string {
						return map[string]string{"app/Chart.yaml": fmt.Sprintf("apiVersion: v2\nname: app\nversion: %s\n", revision)}
					},
					Put: func(t testing.TB, files map[string]string) {
						version := fmt.Sprintf("1.0.%d", puts.Add(1))
						registry.PushChart(t, "charts/app", version, testenv.HelmChart(t, "app", version, files), nil)
					},
					Gone: func(t testing.TB) {
						for n := range puts.Load() {
							registry.Delete(t, "charts/app", fmt.Sprintf("1.0.%d", n+1))
						}
					},
					Around: registry.Around,
				}
			})
		})
	}
}
