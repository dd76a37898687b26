package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/egress"
)

// TestPublishersAtPrivateAddresses: a flag refuses them, and another one names some.
func TestPublishersAtPrivateAddresses(t *testing.T) {
	t.Parallel()
	publisher := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(publisher.Close)
	for name, test := range map[string]struct {
		flags   config.Operator
		refused bool
	}{
		"by default":                {},
		"refused":                   {config.Operator{NoPrivateSources: true, ArtifactServers: []string{"source-controller"}}, true},
		"refused, but for this one": {config.Operator{NoPrivateSources: true, ArtifactServers: []string{"127.0.0.1"}}, false},
	} {
		out, err := (&server{config: test.flags}).publishers()
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(egress.At(t.Context(), egress.Place{Folder: "bucket/apps/web"}), http.MethodGet, publisher.URL+"/bucket/apps/web/x.tar.gz", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := out.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		if test.refused != (err != nil && strings.Contains(err.Error(), "--no-private-sources")) || !test.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
