package flux

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// specFields are the fields of the specs of sources, each with two specs, as JSON, of which
// the second one has another value of that field alone. What the object is then followed
// for has to differ.
func specFields() map[string][2]string {
	const (
		gitRepository = `"url":"https://git.test/a","interval":"1m"`
		oci           = `"url":"oci://registry.test/a","interval":"1m"`
		bucket        = `"bucketName":"a","endpoint":"s3.test","interval":"1m"`
		helm          = `"url":"https://charts.test","interval":"1m"`
		chart         = `"chart":"a","interval":"1m","sourceRef":{"kind":"GitRepository","name":"charts"}`
		signed        = `"chart":"a","interval":"1m","sourceRef":{"kind":"HelmRepository","name":"registry"}`
		keyless       = `"verify":{"provider":"cosign","matchOIDCIdentity":[{"issuer":"^a$","subject":"^b$"}]}`
	)
	with := func(base string, values ...string) [2]string {
		var specs [2]string
		for i, value := range values {
			specs[i] = "{" + base + "," + value + "}"
		}
		if len(values) == 1 {
			specs[0], specs[1] = "{"+base+"}", specs[0]
		}
		return specs
	}
	return map[string][2]string{
		"GitRepository.url":                     with(`"interval":"1m"`, `"url":"https://git.test/a"`, `"url":"https://git.test/b"`),
		"GitRepository.interval":                with(`"url":"https://git.test/a"`, `"interval":"1m"`, `"interval":"2m"`),
		"GitRepository.timeout":                 with(gitRepository, `"timeout":"10s"`),
		"GitRepository.suspend":                 with(gitRepository, `"suspend":true`),
		"GitRepository.ignore":                  with(gitRepository, `"ignore":"/docs"`),
		"GitRepository.include.repository.name": with(gitRepository, `"include":[{"repository":{"name":"b"}}]`),
		"GitRepository.include.fromPath":        with(gitRepository, `"include":[{"repository":{"name":"part"},"fromPath":"a"}]`, `"include":[{"repository":{"name":"part"},"fromPath":"b"}]`),
		"GitRepository.include.toPath":          with(gitRepository, `"include":[{"repository":{"name":"part"},"toPath":"a"}]`, `"include":[{"repository":{"name":"part"},"toPath":"b"}]`),
		"GitRepository.provider":                with(gitRepository, `"provider":"azure"`),
		"GitRepository.serviceAccountName":      with(gitRepository+`,"provider":"azure"`, `"serviceAccountName":"a"`),
		"GitRepository.proxySecretRef.name":     with(gitRepository, `"proxySecretRef":{"name":"data"}`),
		"GitRepository.secretRef.name":          with(gitRepository, `"secretRef":{"name":"data"}`),
		"GitRepository.recurseSubmodules":       with(gitRepository, `"recurseSubmodules":true`),
		"GitRepository.sparseCheckout":          with(gitRepository, `"sparseCheckout":["a"]`),
		"GitRepository.ref.branch":              with(gitRepository, `"ref":{"branch":"a"}`),
		"GitRepository.ref.tag":                 with(gitRepository, `"ref":{"tag":"a"}`),
		"GitRepository.ref.semver":              with(gitRepository, `"ref":{"semver":"1.x"}`),
		"GitRepository.ref.name":                with(gitRepository, `"ref":{"name":"refs/heads/a"}`),
		"GitRepository.ref.commit":              with(gitRepository, `"ref":{"commit":"0123456789012345678901234567890123456789"}`),
		"GitRepository.verify.secretRef.name":   with(gitRepository, `"verify":{"secretRef":{"name":"data"}}`),
		"GitRepository.verify.mode":             with(gitRepository, `"verify":{"secretRef":{"name":"data"},"mode":"HEAD"}`, `"verify":{"secretRef":{"name":"data"},"mode":"TagAndHEAD"}`),

		"OCIRepository.url":                              with(`"interval":"1m"`, `"url":"oci://registry.test/a"`, `"url":"oci://registry.test/b"`),
		"OCIRepository.interval":                         with(`"url":"oci://registry.test/a"`, `"interval":"1m"`, `"interval":"2m"`),
		"OCIRepository.timeout":                          with(oci, `"timeout":"10s"`),
		"OCIRepository.suspend":                          with(oci, `"suspend":true`),
		"OCIRepository.ignore":                           with(oci, `"ignore":"/docs"`),
		"OCIRepository.insecure":                         with(oci, `"insecure":true`),
		"OCIRepository.provider":                         with(oci, `"provider":"aws"`),
		"OCIRepository.serviceAccountName":               with(oci, `"serviceAccountName":"a"`),
		"OCIRepository.secretRef.name":                   with(oci, `"secretRef":{"name":"data"}`),
		"OCIRepository.certSecretRef.name":               with(oci, `"certSecretRef":{"name":"data"}`),
		"OCIRepository.proxySecretRef.name":              with(oci, `"proxySecretRef":{"name":"data"}`),
		"OCIRepository.ref.tag":                          with(oci, `"ref":{"tag":"a"}`),
		"OCIRepository.ref.semver":                       with(oci, `"ref":{"semver":"1.x"}`),
		"OCIRepository.ref.semverFilter":                 with(oci, `"ref":{"semver":"1.x"}`, `"ref":{"semver":"1.x","semverFilter":"^v"}`),
		"OCIRepository.ref.digest":                       with(oci, `"ref":{"digest":"sha256:`+strings.Repeat("0", 64)+`"}`),
		"OCIRepository.layerSelector.mediaType":          with(oci, `"layerSelector":{"mediaType":"a/b"}`),
		"OCIRepository.layerSelector.operation":          with(oci, `"layerSelector":{"operation":"copy"}`),
		"OCIRepository.verify.provider":                  with(oci, `"verify":{"provider":"cosign","secretRef":{"name":"data"}}`, `"verify":{"provider":"notation","secretRef":{"name":"data"}}`),
		"OCIRepository.verify.secretRef.name":            with(oci, `"verify":{"provider":"cosign"}`, `"verify":{"provider":"cosign","secretRef":{"name":"data"}}`),
		"OCIRepository.verify.matchOIDCIdentity.issuer":  with(oci, keyless, strings.Replace(keyless, "^a$", "^c$", 1)),
		"OCIRepository.verify.matchOIDCIdentity.subject": with(oci, keyless, strings.Replace(keyless, "^b$", "^c$", 1)),
		"OCIRepository.verify.trustedRootSecretRef.name": with(oci, keyless, strings.Replace(keyless, `"matchOIDC`, `"trustedRootSecretRef":{"name":"data"},"matchOIDC`, 1)),

		"Bucket.bucketName":             with(`"endpoint":"s3.test","interval":"1m"`, `"bucketName":"a"`, `"bucketName":"b"`),
		"Bucket.endpoint":               with(`"bucketName":"a","interval":"1m"`, `"endpoint":"s3.test"`, `"endpoint":"s3.other"`),
		"Bucket.interval":               with(`"bucketName":"a","endpoint":"s3.test"`, `"interval":"1m"`, `"interval":"2m"`),
		"Bucket.timeout":                with(bucket, `"timeout":"10s"`),
		"Bucket.suspend":                with(bucket, `"suspend":true`),
		"Bucket.ignore":                 with(bucket, `"ignore":"/docs"`),
		"Bucket.insecure":               with(bucket, `"insecure":true`),
		"Bucket.prefix":                 with(bucket, `"prefix":"a/"`),
		"Bucket.region":                 with(bucket, `"region":"a"`),
		"Bucket.provider":               with(bucket, `"provider":"aws"`),
		"Bucket.serviceAccountName":     with(bucket+`,"provider":"aws"`, `"serviceAccountName":"a"`),
		"Bucket.secretRef.name":         with(bucket, `"secretRef":{"name":"data"}`),
		"Bucket.certSecretRef.name":     with(bucket, `"certSecretRef":{"name":"data"}`),
		"Bucket.proxySecretRef.name":    with(bucket, `"proxySecretRef":{"name":"data"}`),
		"Bucket.sts.provider":           with(bucket, `"sts":{"provider":"ldap","endpoint":"https://sts.test"}`, `"sts":{"provider":"aws","endpoint":"https://sts.test"}`),
		"Bucket.sts.endpoint":           with(bucket, `"sts":{"provider":"ldap","endpoint":"https://sts.test"}`, `"sts":{"provider":"ldap","endpoint":"https://sts.other"}`),
		"Bucket.sts.secretRef.name":     with(bucket, `"sts":{"provider":"ldap","endpoint":"https://sts.test"}`, `"sts":{"provider":"ldap","endpoint":"https://sts.test","secretRef":{"name":"data"}}`),
		"Bucket.sts.certSecretRef.name": with(bucket, `"sts":{"provider":"ldap","endpoint":"https://sts.test"}`, `"sts":{"provider":"ldap","endpoint":"https://sts.test","certSecretRef":{"name":"data"}}`),

		"HelmRepository.url":                with(`"interval":"1m"`, `"url":"https://charts.test/a"`, `"url":"https://charts.test/b"`),
		"HelmRepository.interval":           with(`"url":"https://charts.test/a"`, `"interval":"1m"`, `"interval":"2m"`),
		"HelmRepository.timeout":            with(helm, `"timeout":"10s"`),
		"HelmRepository.suspend":            with(helm, `"suspend":true`),
		"HelmRepository.type":               with(helm, `"type":"oci"`),
		"HelmRepository.provider":           with(`"url":"oci://registry.test/a","interval":"1m","type":"oci"`, `"provider":"aws"`),
		"HelmRepository.insecure":           with(`"url":"oci://registry.test/a","interval":"1m","type":"oci"`, `"insecure":true`),
		"HelmRepository.passCredentials":    with(helm, `"passCredentials":true`),
		"HelmRepository.secretRef.name":     with(helm, `"secretRef":{"name":"data"}`),
		"HelmRepository.certSecretRef.name": with(helm, `"certSecretRef":{"name":"data"}`),

		"HelmChart.chart":                            with(`"interval":"1m","sourceRef":{"kind":"GitRepository","name":"charts"}`, `"chart":"a"`, `"chart":"b"`),
		"HelmChart.interval":                         with(`"chart":"a","sourceRef":{"kind":"GitRepository","name":"charts"}`, `"interval":"1m"`, `"interval":"2m"`),
		"HelmChart.suspend":                          with(chart, `"suspend":true`),
		"HelmChart.version":                          with(chart, `"version":"1.x"`),
		"HelmChart.valuesFiles":                      with(chart, `"valuesFiles":["a"]`),
		"HelmChart.ignoreMissingValuesFiles":         with(chart, `"ignoreMissingValuesFiles":true`),
		"HelmChart.reconcileStrategy":                with(chart, `"reconcileStrategy":"Revision"`),
		"HelmChart.sourceRef.kind":                   with(`"chart":"a","interval":"1m"`, `"sourceRef":{"kind":"GitRepository","name":"charts"}`, `"sourceRef":{"kind":"Bucket","name":"charts"}`),
		"HelmChart.sourceRef.name":                   with(`"chart":"a","interval":"1m"`, `"sourceRef":{"kind":"GitRepository","name":"charts"}`, `"sourceRef":{"kind":"GitRepository","name":"other"}`),
		"HelmChart.verify.provider":                  with(signed, `"verify":{"provider":"cosign","secretRef":{"name":"data"}}`, `"verify":{"provider":"notation","secretRef":{"name":"data"}}`),
		"HelmChart.verify.secretRef.name":            with(signed, `"verify":{"provider":"cosign"}`, `"verify":{"provider":"cosign","secretRef":{"name":"data"}}`),
		"HelmChart.verify.matchOIDCIdentity.issuer":  with(signed, keyless, strings.Replace(keyless, "^a$", "^c$", 1)),
		"HelmChart.verify.matchOIDCIdentity.subject": with(signed, keyless, strings.Replace(keyless, "^b$", "^c$", 1)),
	}
}

