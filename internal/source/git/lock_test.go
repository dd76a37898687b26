package git

import (
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/source/git/wire"
)

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	s := store(t, Options{})
	reading, enough := make(chan struct{}), make(chan struct{})
	dial := s.dial
	s.dial = func(o wire.Options) (*wire.Client, error) {
		if o.URL.Host == "slow" {
			close(reading)
			<-enough
		}
		return dial(o)
	}
	slow := make(chan error, 1)
	go func() {
		_, err := s.remote(Request{URL: "https://slow/app"})
		slow <- err
	}()
	<-reading
	quick := make(chan error, 1)
	go func() {
		_, err := s.remote(Request{URL: "https://quick/app"})
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
