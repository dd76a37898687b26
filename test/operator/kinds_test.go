package operator_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/internal/verify/verifytest"
)

// sourced is a source of any kind, as these tests look at it.
type sourced interface {
	client.Object
	GetConditions() []metav1.Condition
	GetArtifact() *meta.Artifact
}

// stored waits until a source is Ready at a revision that begins so, and its artifact is
// served.
func stored[T sourced](w *world, obj T, revision string) T {
	w.t.Helper()
	got := waitFor(w, obj, "Ready at "+revision, func(s T) bool {
		a := s.GetArtifact()
		return conditionOf(s.GetConditions(), "Ready").Status == "True" && a != nil && strings.HasPrefix(a.Revision, revision) &&
			apimeta.FindStatusCondition(s.GetConditions(), "FetchFailed") == nil
	})
	if response, err := http.Head(got.GetArtifact().URL); err != nil || response.StatusCode != http.StatusOK {
		w.t.Errorf("the artifact is not served: %v, %v", response, err)
	}
	return got
}

// unstored waits until a source is not Ready for a reason, and keeps what it had.
func unstored[T sourced](w *world, obj T, reason, words string) T {
	w.t.Helper()
	return waitFor(w, obj, fmt.Sprintf("not Ready with reason %s and %q", reason, words), func(s T) bool {
		ready := conditionOf(s.GetConditions(), "Ready")
		return ready.Status == "False" && ready.Reason == reason && says(ready.Message, words)
	})
}

func (w *world) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: w.namespace, Name: name}
}

func dockerConfig(host, user, password string) map[string]any {
	return map[string]any{"auths": map[string]any{host: map[string]any{
		"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password)),
	}}}
}

// pullSecret creates a docker configuration.
func (w *world) pullSecret(name, host, user, password string) {
	w.t.Helper()
	config, err := json.Marshal(dockerConfig(host, user, password))
	w.check(err)
	w.check(w.client.Create(w.context(), &corev1.Secret{
		ObjectMeta: w.meta(name), Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: config},
	}))
}

// of has a Kustomization build the root of a source.
func of(kind, name string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: kind, Name: name}
		k.Spec.Path = "./"
	}
}

// An artifact in a private registry goes live, a newer version follows, and what is wrong
// later takes nothing away.
func TestOCIRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "s3cret", Bearer: true})
	first := registry.Push(t, "fleet", "1.0.0", testenv.Files{"one.yaml": configMap("one", "1")})
	w.pullSecret("pull", registry.Host(), "ann", "s3cret")
	source := &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{
		URL: registry.URL("fleet"), Interval: metav1.Duration{Duration: time.Hour}, Insecure: true,
		Reference: &sourcev1.OCIRepositoryRef{SemVer: "1.x"}, SecretRef: &meta.LocalObjectReference{Name: "pull"},
	}}
	w.check(w.client.Create(w.context(), source))
	w.kustomization("app", of("OCIRepository", "fleet"))
	w.ready("app", "1.0.0@"+first)
	w.data("one", "1")
	got := stored(w, source, "1.0.0@"+first)
	if files := w.load(got.GetArtifact()); files["one.yaml"] == "" {
		t.Errorf("the artifact has %v", files)
	}
	if c := conditionOf(got.Status.Conditions, "ArtifactInStorage"); c.Message != "stored artifact for digest '1.0.0@"+first+"'" {
		t.Errorf("ArtifactInStorage: %+v", c)
	}
	latest, err := http.Head(got.Status.URL)
	w.check(err)
	if latest.Header.Get("Etag") != `"`+got.Status.Artifact.Digest+`"` {
		t.Errorf("%s is answered with %s", got.Status.URL, latest.Status)
	}
	w.event("OCIRepository", "fleet", "NewArtifact", "stored artifact with revision '1.0.0@"+first+"' from '"+registry.URL("fleet"))

	second := registry.Push(t, "fleet", "1.1.0", testenv.Files{"one.yaml": configMap("one", "2")})
	registry.Push(t, "fleet", "2.0.0", testenv.Files{"one.yaml": configMap("one", "too new")})
	w.request(source)
	w.ready("app", "1.1.0@"+second)
	w.data("one", "2")
	stored(w, source, "1.1.0@"+second)

	w.check(w.client.Delete(w.context(), &corev1.Secret{ObjectMeta: w.meta("pull")}))
	unstored(w, source, "AuthenticationFailed", "failed to get secret|'1.1.0@"+second+"' stays in force")
	w.pullSecret("pull", registry.Host(), "ann", "wr0ng-canary")
	failed := unstored(w, source, "AuthenticationFailed", "stays in force")
	if strings.Contains(fmt.Sprint(failed.Status), "wr0ng-canary") {
		t.Errorf("the status has the credential: %+v", failed.Status)
	}
	w.patch(w.namedConfig("one"), `{"data":{"key":"drift"}}`)
	w.data("one", "2")
}