// withoutEffect are fields of the schema that nobody follows, and why.
func withoutEffect() map[string]string {
	return map[string]string{
		"HelmChart.sourceRef.apiVersion":                           "the kind decides, as in Flux",
		"HelmRepository.accessFrom.namespaceSelectors.matchLabels": "charts and their repository are in one namespace: Flux does not use it either",
	}
}

// TestEverySourceFieldCounts: a change of any field of a source's spec changes what is
// followed, or how, or is refused. A field that a new schema brings has to be here.
func TestEverySourceFieldCounts(t *testing.T) {
	t.Parallel()
	all := specFields()
	for name, specs := range all {
		before, after := whatFollows(t, name, specs[0]), whatFollows(t, name, specs[1])
		if before == after {
			t.Errorf("%s: both %s and %s give %s", name, specs[0], specs[1], before)
		}
	}
	known := sourceFields(t)
	for _, field := range known {
		_, tried := all[field]
		if _, excused := withoutEffect()[field]; tried == excused {
			t.Errorf("%s is tried: %v, excused: %v", field, tried, excused)
		}
	}
	for _, field := range slices.Concat(slices.Collect(maps.Keys(all)), slices.Collect(maps.Keys(withoutEffect()))) {
		if !slices.Contains(known, field) {
			t.Errorf("%s is no field of the schema", field)
		}
	}
}

