package server

import (
	"errors"
	"net"
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

// TestPortsThatAreOpenedAreNoSource: the system chooses them, and sources know them not.
func TestPortsThatAreOpenedAreNoSource(t *testing.T) {
	t.Parallel()
	s := &server{own: egress.NewOwn()}
	t.Cleanup(s.close)
	policy := s.policy() // Some keep it from before anything is served.
	listener, err := s.open("metrics", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, err = policy.Dialer().DialContext(t.Context(), "tcp", listener.Addr().String())
	if refused := (*egress.Refused)(nil); !errors.As(err, &refused) {
		t.Errorf("a source reaches the metrics: %v", err)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	conn, err := policy.Dialer().DialContext(t.Context(), "tcp", other.Addr().String())
	if err != nil {
		t.Fatalf("another server of this machine: %v", err)
	}
	_ = conn.Close()
}
