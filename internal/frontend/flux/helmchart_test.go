package flux

import (
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TestChartsThatNeedNoServer: it is those of which Flux asks no server.
func TestChartsThatNeedNoServer(t *testing.T) {
	t.Parallel()
	index := parts{{Artifact: gitops.Artifact{Revision: "sha256:1"}}}
	for name, test := range map[string]struct {
		kind, version, observed string
		verify                  bool
		parts                   parts
		want                    bool
	}{
		"in the index that it was chosen from":       {kind: "HelmRepository", version: "1.x", observed: "sha256:1", parts: index, want: true},
		"in a newer index":                           {kind: "HelmRepository", version: "1.0.0", observed: "sha256:0", parts: index},
		"in a registry, with a version":              {kind: "HelmRepository", version: "1.0.0", want: true},
		"in a registry, with a version as of Go":     {kind: "HelmRepository", version: "v1.0.0", want: true},
		"in a registry, with a version and verified": {kind: "HelmRepository", version: "1.0.0", verify: true},
		"in a registry, with a range":                {kind: "HelmRepository", version: "1.x"},
		"in a registry, with a short version":        {kind: "HelmRepository", version: "1.0"},
		"in a registry, with no version":             {kind: "HelmRepository"},
		"in a GitRepository":                         {kind: "GitRepository", version: "1.0.0", observed: "sha256:1", parts: index},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chart := &sourcev1.HelmChart{Spec: sourcev1.HelmChartSpec{SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: test.kind}, Version: test.version}}
			chart.Status.ObservedSourceArtifactRevision = test.observed
			if test.verify {
				chart.Spec.Verify = &sourcev1.HelmChartVerification{Provider: "cosign"}
			}
			if got := (helmCharts{}).settled(chart, pursuit[HelmChartRequest]{parts: test.parts}); got != test.want {
				t.Errorf("settled is %t, want %t", got, test.want)
			}
		})
	}
}
