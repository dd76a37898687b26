package oci_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source/oci"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestAServerThatIsOutOfOrderForAMoment(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]http.HandlerFunc{
		"an error":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"it hangs up":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"out of service": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
			registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
			var failures atomic.Int64
			registry.Around(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, "/manifests/") && failures.Add(-1) >= 0 {
						fail(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			s := openStore(t, oci.Options{})
			request := oci.Request{URL: registry.URL("app")}
			failures.Store(2)
			fetch(t, s, request, "")
			failures.Store(100)
			if _, err := s.Fetch(t.Context(), request, ""); gitops.KindOf(err) != gitops.Transient {
				t.Errorf("a server that stays out of order: %v", err)
			}
			if got := 100 - failures.Load(); got > 6 {
				t.Errorf("it was asked %d times", got)
			}
		})
	}
}

// TestTooManyRequests are not answered with more of them.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "app", "latest", testenv.Files{"a": "1"})
	var asked atomic.Int64
	instead(registry, "/manifests/", func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, http.StatusTooManyRequests)
	})
	refuse(t, openStore(t, oci.Options{}), oci.Request{URL: registry.URL("app")}, gitops.Transient, "OCIArtifactPullFailed", "429", "slow down")
	if got := asked.Load(); got != 2 {
		t.Errorf("two fetches asked %d times", got)
	}
}