// The pull secrets of a ServiceAccount let in, and one that it is given later does too.
func TestOCIRepositoryServiceAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "s3cret"})
	digest := registry.Push(t, "fleet", "latest", testenv.Files{"one.yaml": configMap("one", "1")})
	w.pullSecret("pull", registry.Host(), "ann", "s3cret")
	account := &corev1.ServiceAccount{ObjectMeta: w.meta("puller")}
	w.check(w.client.Create(w.context(), account))
	source := &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{
		URL: registry.URL("fleet"), Interval: metav1.Duration{Duration: time.Hour}, Insecure: true, ServiceAccountName: "puller",
	}}
	w.check(w.client.Create(w.context(), source))
	unstored(w, source, "AuthenticationFailed", "")
	w.patch(account, `{"imagePullSecrets":[{"name":"pull"}]}`)
	stored(w, source, "latest@"+digest)
}

// sign signs an artifact as cosign does.
func sign(t *testing.T, registry *testenv.Registry, repository, digest string, signer verifytest.Signer) {
	t.Helper()
	pushSimple(t, registry, repository, digest, signer.Simple(t, verifytest.Payload(digest)))
}

// pushSimple pushes a signature of cosign 2.
func pushSimple(t *testing.T, registry *testenv.Registry, repository, digest string, simple verifytest.Simple) {
	t.Helper()
	const mediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	layer := registry.PushBlob(t, repository, mediaType, simple.Payload)
	config := registry.PushBlob(t, repository, "application/vnd.oci.image.config.v1+json", []byte("{}"))
	registry.PushManifest(t, repository, strings.Replace(digest, ":", "-", 1)+".sig", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
		"layers": []any{map[string]any{"mediaType": mediaType, "digest": layer.Digest, "size": layer.Size, "annotations": simple.Annotations}},
	})
}

// Only what is signed with the right key is stored. A new key is a reason to look again.
func TestOCIRepositoryVerification(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	right, wrong := verifytest.KeySigner(t), verifytest.KeySigner(t)
	first := registry.Push(t, "fleet", "latest", testenv.Files{"one.yaml": configMap("one", "1")})
	sign(t, registry, "fleet", first, right)
	w.secret("keys", map[string]string{"one.pub": string(right.Public(t))})
	source := &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{
		URL: registry.URL("fleet"), Interval: metav1.Duration{Duration: time.Hour}, Insecure: true,
		Verify: &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}},
	}}
	w.check(w.client.Create(w.context(), source))
	got := stored(w, source, "latest@"+first)
	if c := conditionOf(got.Status.Conditions, "SourceVerified"); c.Status != "True" || c.Message != "verified signature of revision latest@"+first {
		t.Errorf("SourceVerified: %+v", c)
	}
	unsigned := registry.Push(t, "fleet", "latest", testenv.Files{"one.yaml": configMap("one", "2")})
	w.request(source)
	refused := unstored(w, source, "VerificationError", unsigned+"|stays in force")
	if c := conditionOf(refused.Status.Conditions, "SourceVerified"); c.Status != "False" || refused.Status.Artifact.Revision != "latest@"+first {
		t.Errorf("SourceVerified %+v, artifact %+v", c, refused.Status.Artifact)
	}
	sign(t, registry, "fleet", unsigned, wrong)
	w.patch(w.namedSecret("keys"), `{"stringData":{"two.pub":`+quoted(string(wrong.Public(t)))+`}}`)
	stored(w, source, "latest@"+unsigned)
}

func quoted(text string) string {
	data, _ := json.Marshal(text)
	return string(data)
}

