package operator_test

import (
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// mended is the content of a repository after whatever was wrong with it.
var mended = testenv.Files{"app/kept.yaml": configMap("kept", "3")}

// badSource is one way in which a source that was good cannot be fetched any
// more. Breaking it gives what mends it, which in turn gives the revision that
// is live then.
type badSource struct {
	breaks func(*world) (mend func() string)
	// reason and words are what the condition and the event say, hides what
	// they must not say.
	reason, words, hides string
}

func badSources() map[string]badSource {
	return map[string]badSource{
		"a remote that cannot be reached": {
			breaks: func(w *world) func() string {
				w.patchSource(`{"spec":{"url":"http://` + closedPort(w) + `/repo"}}`)
				return func() string {
					w.patchSource(`{"spec":{"url":"` + w.server.URL("repo") + `"}}`)
					return w.push(mended)
				}
			},
			reason: "GitOperationFailed", words: "connection refused|stays in force",
		},
		"a remote that hangs": {
			breaks: func(w *world) func() string {
				w.server.Hang()
				w.patchSource(`{"spec":{"timeout":"1s"}}`)
				return func() string { w.server.Around(nil); return w.push(mended) }
			},
			reason: "GitOperationFailed", words: "no answer|1s (spec.timeout)|stays in force",
		},
		"a repository that does not exist": {
			breaks: func(w *world) func() string {
				w.patchSource(`{"spec":{"url":"` + w.server.URL("nothing") + `"}}`)
				return func() string {
					w.patchSource(`{"spec":{"url":"` + w.server.URL("repo") + `"}}`)
					return w.push(mended)
				}
			},
			reason: "GitOperationFailed", words: "/nothing|check the URL",
		},
		"a URL that nobody can use": {
			breaks: func(w *world) func() string {
				w.patchSource(`{"spec":{"url":"https://"}}`)
				return func() string {
					w.patchSource(`{"spec":{"url":"` + w.server.URL("repo") + `"}}`)
					return w.push(mended)
				}
			},
			reason: "URLInvalid", words: "host",
		},
		"wrong credentials": {
			breaks: func(w *world) func() string {
				server := testenv.NewGitServer(w.t, testenv.GitServerOptions{Username: "ann", Password: "right"})
				repo := server.Repository(w.t, "locked")
				revision := "main@sha1:" + repo.Commit(w.t, "main", mended)
				w.secret("login", map[string]string{"username": "ann", "password": "hush-wrong"})
				w.patchSource(`{"spec":{"secretRef":{"name":"login"},"url":"` + server.URL("locked") + `"}}`)
				return func() string {
					w.patch(w.namedSecret("login"), `{"stringData":{"password":"right"}}`)
					return revision
				}
			},
			reason: "AuthenticationFailed", words: "/locked|check the credential in the secret", hides: "hush-wrong",
		},
		"no credentials": {
			breaks: func(w *world) func() string {
				server := testenv.NewGitServer(w.t, testenv.GitServerOptions{BearerToken: "hush-token"})
				repo := server.Repository(w.t, "locked")
				revision := "main@sha1:" + repo.Commit(w.t, "main", mended)
				w.patchSource(`{"spec":{"url":"` + server.URL("locked") + `"}}`)
				return func() string {
					w.secret("login", map[string]string{"bearerToken": "hush-token"})
					w.patchSource(`{"spec":{"secretRef":{"name":"login"}}}`)
					return revision
				}
			},
			reason: "AuthenticationFailed", words: "/locked|secretRef", hides: "hush-token",
		},
		"a secret that does not exist": {
			breaks: func(w *world) func() string {
				w.patchSource(`{"spec":{"secretRef":{"name":"login"}}}`)
				return func() string {
					w.secret("login", map[string]string{"username": "ann", "password": "any"})
					return w.push(mended)
				}
			},
			reason: "AuthenticationFailed", words: "secret 'NAMESPACE/login'|not found",
		},
		"a certificate of an unknown authority": {
			breaks: func(w *world) func() string {
				server := testenv.NewGitServer(w.t, testenv.GitServerOptions{TLS: true})
				repo := server.Repository(w.t, "secure")
				revision := "main@sha1:" + repo.Commit(w.t, "main", mended)
				w.patchSource(`{"spec":{"url":"` + server.URL("secure") + `"}}`)
				return func() string {
					w.secret("authority", map[string]string{"ca.crt": string(server.CA)})
					w.patchSource(`{"spec":{"secretRef":{"name":"authority"}}}`)
					return revision
				}
			},
			reason: "GitOperationFailed", words: "unknown authority|ca.crt",
		},
		"an unknown host key": {
			breaks: func(w *world) func() string {
				server, other := testenv.NewSSHServer(w.t, ""), testenv.NewSSHServer(w.t, "")
				repo := server.Repository(w.t, "repo")
				revision := "main@sha1:" + repo.Commit(w.t, "main", mended)
				// The other server's key under this one's address.
				_, key, _ := strings.Cut(string(other.KnownHosts), " ")
				host, _, _ := strings.Cut(string(server.KnownHosts), " ")
				w.secret("ssh", map[string]string{"identity": string(server.Identity), "known_hosts": host + " " + key})
				w.patchSource(`{"spec":{"secretRef":{"name":"ssh"},"url":"` + server.URL("repo") + `"}}`)
				return func() string {
					known := strings.ReplaceAll(strings.TrimSpace(string(server.KnownHosts)), `"`, `\"`)
					w.patch(w.namedSecret("ssh"), `{"stringData":{"known_hosts":"`+known+`"}}`)
					return revision
				}
			},
			reason: "GitOperationFailed", words: "key|known_hosts", hides: "PRIVATE KEY",
		},
		"a branch that does not exist": {
			breaks: func(w *world) func() string {
				w.patchSource(`{"spec":{"ref":{"branch":"nothing"}}}`)
				return func() string {
					w.patchSource(`{"spec":{"ref":{"branch":"main"}}}`)
					return w.push(mended)
				}
			},
			reason: "GitOperationFailed", words: `"nothing"|stays in force`,
		},
		"a branch that was deleted": {
			breaks: func(w *world) func() string {
				w.repo.Branch(w.t, "other", w.repo.Commit(w.t, "main", nil))
				w.repo.Ref(w.t, "refs/heads/main", "")
				w.fetch()
				return func() string { return w.push(mended) }
			},
			reason: "GitOperationFailed", words: `"main"|stays in force`,
		},
		"a repository without a commit": {
			breaks: func(w *world) func() string {
				repo := w.server.Repository(w.t, "empty")
				w.patchSource(`{"spec":{"url":"` + w.server.URL("empty") + `"}}`)
				return func() string {
					revision := "main@sha1:" + repo.Commit(w.t, "main", mended)
					w.fetch()
					return revision
				}
			},
			reason: "EmptyGitRepository", words: "/empty|commit",
		},
	}
}

func TestBadSource(t *testing.T) {
	for name, row := range badSources() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row.run(newWorld(t))
		})
	}
}

