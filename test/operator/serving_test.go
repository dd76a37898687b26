package operator_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// keptAddress is an address that two operators of a test can listen on, one after the other:
// on a loopback address of its own, where nobody else is given the port in between.
func keptAddress(w *world) string {
	sum := sha256.Sum256([]byte(w.namespace + strconv.Itoa(os.Getpid())))
	listener, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+sum[0]/2, sum[1], 1+sum[2]/2))
	if err != nil { // not all systems have more than one
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	w.check(err)
	defer listener.Close()
	return listener.Addr().String()
}

// restartable gives a data folder, and what starts the test's own operator with it: at the
// same address each time, which stands in the URLs of artifacts.
func (w *world) restartable() (dir string, start func() (stop func())) {
	dir, address := w.t.TempDir(), keptAddress(w)
	return dir, func() func() {
		w.t.Helper()
		return w.runOwn(dir, func(c *config.Operator) { c.Storage.Address = address })
	}
}

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
			dir, start := w.restartable()
			stop := start()
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

			stop = start()
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
	_, start := w.restartable()
	stop := start()
	charts, web, _ := w.createCharts(w.owned)
	index, chart := stored(w, charts, "sha256:"), stored(w, web, "1.1.0")
	stop()
	w.check(w.client.Delete(w.context(), w.namedSecret("login")))
	start()
	unstored(w, charts, "AuthenticationFailed", "not found")
	unstored(w, web, "AuthenticationFailed", "not found|'1.1.0' stays in force")
	for _, url := range []string{index.Status.URL, index.Status.Artifact.URL, chart.Status.Artifact.URL} {
		w.body(url)
	}
}

// createCharts creates what charts has, with the password that its server wants, after those
// changes; the function sets another password.
func (w *world) createCharts(change ...func(client.Object)) (*sourcev1.HelmRepository, *sourcev1.HelmChart, func(string)) {
	w.t.Helper()
	password := w.plainLogin("username", "password")
	_, repository, chart, _ := w.charts()
	for _, f := range change {
		f(repository)
		f(chart)
	}
	w.check(w.client.Create(w.context(), repository))
	w.check(w.client.Create(w.context(), chart))
	return repository, chart, password
}

// again waits until an artifact is served with its digest.
func (w *world) again(a *meta.Artifact) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		response, err := http.Get(a.URL)
		w.check(err)
		content, err := io.ReadAll(response.Body)
		w.check(errors.Join(err, response.Body.Close()))
		sum := sha256.Sum256(content)
		if response.StatusCode == http.StatusOK && a.Digest == "sha256:"+hex.EncodeToString(sum[:]) {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s is not served again; at last: %s, %d bytes", a.URL, response.Status, len(content))
		case <-ticker.C:
		}
	}
}

// A stored file that is not as it was is stored again from what the consumers have, whatever
// state its source is in, and nobody has to ask.
func TestStoredFileIsMended(t *testing.T) {
	t.Parallel()
	harms := map[string]struct {
		harm  func(w *world, file string) error
		words string
	}{
		"gone":            {func(_ *world, file string) error { return os.Remove(file) }, "not there"},
		"cut short":       {func(_ *world, file string) error { return os.Truncate(file, 7) }, "has 7 bytes"},
		"other content":   {func(_ *world, file string) error { return tamper(file) }, "has digest"},
		"folder gone":     {func(_ *world, file string) error { return os.RemoveAll(filepath.Dir(file)) }, "not there"},
		"gone, suspended": {func(w *world, file string) error { w.patchSource(`{"spec":{"suspend":true}}`); return os.Remove(file) }, "not there"},
		"gone, bad URL": {func(w *world, file string) error {
			w.patchSource(`{"spec":{"url":"https://"}}`)
			unstored(w, w.namedSource("repo"), "URLInvalid", "host")
			return os.Remove(file)
		}, "not there"},
		"gone, remote away": {func(w *world, file string) error {
			unavailable(w.server)
			w.request(w.namedSource("repo"))
			unstored(w, w.namedSource("repo"), "GitOperationFailed", "503")
			return os.Remove(file)
		}, "not there"},
	}
	for name, test := range harms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
			w.source()
			before := w.sourceReady(first)
			w.check(test.harm(w, filepath.Join(operator.dir, "artifacts", before.Status.Artifact.Path)))
			w.event("GitRepository", "repo", "ArtifactVerificationFailed", "failed to verify integrity of artifact|"+test.words)
			w.again(before.Status.Artifact)
			after := w.namedSource("repo")
			w.check(w.client.Get(w.context(), w.key("repo"), after))
			if !reflect.DeepEqual(after.Status.Artifact, before.Status.Artifact) {
				t.Errorf("the status names another artifact: %+v, before %+v", after.Status.Artifact, before.Status.Artifact)
			}
		})
	}
	t.Run("an index and a chart", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		charts, web, _ := w.createCharts()
		index, chart := stored(w, charts, "sha256:").GetArtifact(), stored(w, web, "1.1.0").GetArtifact()
		for _, a := range []*meta.Artifact{index, chart} {
			w.check(tamper(filepath.Join(operator.dir, "artifacts", a.Path)))
		}
		w.event("HelmRepository", "charts", "ArtifactVerificationFailed", "has digest")
		w.event("HelmChart", "web", "ArtifactVerificationFailed", "has digest")
		w.again(index)
		w.again(chart)
	})
}