// The objects of a bucket go live; a changed one follows, and is the only one that is
// downloaded.
func TestBucket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: "s3cret-key"})
	server.Fill("fleet", map[string]string{
		"apps/one.yaml": configMap("one", "1"), "apps/two.yaml": configMap("two", "1"), "other/three.yaml": configMap("three", "1"), ".sourceignore": "*.md\n", "apps/a.md": "text",
	})
	w.secret("login", map[string]string{"accesskey": "ann", "secretkey": "s3cret-key"})
	source := &sourcev1.Bucket{ObjectMeta: w.meta("fleet"), Spec: sourcev1.BucketSpec{
		Provider: "generic", BucketName: "fleet", Endpoint: server.Address(), Region: "us-east-1", Prefix: "apps/", Insecure: true,
		Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}
	w.check(w.client.Create(w.context(), source))
	w.kustomization("app", of("Bucket", "fleet"))
	w.data("one", "1")
	w.data("two", "1")
	got := stored(w, source, "sha256:")
	w.ready("app", got.Status.Artifact.Revision)
	if files := w.load(got.GetArtifact()); len(files) != 3 || files["apps/one.yaml"] == "" || files["apps/a.md"] != "" {
		t.Errorf("the artifact has %v", files)
	}
	w.event("Bucket", "fleet", "NewArtifact", "stored artifact with 2 fetched files from 'fleet' bucket")
	server.Requests("get")
	server.Put("fleet", "apps/one.yaml", configMap("one", "2"))
	w.request(source)
	w.data("one", "2")
	if n := server.Requests("get"); n == 0 || n > 2 { // .sourceignore is one
		t.Errorf("%d objects are downloaded for one that changed", n)
	}
	w.patch(w.namedSecret("login"), `{"stringData":{"secretkey":"wr0ng-canary"}}`)
	w.request(source)
	failed := unstored(w, source, "AuthenticationFailed", "stays in force")
	if strings.Contains(fmt.Sprint(failed.Status), "wr0ng-canary") {
		t.Errorf("the status has the credential: %+v", failed.Status)
	}
}

// body is what is served at a URL.
func (w *world) body(url string) string {
	w.t.Helper()
	response, err := http.Get(url)
	w.check(err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	w.check(err)
	if response.StatusCode != http.StatusOK {
		w.t.Errorf("%s is answered with %s", url, response.Status)
	}
	return string(content)
}

// A chart is found in the index of its repository, and a newer version follows the index.
func TestHelmRepositoryAndChart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repository := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: "s3cret"})
	chart := func(version string) []byte {
		return testenv.HelmChart(t, "web", version, map[string]string{"values.yaml": "a: 1\n", "values-prod.yaml": "b: 2\n", "templates/cm.yaml": configMap("web", version)})
	}
	repository.Put(t, "web", "1.0.0", chart("1.0.0"))
	w.secret("login", map[string]string{"username": "ann", "password": "s3cret"})
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
		URL: repository.URL(), Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Version: "1.x", Interval: metav1.Duration{Duration: time.Hour},
		SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
	}}
	w.check(w.client.Create(w.context(), web))
	unstored(w, web, "SourceUnavailable", "HelmRepository")
	w.check(w.client.Create(w.context(), charts))
	index := stored(w, charts, "sha256:")
	if text := w.body(index.Status.URL); !strings.Contains(text, "web-1.0.0.tgz") || !strings.HasSuffix(index.Status.URL, "/index.yaml") {
		t.Errorf("%s is %q", index.Status.URL, text)
	}
	w.event("HelmRepository", "charts", "NewArtifact", "stored fetched index of size|from '"+repository.URL()+"'")
	got := stored(w, web, "1.0.0")
	if ready := conditionOf(got.Status.Conditions, "Ready"); ready.Reason != "ChartPullSucceeded" || ready.Message != "pulled 'web' chart with version '1.0.0'" {
		t.Errorf("Ready: %+v", ready)
	}
	if got.Status.ObservedChartName != "web" || got.Status.ObservedSourceArtifactRevision != index.Status.Artifact.Revision || !strings.HasSuffix(got.Status.Artifact.Path, "/web-1.0.0.tgz") {
		t.Errorf("status: %+v", got.Status)
	}
	if text := w.body(got.Status.Artifact.URL); text != string(chart("1.0.0")) {
		t.Errorf("the chart has %d bytes, other than in the repository", len(text))
	}
	repository.Put(t, "web", "1.2.0", chart("1.2.0"))
	w.request(charts)
	stored(w, web, "1.2.0")
	w.patch(web, `{"spec":{"valuesFiles":["values.yaml","values-prod.yaml"]}}`)
	merged := stored(w, web, "1.2.0+2")
	if ready := conditionOf(merged.Status.Conditions, "Ready"); ready.Reason != "ChartPackageSucceeded" || !strings.HasSuffix(ready.Message, "and merged values files [values.yaml values-prod.yaml]") {
		t.Errorf("Ready: %+v", ready)
	}
	w.patch(web, `{"spec":{"version":"9.x","valuesFiles":null}}`)
	unstored(w, web, "InvalidChartReference", "9.x|'1.2.0+2' stays in force")
	lasts(w, web)
	// A new index is the end of it, and so is another specification.
	repository.Put(t, "web", "9.0.0", chart("9.0.0"))
	w.request(charts)
	if got := stored(w, web, "9.0.0"); apimeta.FindStatusCondition(got.Status.Conditions, "Stalled") != nil {
		t.Errorf("Stalled stays: %+v", got.Status.Conditions)
	}
	w.patch(web, `{"spec":{"valuesFiles":["nowhere.yaml"]}}`)
	unstored(w, web, "ValuesFilesError", "nowhere.yaml|'9.0.0' stays in force")
	lasts(w, web)
	w.patch(web, `{"spec":{"ignoreMissingValuesFiles":true}}`)
	stored(w, web, "9.0.0")
}

