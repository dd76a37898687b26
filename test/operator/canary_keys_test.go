package operator_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// loudService answers every request with an error that quotes it, header and body, in
// all the forms in which services of clouds tell of errors. It lets a cloud say where
// Azure gives tokens, so that it is asked for one.
type loudService struct {
	cloud http.RoundTripper
	heard *logBuffer
}

// RoundTrip refuses a request.
func (l loudService) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet && r.URL.Hostname() == "login.microsoftonline.com" {
		return l.cloud.RoundTrip(r)
	}
	quoted, err := httputil.DumpRequest(r, true)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(r.URL.Hostname(), ".vault.azure.net") && r.Header.Get("Authorization") == "" {
		challenge := `Bearer authorization="https://login.microsoftonline.com/` + authtest.AzureTenant + `", resource="https://vault.azure.net"`
		return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {challenge}}, Body: http.NoBody, Request: r}, nil
	}
	_, _ = l.heard.Write(append(bytes.ReplaceAll(quoted, []byte("\n"), []byte(" ")), '\n'))
	body, err := json.Marshal(map[string]any{
		"errors": []string{string(quoted)}, "__type": "AccessDeniedException", "message": string(quoted), "error": "invalid_client", "error_description": string(quoted),
	})
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusForbidden, Status: "403 Forbidden", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
	}, nil
}

// TestCanaryInKeys plants secrets in every entry of a decryption Secret, well formed and
// not, before services that quote what they were sent.
func TestCanaryInKeys(t *testing.T) {
	// The SDK takes no client of ours where the machine has an authority of its own.
	t.Setenv("AWS_CA_BUNDLE", "")
	w := newWorld(t)
	var heard logBuffer
	w.clouds = loudService{authtest.New(t).Transport(), &heard}
	secrets := map[string]string{}
	secret := func(place string) string {
		secrets[place] = canaryOf(place)
		return secrets[place]
	}
	private, pgp := sopstest.PGP(t, secret("passphrase"))
	lines := strings.Split(private, "\n")
	for i, line := range lines[3 : len(lines)-4] {
		secrets["OpenPGP key, line "+string(rune('a'+i))] = line
	}
	recipients := sopstest.Unopened()
	recipients["identity.asc"] = pgp
	recipients["locked.asc"] = pgp
	entries := map[string]string{
		"sops.vault-token": secret("vault"),
		"sops.aws-kms":     "aws_access_key_id: " + secret("awsid") + "\naws_secret_access_key: " + secret("awskey") + "\naws_session_token: " + secret("awssession") + "\n",
		"sops.azure-kv":    "tenantId: " + authtest.AzureTenant + "\nclientId: somebody\nclientSecret: " + secret("azure") + "\n",
		// Its key is none, so that nobody is asked.
		"sops.gcp-kms": `{"type": "service_account", "client_email": "a@example.com", "private_key_id": "` + secret("gcpid") + `", "private_key": "` + secret("gcp") + `", "token_uri": "http://127.0.0.1:1/"}`,
		"locked.asc":   private,
		"identity.asc": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + secret("pgp") + "\n-----END PGP PRIVATE KEY BLOCK-----\n",
	}
	malformed := map[string]string{
		"sops.vault-token": secret("badvault") + "\n\x00\nX-Other: " + secret("badvault2"),
		"sops.aws-kms":     "aws_access_key_id: [" + secret("badaws") + "\n",
		"sops.azure-kv":    "tenantId: {" + secret("badazure") + "\n",
		"sops.gcp-kms":     `{"type": "` + secret("badgcp") + `"}`,
		"identity.asc":     secret("badpgp"),
		"identity.agekey":  "AGE-SECRET-KEY-" + strings.ToUpper(secret("badage")),
		"identity2.agekey": secret("badage2"),
	}
	secrets["badage"] = strings.ToUpper(secrets["badage"])

	files := testenv.Files{"good/a.yaml": configMap("a", "1")}
	type owner struct{ name, entry, content string }
	var owners []owner
	for prefix, contents := range map[string]map[string]string{"well-": entries, "bad-": malformed} {
		for entry, content := range contents {
			name := prefix + strings.ReplaceAll(strings.TrimPrefix(entry, "sops."), ".", "-")
			recipient := recipients[entry]
			if recipient == nil {
				_, recipient = sopstest.Age(t)
			}
			files[name+"/s.yaml"] = sopstest.Encryption{For: []sopstest.Recipient{recipient}, Only: onlyData}.Encrypt(t, "s.yaml", lockedSecret)
			owners = append(owners, owner{name, entry, content})
		}
	}
	w.push(files)
	log, registry, dir := &logBuffer{}, prometheus.NewRegistry(), t.TempDir()
	posted := w.runTalkative(dir, log, registry)
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	for _, o := range owners {
		w.secret(o.name, map[string]string{o.entry: o.content})
		w.kustomization(o.name, decrypting(o.name), func(k *kustomizev1.Kustomization) {
			w.owned(k)
			k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
		})
	}
	commands := [][]string{{"get", "all"}, {"get", "ks", "-o", "json"}}
	for _, o := range owners {
		k := waitFor(w, w.named(o.name), "not built", func(k *kustomizev1.Kustomization) bool {
			return conditionOf(k.Status.Conditions, "Ready").Status == "False"
		})
		if ready := conditionOf(k.Status.Conditions, "Ready"); ready.Reason != "BuildFailed" {
			t.Errorf("%s: %s: %s", o.name, ready.Reason, ready.Message)
		}
		w.event("Kustomization", o.name, "BuildFailed", "")
		commands = append(commands, []string{"reconcile", "ks", o.name, "--timeout=1s"})
		if !strings.HasPrefix(o.name, "well-") || strings.HasSuffix(o.name, "-asc") || o.entry == "sops.gcp-kms" {
			// The others would have the command ask the real services.
			commands = append(commands, []string{"diff", "ks", o.name})
		}
	}
	// Those that can be told have been told to the services, which quoted them.
	for _, place := range []string{"vault", "awsid", "awssession", "azure"} {
		if !strings.Contains(strings.Join(heard.lines(""), "\n"), secrets[place]) {
			t.Errorf("the credential %s was not used", place)
		}
	}
	sinks := w.sinks(log, registry, dir, posted)
	w.said(sinks, commands)
	leaks(t, sinks, secrets)
}

