package operator_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
	"github.com/plumb-gitops/plumb/internal/cli"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/server"
	"github.com/plumb-gitops/plumb/internal/telemetry"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// planted are the canaries of TestCanary, by where they are planted. Each is found in
// the sinks by itself, so that a find says where it came from.
func planted() map[string]string {
	canaries := map[string]string{}
	for _, place := range []string{"decrypted", "variable", "password", "proxy", "kubeconfig", "webhook", "immutable", "path", "cipher", "broken", "header"} {
		canaries[place] = canaryOf(place)
	}
	return canaries
}

// canaryOf is a secret for one place.
func canaryOf(place string) string { return "canary" + place + "x7f3a9" }

// TestCanary plants secrets in every place from which the operator takes any, has
// everything go wrong with them, and looks for them in every place that the operator
// writes to: log at its most talkative, events, conditions and all else of statuses,
// metrics, the data folder, what the commands print, and the URLs and names of its
// requests.
func TestCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secrets := planted()
	identity, recipient := sopstest.Age(t)
	sealed := sopstest.Encryption{For: []sopstest.Recipient{recipient}, Only: onlyData}
	w.keys(map[string]string{"a.agekey": identity})

	// Admission refuses objects with a label, and says what is in them.
	w.refuseLoudly()
	loud := "\n  labels: {loud: " + w.namespace + "}"
	secretNamed := func(name, value string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata:\n  name: " + name + loud + "\nstringData:\n  password: " + value + "\n"
	}
	configNamed := func(name, value string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + loud + "\ndata:\n  password: " + value + "\n"
	}
	service := func(name, port string) string {
		return "apiVersion: v1\nkind: Service\nmetadata:\n  name: " + name + "\nspec:\n  ports: [{port: 80, targetPort: " + port + "}]\n"
	}
	w.repo.Commit(t, "main", testenv.Files{
		"decrypted/s.yaml":  sealed.Encrypt(t, "s.yaml", secretNamed("decrypted", secrets["decrypted"])),
		"decrypted2/s.yaml": sealed.Encrypt(t, "s.yaml", configNamed("decrypted2", secrets["decrypted"])),
		// A value that is good for no port: the API server quotes it.
		"decrypted3/s.yaml": sealed.Encrypt(t, "s.yaml", service("decrypted3", strings.Repeat(secrets["decrypted"], 3))),
		"webhook/s.yaml":    secretNamed("webhook", secrets["webhook"]),
		"variable/c.yaml":   configNamed("variable", "${secret}"),
		"variable2/s.yaml":  service("variable2", "${secret}${secret}${secret}"),
		"variable3/c.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {a: \"${secret}/ /\"}}\n",
		"variable4/c.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"${secret}_/\"}\n",
		"variable5/c.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: [${secret}]\n",
		"immutable/s.yaml":  "apiVersion: v1\nkind: Secret\nmetadata: {name: immutable}\nimmutable: true\nstringData: {password: " + secrets["immutable"] + "2}\n",
		"broken/s.yaml":     strings.Replace(sealed.Encrypt(t, "s.yaml", lockedWith(secrets["broken"])), "ENC[AES256_GCM,data:", "ENC[AES256_GCM,data:AAAA", 1),
		"cipher/s.yaml":     strings.Replace(sealed.Encrypt(t, "s.yaml", lockedWith(secrets["cipher"])), "ENC[", "ENX[", 1),
		"kubeconfig/a.yaml": configMap("a", "1"),
		"good/s.yaml":       sealed.Encrypt(t, "s.yaml", strings.Replace(secretNamed("good", secrets["decrypted"]), loud, "", 1)),
	})
	w.check(w.client.Create(w.context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "immutable"},
		StringData: map[string]string{"password": secrets["immutable"]}, Immutable: new(true)}))
	w.secret("variables", map[string]string{"secret": secrets["variable"]})
	w.secret("login", map[string]string{"username": "user", "password": secrets["password"]})
	w.secret("bearer", map[string]string{"bearerToken": secrets["header"]})
	w.secret("proxy", map[string]string{"address": "http://127.0.0.1:1/" + secrets["path"], "username": "user", "password": secrets["proxy"]})
	w.secret("kubeconfig", map[string]string{"value": "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n" +
		"clusters: [{name: x, cluster: {server: \"https://127.0.0.1:1\"}}]\nusers: [{name: x, user: {token: " + secrets["kubeconfig"] + "}}]\n"})

	log := &logBuffer{}
	registry := prometheus.NewRegistry()
	dir := t.TempDir()
	posted := w.runTalkative(dir, log, registry)

	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	for name, change := range map[string]func(*sourcev1.GitRepository){
		"login":  func(s *sourcev1.GitRepository) { s.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"} },
		"bearer": func(s *sourcev1.GitRepository) { s.Spec.SecretRef = &meta.LocalObjectReference{Name: "bearer"} },
		"proxied": func(s *sourcev1.GitRepository) {
			s.Spec.ProxySecretRef = &meta.LocalObjectReference{Name: "proxy"}
		},
	} {
		w.source(func(s *sourcev1.GitRepository) {
			w.owned(s)
			s.Name, s.Spec.URL = name, strings.Replace(s.Spec.URL, "/repo", "/nothing", 1)
			change(s)
		})
	}
	var names []string
	for _, name := range []string{"decrypted", "decrypted2", "decrypted3", "webhook", "variable", "variable2", "variable3", "variable4", "variable5", "immutable", "broken", "cipher", "kubeconfig", "good"} {
		names = append(names, name)
		w.kustomization(name, decrypting("keys"), func(k *kustomizev1.Kustomization) {
			w.owned(k)
			k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
			if strings.HasPrefix(name, "variable") {
				k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "Secret", Name: "variables"}}}
			}
			if name == "kubeconfig" {
				to("kubeconfig")(k)
			}
		})
	}
	for _, name := range names {
		want := "False"
		if name == "good" {
			want = "True"
		}
		waitFor(w, w.named(name), "Ready="+want, func(k *kustomizev1.Kustomization) bool {
			return conditionOf(k.Status.Conditions, "Ready").Status == metav1.ConditionStatus(want)
		})
		w.event("Kustomization", name, conditionReason(w, name), "")
	}
	for _, name := range []string{"login", "bearer", "proxied"} {
		waitFor(w, w.namedSource(name), "failed", func(s *sourcev1.GitRepository) bool {
			return conditionOf(s.Status.Conditions, "Ready").Status == "False"
		})
	}

	sinks := w.sinks(log, registry, dir, posted)
	w.said(sinks, [][]string{
		{"get", "all"}, {"get", "all", "-o", "yaml"}, {"tree", "ks", "good"}, {"tree", "ks", "good", "-o", "json"},
		{"diff", "ks", "good"}, {"diff", "ks", "decrypted"}, {"diff", "ks", "decrypted2"}, {"diff", "ks", "decrypted3"}, {"diff", "ks", "variable"}, {"diff", "ks", "variable2"},
		{"diff", "ks", "variable3"}, {"diff", "ks", "immutable"}, {"diff", "ks", "webhook"}, {"diff", "ks", "broken"}, {"diff", "ks", "kubeconfig"},
		{"reconcile", "ks", "decrypted", "--timeout=2s"}, {"reconcile", "source", "git", "login", "--timeout=2s"},
	})
	leaks(t, sinks, secrets)
}

