package operator_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"github.com/google/go-cmp/cmp"

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

// A stored file of a generator that is not as it was is stored again from what the consumers
// have, whatever state the generator is in, and nobody has to ask.
func TestGeneratedFileIsMended(t *testing.T) {
	t.Parallel()
	lost := func(w *world, a *meta.Artifact, dir string) {
		w.check(os.Remove(filepath.Join(dir, "artifacts", a.Path)))
	}
	for name, test := range map[string]struct {
		harm  func(w *world, a *meta.Artifact, dir string)
		words string
	}{
		"gone": {lost, "not there"},
		"other content": {func(w *world, a *meta.Artifact, dir string) {
			w.check(tamper(filepath.Join(dir, "artifacts", a.Path)))
		}, "has digest"},
		"gone, without its source": {func(w *world, a *meta.Artifact, dir string) {
			w.check(w.client.Delete(w.context(), w.namedSource("repo")))
			w.gone(w.namedSource("repo"))
			w.request(w.namedGenerator("gen"))
			w.refuses("gen", "SourceFetchFailed", "not found", false)
			lost(w, a, dir)
		}, "not there"},
		"gone, disabled": {func(w *world, a *meta.Artifact, dir string) {
			gen := w.namedGenerator("gen")
			w.annotate(gen, swapi.ReconcileAnnotation, "disabled")
			w.request(gen)
			waitFor(w, gen, "disabled", func(g *swapi.ArtifactGenerator) bool {
				return g.Status.LastHandledReconcileAt == g.Annotations[meta.ReconcileRequestAnnotation]
			})
			lost(w, a, dir)
		}, "not there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.push(testenv.Files{"a/a.yaml": configMap("a", "1")})
			w.source()
			w.generator(makes("a", "@repo/a/** @artifact/"))
			before := w.generated("gen", "a")["a"]
			test.harm(w, before.Status.Artifact, operator.dir)
			w.event("ArtifactGenerator", "gen", "ArtifactVerificationFailed", "failed to verify integrity of artifact|"+test.words)
			w.again(before.Status.Artifact)
			after := w.external("a")
			w.check(w.client.Get(w.context(), w.key("a"), after))
			if after.ResourceVersion != before.ResourceVersion {
				t.Errorf("the object was written: %+v, before %+v", after, before)
			}
		})
	}
	t.Run("gone, with sources of others alone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		third := w.external("third")
		w.check(w.client.Create(w.context(), third))
		third.Status.Artifact = newShelf(t).put(t, "/one.tar.gz", "v1", map[string]string{"c.yaml": configMap("c", "1")})
		w.check(w.client.Status().Update(w.context(), third))
		w.generator(makes("a", "@third/ @artifact/"), func(g *swapi.ArtifactGenerator) {
			w.owned(g)
			g.Spec.Sources = []swapi.SourceReference{{Alias: "third", Kind: "ExternalArtifact", Name: "third"}}
		})
		dir := t.TempDir()
		w.runOwn(dir, func(c *config.Operator) { c.Controllers = []string{config.SourceWatcher} })
		a := w.generated("gen", "a")["a"].Status.Artifact
		lost(w, a, dir)
		w.event("ArtifactGenerator", "gen", "ArtifactVerificationFailed", "not there")
		w.again(a)
	})
}

// What is asked for is stored again at once, and not when somebody looks after the files.
func TestRequestMendsAGeneratedFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1")})
	w.source()
	gen := w.generator(makes("a", "@repo/a/** @artifact/"))
	a := w.generated("gen", "a")["a"].Status.Artifact
	w.check(os.Remove(filepath.Join(operator.dir, "artifacts", a.Path)))
	w.patch(gen, `{"spec":{"commonMetadata":{"labels":{"team":"x"}}}}`)
	w.generated("gen", "a")
	w.load(a)
}

