package operator_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// An interval of a millisecond, which the API takes, does not keep a server busy.
func TestShortInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "fleet", "latest", testenv.Files{"one.yaml": configMap("one", "1")})
	looks := make(chan time.Time, 1000)
	registry.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/manifests/latest") {
				select {
				case looks <- time.Now():
				default:
				}
			}
			next.ServeHTTP(rw, r)
		})
	})
	w.check(w.client.Create(w.context(), &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{
		URL: registry.URL("fleet"), Interval: metav1.Duration{Duration: time.Millisecond}, Insecure: true,
	}}))
	// The first looks may be for the status that was just written.
	const first, more = 4, 3
	var since time.Time
	for i := range first + more {
		select {
		case at := <-looks:
			if i == first-1 {
				since = at
			}
			if took := at.Sub(since); i == first+more-1 && took < more*900*time.Millisecond {
				t.Errorf("%d looks took %s", more, took)
			}
		case <-time.After(patience):
			t.Fatalf("it was looked at %d times", i)
		}
	}
}