// sourceFields are the paths of the fields of the schemas that have no fields themselves.
func sourceFields(t *testing.T) []string {
	t.Helper()
	all, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	var add func(schema map[string]any, path string)
	add = func(schema map[string]any, path string) {
		if items, ok := schema["items"].(map[string]any); ok {
			schema = items
		}
		properties, _ := schema["properties"].(map[string]any)
		if len(properties) == 0 {
			fields = append(fields, path)
		}
		for name, below := range properties {
			add(below.(map[string]any), path+"."+name)
		}
	}
	for _, d := range all {
		if d.Kind.Group != sourceGroup || d.Kind.Kind == sourcev1.ExternalArtifactKind {
			continue
		}
		versions, _, _ := unstructured.NestedSlice(d.Object.Object, "spec", "versions")
		schema, found, err := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec")
		if err != nil || !found {
			t.Fatalf("no schema of %s: %v", d.Kind.Kind, err)
		}
		add(schema, d.Kind.Kind)
	}
	return fields
}

// registry is a client that knows one HelmRepository, and sources of the name charts.
type registry struct{ client.Client }

func (registry) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if h, ok := obj.(*sourcev1.HelmRepository); ok && key.Name == "registry" {
		h.Name, h.Namespace, h.Spec.Type, h.Spec.URL = key.Name, key.Namespace, sourcev1.HelmRepositoryTypeOCI, "oci://registry.test/charts"
		return nil
	}
	if key.Name == "charts" {
		obj.SetName(key.Name)
		obj.SetNamespace(key.Namespace)
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: "sources"}, key.Name)
}

