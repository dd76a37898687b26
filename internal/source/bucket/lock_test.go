package bucket

import (
	"testing"
	"time"
)

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	ask := func(bucket string) (*remote, error) {
		r, _, err := s.remote(Request{Bucket: bucket, Endpoint: "host", Insecure: true}.withDefaults())
		return r, err
	}
	reading, enough := make(chan struct{}), make(chan struct{})
	dial := s.dial
	s.dial = func(r Request) (*connection, error) {
		if r.Bucket == "slow" {
			close(reading)
			<-enough
		}
		return dial(r)
	}
	slow := make(chan error, 1)
	go func() {
		_, err := ask("slow")
		slow <- err
	}()
	<-reading
	quick := make(chan error, 1)
	go func() {
		_, err := ask("quick")
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