// TestCanaryInAddresses plants secrets in the URLs of sources, and has every command that
// names objects print.
func TestCanaryInAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secrets := map[string]string{}
	secret := func(place string) string {
		secrets[place] = canaryOf(place)
		return secrets[place]
	}
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	log, registry, dir := &logBuffer{}, prometheus.NewRegistry(), t.TempDir()
	posted := w.runTalkative(dir, log, registry)
	with := func(url, user, query string) string {
		if user != "" {
			url = strings.Replace(url, "://", "://user:"+user+"@", 1)
		}
		if query != "" {
			url += "?access_token=" + query
		}
		return url
	}
	// A server that asks for no login takes any.
	w.source(func(s *sourcev1.GitRepository) {
		w.owned(s)
		s.Spec.URL = with(s.Spec.URL, secret("gituser"), "")
	})
	away := strings.Replace(w.server.URL("repo"), "/repo", "/nothing", 1)
	for name, url := range map[string]string{
		"user": with(away, secret("user"), ""), "query": with(away, "", secret("query")), "refused": with("http://127.0.0.1:1/x", secret("refused"), secret("refusedquery")),
		"nowhere": with("https://nowhere.invalid/x", secret("nowhere"), secret("nowherequery")), "odd": with("http://127.0.0.1:port/x", secret("odd"), ""), "ssh": with("ssh://127.0.0.1:1/x", secret("ssh"), ""),
	} {
		w.source(func(s *sourcev1.GitRepository) {
			w.owned(s)
			s.Name, s.Spec.URL = name, url
		})
		helm := &sourcev1.HelmRepository{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: sourcev1.HelmRepositorySpec{URL: strings.Replace(url, "ssh://", "http://", 1), Interval: metav1.Duration{Duration: time.Hour}}}
		oci := &sourcev1.OCIRepository{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: sourcev1.OCIRepositorySpec{URL: "oci" + url[strings.Index(url, "://"):], Interval: metav1.Duration{Duration: time.Hour}}}
		w.owned(helm)
		w.owned(oci)
		w.check(w.client.Create(w.context(), helm))
		w.check(w.client.Create(w.context(), oci))
	}
	w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("app", first)
	failed := func(conditions []metav1.Condition) bool { return conditionOf(conditions, "Ready").Status == "False" }
	commands := [][]string{{"get", "all"}, {"get", "sources"}, {"get", "sources", "-A"}, {"get", "sources", "-o", "yaml"}, {"get", "sources", "-o", "json"}, {"tree", "ks", "app"}, {"diff", "ks", "app"}}
	for _, name := range []string{"user", "query", "refused", "nowhere", "odd", "ssh"} {
		at := metav1.ObjectMeta{Namespace: w.namespace, Name: name}
		waitFor(w, w.namedSource(name), "failed", func(s *sourcev1.GitRepository) bool { return failed(s.Status.Conditions) })
		waitFor(w, &sourcev1.HelmRepository{ObjectMeta: at}, "failed", func(s *sourcev1.HelmRepository) bool { return failed(s.Status.Conditions) })
		waitFor(w, &sourcev1.OCIRepository{ObjectMeta: at}, "failed", func(s *sourcev1.OCIRepository) bool { return failed(s.Status.Conditions) })
		for _, kind := range []string{"git", "helm", "oci"} {
			commands = append(commands, []string{"reconcile", "source", kind, name, "--timeout=1s"}, []string{"suspend", "source", kind, name}, []string{"resume", "source", kind, name, "--timeout=1s"})
		}
	}
	second := w.push(testenv.Files{"app/kustomization.yaml": "resources: []\n"})
	w.held("app", second, "EmptyBuild", "2 deletions are held")
	commands = append(commands, []string{"approve", "ks", "app", "--timeout=20s"}, []string{"suspend", "ks", "app"}, []string{"resume", "ks", "app", "--timeout=5s"})
	sinks := w.sinks(log, registry, dir, posted)
	w.said(sinks, commands)
	// What the commands made the operator write is looked at too.
	for sink, text := range w.sinks(log, registry, dir, posted) {
		sinks[sink+", after the commands"] = text
	}
	leaks(t, sinks, secrets)
}
