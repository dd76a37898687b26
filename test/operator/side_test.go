package operator_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// shelf serves artifacts as another source controller does.
type shelf struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	asked map[string]int
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{files: map[string][]byte{}, asked: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[r.URL.Path]++
		content, ok := s.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content)
	}))
	t.Cleanup(s.Close)
	return s
}

// put packs files and gives the artifact that a status names.
func (s *shelf) put(t *testing.T, path, revision string, files map[string]string) *meta.Artifact {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for name, content := range files {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.files[path] = out.Bytes()
	s.mu.Unlock()
	sum := sha256.Sum256(out.Bytes())
	return &meta.Artifact{
		Path: strings.TrimPrefix(path, "/"), URL: s.URL + path, Revision: revision, Digest: "sha256:" + hex.EncodeToString(sum[:]),
		LastUpdateTime: metav1.Now(), Metadata: map[string]string{"org.opencontainers.image.revision": "origin-" + revision},
	}
}

// publishes writes the status of a source as another controller does.
func (w *world) publishes(repository *sourcev1.OCIRepository, a *meta.Artifact) {
	w.t.Helper()
	before := repository.DeepCopy()
	repository.Status.Artifact = a
	w.check(w.client.Status().Patch(w.context(), repository, client.MergeFrom(before)))
}

// TestBesideASourceController runs an operator for Kustomizations alone, beside
// somebody else who works on sources: another operator for Git, and for OCI whoever
// writes the status.
func TestBesideASourceController(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	only := func(c *config.Operator) { c.Controllers = []string{config.KustomizeController} }
	stop := w.runOwn(dir, only)
	shelf := newShelf(t)

	// What the other operator fetches is taken over HTTP.
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	mine := func(k *kustomizev1.Kustomization) { w.owned(k) }
	w.kustomization("app", mine)
	w.ready("app", first)
	a := w.data("a", "1")
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2")})
	w.ready("app", second)
	w.data("a", "2")
	w.same(a)

	// What a third one publishes, of a kind that this version does not work on itself.
	repository := &sourcev1.OCIRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "oci", Labels: map[string]string{ownOperator: w.namespace}},
		Spec:       sourcev1.OCIRepositorySpec{URL: "oci://registry.example/app", Interval: metav1.Duration{Duration: time.Hour}},
	}
	w.check(w.client.Create(w.context(), repository))
	w.kustomization("oci", mine, func(k *kustomizev1.Kustomization) {
		k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: "OCIRepository", Name: "oci"}
		k.Spec.Path = "./deploy"
	})
	w.notReady("oci", "ArtifactFailed", "source artifact not found|OCIRepository '"+w.namespace+"/oci'")
	good := shelf.put(t, "/one.tar.gz", "latest@sha256:1", map[string]string{"deploy/b.yaml": configMap("b", "1"), "deploy/c.yaml": configMap("c", "1")})
	w.publishes(repository, good)
	done := w.ready("oci", "latest@sha256:1")
	if done.Status.LastAppliedOriginRevision != "origin-latest@sha256:1" {
		t.Errorf("the origin revision is %q", done.Status.LastAppliedOriginRevision)
	}
	b, c := w.data("b", "1"), w.data("c", "1")

	// A truncated artifact fails, and nothing is pruned for want of it.
	bad := shelf.put(t, "/two.tar.gz", "latest@sha256:2", map[string]string{"deploy/b.yaml": configMap("b", "2")})
	shelf.mu.Lock()
	whole := shelf.files["/two.tar.gz"]
	shelf.files["/two.tar.gz"] = whole[:len(whole)/2]
	shelf.mu.Unlock()
	w.publishes(repository, bad)
	w.notReady("oci", "ArtifactFailed", "artifact of OCIRepository '"+w.namespace+"/oci'|"+shelf.URL+"/two.tar.gz|truncated or was changed")
	w.patch(w.namedConfig("b"), `{"data":{"key":"drift"}}`)
	w.data("b", "1")
	w.same(c)
	shelf.mu.Lock()
	shelf.files["/two.tar.gz"] = whole
	shelf.mu.Unlock()
	w.ready("oci", "latest@sha256:2")
	w.data("b", "2")
	w.same(b)
	w.gone(c)

	// After a restart nothing is loaded again.
	stop()
	shelf.mu.Lock()
	asked := shelf.asked["/two.tar.gz"]
	shelf.mu.Unlock()
	stop = w.runOwn(dir, only)
	w.request(w.named("oci"))
	waitFor(w, w.named("oci"), "reconciled", func(k *kustomizev1.Kustomization) bool {
		return k.Status.LastHandledReconcileAt == k.Annotations[meta.ReconcileRequestAnnotation] && conditionOf(k.Status.Conditions, "Ready").Status == "True"
	})
	shelf.mu.Lock()
	if shelf.asked["/two.tar.gz"] != asked {
		t.Errorf("the artifact was loaded again")
	}
	shelf.mu.Unlock()
	stop()
	for _, r := range w.writes("ocirepositories", w.namespace, "") {
		t.Errorf("the source of somebody else was written: %s %s", r.Verb, r.RequestURI)
	}
}

