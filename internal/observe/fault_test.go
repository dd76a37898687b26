package observe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/cluster"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// relay is a proxy in front of the API server that tests put faults into.
type relay struct {
	mu       sync.Mutex
	cuts     []context.CancelFunc
	handle   func(http.ResponseWriter, *http.Request) bool
	requests []url.Values
}

func newRelay(t *testing.T, cluster *testenv.Cluster) (*relay, *rest.Config) {
	t.Helper()
	target, err := url.Parse(cluster.REST.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(cluster.REST)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	r := &relay{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithCancel(request.Context())
		defer cancel()
		r.mu.Lock()
		r.requests = append(r.requests, request.URL.Query())
		r.cuts = append(r.cuts, cancel)
		handle := r.handle
		r.mu.Unlock()
		if handle != nil && handle(w, request) {
			return
		}
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				panic(v)
			}
		}()
		proxy.ServeHTTP(w, request.WithContext(ctx))
	}))
	t.Cleanup(server.Close)
	return r, &rest.Config{Host: server.URL, UserAgent: agent}
}

// cut ends all connections, and has handle answer requests from now on.
func (r *relay) cut(handle func(http.ResponseWriter, *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = handle
	for _, cancel := range r.cuts {
		cancel()
	}
	r.cuts = nil
}

func (r *relay) asked() []url.Values {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

func answer(w http.ResponseWriter, err *apierrors.StatusError) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(err.ErrStatus.Code))
	_ = json.NewEncoder(w).Encode(err.ErrStatus)
}

// TestServerThatIsAway ends connections before there is an answer. A server that does so
// is away, and not one at which nothing happens.
func TestServerThatIsAway(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(net.Conn){
		"it hangs up": func(net.Conn) {},
		"it resets":   func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay, config := newRelay(t, testenv.Get(t))
			f := newFixture(t, config)
			changed := f.named("changed")
			f.apply(changed)
			f.sync(f.need(f.object(changed), false))
			relay.cut(func(w http.ResponseWriter, _ *http.Request) bool {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return false
				}
				refuse(conn)
				_ = conn.Close()
				return true
			})
			kind := gitops.GroupKind{Kind: "ConfigMap"}
			f.reach("in error", func() bool { return f.Err(kind) != nil })
			if err := f.Err(kind); !cluster.IsUnreachable(err) {
				t.Errorf("that it cannot be reached is not told: %v", err)
			}
			f.patch(f.object(changed), types.MergePatchType, `{"data":{"a":"away"}}`, "somebody")
			relay.cut(nil)
			if o := f.observation(); o.Ref.Name != "changed" {
				t.Errorf("told of %s", o.Ref.Name)
			}
			f.reach("well again", func() bool { return f.Err(kind) == nil })
		})
	}
}

func TestConnectionThatIsCut(t *testing.T) {
	t.Parallel()
	relay, config := newRelay(t, testenv.Get(t))
	f := newFixture(t, config)
	kept, changed, deleted := f.named("kept"), f.named("changed"), f.named("deleted")
	for _, manifest := range []string{kept, changed, deleted} {
		f.apply(manifest)
	}
	f.sync(f.need(f.object(kept), false))
	for name, refuse := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"and goes on from where it was": func(w http.ResponseWriter, _ *http.Request) bool {
			answer(w, apierrors.NewServiceUnavailable("down"))
			return true
		},
		"and begins again as its position is too old": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("sendInitialEvents") != "" {
				answer(w, apierrors.NewInternalError(errors.New("down")))
				return true
			}
			answer(w, apierrors.NewResourceExpired("too old"))
			return true
		},
		"and begins again as the cluster was set back": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("sendInitialEvents") != "" {
				answer(w, apierrors.NewInternalError(errors.New("down")))
				return true
			}
			late := apierrors.NewTimeoutError("Too large resource version", 1)
			late.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
			answer(w, late)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			relay.cut(refuse)
			before := len(relay.asked())
			f.patch(f.object(changed), types.MergePatchType, `{"data":{"a":"`+name+`"}}`, "somebody")
			if err := f.resource(f.object(deleted)).Delete(t.Context(), "deleted", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			f.reach("in error", func() bool { return f.Err(gitops.GroupKind{Kind: "ConfigMap"}) != nil })
			if _, known := f.Live(refOf(f.apply(kept))); !known {
				t.Error("what was known is not any more, though the failure will pass")
			}
			relay.cut(nil)
			told := map[string]bool{}
			for range 2 {
				o := f.observation()
				told[o.Ref.Name] = o.After.Exists()
			}
			if exists, ok := told["changed"]; !ok || !exists {
				t.Errorf("told %v, want a changed object", told)
			}
			if exists, ok := told["deleted"]; !ok || exists {
				t.Errorf("told %v, want a deleted object", told)
			}
			if again := len(relay.asked()) - before; again > 8 {
				t.Errorf("%d requests to get over it", again)
			}
			f.apply(changed)
			f.apply(deleted)
			for range 2 {
				f.observation()
			}
		})
	}
}

// named is the config map of another name.
func (f *fixture) named(name string) string {
	return strings.ReplaceAll(config, `"name":"c"`, `"name":"`+name+`"`)
}

// hasty is a clock whose timers run a hundred times too fast.
type hasty struct{ clock.RealClock }

func (hasty) NewTimer(d time.Duration) clock.Timer { return clock.RealClock{}.NewTimer(d / 100) }

func (hasty) AfterFunc(d time.Duration, f func()) clock.Timer {
	return clock.RealClock{}.AfterFunc(d/100, f)
}

func TestServersThatCannotStreamLists(t *testing.T) {
	t.Parallel()
	for name, streamed := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"and say so": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("sendInitialEvents") == "" {
				return false
			}
			invalid := apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", nil)
			answer(w, invalid)
			return true
		},
		"and never mark the end": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("sendInitialEvents") == "" {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay, config := newRelay(t, testenv.Get(t))
			relay.handle = streamed
			f := newFixture(t, config)
			f.clock = hasty{}
			first := f.apply(f.named("first"))
			for i := range 2 * pageSize {
				f.apply(f.named(fmt.Sprint("c", i)))
			}
			for _, health := range []bool{false, true} {
				kind := first
				if health {
					kind = f.apply(deployment)
				}
				f.sync(f.need(kind, health))
				if live, known := f.Live(refOf(kind)); !known || !live.Exists() {
					t.Errorf("Live = %+v, %v", live, known)
				}
			}
			f.patch(first, types.MergePatchType, `{"data":{"a":"x"}}`, "somebody")
			o := f.observation()
			for o.Ref != refOf(first) {
				o = f.observation()
			}
			if !fieldsChanged(o) {
				t.Errorf("told %+v, want a changed field", o)
			}
		})
	}
}

func TestSilentServer(t *testing.T) {
	t.Parallel()
	relay, config := newRelay(t, testenv.Get(t))
	relay.handle = func(_ http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		return true
	}
	f := newFixture(t, config)
	need := Need{Kind: gitops.GroupKind{Kind: "ConfigMap"}, Version: "v1"}
	f.Need(f.owner, []Need{need}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := f.WaitSynced(ctx, []Need{need}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitSynced = %v, want the deadline", err)
	}
	f.Close()
}
