package operator_test

import (
	"encoding/hex"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/zeebo/blake3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// Artifacts have digests of the algorithm that the operator is told, and a revision that
// was there before can be had.
func TestDigestAlgorithm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	folder := t.TempDir()
	stop := w.runOwn(folder, func(*config.Operator) {})
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	source := w.namedSource("repo")
	stored(w, source, first)
	stop()
	w.runOwn(folder, func(c *config.Operator) { c.Storage.DigestAlgorithm = "blake3" })

	repository := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	repository.Put(t, "web", "1.0.0", testenv.HelmChart(t, "web", "1.0.0", nil))
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{URL: repository.URL(), Interval: metav1.Duration{Duration: time.Hour}}}
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Interval: metav1.Duration{Duration: time.Hour}, SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
	}}
	for _, object := range []sourced{charts, web} {
		w.owned(object)
		w.check(w.client.Create(w.context(), object))
	}
	check := func(s sourced) {
		t.Helper()
		a := s.GetArtifact()
		if sum := blake3.Sum256([]byte(w.body(a.URL))); a.Digest != "blake3:"+hex.EncodeToString(sum[:]) {
			t.Errorf("%T has the digest %s", s, a.Digest)
		}
	}
	check(stored(w, charts, "sha256:"))
	check(stored(w, web, "1.0.0"))
	w.request(source)
	stored(w, source, first)
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2")})
	w.request(source)
	check(stored(w, source, second))
}
