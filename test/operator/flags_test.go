package operator_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientauthv1 "k8s.io/client-go/pkg/apis/clientauthentication/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// runWith runs an operator of the test's own with flags, and gives it a source.
func (w *world) runWith(args ...string) {
	w.t.Helper()
	w.runOwn(w.t.TempDir(), func(cfg *config.Operator) {
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		flags := config.Bind(set, func(string) string { return "" })
		w.check(set.Parse(append(args, "--max-retry-delay=3s", "--requeue-dependency=1h", "--watch-label-selector="+ownOperator+"="+w.namespace)))
		parsed, err := flags.Operator()
		w.check(err)
		parsed.Storage, parsed.MetricsAddress, parsed.HealthAddress = cfg.Storage, cfg.MetricsAddress, cfg.HealthAddress
		*cfg = parsed
	})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
}

// ours creates a Kustomization for the operator of the test's own.
func (w *world) ours(name string, change ...func(*kustomizev1.Kustomization)) *kustomizev1.Kustomization {
	w.t.Helper()
	return w.kustomization(name, append(change, func(k *kustomizev1.Kustomization) { w.owned(k) })...)
}

func TestOverrideManager(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.runWith("--override-manager=intruder", "--override-manager=other")
	w.ours("app")
	w.ready("app", first)
	a := w.data("a", "1")
	for _, manager := range []string{"somebody", "intruder", "other"} {
		w.check(w.client.Patch(w.context(), w.namedConfig("a"), client.RawPatch(types.MergePatchType, []byte(`{"data":{"`+manager+`":"x"}}`)), client.FieldOwner(manager)))
	}
	waitFor(w, w.namedConfig("a"), "without what the managers that are overridden added", func(c *corev1.ConfigMap) bool {
		return c.Data["somebody"] == "x" && c.Data["intruder"] == "" && c.Data["other"] == "" && c.Data["key"] == "1"
	})
	w.same(a)
}

// What runs is written after its configuration, unless its kind has a stage before.
func TestCustomApplyStageKinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/run.yaml": deployment("run"), "app/b.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: b}\n"})
	w.runWith("--custom-apply-stage-kinds=/ServiceAccount,apps/Deployment")
	w.ours("app")
	w.ready("app", first)
	var order []string
	for _, r := range w.cluster.Requests(t, userAgent) {
		if o := r.ObjectRef; o.Namespace == w.namespace && r.Verb == "patch" && !strings.Contains(r.RequestURI, "dryRun=") && (o.Name == "a" || o.Name == "b" || o.Name == "run") {
			order = append(order, o.Resource)
		}
	}
	if got := strings.Join(order, " "); got != "serviceaccounts deployments configmaps" {
		t.Errorf("written in the order %s", got)
	}
}

// kubeconfigOf is a Secret with the kubeconfig of a cluster, changed.
func (w *world) kubeconfigOf(name, path string, change func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo)) {
	w.t.Helper()
	parsed, err := clientcmd.LoadFromFile(path)
	w.check(err)
	used := parsed.Contexts[parsed.CurrentContext]
	if parsed.AuthInfos[used.AuthInfo] == nil {
		used.AuthInfo, parsed.AuthInfos = "user", map[string]*clientcmdapi.AuthInfo{"user": {}}
	}
	change(parsed.Clusters[used.Cluster], parsed.AuthInfos[used.AuthInfo])
	text, err := clientcmd.Write(*parsed)
	w.check(err)
	w.secret(name, map[string]string{"value": string(text)})
}

// alive waits until a Kustomization has been applied, and undoes drift.
func (w *world) alive(name, revision, object string) {
	w.t.Helper()
	w.ready(name, revision)
	w.data(object, "1")
	w.patch(w.namedConfig(object), `{"data":{"key":"drift"}}`)
	w.data(object, "1")
}

// TestInsecureKubeconfigExec has a program of a kubeconfig tell who the operator is.
func TestInsecureKubeconfigExec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "none/b.yaml": configMap("b", "1")})
	w.runWith("--insecure-kubeconfig-exec")
	told := filepath.Join(t.TempDir(), "credential")
	w.kubeconfigOf("far", w.cluster.Kubeconfig, func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
		text, err := json.Marshal(clientauthv1.ExecCredential{
			TypeMeta: metav1.TypeMeta{APIVersion: clientauthv1.SchemeGroupVersion.String(), Kind: "ExecCredential"},
			Status:   &clientauthv1.ExecCredentialStatus{Token: user.Token, ClientCertificateData: string(user.ClientCertificateData), ClientKeyData: string(user.ClientKeyData)},
		})
		w.check(err)
		w.check(os.WriteFile(told, text, 0o600))
		*user = clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
			APIVersion: clientauthv1.SchemeGroupVersion.String(), Command: "cat", Args: []string{told}, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		}}
	})
	w.ours("app", to("far"))
	w.alive("app", first, "a")
	// A program that is not there is told of, and what it was to be given is not.
	w.kubeconfigOf("none", w.cluster.Kubeconfig, func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
		*user = clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
			APIVersion: clientauthv1.SchemeGroupVersion.String(), Command: "there-is-no-such-program", Args: []string{"--key=canary"}, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
			Env: []clientcmdapi.ExecEnvVar{{Name: "KEY", Value: "canary"}},
		}}
	})
	w.ours("none", to("none"))
	k := w.notReady("none", "ReconciliationFailed", "there-is-no-such-program")
	if text := conditionOf(k.Status.Conditions, "Ready").Message; strings.Contains(text, "canary") {
		t.Errorf("the status tells what is in the Secret: %s", text)
	}
}