// tamper changes a byte of a file, which is never seen cut short.
func tamper(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	at := len(data) / 2
	_, err = out.WriteAt([]byte{data[at] ^ 1}, int64(at))
	return errors.Join(err, out.Close())
}

// What was changed while no operator ran is not served as it is, and is mended at the start.
func TestRestartMendsStoredFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, start := w.restartable()
	stop := start()
	first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
	w.source(w.ownedSource)
	before := w.sourceReady(first)
	stop()
	w.check(tamper(filepath.Join(dir, "artifacts", before.Status.Artifact.Path)))
	unavailable(w.server)
	start()
	w.event("GitRepository", "repo", "ArtifactVerificationFailed", "has digest|not served before it is stored again")
	w.again(before.Status.Artifact)
}

// TestSlowSourceThatIsAskedAgainAndAgain: who asks more often than the server answers sees
// what it has answered all the same.
func TestSlowSourceThatIsAskedAgainAndAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	source := w.source()
	w.kustomization("app")
	w.ready("app", first)
	w.server.Around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(2 * time.Second):
				next.ServeHTTP(rw, r)
			case <-r.Context().Done():
			}
		})
	})
	second := "main@sha1:" + w.repo.Commit(t, "main", testenv.Files{"app/a.yaml": configMap("a", "2")})
	last := ""
	for began := time.Now(); ; {
		last = w.request(source)
		var now sourcev1.GitRepository
		w.check(w.client.Get(w.context(), w.key("repo"), &now))
		if now.Status.Artifact != nil && now.Status.Artifact.Revision == second {
			break
		}
		if time.Since(began) > patience {
			t.Fatalf("after %s of requests the status is %+v", patience, now.Status)
		}
		time.Sleep(500 * time.Millisecond)
	}
	w.data("a", "2")
	waitFor(w, w.namedSource("repo"), "answered", func(s *sourcev1.GitRepository) bool { return s.Status.LastHandledReconcileAt == last })
}