// TestWithdrawnArtifact: what somebody takes off a status is given to nobody any more, whether
// or not it was loaded before, and those who have applied it keep it.
func TestWithdrawnArtifact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	stop := w.runOwn(dir, func(*config.Operator) {})
	third := w.external("third")
	w.check(w.client.Create(w.context(), third))
	publish := func(a *meta.Artifact) {
		before := third.DeepCopy()
		third.Status.Artifact = a
		w.check(w.client.Status().Patch(w.context(), third, client.MergeFrom(before)))
	}
	a := newShelf(t).put(t, "/one.tar.gz", "v1", map[string]string{"deploy/c.yaml": configMap("c", "1")})
	of := func(k *kustomizev1.Kustomization) {
		w.owned(k)
		k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: "ExternalArtifact", Name: "third"}
		k.Spec.Path, k.Spec.NamePrefix = "./deploy", k.Name+"-"
	}
	refused := func(name string) {
		t.Helper()
		w.notReady(name, "ArtifactFailed", "source artifact not found|ExternalArtifact '"+w.namespace+"/third'")
	}
	publish(a)
	w.kustomization("early", of)
	w.ready("early", "v1")
	kept := w.data("early-c", "1")

	publish(nil)
	refused("early")
	w.kustomization("late", of)
	refused("late")
	w.generator(makes("a", "@third/ @artifact/"), func(g *swapi.ArtifactGenerator) {
		w.owned(g)
		g.Spec.Sources = []swapi.SourceReference{{Alias: "third", Kind: "ExternalArtifact", Name: "third"}}
	})
	w.refuses("gen", "SourceFetchFailed", "third' is not ready: it has no artifact yet", false)
	w.patch(w.namedConfig("early-c"), `{"data":{"key":"drift"}}`)
	w.data("early-c", "1")

	publish(a)
	w.ready("early", "v1")
	w.ready("late", "v1")
	w.generated("gen", "a")
	publish(nil)
	refused("early")

	// It is the same after a restart.
	stop()
	publish(a)
	stop = w.runOwn(dir, func(*config.Operator) {})
	w.ready("early", "v1")
	stop()
	publish(nil)
	w.runOwn(dir, func(*config.Operator) {})
	refused("early")
	asked := w.request(w.named("early"))
	waitFor(w, w.named("early"), "asked", func(k *kustomizev1.Kustomization) bool {
		return k.Status.LastHandledReconcileAt == asked && conditionOf(k.Status.Conditions, "Ready").Reason == "ArtifactFailed"
	})
	w.same(kept)
	publish(a)
	w.ready("early", "v1")
	w.same(kept)
}

// TestOnlySources runs an operator that leaves Kustomizations to somebody else.
func TestOnlySources(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	revision := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	k := w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.runOwn(t.TempDir(), func(c *config.Operator) { c.Controllers = []string{config.SourceController} })
	w.sourceReady(revision)
	w.check(w.client.Get(w.context(), client.ObjectKeyFromObject(k), k))
	if len(k.Finalizers) > 0 || len(k.Status.Conditions) > 0 {
		t.Errorf("somebody has worked on the Kustomization: %+v", k)
	}
}
