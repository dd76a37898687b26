package operator_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"github.com/google/go-cmp/cmp"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/source/sourcetest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// generator creates an ArtifactGenerator "gen" of the source "repo", under the alias repo.
func (w *world) generator(change ...func(*swapi.ArtifactGenerator)) *swapi.ArtifactGenerator {
	w.t.Helper()
	obj := w.namedGenerator("gen")
	obj.Spec.Sources = []swapi.SourceReference{{Alias: "repo", Kind: "GitRepository", Name: "repo"}}
	for _, f := range change {
		f(obj)
	}
	w.check(w.client.Create(w.context(), obj))
	return obj
}

func (w *world) namedGenerator(name string) *swapi.ArtifactGenerator {
	return &swapi.ArtifactGenerator{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

func (w *world) external(name string) *sourcev1.ExternalArtifact {
	return &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

// makes adds an artifact to a generator, made by rules of the form "from to".
func makes(name string, rules ...string) func(*swapi.ArtifactGenerator) {
	return func(obj *swapi.ArtifactGenerator) {
		a := swapi.OutputArtifact{Name: name}
		for _, rule := range rules {
			from, to, _ := strings.Cut(rule, " ")
			to, strategy, _ := strings.Cut(to, " ")
			a.Copy = append(a.Copy, swapi.CopyOperation{From: from, To: to, Strategy: strategy})
		}
		obj.Spec.OutputArtifacts = append(obj.Spec.OutputArtifacts, a)
	}
}

// follows has a Kustomization follow a generated artifact of its name.
func follows(path string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: "ExternalArtifact", Name: k.Name}
		k.Spec.Path = path
	}
}

// generated waits until a generator is Ready at its newest specification with artifacts of
// the given names, and gives their objects.
func (w *world) generated(generator string, names ...string) map[string]*sourcev1.ExternalArtifact {
	w.t.Helper()
	obj := waitFor(w, w.namedGenerator(generator), "Ready with "+strings.Join(names, ", "), func(g *swapi.ArtifactGenerator) bool {
		var got []string
		for _, entry := range g.Status.Inventory {
			got = append(got, entry.Name)
		}
		ready := conditionOf(g.Status.Conditions, "Ready")
		return slices.Equal(got, names) && ready.Status == "True" && ready.ObservedGeneration == g.Generation &&
			apimeta.FindStatusCondition(g.Status.Conditions, "Reconciling") == nil && apimeta.FindStatusCondition(g.Status.Conditions, "Stalled") == nil
	})
	if ready := conditionOf(obj.Status.Conditions, "Ready"); ready.Message != fmt.Sprintf("reconciliation succeeded, generated %d artifact(s)", len(names)) {
		w.t.Errorf("Ready: %+v", ready)
	}
	all := map[string]*sourcev1.ExternalArtifact{}
	for _, entry := range obj.Status.Inventory {
		ea := w.external(entry.Name)
		w.check(w.client.Get(w.context(), w.key(entry.Name), ea))
		if a := ea.Status.Artifact; a == nil || a.Digest != entry.Digest || !strings.HasSuffix(a.Path, "/"+entry.Filename) {
			w.t.Errorf("the inventory has %+v of the artifact %+v", entry, ea.Status.Artifact)
		}
		all[entry.Name] = ea
	}
	return all
}

// refuses waits until a generator is not Ready for a reason.
func (w *world) refuses(name, reason, words string, stalled bool) *swapi.ArtifactGenerator {
	w.t.Helper()
	obj := waitFor(w, w.namedGenerator(name), fmt.Sprintf("not Ready with reason %s and %q", reason, words), func(g *swapi.ArtifactGenerator) bool {
		ready := conditionOf(g.Status.Conditions, "Ready")
		return ready.Status == "False" && ready.Reason == reason && says(ready.Message, words) && ready.ObservedGeneration == g.Generation
	})
	if got := conditionOf(obj.Status.Conditions, "Stalled").Status == "True"; got != stalled {
		w.t.Errorf("stalled is %t: %+v", got, obj.Status.Conditions)
	}
	w.event("ArtifactGenerator", name, reason, words)
	return obj
}

// load gets an artifact as others do, and gives its files.
func (w *world) load(a *meta.Artifact) map[string]string {
	w.t.Helper()
	response, err := http.Get(a.URL)
	w.check(err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	w.check(err)
	sum := sha256.Sum256(content)
	if response.StatusCode != http.StatusOK || a.Digest != "sha256:"+hex.EncodeToString(sum[:]) || *a.Size != int64(len(content)) {
		w.t.Fatalf("%s is answered with %s, %d bytes of digest %x: %+v", a.URL, response.Status, len(content), sum, a)
	}
	files, err := artifact.Read(strings.NewReader(string(content)))
	w.check(err)
	return sourcetest.Contents(w.t, files)
}

// TestGeneratorDecomposes splits a repository, and shows that a commit reaches only what
// it changes.
func TestGeneratorDecomposes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"apps/a/a.yaml": configMap("a", "1"), "apps/b/b.yaml": configMap("b", "1"), "README.md": "x"})
	w.source()
	w.generator(makes("a", "@repo/apps/a/** @artifact/"), makes("b", "@repo/apps/b/** @artifact/deploy/"), func(g *swapi.ArtifactGenerator) {
		g.Spec.OutputArtifacts[0].OriginRevision = "@repo"
		g.Spec.CommonMetadata = &swapi.CommonMetadata{Labels: map[string]string{"team": "x", "app.kubernetes.io/managed-by": "me"}, Annotations: map[string]string{"note": "y"}}
	})
	w.kustomization("a", follows("./"))
	w.kustomization("b", follows("./deploy"))
	before := w.generated("gen", "a", "b")
	w.ready("a", before["a"].Status.Artifact.Revision)
	w.ready("b", before["b"].Status.Artifact.Revision)
	w.data("a", "1")
	w.data("b", "1")
	w.event("ArtifactGenerator", "gen", "Ready", "external artifacts reconciled: "+w.namespace+"/a (sha256:|"+w.namespace+"/b (sha256:")

	ea := before["a"]
	a := ea.Status.Artifact
	if diff := cmp.Diff(map[string]string{"a.yaml": configMap("a", "1")}, w.load(a)); diff != "" {
		t.Errorf("files of the artifact (-want +got):\n%s", diff)
	}
	gen := w.namedGenerator("gen")
	w.check(w.client.Get(w.context(), w.key("gen"), gen))
	labels := map[string]string{"team": "x", "app.kubernetes.io/managed-by": "source-watcher", "source.extensions.fluxcd.io/generator": string(gen.UID)}
	if !maps.Equal(labels, ea.Labels) || ea.Annotations["note"] != "y" || a.Revision != "latest@"+a.Digest ||
		!strings.HasPrefix(a.Path, "externalartifact/"+w.namespace+"/a/") || a.Metadata["org.opencontainers.image.revision"] != first ||
		ea.Spec.SourceRef == nil || ea.Spec.SourceRef.Kind != "ArtifactGenerator" || ea.Spec.SourceRef.APIVersion != "source.extensions.fluxcd.io/v1beta1" ||
		conditionOf(ea.Status.Conditions, "Ready").Reason != "Succeeded" || !slices.Contains(gen.Finalizers, swapi.Finalizer) {
		t.Errorf("the object is %+v", ea)
	}
	if before["b"].Status.Artifact.Metadata != nil {
		t.Errorf("an artifact without an origin has %v", before["b"].Status.Artifact.Metadata)
	}

	second := w.push(testenv.Files{"apps/a/a.yaml": configMap("a", "2")})
	w.data("a", "2")
	w.sourceReady(second)
	observed := w.observed("gen", second)
	after := w.generated("gen", "a", "b")
	w.ready("a", after["a"].Status.Artifact.Revision)
	if after["a"].Status.Artifact.Revision == a.Revision || after["a"].Status.Artifact.Metadata["org.opencontainers.image.revision"] != second {
		t.Errorf("after a change the artifact is %+v", after["a"].Status.Artifact)
	}
	if after["b"].ResourceVersion != before["b"].ResourceVersion {
		t.Errorf("an artifact that did not change was written: %+v", after["b"])
	}

	// A commit that no artifact copies changes what is known of the origin, and nothing else.
	third := w.push(testenv.Files{"README.md": "y"})
	w.sourceReady(third)
	if again := w.observed("gen", third); again == observed {
		t.Error("the digest of the sources did not change")
	}
	last := w.generated("gen", "a", "b")
	if now := last["a"].Status.Artifact; now.Revision != after["a"].Status.Artifact.Revision || now.Metadata["org.opencontainers.image.revision"] != third || !now.LastUpdateTime.Equal(&after["a"].Status.Artifact.LastUpdateTime) {
		t.Errorf("after a commit elsewhere the artifact is %+v", now)
	}
	if last["b"].ResourceVersion != before["b"].ResourceVersion {
		t.Errorf("an artifact that did not change was written: %+v", last["b"])
	}
	w.told("external artifacts reconciled", 2)
}