func (registry) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// whatFollows is what is made of a spec, as text.
func whatFollows(t *testing.T, field, spec string) string {
	t.Helper()
	references := newReferences(nil, nil, func(gitops.OwnerRef) {})
	data := map[string][]byte{"username": []byte("ann"), "password": []byte("x"), "address": []byte("http://proxy.test"), "accesskey": []byte("a"), "secretkey": []byte("b")}
	references.watched[reference{kind: secretKind, namespace: "ns", name: "data"}] = &watched{users: map[gitops.OwnerRef]bool{}, read: true, exists: true, data: data}
	tree, err := artifact.ReadFolder(fstest.MapFS{"a/x": {Data: []byte("1")}, "b/x": {Data: []byte("2")}})
	if err != nil {
		t.Fatal(err)
	}
	sources := newSources()
	for _, name := range []string{"charts", "part"} {
		sources.publish(gitops.OwnerRef{Group: sourceGroup, Kind: sourcev1.GitRepositoryKind, Namespace: "ns", Name: name}, gitops.Snapshot{Files: tree})
	}
	options := SourceOptions{ServiceAccountLogins: true}
	secrets := sourceSecrets{references: references}
	clock := testclock.NewFakePassiveClock(time.Unix(0, 0))
	repositories := helmRepositories{secrets: secrets, options: options}
	kind, _, _ := strings.Cut(field, ".")
	switch kind {
	case sourcev1.GitRepositoryKind:
		return followedOf(t, gitRepositories{client: registry{}, secrets: secrets, sources: sources, clock: clock, options: options}, spec)
	case sourcev1.OCIRepositoryKind:
		return followedOf(t, ociRepositories{secrets: secrets, options: options}, spec)
	case sourcev1.BucketKind:
		return followedOf(t, buckets{secrets: secrets, options: options}, spec)
	case sourcev1.HelmRepositoryKind:
		return followedOf(t, repositories, spec)
	default:
		return followedOf(t, helmCharts{client: registry{}, secrets: secrets, sources: sources, repositories: repositories, options: options}, spec)
	}
}

func followedOf[T sourceObject, R any](t *testing.T, kind sourceKind[T, R], spec string) string {
	t.Helper()
	obj := kind.empty()
	if err := json.Unmarshal([]byte(`{"metadata":{"namespace":"ns","name":"it"},"spec":`+spec+`}`), obj); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	s := kind.settings(obj)
	timeout := ""
	if s.timeout != nil {
		timeout = s.timeout.Duration.String()
	}
	words := []string{obj.GetRequeueAfter().String(), timeout, fmt.Sprint(s.suspended, s.static)}
	if s.static {
		// A HelmRepository of type oci is read by its charts.
		obj, is := any(obj).(*sourcev1.HelmRepository)
		if !is {
			t.Fatalf("%T is static", obj)
		}
		request, err := any(kind).(helmRepositories).request(obj)
		return strings.Join(append(words, asJSON(t, request), fmt.Sprint(err)), "|")
	}
	if refusal := kind.refuse(obj); refusal != nil {
		return strings.Join(append(words, refusal.Error()), "|")
	}
	p, err := kind.follow(obj)
	if err != nil {
		return strings.Join(append(words, err.Error()), "|")
	}
	return strings.Join(append(words, asJSON(t, p.request), p.content, p.timeout.String()), "|")
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
