package bucket

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
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
	dial := s.dial
	sourcetest.CheckBeside(t, func(wait func()) {
		s.dial = func(r Request) (*connection, error) {
			if r.Bucket == "slow" {
				wait()
			}
			return dial(r)
		}
	}, func(slow bool) error {
		bucket := map[bool]string{true: "slow", false: "quick"}[slow]
		_, _, err := s.remote(t.Context(), Request{Bucket: bucket, Endpoint: "host", Insecure: true}.withDefaults())
		return err
	})
}
