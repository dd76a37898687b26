package helmrepo

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/artifact"
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
	s, err := Open(t.TempDir(), cache, Options{})
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
		s.dial = func(r Repository) (*remote, error) {
			if r.URL == "https://slow" {
				wait()
			}
			return dial(r)
		}
	}, func(slow bool) error {
		_, err := s.remote(t.Context(), Repository{URL: map[bool]string{true: "https://slow", false: "https://quick"}[slow]})
		return err
	})
}
