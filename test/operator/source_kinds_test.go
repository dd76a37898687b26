package operator_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// goodSource is a source with an artifact and a consumer, and what can be done to it.
type goodSource struct {
	source sourced
	// publish has the server hold something newer; nobody is asked to look for it.
	publish func(value string)
	// shows waits until the consumer has what was published.
	shows func(value string)
	// goesOn checks that the consumer still works with what was published.
	goesOn func(value string)
	// asks has the server asked at once.
	asks func()
	// around puts a handler in front of the server.
	around func(func(http.Handler) http.Handler)
	// gone takes away what is followed, and back brings it back.
	gone, back func()
	// password is that of the Secret "login", put in as the kind wants it.
	password func(word string)
	// timeout is set for the object that has one.
	timeout sourced
	// failed is the reason of a failure that is none of the credential.
	failed string
}

const rightWord, wrongWord = "s3cret-key", "wr0ng-canary"

// plainLogin creates the Secret "login", and gives a way to change its password.
func (w *world) plainLogin(user, password string) func(string) {
	w.secret("login", map[string]string{user: "ann", password: rightWord})
	return func(word string) { w.patch(w.namedSecret("login"), `{"stringData":{"`+password+`":"`+word+`"}}`) }
}

// followed has a Kustomization follow a source: it undoes what others do to what came from
// it, and another one that comes later works with it too.
func (w *world) followed(g goodSource, kind string) goodSource {
	w.t.Helper()
	w.kustomization("app", of(kind, g.source.GetName()))
	g.asks = func() { w.request(g.source) }
	g.shows = func(value string) {
		w.t.Helper()
		w.data("one", value)
	}
	g.goesOn = func(value string) {
		w.t.Helper()
		w.patch(w.namedConfig("one"), `{"data":{"key":"drift"}}`)
		w.data("one", value)
		got := waitFor(w, g.source, "with an artifact", func(s sourced) bool { return s.GetArtifact() != nil })
		w.kustomization("late", of(kind, g.source.GetName()))
		w.ready("late", got.GetArtifact().Revision)
	}
	return g
}

func goodOCIRepository(w *world) goodSource {
	registry := testenv.NewRegistry(w.t, testenv.RegistryOptions{Username: "ann", Password: rightWord})
	w.pullSecret("login", registry.Host(), "ann", rightWord)
	source := &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{
		URL: registry.URL("fleet"), Interval: metav1.Duration{Duration: time.Hour}, Insecure: true, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}
	publish := func(value string) {
		registry.Push(w.t, "fleet", "latest", testenv.Files{"one.yaml": configMap("one", value)})
	}
	publish("1")
	w.check(w.client.Create(w.context(), source))
	return w.followed(goodSource{
		source: source, publish: publish, around: registry.Around, timeout: source, failed: "OCIArtifactPullFailed",
		gone: func() { registry.Delete(w.t, "fleet", "latest") }, back: func() {},
		password: func(word string) {
			config, err := json.Marshal(dockerConfig(registry.Host(), "ann", word))
			w.check(err)
			w.patch(w.namedSecret("login"), `{"data":{"`+corev1.DockerConfigJsonKey+`":"`+base64.StdEncoding.EncodeToString(config)+`"}}`)
		},
	}, "OCIRepository")
}

