package operator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// A chart in a bucket is packaged with its dependencies: from beside it, and from a private
// HelmRepository of the namespace, whose Secret is watched.
func TestHelmChartFromBucket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repository := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{Username: "ann", Password: rightWord})
	repository.Put(t, "lib", "1.5.0", testenv.HelmChart(t, "lib", "1.5.0", map[string]string{"values.yaml": "a: 1\n"}))
	password := w.plainLogin("username", "password")
	w.check(w.client.Create(w.context(), &sourcev1.HelmRepository{ObjectMeta: w.meta("charts"), Spec: sourcev1.HelmRepositorySpec{
		URL: repository.URL(), Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "login"},
	}}))
	server := testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: rightWord})
	publish := func(version, lib string) {
		server.Fill("fleet", map[string]string{
			"charts/web/Chart.yaml": "apiVersion: v2\nname: web\nversion: " + version + "\ndependencies:\n" +
				"- name: lib\n  version: " + lib + "\n  repository: " + repository.URL() + "\n" +
				"- name: local\n  version: 0.x\n  repository: file://../local\n",
			"charts/local/Chart.yaml": "apiVersion: v2\nname: local\nversion: 0.3.0\n",
			"values/prod.yaml":        "b: 2\n",
		})
	}
	publish("0.1.0", "1.x")
	w.secret("keys", map[string]string{"accesskey": "ann", "secretkey": rightWord})
	bucket := &sourcev1.Bucket{ObjectMeta: w.meta("fleet"), Spec: sourcev1.BucketSpec{
		Provider: "generic", BucketName: "fleet", Endpoint: server.Address(), Region: "us-east-1", Insecure: true,
		Interval: metav1.Duration{Duration: time.Hour}, SecretRef: &meta.LocalObjectReference{Name: "keys"},
	}}
	web := &sourcev1.HelmChart{ObjectMeta: w.meta("web"), Spec: sourcev1.HelmChartSpec{
		Chart: "charts/web", Interval: metav1.Duration{Duration: time.Hour},
		SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "Bucket", Name: "fleet"},
	}}
	w.check(w.client.Create(w.context(), web))
	unstored(w, web, "SourceUnavailable", "Bucket")
	w.check(w.client.Create(w.context(), bucket))
	got := stored(w, web, "0.1.0")
	if ready := conditionOf(got.Status.Conditions, "Ready"); ready.Reason != "ChartPackageSucceeded" {
		t.Errorf("Ready: %+v", ready)
	}
	if of := stored(w, bucket, "sha256:").Status.Artifact.Revision; got.Status.ObservedSourceArtifactRevision != of {
		t.Errorf("observed %q, want %q", got.Status.ObservedSourceArtifactRevision, of)
	}
	files := w.load(got.GetArtifact())
	for _, folder := range []string{"web/charts/lib", "web/charts/local"} {
		found := false
		for name := range files {
			found = found || strings.HasPrefix(name, folder)
		}
		if !found {
			t.Errorf("the chart has nothing at %s: %v", folder, files)
		}
	}

	password(wrongWord)
	publish("0.2.0", "1.5.0")
	w.request(bucket)
	failed := unstored(w, web, "AuthenticationFailed", "lib|'0.1.0' stays in force")
	if strings.Contains(fmt.Sprint(failed.Status), wrongWord) {
		t.Errorf("the status has the credential: %+v", failed.Status)
	}
	password(rightWord)
	stored(w, web, "0.2.0")
	publish("0.3.0", "2.x")
	w.request(bucket)
	unstored(w, web, "DependencyBuildError", "lib|2.x|'0.2.0' stays in force")
	repository.Put(t, "lib", "2.0.0", testenv.HelmChart(t, "lib", "2.0.0", nil))
	w.request(&sourcev1.HelmRepository{ObjectMeta: w.meta("charts")})
	w.request(web)
	stored(w, web, "0.3.0")

	// Values files are those of the source, not of the chart.
	w.patch(web, `{"spec":{"valuesFiles":["values/prod.yaml"]}}`)
	merged := stored(w, web, "0.3.0+")
	if values := w.load(merged.GetArtifact())["web/values.yaml"]; strings.TrimSpace(values) != "b: 2" {
		t.Errorf("the values are %q", values)
	}
}