// An artifact whose file is lost, and cannot be made again, is not advertised. Consumers keep
// what they have applied.
func TestLostGeneratedArtifactIsWithdrawn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1")})
	w.source(w.ownedSource)
	gen := w.generator(makes("a", "@repo/a/** @artifact/"), func(g *swapi.ArtifactGenerator) { w.owned(g) })
	w.kustomization("a", follows("./"), func(k *kustomizev1.Kustomization) { w.owned(k) })
	dir := t.TempDir()
	stop := w.runOwn(dir, func(*config.Operator) {})
	before := w.generated("gen", "a")["a"]
	w.ready("a", before.Status.Artifact.Revision)
	stop()
	w.check(os.RemoveAll(filepath.Join(dir, "artifacts", "externalartifact")))
	w.patch(gen, `{"spec":{"sources":[{"alias":"repo","kind":"GitRepository","name":"lost"}]}}`)
	w.runOwn(dir, func(*config.Operator) {})
	w.refuses("gen", "SourceFetchFailed", "'GitRepository/"+w.namespace+"/lost' not found", false)
	waitFor(w, w.external("a"), "withdrawn", func(ea *sourcev1.ExternalArtifact) bool {
		ready := conditionOf(ea.Status.Conditions, "Ready")
		return ea.Status.Artifact == nil && ready.Status == "False" && ready.Reason == "ArtifactVerificationFailed" && strings.Contains(ready.Message, "the stored file is not there")
	})
	w.event("ArtifactGenerator", "gen", "ArtifactVerificationFailed", "'a' is not advertised any more: the stored file is not there")
	w.data("a", "1")
	w.patch(gen, `{"spec":{"sources":[{"alias":"repo","kind":"GitRepository","name":"repo"}]}}`)
	if again := w.generated("gen", "a")["a"]; again.UID != before.UID || again.Status.Artifact.Revision != before.Status.Artifact.Revision {
		t.Errorf("made again it is %+v, before %+v", again, before)
	}
	w.ready("a", before.Status.Artifact.Revision)
	w.told("not advertised any more", 1)
}

// TestGeneratorMadeHalf: where one artifact of a generator is made and the next cannot be, the
// first is advertised and served, also after a restart, and nothing is written again and again.
func TestGeneratorMadeHalf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1"), "new/a.yaml": configMap("a", "2"), "b/b.yaml": configMap("b", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	gen := w.generator(makes("a", "@repo/a/** @artifact/"), makes("b", "@repo/b/** @artifact/"), func(g *swapi.ArtifactGenerator) { w.owned(g) })
	dir := t.TempDir()
	run := func() (stop func()) { return w.runOwn(dir, func(*config.Operator) {}) }
	stop := run()
	first := w.generated("gen", "a", "b")
	w.patch(gen, `{"spec":{"artifacts":[{"name":"a","copy":[{"from":"@repo/new/**","to":"@artifact/"}]},{"name":"b","copy":[{"from":"@repo/missing/","to":"@artifact/"}]}]}}`)
	fails := func(when string) {
		t.Helper()
		asked := w.request(gen)
		waitFor(w, w.namedGenerator("gen"), "handled", func(g *swapi.ArtifactGenerator) bool { return g.Status.LastHandledReconcileAt == asked })
		w.refuses("gen", "BuildFailed", `artifact 'b'|no file or directory "missing"`, false)
		a := w.external("a")
		w.check(w.client.Get(w.context(), w.key("a"), a))
		if a.Status.Artifact == nil || a.Status.Artifact.Digest == first["a"].Status.Artifact.Digest {
			t.Fatalf("%s: what was made is not advertised: %+v", when, a.Status)
		}
		if diff := cmp.Diff(map[string]string{"a.yaml": configMap("a", "2")}, w.load(a.Status.Artifact)); diff != "" {
			t.Errorf("%s: files of the artifact (-want +got):\n%s", when, diff)
		}
	}
	fails("once")
	a, now := w.external("a"), w.external("a")
	w.check(w.client.Get(w.context(), w.key("a"), a))
	fails("again")
	w.check(w.client.Get(w.context(), w.key("a"), now))
	if now.ResourceVersion != a.ResourceVersion {
		t.Errorf("its object was written again (-before +now):\n%s", cmp.Diff(a, now))
	}
	stop()
	stop = run()
	fails("after a restart")
	stop()
}
