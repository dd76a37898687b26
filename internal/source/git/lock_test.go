package git

import (
	"testing"

	"github.com/plumb-gitops/plumb/internal/source/git/wire"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
)

// TestKeysAreReadBesideOthers: while the keys of one request are read, which may take
// long, others are served.
func TestKeysAreReadBesideOthers(t *testing.T) {
	t.Parallel()
	s := store(t, Options{})
	dial := s.dial
	sourcetest.CheckBeside(t, func(wait func()) {
		s.dial = func(o wire.Options) (*wire.Client, error) {
			if o.URL.Host == "slow" {
				wait()
			}
			return dial(o)
		}
	}, func(slow bool) error {
		host := map[bool]string{true: "slow", false: "quick"}[slow]
		_, err := s.remote(t.Context(), Request{URL: "https://" + host + "/app"})
		return err
	})
}