func goodBucket(w *world) goodSource {
	server := testenv.NewBucketServer(w.t, testenv.BucketOptions{AccessKey: "ann", SecretKey: rightWord})
	password := w.plainLogin("accesskey", "secretkey")
	source := &sourcev1.Bucket{ObjectMeta: w.meta("fleet"), Spec: sourcev1.BucketSpec{
		Provider: "generic", BucketName: "fleet", Endpoint: server.Address(), Region: "us-east-1", Insecure: true,
		Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}
	publish := func(value string) { server.Fill("fleet", map[string]string{"one.yaml": configMap("one", value)}) }
	publish("1")
	w.check(w.client.Create(w.context(), source))
	return w.followed(goodSource{
		source: source, publish: publish, around: server.Around, timeout: source, failed: "BucketOperationFailed",
		gone: func() { server.Drop("fleet") }, back: func() {}, password: password,
	}, "Bucket")
}

func goodGitRepository(w *world) goodSource {
	server := testenv.NewGitServer(w.t, testenv.GitServerOptions{Username: "ann", Password: rightWord})
	repo := server.Repository(w.t, "fleet")
	password := w.plainLogin("username", "password")
	publish := func(value string) { repo.Commit(w.t, "main", testenv.Files{"one.yaml": configMap("one", value)}) }
	repo.Commit(w.t, "other", testenv.Files{"two.yaml": configMap("two", "1")})
	publish("1")
	source := w.source(func(s *sourcev1.GitRepository) {
		s.Name, s.Spec.URL, s.Spec.SecretRef = "fleet", server.URL("fleet"), &meta.LocalObjectReference{Name: "login"}
	})
	return w.followed(goodSource{
		source: source, publish: publish, around: server.Around, timeout: source, failed: "GitOperationFailed",
		gone: func() { repo.Ref(w.t, "refs/heads/main", "") }, back: func() {}, password: password,
	}, "GitRepository")
}

// only has a handler serve what it is for; the rest goes past it.
func only(suffix string, around func(func(http.Handler) http.Handler)) func(func(http.Handler) http.Handler) {
	return func(wrap func(http.Handler) http.Handler) {
		if wrap == nil {
			around(nil)
			return
		}
		around(func(next http.Handler) http.Handler {
			changed := wrap(next)
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, suffix) {
					changed.ServeHTTP(rw, r)
					return
				}
				next.ServeHTTP(rw, r)
			})
		})
	}
}

// charts creates a HelmRepository "charts" with a chart "web", and a HelmChart of it.
func (w *world) charts() (*testenv.HelmRepository, *sourcev1.HelmRepository, *sourcev1.HelmChart, func(string)) {
	w.t.Helper()
	server := testenv.NewHelmRepository(w.t, testenv.HelmRepositoryOptions{Username: "ann", Password: rightWord})
	publish := func(value string) {
		version := "1." + value + ".0"
		server.Put(w.t, "web", version, testenv.HelmChart(w.t, "web", version, map[string]string{"templates/one.yaml": configMap("one", value)}))
	}
	publish("1")
	repository := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
		URL: server.URL(), Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}
	chart := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Version: "1.x", Interval: metav1.Duration{Duration: time.Hour},
		SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
	}}
	return server, repository, chart, publish
}

// nothing is in the place of a server that has lost what it had.
func nothing(http.Handler) http.Handler { return http.NotFoundHandler() }

// goodHelmRepository is an index; the chart that is found in it is the consumer.
func goodHelmRepository(w *world) goodSource {
	password := w.plainLogin("username", "password")
	server, repository, chart, publish := w.charts()
	w.check(w.client.Create(w.context(), repository))
	w.check(w.client.Create(w.context(), chart))
	around := only("/index.yaml", server.Around)
	return goodSource{
		source: repository, publish: publish, around: around, timeout: repository, failed: "Failed", password: password,
		asks:  func() { w.request(repository) },
		shows: func(value string) { w.t.Helper(); stored(w, chart, "1."+value+".0") },
		goesOn: func(value string) {
			w.t.Helper()
			asked := w.request(chart)
			waitFor(w, chart, "asked for again", func(c *sourcev1.HelmChart) bool { return c.Status.LastHandledReconcileAt == asked })
			stored(w, chart, "1."+value+".0")
		},
		gone: func() { around(nothing) },
		back: func() { around(nil) },
	}
}

// goodHelmChart is a chart of which a newer version stands in the index.
func goodHelmChart(w *world) goodSource {
	password := w.plainLogin("username", "password")
	server, repository, chart, publish := w.charts()
	w.check(w.client.Create(w.context(), repository))
	w.check(w.client.Create(w.context(), chart))
	around := only(".tgz", server.Around)
	asks := func() {
		asked := w.request(repository)
		waitFor(w, repository, "asked for again", func(r *sourcev1.HelmRepository) bool { return r.Status.LastHandledReconcileAt == asked })
		w.request(chart)
	}
	return goodSource{
		source: chart, publish: publish, around: around, timeout: repository, failed: "ChartPullError", password: password, asks: asks,
		shows:  func(value string) { w.t.Helper(); stored(w, chart, "1."+value+".0") },
		goesOn: func(string) {},
		gone:   func() { around(nothing) },
		back:   func() { around(nil) },
	}
}

