package oci

import (
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/egress"
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
	ask := func(proxy string) (*client, error) {
		c, _, err := s.open(Request{URL: "oci://host/app", Proxy: egress.Proxy{Address: proxy}})
		return c, err
	}
	reading, enough := make(chan struct{}), make(chan struct{})
	transport := s.transport
	s.transport = func(o egress.Options) (*egress.Transport, error) {
		if o.Proxy.Address == "http://slow" {
			close(reading)
			<-enough
		}
		return transport(o)
	}
	slow := make(chan error, 1)
	go func() {
		_, err := ask("http://slow")
		slow <- err
	}()
	<-reading
	quick := make(chan error, 1)
	go func() {
		_, err := ask("http://quick")
		quick <- err
	}()
	select {
	case err := <-quick:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("others wait until the keys are read")
	}
	close(enough)
	if err := <-slow; err != nil {
		t.Error(err)
	}
}