func (row badSource) run(w *world) {
	w.t.Helper()
	first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
	w.source()
	w.kustomization("app")
	w.ready("app", first)
	kept := w.data("kept", "1")
	// A second source, with a Kustomization of its own, goes on meanwhile.
	elsewhere := testenv.NewGitServer(w.t, testenv.GitServerOptions{})
	other := elsewhere.Repository(w.t, "repo")
	other.Commit(w.t, "main", testenv.Files{"other/other.yaml": configMap("other", "1")})
	w.source(func(s *sourcev1.GitRepository) { s.Name, s.Spec.URL = "second", elsewhere.URL("repo") })
	w.kustomization("other", func(k *kustomizev1.Kustomization) { k.Spec.SourceRef.Name = "second" })
	w.data("other", "1")

	mend := row.breaks(w)
	words := strings.ReplaceAll(row.words, "NAMESPACE", w.namespace)
	failed := waitFor(w, w.namedSource("repo"), "FetchFailed with reason "+row.reason+" and "+words, func(s *sourcev1.GitRepository) bool {
		ready, fetch := conditionOf(s.Status.Conditions, "Ready"), conditionOf(s.Status.Conditions, "FetchFailed")
		return ready.Status == "False" && ready.Reason == row.reason && says(ready.Message, words) &&
			fetch.Status == "True" && fetch.Reason == row.reason && fetch.Message == ready.Message
	})
	w.event("GitRepository", "repo", row.reason, words)
	if failed.Status.Artifact == nil || failed.Status.Artifact.Revision != first {
		w.t.Errorf("the artifact is not the last good one any more: %v", failed.Status.Artifact)
	}
	if row.hides != "" && (strings.Contains(conditionOf(failed.Status.Conditions, "Ready").Message, row.hides) ||
		len(w.events("GitRepository", "repo", row.hides)) > 0 || len(operator.log.lines(row.hides)) > 0) {
		w.t.Errorf("%q can be read in a condition, an event or the log", row.hides)
	}

	w.patch(w.namedConfig("kept"), `{"data":{"key":"drift"}}`)
	w.data("kept", "1")
	w.same(kept)
	other.Commit(w.t, "main", testenv.Files{"other/other.yaml": configMap("other", "2")})
	w.request(w.namedSource("second"))
	w.data("other", "2")

	revision := mend()
	w.sourceReady(revision)
	w.ready("app", revision)
	w.data("kept", "3")
	w.same(kept)
}

func TestSourceDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
	source := w.source()
	w.kustomization("app")
	w.ready("app", first)
	kept := w.data("kept", "1")

	w.check(w.client.Delete(w.context(), source))
	w.notReady("app", "ArtifactFailed", "GitRepository/"+w.namespace+"/repo|not found")
	w.patch(w.namedConfig("kept"), `{"data":{"key":"drift"}}`)
	w.data("kept", "1")
	w.same(kept)

	w.source()
	w.ready("app", first)
	second := w.push(mended)
	w.ready("app", second)
	w.data("kept", "3")
	w.same(kept)
}

// TestSourceMissing begins with a Kustomization whose source comes later.
func TestSourceMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/kept.yaml": configMap("kept", "1")})
	w.kustomization("app")
	w.notReady("app", "ArtifactFailed", "repo|not found")
	w.source()
	app := w.ready("app", first)
	if c := apimeta.FindStatusCondition(app.Status.Conditions, "Stalled"); c != nil {
		t.Errorf("stalled: %v", c)
	}
}

// TestNewsReachAllWhoFollow: what one of those hears who follow a branch, all have at once,
// at no further look at the server.
func TestNewsReachAllWhoFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/one.yaml": configMap("one", "1")})
	w.repo.Branch(t, "other", strings.TrimPrefix(first, "main@sha1:"))
	source := w.source()
	w.sourceReady(first)
	var followers []*sourcev1.GitRepository
	for i := range 5 {
		follower := &sourcev1.GitRepository{ObjectMeta: w.meta(fmt.Sprintf("follower-%d", i)), Spec: source.Spec}
		w.check(w.client.Create(w.context(), follower))
		followers = append(followers, follower)
	}
	other := &sourcev1.GitRepository{ObjectMeta: w.meta("other"), Spec: *source.Spec.DeepCopy()}
	other.Spec.Reference = &sourcev1.GitRepositoryRef{Branch: "other"}
	w.check(w.client.Create(w.context(), other))
	for _, follower := range followers {
		stored(w, follower, first)
	}
	before := stored(w, other, "other@")
	requests := w.server.Requests()
	second := w.push(testenv.Files{"app/one.yaml": configMap("one", "2")})
	w.sourceReady(second)
	for _, follower := range followers {
		stored(w, follower, second)
	}
	if got := w.server.Requests() - requests; got != 2 { // the refs and the commit
		t.Errorf("%d requests to the server for a commit that six objects follow", got)
	}
	w.same(before)
}

// TestDurationsThatGoCannotRead are refused by the API server: a list with one of them could
// not be read, and all objects of the kind would stand still.
func TestDurationsThatGoCannotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kustomization("app")
	w.data("a", "1")
	for _, row := range []struct {
		obj   client.Object
		merge string
		well  bool
	}{
		{w.namedSource("repo"), `{"spec":{"timeout":"99999999999999999m"}}`, false},
		{w.namedSource("repo"), `{"spec":{"interval":"` + strings.Repeat("2000000h", 9) + `"}}`, false},
		{w.namedSource("repo"), `{"spec":{"timeout":"2000000m"}}`, true},
		{w.namedSource("repo"), `{"spec":{"interval":"1h0m1.5s"}}`, true},
		{w.named("app"), `{"spec":{"retryInterval":"99999999999999999m"}}`, false},
	} {
		err := w.client.Patch(w.context(), row.obj, client.RawPatch(types.MergePatchType, []byte(row.merge)))
		if (err == nil) != row.well || err != nil && !strings.Contains(err.Error(), "must be a duration") {
			t.Errorf("%s: %v", row.merge, err)
		}
	}
	history := `{"status":{"history":[{"digest":"x","firstReconciled":"2026-01-01T00:00:00Z","lastReconciled":"2026-01-01T00:00:00Z","lastReconciledDuration":"x","lastReconciledStatus":"x","totalReconciliations":1}]}}`
	if err := w.client.Status().Patch(w.context(), w.named("app"), client.RawPatch(types.MergePatchType, []byte(history))); err == nil || !strings.Contains(err.Error(), "must be a duration") {
		t.Errorf("a status with a duration that is none: %v", err)
	}
}

// patchSource changes the GitRepository "repo".
func (w *world) patchSource(merge string) {
	w.t.Helper()
	w.patch(w.namedSource("repo"), merge)
}

func (w *world) namedSecret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
}

func (w *world) secret(name string, data map[string]string) {
	w.t.Helper()
	secret := w.namedSecret(name)
	secret.StringData = data
	w.check(w.client.Create(w.context(), secret))
}

// closedPort is an address on which nobody listens: a free port could be another test's
// a moment later.
func closedPort(*world) string { return "127.0.0.1:1" }