// TestBadSourceOfEachKind breaks a source that had a good artifact: it stays served, names
// that revision, and its consumers go on.
func TestBadSourceOfEachKind(t *testing.T) {
	kinds := map[string]func(*world) goodSource{
		"GitRepository": goodGitRepository, "OCIRepository": goodOCIRepository, "Bucket": goodBucket,
		"HelmRepository": goodHelmRepository, "HelmChart": goodHelmChart,
	}
	refuse := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "who are you?", http.StatusUnauthorized) })
	}
	hang := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			// The server notices that a client is gone only behind the body.
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
	}
	failures := map[string]struct {
		breaks, mends func(w *world, g goodSource)
		reason        func(g goodSource) string
		words         string
	}{
		"gone": {
			breaks: func(_ *world, g goodSource) { g.gone() },
			mends:  func(_ *world, g goodSource) { g.back() },
			reason: func(g goodSource) string { return g.failed },
		},
		"unauthorised": {
			breaks: func(_ *world, g goodSource) { g.password(wrongWord) },
			mends:  func(_ *world, g goodSource) { g.password(rightWord) },
			reason: func(goodSource) string { return "AuthenticationFailed" }, words: "credential",
		},
		"refusing": {
			breaks: func(_ *world, g goodSource) { g.around(refuse) },
			mends:  func(_ *world, g goodSource) { g.around(nil) },
			reason: func(goodSource) string { return "AuthenticationFailed" }, words: "credential",
		},
		"hanging": {
			breaks: func(w *world, g goodSource) {
				g.around(hang)
				w.patch(g.timeout, `{"spec":{"timeout":"1s"}}`)
			},
			mends: func(w *world, g goodSource) {
				g.around(nil)
				w.patch(g.timeout, `{"spec":{"timeout":"60s"}}`)
			},
			reason: func(g goodSource) string { return g.failed }, words: "timeout",
		},
	}
	for kind, start := range kinds {
		for name, failure := range failures {
			if kind == "HelmChart" && name == "unauthorised" {
				continue // a failure of its repository, as TestWrongPasswordIsNoFailureOfCharts shows
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				g := start(w)
				g.shows("1")
				good := stored(w, g.source, "")
				before := w.artifactOf(good)

				failure.breaks(w, g)
				if kind == "HelmChart" {
					g.publish("2") // nothing is got again that is there
				}
				g.asks()
				words := failure.words + "|revision '" + good.GetArtifact().Revision + "' stays in force"
				bad := unstored(w, g.source, failure.reason(g), words)
				if a := bad.GetArtifact(); a == nil || a.Revision != good.GetArtifact().Revision || a.Digest != good.GetArtifact().Digest {
					t.Errorf("the artifact is %+v", a)
				}
				w.event(kind, g.source.GetName(), failure.reason(g), words)
				if after := w.artifactOf(good); after != before {
					t.Error("something else is served")
				}
				g.goesOn("1")
				if text := fmt.Sprint(bad.GetConditions()); strings.Contains(text, wrongWord) || len(operator.log.lines(wrongWord)) > 0 {
					t.Error("the credential can be read in a condition or in the log")
				}

				failure.mends(w, g)
				g.publish("3")
				g.asks()
				g.shows("3")
				waitFor(w, g.source, "Ready at another revision than "+good.GetArtifact().Revision, func(s sourced) bool {
					return conditionOf(s.GetConditions(), "Ready").Status == "True" && s.GetArtifact().Revision != good.GetArtifact().Revision
				})
			})
		}
	}
}

// artifactOf is what is served of a source, which has the digest in its status.
func (w *world) artifactOf(s sourced) string {
	w.t.Helper()
	content := w.body(s.GetArtifact().URL)
	sum := sha256.Sum256([]byte(content))
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != s.GetArtifact().Digest {
		w.t.Errorf("what is served has the digest %s instead of %s", got, s.GetArtifact().Digest)
	}
	return content
}