// lasts checks that a failure is not tried again by itself.
func lasts(w *world, obj sourced) {
	w.t.Helper()
	w.check(w.client.Get(w.context(), client.ObjectKeyFromObject(obj), obj))
	ready, stalled := conditionOf(obj.GetConditions(), "Ready"), conditionOf(obj.GetConditions(), "Stalled")
	if stalled.Status != "True" || stalled.Reason != ready.Reason || stalled.Message != ready.Message || apimeta.FindStatusCondition(obj.GetConditions(), "Reconciling") != nil {
		w.t.Errorf("it is not stalled: %+v", obj.GetConditions())
	}
}

// A chart in a Git repository is packaged, for each revision where that is wanted.
func TestHelmChartFromGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	chart := func(version string) testenv.Files {
		return testenv.Files{
			"charts/web/Chart.yaml": "apiVersion: v2\nname: web\nversion: " + version + "\n", "charts/web/values.yaml": "a: 1\n",
			"charts/web/templates/cm.yaml": configMap("web", "1"),
		}
	}
	first := w.push(chart("0.1.0"))
	w.source()
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "./charts/web", Interval: metav1.Duration{Duration: time.Hour},
		SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "GitRepository", Name: "repo"},
	}}
	w.check(w.client.Create(w.context(), web))
	got := stored(w, web, "0.1.0")
	if got.Status.ObservedSourceArtifactRevision != first {
		t.Errorf("observed %q, want %q", got.Status.ObservedSourceArtifactRevision, first)
	}
	w.push(chart("0.2.0"))
	w.fetch()
	stored(w, web, "0.2.0")
	w.patch(web, `{"spec":{"reconcileStrategy":"Revision"}}`)
	stored(w, web, "0.2.0+")
	revision := w.push(testenv.Files{"charts/web/values.yaml": "a: 2\n"})
	w.fetch()
	_, hash, _ := strings.Cut(revision, "sha1:")
	stored(w, web, "0.2.0+"+hash[:12])
	w.push(testenv.Files{"charts/web/Chart.yaml": "name: [\n"})
	w.fetch()
	unstored(w, web, "InvalidChartReference", "Chart.yaml|stays in force")
	lasts(w, web)
	w.push(chart("0.3.0"))
	w.fetch()
	stored(w, web, "0.3.0+")
}

