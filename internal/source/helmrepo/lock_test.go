package helmrepo

import (
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	cache, err := artifact.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.TempDir(), cache, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	reading, enough := make(chan struct{}), make(chan struct{})
	dial := s.dial
	s.dial = func(r Repository) (*remote, error) {
		if r.URL == "https://slow" {
			close(reading)
			<-enough
		}
		return dial(r)
	}
	slow := make(chan error, 1)
	go func() {
		_, err := s.remote(Repository{URL: "https://slow"})
		slow <- err
	}()
	<-reading
	quick := make(chan error, 1)
	go func() {
		_, err := s.remote(Repository{URL: "https://quick"})
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