// A stored file that is damaged after a restart, when nothing has been fetched since, is stored
// again from what the consumers were given; where that cannot be, its artifact is not
// advertised until it could be fetched.
func TestRestoredFileIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, start := w.restartable()
	stop := start()
	first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
	w.source(w.ownedSource)
	w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("app", first)
	before := w.sourceReady(first).Status.Artifact
	charts, web, _ := w.createCharts(w.owned)
	index, chart := stored(w, charts, "sha256:").GetArtifact(), stored(w, web, "1.1.0").GetArtifact()
	stop()
	unavailable(w.server)
	kept, err := os.ReadDir(dir)
	w.check(err)
	for _, folder := range kept {
		if folder.Name() != "artifacts" {
			w.check(os.RemoveAll(filepath.Join(dir, folder.Name())))
		}
	}
	w.patch(&sourcev1.HelmRepository{ObjectMeta: w.meta("charts")}, `{"spec":{"secretRef":{"name":"missing"}}}`)
	start()
	w.patch(w.namedConfig("kept"), `{"data":{"key":"drift"}}`)
	w.data("kept", "1")
	unstored(w, w.namedSource("repo"), "GitOperationFailed", "503|'"+first+"' stays in force")
	unstored(w, web, "AuthenticationFailed", "not found|'1.1.0' stays in force")
	for _, a := range []*meta.Artifact{before, index, chart} {
		w.check(tamper(filepath.Join(dir, "artifacts", a.Path)))
	}
	w.event("GitRepository", "repo", "ArtifactVerificationFailed", "has digest")
	w.again(before)
	source := w.namedSource("repo")
	w.check(w.client.Get(w.context(), w.key("repo"), source))
	if !reflect.DeepEqual(source.Status.Artifact, before) {
		t.Errorf("the status names another artifact: %+v, before %+v", source.Status.Artifact, before)
	}
	w.event("HelmChart", "web", "ArtifactVerificationFailed", "'1.1.0' is not advertised any more")
	waitFor(w, web, "not advertised", func(c *sourcev1.HelmChart) bool { return c.Status.Artifact == nil && c.Status.URL == "" })
	waitFor(w, charts, "not advertised", func(c *sourcev1.HelmRepository) bool { return c.Status.Artifact == nil && c.Status.URL == "" })
	w.patch(&sourcev1.HelmRepository{ObjectMeta: w.meta("charts")}, `{"spec":{"secretRef":{"name":"login"}}}`)
	stored(w, charts, "sha256:")
	w.again(stored(w, web, "1.1.0").GetArtifact())
}

// An artifact whose file is lost, with all that it was made of, is not advertised while its
// remote is away. What was applied stays.
func TestRestartAdvertisesNothingThatIsGone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		breaks func(*testenv.GitServer)
		ready  metav1.ConditionStatus
	}{
		"the remote is away": {unavailable, metav1.ConditionFalse},
		"the remote hangs":   {(*testenv.GitServer).Hang, metav1.ConditionUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dir, start := w.restartable()
			stop := start()
			first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
			w.source(w.ownedSource, func(s *sourcev1.GitRepository) { s.Spec.Timeout = &metav1.Duration{Duration: 50 * time.Minute} })
			w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
			w.ready("app", first)
			kept := w.data("kept", "1")
			w.sourceReady(first)
			stop()
			test.breaks(w.server)
			w.check(os.RemoveAll(dir))
			start()
			waitFor(w, w.namedSource("repo"), "not advertised", func(s *sourcev1.GitRepository) bool {
				ready := apimeta.FindStatusCondition(s.Status.Conditions, meta.ReadyCondition)
				return s.Status.Artifact == nil && ready.Status == test.ready && apimeta.FindStatusCondition(s.Status.Conditions, sourcev1.ArtifactInStorageCondition) == nil
			})
			w.event("GitRepository", "repo", "ArtifactVerificationFailed", "'"+first+"' is not advertised any more|not there")
			w.same(kept)
			w.server.Around(func(next http.Handler) http.Handler { return next })
			w.request(w.namedSource("repo"))
			if test.ready == metav1.ConditionFalse {
				w.again(w.sourceReady(first).Status.Artifact)
			}
			w.same(kept)
		})
	}
}

// A password that becomes wrong is a failure of the HelmRepository, as in Flux: its charts need
// no server before there is another index, or another specification.
func TestWrongPasswordIsNoFailureOfCharts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	charts, web, password := w.createCharts()
	index, chart := stored(w, charts, "sha256:").GetArtifact(), stored(w, web, "1.1.0").GetArtifact()
	password("wrong")
	unstored(w, charts, "AuthenticationFailed", "'"+index.Revision+"' stays in force")
	asked := w.request(web)
	waitFor(w, web, "answered and Ready", func(c *sourcev1.HelmChart) bool {
		return c.Status.LastHandledReconcileAt == asked && conditionOf(c.Status.Conditions, "Ready").Status == "True" && reflect.DeepEqual(c.Status.Artifact, chart)
	})
	w.again(chart)
	// Another specification is one for which Flux asks the server.
	w.patch(web, `{"spec":{"version":"1.1.x"}}`)
	unstored(w, web, "AuthenticationFailed", "'1.1.0' stays in force")
	w.again(chart)
	password(rightWord)
	stored(w, charts, "sha256:")
	stored(w, web, "1.1.0")
}
