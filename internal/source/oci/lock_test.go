package oci

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	cache, err := artifact.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cache, t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	transport := s.transport
	sourcetest.CheckBeside(t, func(wait func()) {
		s.transport = func(o egress.Options) (*egress.Transport, error) {
			if o.Proxy.Address == "http://slow" {
				wait()
			}
			return transport(o)
		}
	}, func(slow bool) error {
		proxy := map[bool]string{true: "http://slow", false: "http://quick"}[slow]
		_, _, err := s.open(Request{URL: "oci://host/app", Proxy: egress.Proxy{Address: proxy}})
		return err
	})
}
