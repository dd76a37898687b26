package operator_test

import (
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// TestSecretsOfSources has Secrets that do not go with what a source says, with Flux's
// reasons.
func TestSecretsOfSources(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	named := &meta.LocalObjectReference{Name: "login"}
	hour := metav1.Duration{Duration: time.Hour}
	bucket := func(provider, endpoint string) *sourcev1.Bucket {
		return &sourcev1.Bucket{Spec: sourcev1.BucketSpec{Provider: provider, BucketName: "fleet", Endpoint: endpoint, Interval: hour, SecretRef: named}}
	}
	ldap := bucket("generic", "127.0.0.1:1")
	ldap.Spec.SecretRef = nil
	ldap.Spec.STS = &sourcev1.BucketSTSSpec{Provider: "ldap", Endpoint: "http://127.0.0.1:1", SecretRef: named}
	git := func(provider string) *sourcev1.GitRepository {
		return &sourcev1.GitRepository{Spec: sourcev1.GitRepositorySpec{URL: "http://127.0.0.1:1/x", Provider: provider, Interval: hour, SecretRef: named}}
	}
	for name, test := range map[string]struct {
		source        sourced
		keys          map[string]string
		reason, words string
		stalled       bool
	}{
		"S3 without its secret":     {source: bucket("generic", "127.0.0.1:1"), keys: map[string]string{"accesskey": "a"}, reason: "AuthenticationFailed", words: "login'|'secretkey'"},
		"Google with keys of S3":    {source: bucket("gcp", ""), keys: map[string]string{"accesskey": "a", "secretkey": "b"}, reason: "AuthenticationFailed", words: "login'|'serviceaccount'"},
		"Azure with an authority":   {source: bucket("azure", "https://a.blob.core.windows.net"), keys: map[string]string{"authorityHost": "https://a"}, reason: "AuthenticationFailed", words: "login'|'accountKey'"},
		"LDAP without anybody":      {source: ldap, keys: map[string]string{"x": "y"}, reason: "AuthenticationFailed", words: "login'|'username'"},
		"GitHub without an App":     {source: git("github"), keys: map[string]string{"username": "a", "password": "b"}, reason: "InvalidProviderConfiguration", words: "login'|'githubAppID'"},
		"an App of another one":     {source: git(""), keys: map[string]string{"githubAppID": "1", "githubAppPrivateKey": "k"}, reason: "InvalidProviderConfiguration", words: "login'|spec.provider: github"},
		"an App without its key":    {source: git("github"), keys: map[string]string{"githubAppID": "1", "githubAppInstallationID": "2"}, reason: "AuthenticationFailed", words: "login'|'githubAppPrivateKey'"},
		"a managed identity abroad": {source: bucket("azure", "https://a.example.com"), keys: map[string]string{"clientId": "one"}, reason: "InvalidProviderConfiguration", words: "spec.endpoint|provider azure", stalled: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.secret("login", test.keys)
			object := test.source.DeepCopyObject().(sourced)
			object.SetNamespace(w.namespace)
			object.SetName("it")
			w.check(w.client.Create(w.context(), object))
			failed := unstored(w, object, test.reason, test.words)
			if c := conditionOf(failed.GetConditions(), "FetchFailed"); c.Status != "True" || c.Reason != test.reason {
				t.Errorf("FetchFailed: %+v", c)
			}
			if c := conditionOf(failed.GetConditions(), "Stalled"); (c.Status == "True") != test.stalled {
				t.Errorf("Stalled: %+v", c)
			}
		})
	}
	w.served()
}

// TestSecretBeforeProvider has Secrets win over the login at a cloud, as in Flux: also where
// the operator's own identity would be refused, or the gate for service accounts is off.
func TestSecretBeforeProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "s3cret"})
	digest := registry.Push(t, "fleet", "1.0.0", testenv.Files{"one.yaml": configMap("one", "1")})
	registry.PushChart(t, "charts/web", "1.0.0", testenv.HelmChart(t, "web", "1.0.0", nil), nil)
	w.pullSecret("pull", registry.Host(), "ann", "s3cret")
	w.annotated("puller", nil)
	named, hour := &meta.LocalObjectReference{Name: "pull"}, metav1.Duration{Duration: time.Hour}
	fleet := &sourcev1.OCIRepository{ObjectMeta: w.meta("fleet"), Spec: sourcev1.OCIRepositorySpec{
		URL: registry.URL("fleet"), Provider: "aws", Interval: hour, Insecure: true, SecretRef: named, ServiceAccountName: "puller", Reference: &sourcev1.OCIRepositoryRef{Tag: "1.0.0"},
	}}
	w.check(w.client.Create(w.context(), fleet))
	stored(w, fleet, "1.0.0@"+digest)
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
		URL: registry.URL("charts"), Type: "oci", Provider: "aws", Insecure: true, Interval: hour, SecretRef: named,
	}}
	w.check(w.client.Create(w.context(), charts))
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Interval: hour, SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
	}}
	w.check(w.client.Create(w.context(), web))
	stored(w, web, "1.0.0")
	// Without its Secret it is the service account that would log in.
	w.patch(fleet, `{"spec":{"secretRef":null,"url":"oci://123456789012.dkr.ecr.eu-central-1.amazonaws.com/x"}}`)
	unstored(w, fleet, "FeatureGateDisabled", "spec.serviceAccountName|ObjectLevelWorkloadIdentity")
}

// TestDefaultServiceAccountOfSources has the service account for all log in for who names
// none, as Flux's source-controller does. A HelmRepository can name none and is left out.
func TestDefaultServiceAccountOfSources(t *testing.T) {
	t.Parallel()
	w := withClouds(t, func(_ *world, _ *authtest.Clouds, c *config.Operator) { c.DefaultServiceAccount = "everybody" })
	hour := metav1.Duration{Duration: time.Hour}
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{Username: "ann", Password: "s3cret"})
	oci := &sourcev1.OCIRepository{ObjectMeta: w.meta("oci"), Spec: sourcev1.OCIRepositorySpec{URL: registry.URL("x"), Insecure: true, Provider: "aws", Interval: hour}}
	bucket := &sourcev1.Bucket{ObjectMeta: w.meta("bucket"), Spec: sourcev1.BucketSpec{Provider: "gcp", BucketName: "fleet", Interval: hour, Endpoint: "storage.googleapis.com"}}
	git := &sourcev1.GitRepository{ObjectMeta: w.meta("git"), Spec: sourcev1.GitRepositorySpec{URL: "https://dev.azure.com/acme/apps/_git/web", Provider: "azure", Interval: hour}}
	for _, object := range []sourced{oci, bucket, git} {
		w.owned(object)
		w.check(w.client.Create(w.context(), object))
		unstored(w, object, "AuthenticationFailed", "service account '"+w.namespace+"/everybody'|does not exist in this namespace")
	}
	charts := &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{URL: registry.URL("charts"), Insecure: true, Type: "oci", Provider: "aws"}}
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "web", Interval: hour, SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "charts"},
	}}
	w.owned(charts)
	w.owned(web)
	w.check(w.client.Create(w.context(), charts))
	w.check(w.client.Create(w.context(), web))
	unstored(w, web, "InvalidProviderConfiguration", "spec.insecure|the operator's own identity at provider aws")
}