// A chart in a registry needs no index, and its signature is verified.
func TestHelmChartFromRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "s3cret"})
	signer := verifytest.KeySigner(t)
	digest := registry.PushChart(t, "charts/web", "1.0.0_b1", testenv.HelmChart(t, "web", "1.0.0+b1", map[string]string{"values.yaml": "a: 1\n"}), nil)
	w.pullSecret("pull", registry.Host(), "ann", "s3cret")
	w.secret("keys", map[string]string{"one.pub": string(signer.Public(t))})
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
		URL: registry.URL("charts"), Type: "oci", Insecure: true, Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "pull"},
	}}
	w.check(w.client.Create(w.context(), charts))
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Interval: metav1.Duration{Duration: time.Hour},
		SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
		Verify:    &sourcev1.HelmChartVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}},
	}}
	w.check(w.client.Create(w.context(), web))
	refused := unstored(w, web, "ChartVerificationError", "has no cosign signature")
	if c := conditionOf(refused.Status.Conditions, "SourceVerified"); c.Status != "False" || c.Reason != "VerificationError" {
		t.Errorf("SourceVerified: %+v", c)
	}
	sign(t, registry, "charts/web", digest, signer)
	w.request(web)
	got := stored(w, web, "1.0.0+b1")
	if c := conditionOf(got.Status.Conditions, "SourceVerified"); c.Status != "True" || c.Message != "verified signature of version 1.0.0+b1" {
		t.Errorf("SourceVerified: %+v", c)
	}
	// A policy that skips the verification verifies nothing.
	policy := `{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":["*"],"signatureVerification":{"level":"skip"}}]}`
	w.secret("trust", map[string]string{"trustpolicy.json": policy, "a.crt": string(verifytest.NewAuthority(t).PEM())})
	w.patch(web, `{"spec":{"verify":{"provider":"notation","secretRef":{"name":"trust"}}}}`)
	waitFor(w, web, "Ready, and verified by nobody", func(c *sourcev1.HelmChart) bool {
		return apimeta.FindStatusCondition(c.Status.Conditions, "SourceVerified") == nil && c.Status.ObservedGeneration == c.Generation &&
			conditionOf(c.Status.Conditions, "Ready").Status == "True"
	})
	// A registry tells nobody of a new tag: it is asked again.
	w.patch(web, `{"spec":{"version":"9.x","verify":null}}`)
	missing := unstored(w, web, "ChartPullError", "no tag in the range|stays in force")
	if apimeta.FindStatusCondition(missing.Status.Conditions, "Stalled") != nil {
		t.Errorf("stalled: %+v", missing.Status.Conditions)
	}
	w.check(w.client.Get(w.context(), w.key("charts"), charts))
	if len(charts.Status.Conditions) > 0 || len(charts.Finalizers) > 0 {
		t.Errorf("a repository of type oci is worked on: %+v, %v", charts.Status, charts.Finalizers)
	}
}

// Commits and tags are stored only where they are signed as the object wants it.
func TestGitRepositoryVerification(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann, bob := testenv.NewGitSigner(t), testenv.NewGitSigner(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	first := ann.Sign(t, w.repo, "main")
	w.secret("keys", map[string]string{"ann.sshpub": string(ann.AuthorizedKey())})
	w.source(func(s *sourcev1.GitRepository) {
		s.Spec.Verification = &sourcev1.GitRepositoryVerification{Mode: sourcev1.ModeGitHEAD, SecretRef: meta.LocalObjectReference{Name: "keys"}}
	})
	source := w.namedSource("repo")
	got := stored(w, source, "main@sha1:"+first)
	if c := conditionOf(got.Status.Conditions, "SourceVerified"); c.Status != "True" || !says(c.Message, "commit '"+first+"' with key '"+ann.Fingerprint()) || got.Status.SourceVerificationMode == nil || *got.Status.SourceVerificationMode != sourcev1.ModeGitHEAD {
		t.Errorf("SourceVerified: %+v, mode %v", c, got.Status.SourceVerificationMode)
	}

	w.push(testenv.Files{"app/a.yaml": configMap("a", "2")})
	second := bob.Sign(t, w.repo, "main")
	w.request(source)
	refused := unstored(w, source, "InvalidCommitSignature", second+"|'main@sha1:"+first+"' stays in force")
	if c := conditionOf(refused.Status.Conditions, "SourceVerified"); c.Status != "False" {
		t.Errorf("SourceVerified: %+v", c)
	}
	w.patch(w.namedSecret("keys"), `{"stringData":{"bob.sshpub":`+quoted(string(bob.AuthorizedKey()))+`}}`)
	stored(w, source, "main@sha1:"+second)

	// A tag is asked for, of which the branch has none.
	w.patch(source, `{"spec":{"verify":{"mode":"Tag"}}}`)
	unstored(w, source, "InvalidVerificationMode", "tag")
	bob.Tag(t, w.repo, "v1.0.0", "v1.0.0", second)
	w.patch(source, `{"spec":{"ref":{"branch":null,"tag":"v1.0.0"}}}`)
	tagged := stored(w, source, "v1.0.0@sha1:"+second)
	if c := conditionOf(tagged.Status.Conditions, "SourceVerified"); c.Status != "True" || !says(c.Message, "tag 'v1.0.0@|"+bob.Fingerprint()) || says(c.Message, "commit '") {
		t.Errorf("SourceVerified: %+v", c)
	}
	w.patch(source, `{"spec":{"verify":null}}`)
	waitFor(w, source, "no longer verified", func(s *sourcev1.GitRepository) bool {
		return apimeta.FindStatusCondition(s.Status.Conditions, "SourceVerified") == nil && s.Status.SourceVerificationMode == nil && s.Status.ObservedGeneration == s.Generation
	})
}

// An index that is another one at each look is looked at once for each interval or request.
func TestHelmRepositoryThatNeverStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repository := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	repository.Put(t, "web", "1.0.0", testenv.HelmChart(t, "web", "1.0.0", nil))
	var looks atomic.Int64
	repository.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/index.yaml") {
				next.ServeHTTP(rw, r)
				return
			}
			r.Header.Del("If-None-Match")
			r.Header.Del("If-Modified-Since")
			recorded := httptest.NewRecorder()
			next.ServeHTTP(recorded, r)
			_, _ = fmt.Fprintf(rw, "%s\n# look %d\n", recorded.Body, looks.Add(1))
		})
	})
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{URL: repository.URL(), Interval: metav1.Duration{Duration: time.Hour}}}
	w.check(w.client.Create(w.context(), charts))
	stored(w, charts, "sha256:")
	for range 2 {
		asked := w.request(charts)
		waitFor(w, charts, "the request answered", func(r *sourcev1.HelmRepository) bool { return r.Status.LastHandledReconcileAt == asked })
	}
	if n := looks.Load(); n != 3 {
		t.Errorf("the index was asked for %d times, want once at first and once for each of two requests", n)
	}
}

