package operator_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// silent is the address of a server that takes connections and never says a word.
func silent(w *world) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.check(err)
	w.t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// Servers that hang, each for itself or one for many, keep no worker from other sources, and
// nothing can be held for years.
func TestHangingSources(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hanging := testenv.NewGitServer(t, testenv.GitServerOptions{})
	hanging.Hang()
	// More than the workers, and than one server, one namespace and the lane may have.
	const each, shared = 45, 25
	for i := range each + shared {
		url := hanging.URL(fmt.Sprint("repo", i))
		if i < each {
			url = "http://" + silent(w) + "/repo"
		}
		w.source(func(s *sourcev1.GitRepository) {
			w.owned(s)
			s.Name = fmt.Sprint("hangs", i)
			s.Spec.URL = url
			s.Spec.Timeout = &metav1.Duration{Duration: 59 * time.Minute}
		})
	}
	w.patch(w.namedSource("hangs4"), `{"spec":{"timeout":"9999999m"}}`)
	stop := w.runOwn(t.TempDir(), func(c *config.Operator) { c.Concurrent = 2 })
	first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
	w.source(w.ownedSource)
	w.sourceReady(first)
	second := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "2")})
	w.request(w.namedSource("repo"))
	w.sourceReady(second)

	// One that hangs can be changed, deleted and mended while it does.
	w.patch(w.namedSource("hangs0"), `{"spec":{"timeout":"2s"}}`)
	unstored(w, w.namedSource("hangs0"), "GitOperationFailed", "no answer|too many sources of namespace|"+w.namespace)
	w.check(w.client.Delete(w.context(), w.namedSource("hangs1")))
	w.gone(w.namedSource("hangs1"))
	w.patch(w.namedSource("hangs2"), `{"spec":{"url":"`+w.server.URL("repo")+`"}}`)
	stored(w, w.namedSource("hangs2"), second)
	w.patch(w.namedSource("hangs3"), `{"spec":{"suspend":true}}`)
	hanging.Around(nil)
	stop()
}

func (w *world) ownedSource(s *sourcev1.GitRepository) { w.owned(s) }

// A server that asks to be left alone is, for longer than the pause after a failure is; and a
// request is not kept waiting.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"too many requests": http.StatusTooManyRequests, "unavailable": http.StatusServiceUnavailable} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const wish = 6 * time.Second // twice as long as the longest pause
			looks := make(chan time.Time, 100)
			w.server.Around(func(http.Handler) http.Handler {
				return http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
					select {
					case looks <- time.Now():
					default:
					}
					out.Header().Set("Retry-After", fmt.Sprint(int(wish.Seconds())))
					http.Error(out, "later", status)
				})
			})
			w.source()
			unstored(w, w.namedSource("repo"), "GitOperationFailed", fmt.Sprint(status))
			second := func(first time.Time) time.Time {
				for {
					select {
					case at := <-looks:
						// One look may take several requests.
						if at.Sub(first) > wish/10 {
							return at
						}
					case <-time.After(patience):
						t.Fatal("the server is not asked again")
					}
				}
			}
			first := <-looks
			if at := second(first); at.Sub(first) < wish {
				t.Errorf("the server is asked again after %s, and asked for %s", at.Sub(first), wish)
			}
			w.server.Around(nil)
			revision := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
			w.request(w.namedSource("repo"))
			w.sourceReady(revision)
		})
	}
}