// TestInsecureKubeconfigTLS reaches clusters whose certificates are not looked at, or
// that have none.
func TestInsecureKubeconfigTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "plain/b.yaml": configMap("b", "1")})
	w.runWith("--insecure-kubeconfig-tls")
	w.kubeconfigOf("far", w.cluster.Kubeconfig, func(server *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
		server.CertificateAuthorityData, server.InsecureSkipTLSVerify = nil, true
	})
	w.kubeconfigOf("plain", testenv.NewProxy(t, w.cluster).Kubeconfig, func(server *clientcmdapi.Cluster, _ *clientcmdapi.AuthInfo) {
		if !strings.HasPrefix(server.Server, "http://") {
			t.Errorf("the server is %s", server.Server)
		}
	})
	w.ours("app", to("far"))
	w.ours("plain", to("plain"))
	w.alive("app", first, "a")
	w.alive("plain", first, "b")
}

func TestDefaultKubeconfigServiceAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"traveller", "other"} {
		w.serviceAccount(name, may("", "configmaps"))
		w.seesAll(name, "configmaps")
	}
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "named/b.yaml": configMap("b", "1")})
	w.runWith("--default-kubeconfig-service-account=traveller")
	for name, account := range map[string]string{"app": "", "named": "other"} {
		access := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name + "-far"}, Data: map[string]string{
			"provider": "generic", "address": w.cluster.REST.Host, "ca.crt": string(w.cluster.REST.CAData), "audiences": w.audience(),
		}}
		if account != "" {
			access.Data["serviceAccountName"] = account
		}
		w.check(w.client.Create(w.context(), access))
		w.ours(name, func(k *kustomizev1.Kustomization) {
			k.Spec.KubeConfig = &meta.KubeConfigReference{ConfigMapRef: &meta.LocalObjectReference{Name: access.Name}}
		})
		w.ready(name, first)
	}
	for object, account := range map[string]string{"a": "traveller", "b": "other"} {
		w.data(object, "1")
		writes := w.writes("configmaps", w.namespace, object)
		if len(writes) == 0 {
			t.Errorf("the audit log has no write of %s", object)
		}
		for _, r := range writes {
			if r.User.Username != "system:serviceaccount:"+w.namespace+":"+account {
				t.Errorf("%s %s was made by %s, want %s", r.Verb, r.RequestURI, r.User.Username, account)
			}
		}
	}
}

func TestAdditiveDependencyCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"a/a.yaml": configMap("a", "1"), "b/b.yaml": configMap("b", "1"), "c/c.yaml": configMap("c", "1")})
	w.runWith("--feature-gates=AdditiveCELDependencyCheck=true")
	w.ours("a", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: "gate"}}
	})
	after := func(expression string) func(*kustomizev1.Kustomization) {
		return func(k *kustomizev1.Kustomization) {
			k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "a", ReadyExpr: expression}}
		}
	}
	w.ours("b", after("true"))
	w.ours("c", after("has(dep.metadata.annotations) && dep.metadata.annotations['go'] == 'c'"))
	waiting := func(name, words string) {
		t.Helper()
		waitFor(w, w.named(name), "waiting for a, "+words, func(k *kustomizev1.Kustomization) bool {
			ready := conditionOf(k.Status.Conditions, "Ready")
			return ready.Reason == "DependencyNotReady" && strings.HasSuffix(ready.Message, words)
		})
	}
	waiting("b", "'"+w.namespace+"/a' is not ready")
	w.check(w.client.Create(w.context(), w.namedConfig("gate")))
	w.ready("b", first)
	waiting("c", "is not ready according to readyExpr eval")
	w.annotate(w.named("a"), "go", "c")
	w.ready("c", first)
}

func TestNoFailFast(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "failed"), "app/b.yaml": configMap("b", "waits")})
	w.runWith("--feature-gates=DisableFailFastBehavior=true")
	w.ours("app", func(k *kustomizev1.Kustomization) {
		k.Spec.Wait, k.Spec.Timeout = true, &metav1.Duration{Duration: 3 * time.Second}
		k.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{{APIVersion: "v1", Kind: "ConfigMap", HealthCheckExpressions: kustomize.HealthCheckExpressions{
			Failed: "data.key == 'failed'", InProgress: "data.key == 'waits'", Current: "data.key == 'done'",
		}}}
	})
	w.notReady("app", "HealthCheckFailed", "timeout waiting for: |ConfigMap/"+w.namespace+"/a status: 'Failed'|ConfigMap/"+w.namespace+"/b status: 'InProgress'")
	if early := w.events("Kustomization", "app", "failed early"); len(early) > 0 {
		t.Errorf("it did not wait: %s", early[0].Message)
	}
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "done"), "app/b.yaml": configMap("b", "done")})
	w.healthy("app", second)
}

func TestLaxSubstitution(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "<${nobody_sets_it}> ${given}")})
	w.runWith("--feature-gates=StrictPostBuildSubstitutions=false")
	w.ours("app", func(k *kustomizev1.Kustomization) {
		k.Spec.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"given": "set"}}
	})
	w.ready("app", first)
	w.data("a", "<> set")
}