// told waits until the generator "gen" has as many events with some words as it is to have,
// and fails where it has more.
func (w *world) told(words string, want int) {
	w.t.Helper()
	for ctx := w.context(); ; {
		switch got := w.events("ArtifactGenerator", "gen", words); {
		case len(got) > want:
			w.t.Errorf("%d events %q of the generator, want %d: %v", len(got), words, want, got)
			return
		case len(got) == want:
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("events %q of the generator: %v", words, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// observed waits until a generator has seen the artifact of a revision of "repo".
func (w *world) observed(name, revision string) string {
	w.t.Helper()
	source := w.sourceReady(revision)
	want := swapi.HashObservedSources(map[string]swapi.ObservedSource{"repo": {
		Digest: source.Status.Artifact.Digest, Revision: revision, URL: source.Status.Artifact.URL}})
	return waitFor(w, w.namedGenerator(name), "to have observed "+revision, func(g *swapi.ArtifactGenerator) bool {
		return g.Status.ObservedSourcesDigest == want
	}).Status.ObservedSourcesDigest
}

// TestGeneratorComposes joins sources, one of them generated itself, and one that somebody
// else publishes.
func TestGeneratorComposes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"base/values.yaml": "a: 1\nb: 1\n", "base/x.yaml": "x", "prod.yaml": "b: 2\n"})
	w.source()
	shelf := newShelf(t)
	third := w.external("third")
	w.check(w.client.Create(w.context(), third))
	publish := func(a *meta.Artifact) {
		before := third.DeepCopy()
		third.Status.Artifact = a
		w.check(w.client.Status().Patch(w.context(), third, client.MergeFrom(before)))
	}
	publish(shelf.put(t, "/one.tar.gz", "v1", map[string]string{"deploy/c.yaml": configMap("c", "1")}))
	w.generator(makes("part", "@repo/base/** @artifact/chart/", "@repo/prod.yaml @artifact/chart/values.yaml Merge"))
	whole := w.namedGenerator("whole")
	whole.Spec.Sources = []swapi.SourceReference{{Alias: "part", Kind: "ExternalArtifact", Name: "part"}, {Alias: "third", Kind: "ExternalArtifact", Name: "third"}}
	makes("whole", "@part/ @artifact/p", "@third/deploy/** @artifact/deploy/")(whole)
	whole.Spec.OutputArtifacts[0].Revision = "@third"
	whole.Spec.OutputArtifacts[0].OriginRevision = "@third"
	w.check(w.client.Create(w.context(), whole))
	w.kustomization("whole", follows("./deploy"))
	w.kustomization("third", follows("./deploy"), func(k *kustomizev1.Kustomization) { k.Spec.NamePrefix = "third-" })
	w.observed("gen", first)

	w.ready("whole", "v1")
	w.ready("third", "v1")
	w.data("third-c", "1")
	ea := w.generated("whole", "whole")["whole"]
	want := map[string]string{"p/chart/values.yaml": "a: 1\nb: 2\n", "p/chart/x.yaml": "x", "deploy/c.yaml": configMap("c", "1")}
	if diff := cmp.Diff(want, w.load(ea.Status.Artifact)); diff != "" {
		t.Errorf("files of the artifact (-want +got):\n%s", diff)
	}
	if origin := ea.Status.Artifact.Metadata["org.opencontainers.image.revision"]; origin != "origin-v1" {
		t.Errorf("the origin is %q", origin)
	}
	publish(shelf.put(t, "/two.tar.gz", "v2", map[string]string{"deploy/c.yaml": configMap("c", "2")}))
	w.ready("whole", "v2")
	w.data("c", "2")
	w.push(testenv.Files{"prod.yaml": "b: 3\n"})
	waitFor(w, w.external("whole"), "with the new value", func(ea *sourcev1.ExternalArtifact) bool {
		return ea.Status.Artifact.Revision == "v2" && ea.Status.Artifact.Digest != "" && ea.Status.Artifact.Path != "" &&
			w.load(ea.Status.Artifact)["p/chart/values.yaml"] == "a: 1\nb: 3\n"
	})

	// Whoever may write the status cannot have the operator ask where clouds keep secrets.
	bad := *third.Status.Artifact
	bad.URL, bad.Revision, bad.Digest = "http://169.254.169.254/latest/meta-data/", "v3", "sha256:"+strings.Repeat("0", 64)
	publish(&bad)
	w.notReady("third", "ArtifactFailed", "artifact at http://169.254.169.254/latest/meta-data/|link-local")
	w.refuses("whole", "SourceFetchFailed", "ExternalArtifact/"+w.namespace+"/third|link-local", false)
	publish(shelf.put(t, "/four.tar.gz", "v4", map[string]string{"deploy/c.yaml": configMap("c", "4")}))
	w.ready("third", "v4")
	w.ready("whole", "v4")
	if writes := w.writes("externalartifacts", w.namespace, "third"); len(writes) > 0 {
		t.Errorf("somebody else's object was written: %v", writes)
	}
}

// What is kept of an artifact in one namespace is not shown to another that knows its digest.
func TestOnlyTheDigestOfAnArtifactIsKnown(t *testing.T) {
	t.Parallel()
	owner, stranger := newWorld(t), newWorld(t)
	a := newShelf(t).put(t, "/private.tar.gz", "v1", map[string]string{"deploy/c.yaml": configMap("c", "private")})
	publish := func(w *world, a *meta.Artifact) {
		ea := w.external("private")
		w.check(w.client.Create(w.context(), ea))
		before := ea.DeepCopy()
		ea.Status.Artifact = a
		w.check(w.client.Status().Patch(w.context(), ea, client.MergeFrom(before)))
		w.kustomization("private", follows("./deploy"))
	}
	publish(owner, a)
	owner.ready("private", "v1")
	elsewhere := *a
	elsewhere.URL = "http://127.0.0.1:1/private.tar.gz"
	publish(stranger, &elsewhere)
	stranger.notReady("private", "ArtifactFailed", "artifact at http://127.0.0.1:1/private.tar.gz|connection refused")
}

// TestGeneratorFansOut makes an artifact of every directory, and collects those whose
// directory or name is gone.
func TestGeneratorFansOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"apps/Auth/envs/dev/a.yaml": "1", "apps/pay/envs/dev/a.yaml": "2", "apps/pay/envs/prod/a.yaml": "3"})
	w.source()
	gen := w.generator(makes("{app}-{env}", "@repo/apps/{app}/envs/{env}/** @artifact/{app}/"), func(g *swapi.ArtifactGenerator) {
		g.Spec.PathPattern = "@repo/apps/{app}/envs/{env}"
	})
	all := w.generated("gen", "auth-dev", "pay-dev", "pay-prod")
	if l := all["auth-dev"].Labels; l["app"] != "auth" || l["env"] != "dev" {
		t.Errorf("labels are %v", l)
	}
	if diff := cmp.Diff(map[string]string{"Auth/a.yaml": "1"}, w.load(all["auth-dev"].Status.Artifact)); diff != "" {
		t.Errorf("files of the artifact (-want +got):\n%s", diff)
	}
	w.push(testenv.Files{"apps/pay/envs/prod": testenv.Delete, "apps/new/envs/dev/a.yaml": "4"})
	w.generated("gen", "auth-dev", "new-dev", "pay-dev")
	w.gone(w.external("pay-prod"))
	w.notFound(all["pay-prod"].Status.Artifact.URL)

	w.patch(gen, `{"spec":{"artifacts":[{"name":"{env}.{app}","copy":[{"from":"@repo/apps/{app}/envs/{env}/**","to":"@artifact/"}]}]}}`)
	w.generated("gen", "dev.auth", "dev.new", "dev.pay")
	w.gone(w.external("auth-dev"))
	w.gone(w.external("pay-dev"))

	w.push(testenv.Files{"apps/pay/envs/-bad/a.yaml": "5"})
	w.refuses("gen", "BuildFailed", `path pattern "@repo/apps/{app}/envs/{env}"|{env} stands for "-bad"`, true)
	w.push(testenv.Files{"apps/pay/envs/-bad": testenv.Delete})
	w.generated("gen", "dev.auth", "dev.new", "dev.pay")
}

