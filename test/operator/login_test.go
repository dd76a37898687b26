package operator_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// withClouds is a test with an operator of its own, in which service accounts log in at
// clouds that are stood in for.
func withClouds(t *testing.T, change func(*world, *authtest.Clouds, *config.Operator)) *world {
	t.Helper()
	w := newWorld(t)
	clouds := authtest.New(t)
	w.clouds = clouds.Transport()
	w.runOwn(t.TempDir(), func(c *config.Operator) {
		c.Gates.ObjectLevelWorkloadIdentity = true
		change(w, clouds, c)
	})
	return w
}

// annotated makes a service account with annotations.
func (w *world) annotated(name string, annotations map[string]string) {
	w.t.Helper()
	w.check(w.client.Create(w.context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Annotations: annotations}}))
}

// TestClusterOfACloud has a cluster reached with the login of a service account at a cloud,
// which also says where the cluster is: it is the operator's own under another name.
func TestClusterOfACloud(t *testing.T) {
	t.Parallel()
	w := withClouds(t, func(w *world, clouds *authtest.Clouds, _ *config.Operator) {
		w.serviceAccount("traveller", may("", "configmaps"))
		w.seesAll("traveller", "configmaps")
		own, err := kubernetes.NewForConfig(w.cluster.REST)
		w.check(err)
		token, err := own.CoreV1().ServiceAccounts(w.namespace).CreateToken(w.context(), "traveller", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		w.check(err)
		clouds.GoogleAddress, clouds.GoogleCA, clouds.GoogleToken = strings.TrimPrefix(w.cluster.REST.Host, "https://"), w.cluster.REST.CAData, token.Status.Token
	})
	w.annotated("login", map[string]string{"gcp.auth.fluxcd.io/workload-identity-provider": authtest.GooglePool})
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	access := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "far"}, Data: map[string]string{"provider": "acme"}}
	w.check(w.client.Create(w.context(), access))
	app := w.kustomization("app", func(k *kustomizev1.Kustomization) {
		w.owned(k)
		k.Spec.KubeConfig = &meta.KubeConfigReference{ConfigMapRef: &meta.LocalObjectReference{Name: "far"}}
		k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
	})
	at := "ConfigMap '" + w.namespace + "/far'|"
	w.notReady("app", "ReconciliationFailed", at+`provider "acme"|there are aws, azure, gcp`)
	w.patch(access, `{"data":{"provider":"gcp","cluster":"`+authtest.GoogleFar+`","serviceAccountName":"nobody"}}`)
	w.notReady("app", "ReconciliationFailed", at+"service account '"+w.namespace+"/nobody'|does not exist in this namespace")
	w.patch(access, `{"data":{"serviceAccountName":"login","address":"evil.example.com"}}`)
	w.notReady("app", "ReconciliationFailed", at+"knows no such address")
	w.patch(access, `{"data":{"address":null}}`)
	w.ready("app", first)
	w.data("a", "1")
	w.patch(w.namedConfig("a"), `{"data":{"key":"mine"}}`)
	w.data("a", "1")
	user := "system:serviceaccount:" + w.namespace + ":traveller"
	for _, r := range w.writes("configmaps", w.namespace, "a") {
		if r.User.Username != user {
			t.Errorf("%s %s was made by %s", r.Verb, r.RequestURI, r.User.Username)
		}
	}
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.gone(w.namedConfig("a"))
}

// TestDecryptByLogin opens what is encrypted for a key of a cloud, without any Secret: as
// the service account that the Kustomization names, or as the one for all.
func TestDecryptByLogin(t *testing.T) {
	// The SDK takes no client of ours where the machine has an authority of its own.
	t.Setenv("AWS_CA_BUNDLE", "")
	var sealed string
	w := withClouds(t, func(w *world, clouds *authtest.Clouds, c *config.Operator) {
		id, secret, session := clouds.NewAWSKey("whoever encrypts")
		recipient := sopstest.AWS("arn:aws:kms:eu-central-1:123456789012:key/main", &http.Client{Transport: clouds.Transport()}, id, secret, session)
		sealed = sopstest.Encryption{For: []sopstest.Recipient{recipient}, Only: onlyData}.Encrypt(t, "s.yaml", lockedSecret)
		c.DefaultDecryptionServiceAccount = "everybody"
	})
	first := w.push(testenv.Files{"app/s.yaml": sealed})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	decrypts := func(k *kustomizev1.Kustomization) {
		w.owned(k)
		k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops", ServiceAccountName: "unknown"}
		k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
	}
	w.kustomization("app", decrypts)
	key := "AWS KMS key arn:aws:kms:eu-central-1:123456789012:key/main|there is no entry sops.aws-kms, and "
	w.notReady("app", "BuildFailed", key+"log in at provider|service account '"+w.namespace+"/unknown'|does not exist in this namespace")
	w.annotated("named", map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/other"})
	w.patch(w.named("app"), `{"spec":{"decryption":{"serviceAccountName":"named"}}}`)
	w.notReady("app", "BuildFailed", key+"log in at provider|it answers 403 AccessDenied|role/other")
	w.patch(w.named("app"), `{"spec":{"decryption":{"serviceAccountName":null}}}`)
	w.notReady("app", "BuildFailed", "service account '"+w.namespace+"/everybody'|does not exist")
	w.annotated("mine", map[string]string{"eks.amazonaws.com/role-arn": authtest.AWSRole})
	w.patch(w.named("app"), `{"spec":{"decryption":{"serviceAccountName":"mine"}}}`)
	w.ready("app", first)
	w.password("Secret")
	w.hidden("app")
}

// TestVaultConfig has Vaults in a ConfigMap of the operator's, right and wrong.
func TestVaultConfig(t *testing.T) {
	t.Parallel()
	identity, age := sopstest.Age(t)
	w := withClouds(t, func(w *world, _ *authtest.Clouds, c *config.Operator) {
		c.RuntimeNamespace, c.VaultConfigMap = w.namespace, "vaults"
	})
	w.keys(map[string]string{"a.agekey": identity})
	first := w.push(testenv.Files{"app/s.yaml": sopstest.Encryption{For: []sopstest.Recipient{age}, Only: onlyData}.Encrypt(t, "s.yaml", lockedSecret)})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	// Who has other keys does not care that the ConfigMap is not there.
	w.kustomization("app", decrypting("keys"), func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("app", first)
	w.password("Secret")
}
