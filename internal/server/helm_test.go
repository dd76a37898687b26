package server

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestChartIsNotVerifiedInSilence: where nobody verifies, a chart that is to be verified is
// refused, whatever the front end thinks of its repository.
func TestChartIsNotVerifiedInSilence(t *testing.T) {
	t.Parallel()
	charts := helmCharts{&server{}}
	for name, request := range map[string]flux.HelmChartRequest{
		"from a repository over HTTP": {Repository: &flux.HelmRepositoryRequest{URL: "https://127.0.0.1:1/charts"}},
		"from a source":               {Source: &flux.ChartSource{}},
	} {
		request.Verification = &flux.Verification{Provider: "cosign"}
		if _, err := charts.Fetch(t.Context(), request, ""); gitops.KindOf(err) != gitops.Stalled {
			t.Errorf("%s it is fetched: %v", name, err)
		}
		if _, err := charts.Last(t.Context(), request); gitops.KindOf(err) != gitops.Stalled {
			t.Errorf("%s the last one is taken: %v", name, err)
		}
	}
}