// notFound fails where a URL is answered with anything but 404.
func (w *world) notFound(url string) {
	w.t.Helper()
	response, err := http.Get(url)
	w.check(err)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusNotFound {
		w.t.Errorf("%s is answered with %s", url, response.Status)
	}
}

// TestGeneratorRepairs puts right what somebody does to generated objects.
func TestGeneratorRepairs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1")})
	w.source()
	gen := w.generator(makes("a", "@repo/a/** @artifact/"), func(g *swapi.ArtifactGenerator) {
		g.Spec.CommonMetadata = &swapi.CommonMetadata{Labels: map[string]string{"team": "x"}}
	})
	w.kustomization("a", follows("./"))
	ea := w.generated("gen", "a")["a"]
	w.ready("a", ea.Status.Artifact.Revision)
	for what, merge := range map[string]string{
		"a label":       `{"metadata":{"labels":{"team":"y"}}}`,
		"its generator": `{"metadata":{"labels":{"source.extensions.fluxcd.io/generator":null}}}`,
		"the reference": `{"spec":{"sourceRef":{"apiVersion":"source.extensions.fluxcd.io/v1beta1","kind":"ArtifactGenerator","name":"other","namespace":"` + w.namespace + `"}}}`,
	} {
		w.patch(ea, merge)
		waitFor(w, w.external("a"), "repaired after somebody changed "+what, func(ea *sourcev1.ExternalArtifact) bool {
			return ea.Labels["team"] == "x" && ea.Labels[swapi.ArtifactGeneratorLabel] == string(gen.UID) && ea.Spec.SourceRef.Name == "gen"
		})
	}
	before := ea.DeepCopy()
	ea.Status.Artifact.Revision = "other"
	w.check(w.client.Status().Patch(w.context(), ea, client.MergeFrom(before)))
	waitFor(w, w.external("a"), "with its revision", func(ea *sourcev1.ExternalArtifact) bool {
		return strings.HasPrefix(ea.Status.Artifact.Revision, "latest@")
	})
	w.check(w.client.Delete(w.context(), w.external("a")))
	waitFor(w, w.external("a"), "made again", func(now *sourcev1.ExternalArtifact) bool {
		return now.UID != ea.UID && now.Status.Artifact != nil && now.Status.Artifact.Digest == before.Status.Artifact.Digest
	})
	w.push(testenv.Files{"a/a.yaml": configMap("a", "2")})
	w.data("a", "2")

	// A label that is taken out of the specification goes, as does everything in the end.
	w.patch(gen, `{"spec":{"commonMetadata":null}}`)
	waitFor(w, w.external("a"), "without the label", func(ea *sourcev1.ExternalArtifact) bool { return ea.Labels["team"] == "" })
	url := w.generated("gen", "a")["a"].Status.Artifact.URL
	w.check(w.client.Delete(w.context(), gen))
	w.gone(gen)
	w.gone(w.external("a"))
	w.notFound(url)
	w.notReady("a", "ArtifactFailed", "ExternalArtifact/"+w.namespace+"/a' not found")
	w.data("a", "2")
}

