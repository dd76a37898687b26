package operator_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// Artifacts of others whose servers send a byte now and then keep no worker either.
func TestHangingArtifacts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shelf, dripping := newShelf(t), drips(w)
	publish := func(name string, a *meta.Artifact) {
		ea := w.external(name)
		if err := w.client.Create(w.context(), ea); !apierrors.IsAlreadyExists(err) {
			w.check(err)
		}
		w.check(w.client.Get(w.context(), client.ObjectKeyFromObject(ea), ea))
		before := ea.DeepCopy()
		ea.Status.Artifact = a
		w.check(w.client.Status().Patch(w.context(), ea, client.MergeFrom(before)))
	}
	good := shelf.put(t, "/good.tar.gz", "v1", map[string]string{"deploy/c.yaml": configMap("kept", "1")})
	slow := *good
	for i := range 12 {
		slow.URL, slow.Digest = fmt.Sprint("http://", dripping, "/", i), fmt.Sprintf("sha256:%064d", i)
		publish(fmt.Sprint("hangs", i), &slow)
	}
	stop := w.runOwn(t.TempDir(), func(c *config.Operator) { c.Concurrent = 2 })
	publish("good", good)
	w.kustomization("good", follows("./deploy"), func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("good", "v1")
	w.data("kept", "1")

	// One that drips can be mended while it does.
	mended := shelf.put(t, "/mended.tar.gz", "v2", map[string]string{"deploy/c.yaml": configMap("mended", "2")})
	publish("hangs3", mended)
	w.kustomization("hangs3", follows("./deploy"), func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("hangs3", "v2")
	w.check(w.client.Delete(w.context(), w.external("hangs4")))
	stop()
}

// drips is the address of a server that sends a byte now and then.
func drips(w *world) string {
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		again := time.NewTicker(time.Second / 5)
		defer again.Stop()
		for {
			_, _ = out.Write([]byte("a"))
			_ = http.NewResponseController(out).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-again.C:
			}
		}
	}))
	w.t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.Listener.Addr().String()
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