// sinks are the places that an operator which runTalkative started has written to.
func (w *world) sinks(log *logBuffer, registry *prometheus.Registry, dir string, posted func() string) map[string]string {
	w.t.Helper()
	sinks := map[string]string{
		"the log": strings.Join(log.lines(""), "\n"), "the metrics": gathered(w.t, registry), "the data folder": everyFile(w.t, dir),
		"the notifications": posted(), "events": w.asJSON("v1", "EventList"), "the requests in the audit log": w.audited(),
	}
	for kind, apiVersion := range map[string]string{
		"Kustomization": "kustomize.toolkit.fluxcd.io/v1", "GitRepository": "source.toolkit.fluxcd.io/v1", "HelmRepository": "source.toolkit.fluxcd.io/v1", "OCIRepository": "source.toolkit.fluxcd.io/v1",
	} {
		sinks["statuses of kind "+kind] = w.statuses(apiVersion, kind+"List")
	}
	return sinks
}

// said adds what commands print to sinks.
func (w *world) said(sinks map[string]string, commands [][]string) {
	w.t.Helper()
	for _, args := range commands {
		var out bytes.Buffer
		cli.Run(w.t.Context(), "test", append(args, "--kubeconfig="+w.cluster.Kubeconfig, "-n", w.namespace), cli.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
		sinks["plumb "+strings.Join(args, " ")] = out.String()
	}
}

// leaks fails where a sink shows a secret, or is empty: only a diff may have nothing to say.
func leaks(t *testing.T, sinks, secrets map[string]string) {
	t.Helper()
	for sink, text := range sinks {
		if text == "" && !strings.HasPrefix(sink, "plumb diff") {
			t.Errorf("%s: there is nothing to look at", sink)
		}
		for place, secret := range secrets {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), url.QueryEscape(secret + "_/")} {
				if i := strings.Index(text, form); i >= 0 {
					t.Errorf("%s shows the secret %q: …%s…", sink, place, text[max(0, i-200):min(len(text), i+100)])
				}
			}
		}
		if strings.Contains(text, "AGE-SECRET-KEY-1") {
			t.Errorf("%s shows an age key", sink)
		}
	}
}