// A repository whose type was forgotten is only read once it has one.
func TestHelmRepositoryBecomesRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{URL: "oci://127.0.0.1:1/charts", Interval: metav1.Duration{Duration: time.Hour}}}
	w.check(w.client.Create(w.context(), charts))
	unstored(w, charts, "URLInvalid", "spec.type: oci")
	w.patch(charts, `{"spec":{"type":"oci"}}`)
	waitFor(w, charts, "without a status", func(r *sourcev1.HelmRepository) bool {
		return len(r.Status.Conditions) == 0 && r.Status.ObservedGeneration == 0 && len(r.Finalizers) == 0
	})
}

// A repository of type oci whose URL is none of a registry would be asked over HTTP, where
// nobody verifies.
func TestHelmChartOfAMistypedRepository(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	server.Put(t, "web", "1.0.0", testenv.HelmChart(t, "web", "1.0.0", nil))
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
		URL: strings.Replace(server.URL(), "http://", "http://ann:s3cret@", 1), Type: "oci", Interval: metav1.Duration{Duration: time.Hour},
	}}
	w.check(w.client.Create(w.context(), charts))
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Interval: metav1.Duration{Duration: time.Hour},
		SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
		Verify:    &sourcev1.HelmChartVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}},
	}}
	w.secret("keys", map[string]string{"one.pub": string(verifytest.KeySigner(t).Public(t))})
	w.check(w.client.Create(w.context(), web))
	unstored(w, web, "Failed", "invalid OCI registry URL: '"+server.URL()+"'|which is of type oci, does not begin with oci://")
	w.patch(web, `{"spec":{"verify":null}}`)
	waitFor(w, web, "refused without verification too", func(c *sourcev1.HelmChart) bool {
		stalled := conditionOf(c.Status.Conditions, "Stalled")
		return c.Status.ObservedGeneration == c.Generation && stalled.Status == "True" && stalled.Reason == "Failed"
	})
	// The type that the URL has is not enough for a chart that is to be verified.
	w.patch(web, `{"spec":{"verify":{"provider":"cosign","secretRef":{"name":"keys"}}}}`)
	w.patch(charts, `{"spec":{"type":"default"}}`)
	unstored(w, web, "VerificationError", "spec.verify is for charts of a HelmRepository of type oci")
	w.patch(web, `{"spec":{"verify":null}}`)
	stored(w, web, "1.0.0")
}