// TestGeneratorRefuses holds what cannot be generated, and what happens when it can.
func TestGeneratorRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gen := w.generator(makes("a", "@repo/a/** @artifact/"))
	w.refuses("gen", "SourceFetchFailed", "source 'GitRepository/"+w.namespace+"/repo' not found", false)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1")})
	source := w.source()
	first := w.generated("gen", "a")["a"]

	w.patch(gen, `{"spec":{"artifacts":[{"name":"a","copy":[{"from":"@repo/missing/","to":"@artifact/"}]}]}}`)
	w.refuses("gen", "BuildFailed", `artifact 'a': copy from "@repo/missing/" to "@artifact/"|no file or directory "missing"`, false)
	w.same(first)
	w.load(first.Status.Artifact)
	w.push(testenv.Files{"missing/a.yaml": configMap("a", "2")})
	w.generated("gen", "a")

	for what, tt := range map[string]struct{ merge, reason, words string }{
		"an alias twice":    {`{"spec":{"sources":[{"alias":"repo","kind":"GitRepository","name":"repo"},{"alias":"repo","kind":"GitRepository","name":"x"}]}}`, "ValidationFailed", "duplicate source alias 'repo'"},
		"a name twice":      {`{"spec":{"artifacts":[{"name":"a","copy":[{"from":"@repo/a/**","to":"@artifact/"}]},{"name":"a","copy":[{"from":"@repo/a/**","to":"@artifact/"}]}]}}`, "ValidationFailed", "duplicate artifact name 'a'"},
		"an unknown source": {`{"spec":{"artifacts":[{"name":"a","revision":"@other","copy":[{"from":"@repo/a/**","to":"@artifact/"}]}]}}`, "ValidationFailed", "its revision '@other' names"},
		"itself":            {`{"spec":{"sources":[{"alias":"repo","kind":"ExternalArtifact","name":"a"}]}}`, "ValidationFailed", "made of itself: ArtifactGenerator/" + w.namespace + "/gen -> ExternalArtifact/" + w.namespace + "/a"},
	} {
		w.patch(gen, tt.merge)
		w.refuses("gen", tt.reason, tt.words, true)
		t.Log(what)
		w.patch(gen, `{"spec":{"sources":[{"alias":"repo","kind":"GitRepository","name":"repo"}],"artifacts":[{"name":"a","copy":[{"from":"@repo/a/**","to":"@artifact/"}]}]}}`)
		w.generated("gen", "a")
	}

	// Somebody else has the name; when they give it up it is taken.
	other := w.namedGenerator("other")
	other.Spec.Sources = gen.Spec.Sources
	makes("a", "@repo/missing/** @artifact/")(other)
	w.check(w.client.Create(w.context(), other))
	w.refuses("other", "ReconciliationFailed", "ExternalArtifact '"+w.namespace+"/a' exists and belongs to ArtifactGenerator '"+w.namespace+"/gen'", false)
	w.check(w.client.Delete(w.context(), gen))
	w.generated("other", "a")

	// Without its source everything stays as it is.
	w.check(w.client.Delete(w.context(), source))
	w.gone(source)
	w.request(other)
	refused := w.refuses("other", "SourceFetchFailed", "not found", false)
	if refused.Status.LastHandledReconcileAt != refused.Annotations[meta.ReconcileRequestAnnotation] {
		t.Errorf("the request was not answered: %+v", refused.Status)
	}
	ea := w.external("a")
	w.check(w.client.Get(w.context(), w.key("a"), ea))
	if diff := cmp.Diff(map[string]string{"a.yaml": configMap("a", "2")}, w.load(ea.Status.Artifact)); diff != "" {
		t.Errorf("files of the artifact (-want +got):\n%s", diff)
	}
}