func conditionReason(w *world, name string) string {
	w.t.Helper()
	k := w.named(name)
	w.check(w.client.Get(w.context(), w.key(name), k))
	return conditionOf(k.Status.Conditions, "Ready").Reason
}

// lockedWith is a manifest of a Secret with a value.
func lockedWith(value string) string { return strings.Replace(lockedSecret, canary, value, 1) }

// refuseLoudly has admission refuse what bears the label of the test, in words that
// quote it.
func (w *world) refuseLoudly() {
	w.t.Helper()
	for _, kind := range []string{"secrets", "configmaps"} {
		at := metav1.ObjectMeta{Name: w.namespace + "-" + kind}
		w.check(w.client.Create(w.context(), &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: at, Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"loud": w.namespace}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{kind}},
				}}},
			},
			Validations: []admissionv1.Validation{{Expression: "false", MessageExpression: `"it has " + object.data.map(k, k + "=" + object.data[k]).join(", ")`}},
		}}))
		w.check(w.client.Create(w.context(), &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: at, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: at.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		}}))
		// It is in force once it refuses.
		probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, GenerateName: "probe-", Labels: map[string]string{"loud": w.namespace}}, Data: map[string]string{"a": "b"}}
		var obj client.Object = probe
		if kind == "secrets" {
			obj = &corev1.Secret{ObjectMeta: probe.ObjectMeta, StringData: probe.Data}
		}
		deadline := time.Now().Add(patience)
		for w.client.Create(w.context(), obj, client.DryRunAll) == nil {
			if time.Now().After(deadline) {
				w.t.Fatal("admission takes everything")
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// runTalkative runs an operator that logs all it can, for what is the test's own. What it
// posts as notifications can be asked for.
func (w *world) runTalkative(dir string, log *logBuffer, registry *prometheus.Registry) (posted func() string) {
	w.t.Helper()
	var body logBuffer
	receiver := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(&body, r.Body)
		_, _ = body.Write([]byte("\n"))
	})}
	listener, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	w.check(err)
	go func() { _ = receiver.Serve(listener) }() // until it is closed
	w.t.Cleanup(func() { _ = receiver.Close() })
	cfg, err := configured(dir, ownOperator+"="+w.namespace)
	w.check(err)
	cfg.EventsAddress, cfg.LogLevel = "http://"+listener.Addr().String(), config.LogTrace
	logger, err := telemetry.NewLogger(log, telemetry.LogOptions{Level: string(cfg.LogLevel)})
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, w.account(), cfg, server.Options{Version: "talkative", Log: logger, Registry: registry, Clouds: w.clouds})
	}()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the operator ended with: %v", err)
		}
	})
	return func() string { return strings.Join(body.lines(""), "\n") }
}

// gathered are all metrics as text.
func gathered(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		out.WriteString(f.String() + "\n")
	}
	return out.String()
}

// everyFile is the content of all files of a folder, packed ones included as they are.
func everyFile(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		out.WriteString(path + "\n" + string(content) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// list reads all objects of a kind in the test's namespace.
func (w *world) list(apiVersion, kind string) []unstructured.Unstructured {
	w.t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(apiVersion)
	list.SetKind(kind)
	w.check(w.client.List(w.context(), list, client.InNamespace(w.namespace)))
	return list.Items
}

func (w *world) asJSON(apiVersion, kind string) string {
	w.t.Helper()
	text, err := json.Marshal(w.list(apiVersion, kind))
	w.check(err)
	return string(text)
}

// statuses are all that the operator writes of custom resources.
func (w *world) statuses(apiVersion, kind string) string {
	w.t.Helper()
	var out []any
	for _, item := range w.list(apiVersion, kind) {
		out = append(out, item.Object["status"], item.Object["metadata"])
	}
	text, err := json.Marshal(out)
	w.check(err)
	return string(text)
}

// audited are the URLs and names of the operator's requests.
func (w *world) audited() string {
	w.t.Helper()
	var out strings.Builder
	for _, r := range w.cluster.Requests(w.t, "plumb/talkative") {
		out.WriteString(r.RequestURI + " " + r.ObjectRef.Name + "\n")
	}
	return out.String()
}
