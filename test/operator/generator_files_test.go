package operator_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestGeneratorTakesANameOver: whoever waits for the name of an artifact sees its object go
// before the one that goes has cleaned up, and keeps what it makes all the same.
func TestGeneratorTakesANameOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1"), "b/a.yaml": configMap("a", "2")})
	w.source(w.ownedSource)
	w.through = testenv.NewProxy(t, w.cluster)
	w.runOwn(t.TempDir(), func(*config.Operator) {})
	owned := func(g *swapi.ArtifactGenerator) { w.owned(g) }
	gen := w.generator(makes("a", "@repo/a/** @artifact/"), owned)
	w.generated("gen", "a")
	other := w.namedGenerator("other")
	other.Spec.Sources = gen.Spec.Sources
	makes("a", "@repo/b/** @artifact/")(other)
	owned(other)
	w.check(w.client.Create(w.context(), other))
	w.refuses("other", "ReconciliationFailed", "belongs to ArtifactGenerator '"+w.namespace+"/gen'", false)

	// The answer to the deletion comes when the other one has made its own, or could have.
	deleted := make(chan struct{})
	tell := sync.OnceFunc(func() { close(deleted) })
	w.through.Inject(func(c testenv.Call) testenv.Fault {
		if c.Method != http.MethodDelete || !strings.HasSuffix(c.URL.Path, "/externalartifacts/a") {
			return testenv.Fault{}
		}
		return testenv.Fault{After: func() {
			defer tell()
			ctx := w.context()
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				var ea sourcev1.ExternalArtifact
				if w.client.Get(ctx, w.key("a"), &ea) == nil && ea.Status.Artifact != nil {
					return
				}
			}
		}}
	})
	w.check(w.client.Delete(w.context(), gen))
	<-deleted
	w.gone(gen)
	ea := w.generated("other", "a")["a"]
	w.load(ea.Status.Artifact)
	w.kustomization("a", follows("./"))
	w.ready("a", ea.Status.Artifact.Revision)
	w.data("a", "2")
}