// TestGeneratorIsDisabled leaves a generator alone, also after a restart, and goes on.
func TestGeneratorIsDisabled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	gen := w.generator(makes("a", "@repo/a/** @artifact/"), func(g *swapi.ArtifactGenerator) {
		w.owned(g)
		g.Annotations = map[string]string{swapi.ReconcileAnnotation: "Disabled"}
	})
	w.kustomization("a", follows("./"), func(k *kustomizev1.Kustomization) { w.owned(k) })
	dir := t.TempDir()
	stop := w.runOwn(dir, func(*config.Operator) {})
	waitFor(w, w.namedGenerator("gen"), "disabled", func(g *swapi.ArtifactGenerator) bool {
		return conditionOf(g.Status.Conditions, "Ready").Reason == "ReconciliationDisabled"
	})
	w.annotate(gen, swapi.ReconcileAnnotation, "")
	first := w.generated("gen", "a")["a"].Status.Artifact
	w.ready("a", first.Revision)
	w.annotate(gen, swapi.ReconcileAnnotation, "disabled")
	w.request(gen) // is answered by who has seen the annotation
	waitFor(w, gen, "disabled again", func(g *swapi.ArtifactGenerator) bool {
		return g.Status.LastHandledReconcileAt == g.Annotations[meta.ReconcileRequestAnnotation]
	})
	second := w.push(testenv.Files{"a/a.yaml": configMap("a", "2")})
	w.sourceReady(second)
	stop()

	// What it made before is in force after a restart, and is served.
	w.runOwn(dir, func(*config.Operator) {})
	w.patch(w.namedConfig("a"), `{"data":{"key":"drift"}}`)
	w.data("a", "1")
	k := w.named("a")
	w.request(k)
	waitFor(w, k, "reconciled", func(k *kustomizev1.Kustomization) bool {
		return k.Status.LastHandledReconcileAt == k.Annotations[meta.ReconcileRequestAnnotation] && conditionOf(k.Status.Conditions, "Ready").Status == "True"
	})
	w.annotate(gen, swapi.ReconcileAnnotation, "enabled")
	w.data("a", "2")
}

