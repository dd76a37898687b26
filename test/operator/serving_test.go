package operator_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// unavailable has a Git server answer nothing but that it is not there.
func unavailable(s *testenv.GitServer) {
	s.Around(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "gone fishing", http.StatusServiceUnavailable)
		})
	})
}

// patchStatus changes the status of the source.
func (w *world) patchStatus(merge string) {
	w.t.Helper()
	w.check(w.client.Status().Patch(w.context(), w.namedSource("repo"), client.RawPatch(types.MergePatchType, []byte(merge))))
}

// The last good artifact of a source is served and kept in order after a restart, whatever
// keeps the operator from fetching it.
func TestRestartServesWhatCannotBeFetched(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]func(w *world, dir string){
		"its Secret is gone": func(w *world, _ string) { w.check(w.client.Delete(w.context(), w.namedSecret("login"))) },
		"what was fetched is lost and the remote is away": func(w *world, dir string) {
			unavailable(w.server)
			w.check(os.RemoveAll(filepath.Join(dir, "git")))
		},
		"what was fetched is lost and the remote hangs": func(w *world, dir string) {
			w.server.Hang()
			w.check(os.RemoveAll(filepath.Join(dir, "git")))
		},
		"it is suspended and its Secret is gone": func(w *world, _ string) {
			w.check(w.client.Delete(w.context(), w.namedSecret("login")))
			w.patchSource(`{"spec":{"suspend":true}}`)
		},
		"it is suspended and what was fetched is lost": func(w *world, dir string) {
			w.check(os.RemoveAll(filepath.Join(dir, "git")))
			w.patchSource(`{"spec":{"suspend":true}}`)
		},
		"what was fetched is another revision than was told and the remote is away": func(w *world, _ string) {
			unavailable(w.server)
			w.patchStatus(`{"status":{"artifact":{"revision":"main@sha1:0123456789012345678901234567890123456789"}}}`)
		},
		"what was fetched is another revision than was told and it is suspended": func(w *world, _ string) {
			w.patchStatus(`{"status":{"artifact":{"revision":"main@sha1:0123456789012345678901234567890123456789"}}}`)
			w.patchSource(`{"spec":{"suspend":true}}`)
		},
		"its URL cannot be used": func(w *world, _ string) { w.patchSource(`{"spec":{"url":"https://"}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dir, address := t.TempDir(), closedPort(w)
			fixed := func(c *config.Operator) { c.Storage.Address = address }
			stop := w.runOwn(dir, fixed)
			first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1"), "app/README.md": "left out"})
			w.secret("login", map[string]string{"username": "ann", "password": "any"})
			w.source(func(s *sourcev1.GitRepository) {
				w.owned(s)
				s.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"}
				s.Spec.Ignore = new("*.md\n")
			})
			w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
			w.ready("app", first)
			kept := w.data("kept", "1")
			before := w.sourceReady(first)
			stop()
			breaks(w, dir)
			broken := w.namedSource("repo")
			w.check(w.client.Get(w.context(), w.key("repo"), broken))

			stop = w.runOwn(dir, fixed)
			w.patch(w.namedConfig("kept"), `{"data":{"key":"drift"}}`)
			w.data("kept", "1")
			w.same(kept)
			if files := w.load(before.GetArtifact()); len(files) != 1 || files["app/kept.yaml"] == "" {
				t.Errorf("the artifact has %v", files)
			}
			after := w.namedSource("repo")
			w.check(w.client.Get(w.context(), w.key("repo"), after))
			if a := after.Status.Artifact; a == nil || a.Digest != before.Status.Artifact.Digest || a.URL != before.Status.Artifact.URL {
				t.Errorf("the status names another artifact: %+v, before %+v", a, before.Status.Artifact)
			}
			if after.Spec.Suspend && after.ResourceVersion != broken.ResourceVersion {
				t.Errorf("the suspended source was written: %+v", after)
			}
			stop()
		})
	}
}

// The index of a Helm repository and a chart of it are served after a restart without the
// Secret of the repository.
func TestRestartServesCharts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, address := t.TempDir(), closedPort(w)
	fixed := func(c *config.Operator) { c.Storage.Address = address }
	stop := w.runOwn(dir, fixed)
	repository := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: "s3cret"})
	repository.Put(t, "web", "1.0.0", testenv.HelmChart(t, "web", "1.0.0", nil))
	w.secret("login", map[string]string{"username": "ann", "password": "s3cret"})
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
		URL: repository.URL(), Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Interval: metav1.Duration{Duration: time.Hour},
		SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
	}}
	w.owned(charts)
	w.owned(web)
	w.check(w.client.Create(w.context(), charts))
	w.check(w.client.Create(w.context(), web))
	index, chart := stored(w, charts, "sha256:"), stored(w, web, "1.0.0")
	stop()
	w.check(w.client.Delete(w.context(), w.namedSecret("login")))
	w.runOwn(dir, fixed)
	unstored(w, charts, "AuthenticationFailed", "not found")
	unstored(w, web, "AuthenticationFailed", "not found|'1.0.0' stays in force")
	for _, url := range []string{index.Status.URL, index.Status.Artifact.URL, chart.Status.Artifact.URL} {
		w.body(url)
	}
}
