package operator_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// Who asks for reconciliations all the time, of sources whose server takes its time, keeps
// none of the workers from a namespace that only polls.
func TestRequestsStarveNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(900 * time.Millisecond): // a worker stays for that long
		case <-r.Context().Done():
		}
		http.NotFound(out, r)
	}))
	t.Cleanup(slow.Close)
	var greedy []*sourcev1.GitRepository
	for i := range 24 {
		greedy = append(greedy, w.source(func(s *sourcev1.GitRepository) {
			w.owned(s)
			s.Name, s.Spec.URL = fmt.Sprint("greedy", i), slow.URL+fmt.Sprint("/repo", i)
		}))
	}
	stop := w.runOwn(t.TempDir(), func(c *config.Operator) { c.Concurrent = 1 })
	unstored(w, greedy[len(greedy)-1], "GitOperationFailed", "404 Not Found")

	first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
	modest := w.source(func(s *sourcev1.GitRepository) {
		w.owned(s)
		s.Namespace, s.Spec.Interval = w.makeNamespace("modest").Name, metav1.Duration{Duration: time.Second}
	})
	stored(w, modest, first)
	ended, wait := make(chan struct{}), sync.WaitGroup{}
	defer wait.Wait()
	defer close(ended)
	for part := range 4 {
		wait.Go(func() {
			for i := part; ; i++ {
				select {
				case <-ended:
					return
				default:
				}
				obj := &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: greedy[i%len(greedy)].GetName()}}
				asks := fmt.Sprintf(`{"metadata":{"annotations":{%q:"%d/%d"}}}`, meta.ReconcileRequestAnnotation, part, i)
				if err := w.client.Patch(w.context(), obj, client.RawPatch(types.MergePatchType, []byte(asks)), client.FieldOwner("test")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for version := range 3 {
		next := w.push(testenv.Files{"app/kept.yaml": configMap("kept", fmt.Sprint(2+version))})
		stored(w, modest, next)
	}
	stop()
}