// TestGeneratorRestarts shows that a restart writes nothing, whether or not the data
// folder is kept.
func TestGeneratorRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"a/a.yaml": configMap("a", "1"), "b/b.yaml": "b"})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	w.generator(makes("a", "@repo/a/** @artifact/"), makes("b", "@repo/b/** @artifact/"), func(g *swapi.ArtifactGenerator) { w.owned(g) })
	k := w.kustomization("a", follows("./"), func(k *kustomizev1.Kustomization) { w.owned(k) })
	dir := t.TempDir()
	fixed := func(c *config.Operator) { c.Storage.Advertised = "artifacts.test" }
	stop := w.runOwn(dir, fixed)
	before := w.generated("gen", "a", "b")
	w.ready("a", before["a"].Status.Artifact.Revision)
	w.told("", 1)
	for _, folder := range []string{dir, t.TempDir()} {
		stop()
		gen := w.namedGenerator("gen")
		w.check(w.client.Get(w.context(), w.key("gen"), gen))
		stop = w.runOwn(folder, fixed)
		w.request(k)
		waitFor(w, k, "reconciled", func(k *kustomizev1.Kustomization) bool {
			return k.Status.LastHandledReconcileAt == k.Annotations[meta.ReconcileRequestAnnotation] && conditionOf(k.Status.Conditions, "Ready").Status == "True"
		})
		for name, ea := range w.generated("gen", "a", "b") {
			if ea.ResourceVersion != before[name].ResourceVersion {
				t.Errorf("after a restart the artifact %s was written", name)
			}
		}
		w.told("", 1)
	}
}

