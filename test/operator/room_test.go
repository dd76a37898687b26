package operator_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestRoomOfANamespace: a source that outgrows what its namespace may keep keeps its last
// artifact and says what to do, and nobody else is harmed.
func TestRoomOfANamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	noise := func(mib int) string {
		bytes := make([]byte, mib<<20)
		_, _ = rand.Read(bytes)
		return string(bytes)
	}
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "noise": noise(1)})
	w.runOwn(t.TempDir(), func(c *config.Operator) { c.Storage.NamespaceBytes = 4 << 20 })
	w.source(w.ownedSource)
	w.sourceReady(first)
	kept := w.namedSource("repo")
	w.check(w.client.Get(w.context(), w.key("repo"), kept))

	w.push(testenv.Files{"noise": noise(5)})
	waitFor(w, w.namedSource("repo"), "refused for want of room", func(s *sourcev1.GitRepository) bool {
		ready := apimeta.FindStatusCondition(s.Status.Conditions, meta.ReadyCondition)
		return ready != nil && ready.Status == metav1.ConditionFalse && ready.Reason == "StorageLimitExceeded" &&
			strings.Contains(ready.Message, "it does not fit into the 4194304 bytes that the sources of namespace '"+w.namespace+"' may keep") &&
			strings.Contains(ready.Message, "--storage-namespace-limit") && strings.Contains(ready.Message, "'"+first+"' stays in force") &&
			apimeta.IsStatusConditionTrue(s.Status.Conditions, sourcev1.StorageOperationFailedCondition) &&
			s.Status.Artifact.Digest == kept.Status.Artifact.Digest
	})
	w.load(kept.Status.Artifact)

	// Another namespace has its own room, also for the same store.
	other := w.namedSource("repo")
	other.Namespace = w.makeNamespace("other").Name
	w.owned(other)
	other.Spec = kept.Spec
	other.Spec.Reference = &sourcev1.GitRepositoryRef{Commit: strings.TrimPrefix(first, "main@sha1:")}
	w.check(w.client.Create(w.context(), other))
	waitFor(w, other, "ready", func(s *sourcev1.GitRepository) bool {
		return apimeta.IsStatusConditionTrue(s.Status.Conditions, meta.ReadyCondition)
	})

	last := w.push(testenv.Files{"noise": ""})
	w.sourceReady(last)
}

// TestRestartGoesOnWithWhatIsInUse: a revision that was taken, and has no room to be stored for
// others, is said to be in use; its consumers go on with it after a restart.
func TestRestartGoesOnWithWhatIsInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, address := t.TempDir(), keptAddress(w)
	fixed := func(c *config.Operator) { c.Storage.Address, c.Storage.NamespaceBytes = address, 5<<20 }
	noise := func(mib int) string {
		bytes := make([]byte, mib<<20)
		_, _ = rand.Read(bytes)
		return string(bytes)
	}
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "noise": noise(1)})
	stop := w.runOwn(dir, fixed)
	w.source(w.ownedSource)
	w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("app", first)
	kept := w.sourceReady(first).Status.Artifact
	// A pack and an artifact of a MiB are there; a pack of two fits, and their artifact does not.
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2"), "app/b.yaml": configMap("b", "2"), "noise": noise(2)})
	words := "|'" + second + "' is in use, but is not stored for others, who are still given '" + first + "'"
	unstored(w, w.namedSource("repo"), "StorageLimitExceeded", "5242880 bytes"+words)
	w.ready("app", second)
	w.load(kept)
	stop()
	unavailable(w.server)
	w.runOwn(dir, fixed)
	unstored(w, w.namedSource("repo"), "GitOperationFailed", "503"+words)
	w.patch(w.namedConfig("b"), `{"data":{"key":"drift"}}`)
	w.data("b", "2")
	w.data("a", "2")
	w.ready("app", second)
	w.load(kept)
}

// TestRoomOfAllKinds: each kind says so in the same words, whatever its adapter makes of an
// error.
func TestRoomOfAllKinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "fleet", "latest", testenv.Files{"one.yaml": configMap("one", "1")})
	server := testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: rightWord})
	server.Fill("fleet", map[string]string{"one.yaml": configMap("one", "1")})
	w.secret("login", map[string]string{"accesskey": "ann", "secretkey": rightWord, "username": "ann", "password": rightWord})
	_, repository, _, _ := w.charts()
	hour := metav1.Duration{Duration: time.Hour}
	oci := &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{URL: registry.URL("fleet"), Interval: hour, Insecure: true}}
	bucket := &sourcev1.Bucket{ObjectMeta: w.meta("fleet"), Spec: sourcev1.BucketSpec{
		Provider: "generic", BucketName: "fleet", Endpoint: server.Address(), Region: "us-east-1", Insecure: true,
		Interval: hour, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}
	registry.PushChart(t, "charts/web", "1.0.0", testenv.HelmChart(t, "web", "1.0.0", nil), nil)
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("registry"), Spec: sourcev1.HelmRepositorySpec{
		URL: registry.URL("charts"), Type: "oci", Interval: hour, Insecure: true,
	}}
	chart := &sourcev1.HelmChart{ObjectMeta: w.meta("chart"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Version: "1.0.0", Interval: hour, SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "registry"},
	}}
	for _, obj := range []sourced{oci, bucket, repository, charts, chart} {
		w.owned(obj)
		w.check(w.client.Create(w.context(), obj))
	}
	w.source(w.ownedSource)
	w.runOwn(t.TempDir(), func(c *config.Operator) { c.Storage.NamespaceBytes = 10 })
	for _, obj := range []sourced{w.namedSource("repo"), oci, bucket, repository, chart} {
		unstored(w, obj, "StorageLimitExceeded", "the newest revision is not taken: it does not fit into the 10 bytes that the sources of namespace '"+w.namespace)
	}
}

// TestRoomOfAGenerator: what is generated is of the same room as its sources, and what is
// unpacked for it.
func TestRoomOfAGenerator(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	for name, rules := range map[string][]string{
		"packed":   {"@repo/noise @artifact/1", "@repo/noise @artifact/2", "@repo/noise @artifact/3", "@repo/noise @artifact/4"},
		"unpacked": {"@repo/big.tgz @artifact/ Extract"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			chart := testenv.HelmChart(t, "web", "1.0.0", map[string]string{"big": strings.Repeat("0", 5<<20)})
			w.push(testenv.Files{"noise": string(noise), "big.tgz": string(chart)})
			w.source(w.ownedSource)
			gen := w.generator(makes("a", rules...), func(g *swapi.ArtifactGenerator) { w.owned(g) })
			w.runOwn(t.TempDir(), func(c *config.Operator) { c.Storage.NamespaceBytes = 4 << 20 })
			w.refuses("gen", "StorageLimitExceeded", "artifact 'a': the newest revision is not taken: it does not fit into the 4194304 bytes that the sources of namespace '"+w.namespace, false)
			w.patch(gen, `{"spec":{"artifacts":[{"name":"a","copy":[{"from":"@repo/noise","to":"@artifact/"}]}]}}`)
			w.generated("gen", "a")
		})
	}
}
