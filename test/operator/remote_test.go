package operator_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// elsewhere is the same test seen from another cluster, in which it has a namespace of
// the same name.
func (w *world) elsewhere(cluster *testenv.Cluster) *world {
	w.t.Helper()
	far := *w
	far.cluster = cluster
	var err error
	far.client, err = client.NewWithWatch(cluster.REST, client.Options{Scheme: w.client.Scheme()})
	w.check(err)
	w.check(far.client.Create(w.context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}))
	return &far
}

// kubeconfigSecret is a Secret with the kubeconfig of a cluster.
func (w *world) kubeconfigSecret(name string, cluster *testenv.Cluster) *corev1.Secret {
	w.t.Helper()
	content, err := os.ReadFile(cluster.Kubeconfig)
	w.check(err)
	w.secret(name, map[string]string{"value": string(content)})
	return w.namedSecret(name)
}

// to has a Kustomization applied to the cluster whose kubeconfig is in a Secret.
func to(secret string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: secret}}
		k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
	}
}

// TestRemoteCluster goes through the life of a Kustomization whose objects are in
// another cluster: another API server, with another etcd.
func TestRemoteCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cluster := testenv.Start(t)
	far := w.elsewhere(cluster)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "app/run.yaml": deployment("run"),
		"here/here.yaml": configMap("here", "1")})
	w.source()
	app := w.kustomization("app", to("far"), func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	w.notReady("app", "ReconciliationFailed", "Secret '"+w.namespace+"/far'|spec.kubeConfig|not found|create it")
	secret := w.kubeconfigSecret("far", cluster)
	done := w.ready("app", first)
	if h := conditionOf(done.Status.Conditions, "Healthy"); h.Status != "True" {
		t.Errorf("health was not found: %+v", h)
	}
	a, b := far.data("a", "1"), far.data("b", "1")

	// Drift is seen and undone there, and nothing is left here.
	far.patch(far.namedConfig("a"), `{"data":{"key":"mine"}}`)
	far.data("a", "1")
	w.check(far.client.Delete(w.context(), far.namedConfig("b")))
	b = waitFor(far, far.namedConfig("b"), "anew", func(c *corev1.ConfigMap) bool { return c.UID != b.UID && c.DeletionTimestamp.IsZero() })
	if writes := w.writes("configmaps", w.namespace, ""); len(writes) > 0 {
		t.Errorf("something was written to the operator's own cluster: %v", writes)
	}

	// Another kubeconfig for the same cluster changes nothing there.
	before := len(far.writes("configmaps", w.namespace, ""))
	content, err := os.ReadFile(cluster.Kubeconfig)
	w.check(err)
	w.patch(secret, fmt.Sprintf(`{"data":{"value":%q}}`, base64.StdEncoding.EncodeToString(append(content, "# rotated\n"...))))
	second := w.push(testenv.Files{"app/b.yaml": testenv.Delete})
	w.ready("app", second)
	far.gone(b)
	far.same(a)
	if n := len(far.writes("configmaps", w.namespace, "")) - before; n != 1 {
		t.Errorf("%d writes after the kubeconfig changed, want the deletion alone", n)
	}

	// The cluster goes away: whatever else there is goes on, and the object that is
	// being deleted says what it waits for.
	here := w.kustomization("here")
	w.ready("here", second)
	w.check(cluster.Stop())
	w.notReady("app", "ReconciliationFailed", "cluster "+cluster.REST.Host+" cannot be reached: ")
	third := w.push(testenv.Files{"app/a.yaml": configMap("a", "2"), "here/here.yaml": configMap("here", "2")})
	w.ready("here", third)
	w.data("here", "2")
	w.notReady("app", "ReconciliationFailed", "cluster "+cluster.REST.Host+" cannot be reached: ")
	w.check(w.client.Delete(w.context(), here))
	w.gone(here)
	w.check(w.client.Delete(w.context(), app))
	w.notReady("app", "PruneFailed", "cluster "+cluster.REST.Host+" cannot be reached: ")

	// Without its kubeconfig nobody can delete anything there: that is final.
	w.check(w.client.Delete(w.context(), secret))
	w.gone(app)
	w.event("Kustomization", "app", "Orphaned", "Secret '"+w.namespace+"/far'|does not exist any more|ConfigMap/"+w.namespace+"/a")
}

// TestMoveToAnotherCluster changes where a Kustomization is applied.
func TestMoveToAnotherCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cluster := testenv.Start(t)
	far := w.elsewhere(cluster)
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kubeconfigSecret("far", cluster)
	app := w.kustomization("app")
	w.ready("app", first)
	left := w.data("a", "1")
	w.patch(w.named("app"), `{"spec":{"kubeConfig":{"secretRef":{"name":"far"}}}}`)
	far.data("a", "1")
	w.event("Kustomization", "app", "Orphaned", "applied to cluster "+cluster.REST.Host+"|left in the operator's own cluster|ConfigMap/"+w.namespace+"/a")
	w.ready("app", first)
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	far.gone(far.namedConfig("a"))
	w.same(left)
}