// TestGeneratorKeepsToItsNamespace refuses sources of other namespaces where that is asked
// for.
func TestGeneratorKeepsToItsNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.generator(makes("a", "@repo/a/** @artifact/"), func(g *swapi.ArtifactGenerator) {
		w.owned(g)
		g.Spec.Sources[0].Namespace = "elsewhere"
	})
	w.runOwn(t.TempDir(), func(c *config.Operator) { c.NoCrossNamespaceRefs = true })
	w.refuses("gen", "AccessDenied", "can't access 'GitRepository/elsewhere/repo', cross-namespace references have been blocked", true)
}

// TestWithoutGenerators runs in a cluster that knows neither ArtifactGenerators nor
// ExternalArtifacts nor most other kinds.
func TestWithoutGenerators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	far := w.elsewhere(testenv.Start(t))
	definitions, err := crds.All()
	w.check(err)
	for _, d := range definitions {
		if d.Kind.Kind != "GitRepository" && d.Kind.Kind != "Kustomization" {
			continue
		}
		w.check(far.client.Create(w.context(), d.Object))
		far.established(d.Name())
	}
	far.runOwn(t.TempDir(), func(*config.Operator) {})
	revision := far.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	far.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	far.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	far.ready("app", revision)
	far.kustomization("other", follows("./"), func(k *kustomizev1.Kustomization) { w.owned(k) })
	far.notReady("other", "FeatureGateDisabled", "spec.sourceRef of kind ExternalArtifact")
}