// TestKubeconfigs gives Kustomizations kubeconfigs that ask for too much.
func TestKubeconfigs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	const server = `server: "https://127.0.0.1:1"`
	written := func(server, user string) map[string]string {
		return map[string]string{"value": "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n" +
			"clusters: [{name: x, cluster: {" + server + "}}]\nusers: [{name: x, user: {" + user + "}}]\n"}
	}
	for name, test := range map[string]struct {
		entries map[string]string
		words   string
	}{
		"exec":     {written(server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: canary, interactiveMode: Never}"), "exec would run a program|--insecure-kubeconfig-exec"},
		"file":     {written(server, "tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token"), "tokenFile names a file"},
		"tls":      {written(server+", insecure-skip-tls-verify: true", "token: canary"), "insecure-skip-tls-verify is not allowed|--insecure-kubeconfig-tls"},
		"entry":    {map[string]string{"other": "canary"}, `has no entry "value" and no "value.yaml"`},
		"nonsense": {map[string]string{"value": "canary"}, "kubeconfig"},
		"away":     {written(server, "token: canary"), "cluster https://127.0.0.1:1 cannot be reached: connection refused"},
	} {
		w.secret(name, test.entries)
		w.kustomization("app-"+name, to(name), func(k *kustomizev1.Kustomization) { k.Spec.Path = "./app" })
		k := w.notReady("app-"+name, "ReconciliationFailed", test.words)
		if text := fmt.Sprint(k.Status); strings.Contains(text, "canary") {
			t.Errorf("%s: the status tells what is in the Secret: %s", name, text)
		}
		// It has nothing anywhere, so nothing keeps it.
		w.check(w.client.Delete(w.context(), k))
		w.gone(k)
	}
}

// TestTokensForAnotherCluster has a cluster reached with tokens of a service account:
// the cluster is the operator's own under another name, which trusts them.
func TestTokensForAnotherCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serviceAccount("traveller", may("", "configmaps"))
	w.seesAll("traveller", "configmaps")
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	access := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "far"}, Data: map[string]string{
		"provider": "aws", "address": w.cluster.REST.Host, "ca.crt": string(w.cluster.REST.CAData), "audiences": w.audience(),
	}}
	w.check(w.client.Create(w.context(), access))
	app := w.kustomization("app", func(k *kustomizev1.Kustomization) {
		k.Spec.KubeConfig = &meta.KubeConfigReference{ConfigMapRef: &meta.LocalObjectReference{Name: "far"}}
	})
	w.notReady("app", "ReconciliationFailed", `ConfigMap '`+w.namespace+`/far'|provider "aws"|the operator itself|its name is no ARN`)
	w.patch(access, `{"data":{"provider":"generic"}}`)
	w.notReady("app", "ReconciliationFailed", "it needs serviceAccountName")
	w.patch(access, `{"data":{"serviceAccountName":"traveller"}}`)
	w.ready("app", first)
	w.data("a", "1")
	w.patch(w.namedConfig("a"), `{"data":{"key":"mine"}}`)
	w.data("a", "1")
	user := "system:serviceaccount:" + w.namespace + ":traveller"
	for _, r := range w.writes("configmaps", w.namespace, "a") {
		if r.User.Username != user || r.ImpersonatedUser != nil {
			t.Errorf("%s %s was made by %s as %v", r.Verb, r.RequestURI, r.User.Username, r.ImpersonatedUser)
		}
	}
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.gone(w.namedConfig("a"))
}

// seesAll lets a service account watch a resource in the whole cluster: drift is seen
// by one watch for a kind.
func (w *world) seesAll(account, resource string) {
	w.t.Helper()
	at := metav1.ObjectMeta{Name: w.namespace + "-" + account}
	w.check(w.client.Create(w.context(), &rbacv1.ClusterRole{ObjectMeta: at, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{resource}, Verbs: []string{"list", "watch"}},
	}}))
	w.check(w.client.Create(w.context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: at,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: at.Name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: w.namespace}},
	}))
}

// audience is what the API server takes tokens for.
func (w *world) audience() string {
	w.t.Helper()
	own, err := kubernetes.NewForConfig(rest.CopyConfig(w.cluster.REST))
	w.check(err)
	request, err := own.CoreV1().ServiceAccounts(w.namespace).CreateToken(w.context(), "traveller", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	w.check(err)
	return strings.Join(request.Spec.Audiences, ",")
}
