package operator_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/frontend/flux/crds"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

// references are the fields of a served kind, from the schema of its definition, by
// which an object names another one: true for those that can name a namespace.
func references(t *testing.T) map[string]bool {
	t.Helper()
	served, err := crds.Served()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, d := range served {
		versions, _, err := unstructured.NestedSlice(d.Object.Object, "spec", "versions")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range versions {
			schema, _, _ := unstructured.NestedMap(v.(map[string]any), "schema", "openAPIV3Schema", "properties", "spec")
			referencesIn(schema, d.Kind.Kind+" spec", found)
		}
	}
	return found
}

func referencesIn(schema map[string]any, path string, found map[string]bool) {
	properties, _ := schema["properties"].(map[string]any)
	if _, named := properties["name"]; named && isReference(path) {
		_, found[path] = properties["namespace"]
	}
	for name, property := range properties {
		p := property.(map[string]any)
		if items, ok := p["items"].(map[string]any); ok {
			p = items
		}
		referencesIn(p, path+"."+name, found)
	}
}

// isReference tells by its name whether a field with a name in it is a reference.
func isReference(path string) bool {
	last := path[strings.LastIndexByte(path, '.')+1:]
	return strings.HasSuffix(last, "Ref") || strings.HasSuffix(last, "From") || strings.HasSuffix(last, "Refs") ||
		slices.Contains([]string{"dependsOn", "healthChecks", "repository"}, last)
}

// where is where the object is that a reference names.
type where string

const (
	sameNamespace  where = "same"
	otherNamespace where = "other"
	missing        where = "missing"
)

// target is the name of what references name.
const target = "target"

// probe tries one reference.
type probe struct {
	// make creates what is named, in a namespace.
	make func(w *world, namespace string)
	// kustomization or source has the reference name it; a reference that can name no
	// namespace leaves it out.
	kustomization func(k *kustomizev1.Kustomization, namespace string)
	source        func(s *sourcev1.GitRepository)
	// object is one of another kind with the reference.
	object func(w *world, meta metav1.ObjectMeta) sourced
	// found is what is said where the object was read: "" for Ready.
	found string
	// lost is what is said where it was not.
	lost string
	// denied is what is said of another namespace where the flag is on, and foreign where
	// it is off; "" for the same as found. They count for references with a namespace.
	denied, foreign string
	// watches is set where the operator watches the metadata of what is named.
	watches bool
}

// repositoryIn creates a GitRepository with the name of a target.
func repositoryIn(w *world, namespace string) {
	s := &sourcev1.GitRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: target},
		Spec: sourcev1.GitRepositorySpec{URL: w.server.URL("repo"), Interval: metav1.Duration{Duration: time.Hour},
			Reference: &sourcev1.GitRepositoryRef{Branch: "main"}},
	}
	w.mine(s)
	w.check(w.client.Create(w.context(), s))
}

// probes are for all references of the schemas.
func probes(identity string) map[string]probe {
	secret := func(data map[string]string) func(*world, string) {
		return func(w *world, namespace string) {
			w.check(w.client.Create(w.context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: target}, StringData: data}))
		}
	}
	config := func(data map[string]string) func(*world, string) {
		return func(w *world, namespace string) {
			w.check(w.client.Create(w.context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: target}, Data: data}))
		}
	}
	return map[string]probe{
		"Kustomization spec.sourceRef": {
			make: repositoryIn,
			kustomization: func(k *kustomizev1.Kustomization, namespace string) {
				k.Spec.SourceRef.Name, k.Spec.SourceRef.Namespace = target, namespace
			},
			lost: "ArtifactFailed not found", denied: "AccessDenied cross-namespace references have been blocked",
		},
		"Kustomization spec.dependsOn": {
			make: func(w *world, namespace string) {
				repositoryIn(w, namespace)
				k := &kustomizev1.Kustomization{
					ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: target},
					Spec: kustomizev1.KustomizationSpec{Interval: metav1.Duration{Duration: time.Hour}, Path: "./empty",
						SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: "GitRepository", Name: target}},
				}
				w.mine(k)
				w.check(w.client.Create(w.context(), k))
			},
			kustomization: func(k *kustomizev1.Kustomization, namespace string) {
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: target, Namespace: namespace}}
			},
			// As in Flux, the flag is not about this one: whether somebody is ready is no secret.
			// An expression over the other one would be, and is refused.
			lost: "DependencyNotReady not found",
		},
		"Kustomization spec.healthChecks": {
			make: config(nil),
			kustomization: func(k *kustomizev1.Kustomization, namespace string) {
				k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: "v1", Kind: "ConfigMap", Name: target, Namespace: namespace}}
			},
			lost: "HealthCheckFailed NotFound", denied: "HealthCheckFailed forbidden", foreign: "HealthCheckFailed forbidden", watches: true,
		},
		"Kustomization spec.postBuild.substituteFrom": {
			make: config(map[string]string{"value": "1"}),
			kustomization: func(k *kustomizev1.Kustomization, _ string) {
				k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "ConfigMap", Name: target}}}
			},
			lost: "BuildFailed not found",
		},
		"Kustomization spec.decryption.secretRef": {
			make: secret(map[string]string{"a.agekey": identity}),
			kustomization: func(k *kustomizev1.Kustomization, _ string) {
				k.Spec.Path = "./sealed"
				k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops", SecretRef: &meta.LocalObjectReference{Name: target}}
			},
			lost: "BuildFailed not found",
		},
		"Kustomization spec.kubeConfig.secretRef": {
			make: secret(map[string]string{"value": "no kubeconfig"}),
			kustomization: func(k *kustomizev1.Kustomization, _ string) {
				k.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: target}}
			},
			found: `ReconciliationFailed entry "value": kubeconfig`, lost: "ReconciliationFailed not found",
		},
		"Kustomization spec.kubeConfig.configMapRef": {
			make: config(map[string]string{"provider": "none"}),
			kustomization: func(k *kustomizev1.Kustomization, _ string) {
				k.Spec.KubeConfig = &meta.KubeConfigReference{ConfigMapRef: &meta.LocalObjectReference{Name: target}}
			},
			found: `ReconciliationFailed provider "none"`, lost: "ReconciliationFailed not found",
		},
		"GitRepository spec.secretRef": {
			make:   secret(map[string]string{"username": "only"}),
			source: func(s *sourcev1.GitRepository) { s.Spec.SecretRef = &meta.LocalObjectReference{Name: target} },
			found:  "AuthenticationFailed needs both", lost: "AuthenticationFailed not found",
		},
		"GitRepository spec.proxySecretRef": {
			make:   secret(map[string]string{"other": "x"}),
			source: func(s *sourcev1.GitRepository) { s.Spec.ProxySecretRef = &meta.LocalObjectReference{Name: target} },
			found:  "AuthenticationFailed has no key 'address'", lost: "AuthenticationFailed not found",
		},
		"GitRepository spec.include.repository": {
			make: repositoryIn,
			source: func(s *sourcev1.GitRepository) {
				s.Spec.Include = []sourcev1.GitRepositoryInclude{{GitRepositoryRef: meta.LocalObjectReference{Name: target}, ToPath: "in"}}
			},
			lost: "NotFound not found",
		},
		"GitRepository spec.verify.secretRef": {
			make: secret(map[string]string{"other.sshpub": "no key"}),
			source: func(s *sourcev1.GitRepository) {
				s.Spec.Verification = &sourcev1.GitRepositoryVerification{Mode: sourcev1.ModeGitHEAD, SecretRef: meta.LocalObjectReference{Name: target}}
			},
			found: "VerificationError there is no public key", lost: unverified,
		},
	}
}

// unverified is what a source says whose trust cannot be read.
const unverified = "VerificationError not found"

// sourceProbes are those of the other kinds of sources.
func sourceProbes() map[string]probe {
	named := &meta.LocalObjectReference{Name: target}
	secret := func(data map[string]string) func(*world, string) {
		return func(w *world, namespace string) {
			w.check(w.client.Create(w.context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: target}, StringData: data}))
		}
	}
	half, certificate, other := map[string]string{"username": "only"}, map[string]string{"tls.crt": "only"}, map[string]string{"other": "x"}
	oci := func(change func(*sourcev1.OCIRepositorySpec)) func(*world, metav1.ObjectMeta) sourced {
		return func(_ *world, m metav1.ObjectMeta) sourced {
			o := &sourcev1.OCIRepository{ObjectMeta: m, Spec: sourcev1.OCIRepositorySpec{URL: "oci://127.0.0.1:1/x", Interval: metav1.Duration{Duration: time.Hour}}}
			change(&o.Spec)
			return o
		}
	}
	bucket := func(change func(*sourcev1.BucketSpec)) func(*world, metav1.ObjectMeta) sourced {
		return func(_ *world, m metav1.ObjectMeta) sourced {
			b := &sourcev1.Bucket{ObjectMeta: m, Spec: sourcev1.BucketSpec{
				Provider: "generic", BucketName: "target", Endpoint: "127.0.0.1:1", Region: "us-east-1", Insecure: true, Interval: metav1.Duration{Duration: time.Hour},
			}}
			change(&b.Spec)
			return b
		}
	}
	helm := func(change func(*sourcev1.HelmRepositorySpec)) func(*world, metav1.ObjectMeta) sourced {
		return func(_ *world, m metav1.ObjectMeta) sourced {
			h := &sourcev1.HelmRepository{ObjectMeta: m, Spec: sourcev1.HelmRepositorySpec{URL: "http://127.0.0.1:1", Interval: metav1.Duration{Duration: time.Hour}}}
			change(&h.Spec)
			return h
		}
	}
	chart := func(repository string, verify *sourcev1.HelmChartVerification) func(*world, metav1.ObjectMeta) sourced {
		return func(w *world, m metav1.ObjectMeta) sourced {
			registry := &sourcev1.HelmRepository{ObjectMeta: w.meta("registry"), Spec: sourcev1.HelmRepositorySpec{URL: "oci://127.0.0.1:1", Type: "oci"}}
			w.mine(registry)
			w.check(client.IgnoreAlreadyExists(w.client.Create(w.context(), registry)))
			return &sourcev1.HelmChart{ObjectMeta: m, Spec: sourcev1.HelmChartSpec{
				Chart: "x", Interval: metav1.Duration{Duration: time.Hour}, Verify: verify, SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: repository},
			}}
		}
	}
	sts := func(s *sourcev1.BucketSpec) *sourcev1.BucketSTSSpec {
		s.STS = &sourcev1.BucketSTSSpec{Provider: "ldap", Endpoint: "http://127.0.0.1:1"}
		return s.STS
	}
	verify := &sourcev1.OCIRepositoryVerification{Provider: "cosign"}
	const lost, noCertificate = "AuthenticationFailed not found", "AuthenticationFailed needs both 'tls.crt'"
	return map[string]probe{
		"OCIRepository spec.secretRef":      {make: secret(other), object: oci(func(s *sourcev1.OCIRepositorySpec) { s.SecretRef = named }), found: "AuthenticationFailed has no key '.dockerconfigjson'", lost: lost},
		"OCIRepository spec.certSecretRef":  {make: secret(certificate), object: oci(func(s *sourcev1.OCIRepositorySpec) { s.CertSecretRef = named }), found: noCertificate, lost: lost},
		"OCIRepository spec.proxySecretRef": {make: secret(other), object: oci(func(s *sourcev1.OCIRepositorySpec) { s.ProxySecretRef = named }), found: "AuthenticationFailed has no key 'address'", lost: lost},
		"OCIRepository spec.verify.secretRef": {make: secret(other), object: oci(func(s *sourcev1.OCIRepositorySpec) {
			s.Verify = verify.DeepCopy()
			s.Verify.SecretRef = named
		}), found: "VerificationError has no public key", lost: unverified},
		"OCIRepository spec.verify.trustedRootSecretRef": {make: secret(other), object: oci(func(s *sourcev1.OCIRepositorySpec) {
			s.Verify = verify.DeepCopy()
			s.Verify.TrustedRootSecretRef = named
		}), found: "VerificationError has no key 'trusted_root.json'", lost: unverified},
		"Bucket spec.secretRef":             {make: secret(map[string]string{"accesskey": "a", "secretkey": "b"}), object: bucket(func(s *sourcev1.BucketSpec) { s.SecretRef = named }), found: "BucketOperationFailed connect to", lost: lost},
		"Bucket spec.certSecretRef":         {make: secret(certificate), object: bucket(func(s *sourcev1.BucketSpec) { s.CertSecretRef = named }), found: noCertificate, lost: lost},
		"Bucket spec.proxySecretRef":        {make: secret(other), object: bucket(func(s *sourcev1.BucketSpec) { s.ProxySecretRef = named }), found: "AuthenticationFailed has no key 'address'", lost: lost},
		"Bucket spec.sts.secretRef":         {make: secret(half), object: bucket(func(s *sourcev1.BucketSpec) { sts(s).SecretRef = named }), found: "AuthenticationFailed needs both 'username'", lost: lost},
		"Bucket spec.sts.certSecretRef":     {make: secret(certificate), object: bucket(func(s *sourcev1.BucketSpec) { sts(s).CertSecretRef = named }), found: noCertificate, lost: lost},
		"HelmRepository spec.secretRef":     {make: secret(half), object: helm(func(s *sourcev1.HelmRepositorySpec) { s.SecretRef = named }), found: "AuthenticationFailed needs both 'username'", lost: lost},
		"HelmRepository spec.certSecretRef": {make: secret(certificate), object: helm(func(s *sourcev1.HelmRepositorySpec) { s.CertSecretRef = named }), found: noCertificate, lost: lost},
		"HelmChart spec.verify.secretRef":   {make: secret(other), object: chart("registry", &sourcev1.HelmChartVerification{Provider: "cosign", SecretRef: named}), found: "VerificationError has no public key", lost: unverified},
		"HelmChart spec.sourceRef": {
			make: func(w *world, namespace string) {
				h := &sourcev1.HelmRepository{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: target}, Spec: sourcev1.HelmRepositorySpec{URL: "http://127.0.0.1:1", Interval: metav1.Duration{Duration: time.Hour}}}
				w.mine(h)
				w.check(w.client.Create(w.context(), h))
			},
			object: chart(target, nil), found: "NoSourceArtifact no artifact available", lost: "SourceUnavailable not found",
		},
	}
}

// notFollowed are references of the schema that are for people: nobody follows them.
func notFollowed() []string { return []string{"ExternalArtifact spec.sourceRef"} }

// TestEveryReferenceIsProbed keeps the matrix complete: a field that a new schema brings
// has to be in it.
func TestEveryReferenceIsProbed(t *testing.T) {
	t.Parallel()
	schema := references(t)
	known := probes("")
	maps.Copy(known, sourceProbes())
	for path, namespaced := range schema {
		p, ok := known[path]
		if !ok && !slices.Contains(notFollowed(), path) {
			t.Errorf("%s is a reference that the matrix does not try", path)
		}
		if ok && !namespaced && (p.denied != "" || p.foreign != "") {
			t.Errorf("%s can name no namespace", path)
		}
	}
	for _, path := range slices.Concat(slices.Collect(maps.Keys(known)), notFollowed()) {
		if _, ok := schema[path]; !ok {
			t.Errorf("%s is in the matrix and not in the schema", path)
		}
	}
}

// TestTenancy tries every reference to an object of its own namespace, of another one,
// and to none, with and without --no-cross-namespace-refs. Whatever is said, in its own
// name the operator reads nothing in the other namespace.
func TestTenancy(t *testing.T) {
	t.Parallel()
	identity, recipient := sopstest.Age(t)
	sealed := sopstest.Encryption{For: []sopstest.Recipient{recipient}, Only: "^data$"}.Encrypt(t, "a.yaml", configMap("sealed", "1"))
	schema := references(t)
	all := probes(identity)
	maps.Copy(all, sourceProbes())
	for path, p := range all {
		for _, flag := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/flag=%t", path, flag), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.serviceAccount("tenant", may("", "configmaps"))
				w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "sealed/s.yaml": sealed, "empty/kustomization.yaml": "resources: []\n"})
				if w.own, w.tenants = flag, flag; flag {
					w.runOwn(t.TempDir(), func(c *config.Operator) { c.NoCrossNamespaceRefs = true })
				}
				if p.kustomization != nil {
					w.source(func(s *sourcev1.GitRepository) { w.mine(s) })
				}
				for _, at := range []where{sameNamespace, otherNamespace, missing} {
					w.try(p, at, flag, schema[path])
				}
			})
		}
	}
}

// mine gives an object to the test's own operator where it has one.
func (w *world) mine(obj client.Object) {
	if w.own {
		w.owned(obj)
	}
}

// try is one cell of the matrix.
func (w *world) try(p probe, at where, flag, namespaced bool) {
	w.t.Helper()
	other := w.cluster.Namespace(w.t)
	named := ""
	want := p.found
	switch at {
	case sameNamespace:
		p.make(w, w.namespace)
	case otherNamespace:
		p.make(w, other)
		if named = other; !namespaced {
			want = p.lost
		} else if flag {
			want = cmp.Or(p.denied, p.found)
		} else {
			want = cmp.Or(p.foreign, p.found)
		}
	case missing:
		want = p.lost
	}
	name := "try-" + string(at)
	reason, words, _ := strings.Cut(want, " ")
	switch {
	case p.object != nil:
		o := p.object(w, w.meta(name))
		w.mine(o)
		w.check(w.client.Create(w.context(), o))
		waitFor(w, o, string(at)+": "+want, func(s sourced) bool { return outcome(s.GetConditions(), reason, words) })
		w.check(w.client.Delete(w.context(), o))
		w.gone(o)
	case p.source != nil:
		s := w.source(func(s *sourcev1.GitRepository) { s.Name = name; w.mine(s); p.source(s) })
		waitFor(w, w.namedSource(name), string(at)+": "+want, func(s *sourcev1.GitRepository) bool {
			return outcome(s.Status.Conditions, reason, words)
		})
		w.check(w.client.Delete(w.context(), s))
		w.gone(s)
	default:
		k := w.kustomization(name, as("tenant"), func(k *kustomizev1.Kustomization) {
			w.mine(k)
			k.Spec.Path, k.Spec.Timeout = "./app", &metav1.Duration{Duration: time.Second}
			k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
			p.kustomization(k, named)
		})
		waitFor(w, w.named(name), string(at)+": "+want, func(k *kustomizev1.Kustomization) bool {
			return outcome(k.Status.Conditions, reason, words)
		})
		w.check(w.client.Delete(w.context(), k))
		w.gone(k)
	}
	for _, r := range w.cluster.Requests(w.t, userAgent) {
		watches := p.watches && (r.Verb == "watch" || r.Verb == "list")
		if r.ObjectRef.Namespace != other || r.ImpersonatedUser != nil || strings.HasSuffix(r.ObjectRef.APIGroup, ".toolkit.fluxcd.io") || r.ObjectRef.Resource == "events" || watches {
			continue
		}
		w.t.Errorf("%s: in its own name the operator sent %s %s", at, r.Verb, r.RequestURI)
	}
	w.removeTargets()
}

// outcome tells whether an object is Ready, or not for a reason with some words.
func outcome(conditions []metav1.Condition, reason, words string) bool {
	ready := conditionOf(conditions, "Ready")
	if reason == "" {
		return ready.Status == "True"
	}
	return ready.Status == "False" && ready.Reason == reason && strings.Contains(ready.Message, words)
}

// removeTargets makes room for the next cell.
func (w *world) removeTargets() {
	w.t.Helper()
	for _, obj := range []client.Object{&sourcev1.GitRepository{}, &sourcev1.HelmRepository{}, &kustomizev1.Kustomization{}, &corev1.Secret{}, &corev1.ConfigMap{}} {
		obj.SetNamespace(w.namespace)
		obj.SetName(target)
		w.check(client.IgnoreNotFound(w.client.Delete(w.context(), obj)))
		w.gone(obj)
	}
}

// TestExpressionOverAnotherNamespace: with the flag on nobody reads the Kustomization of
// another namespace by an expression.
func TestExpressionOverAnotherNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	w.runOwn(t.TempDir(), func(c *config.Operator) { c.NoCrossNamespaceRefs = true })
	w.kustomization("app", func(k *kustomizev1.Kustomization) {
		w.owned(k)
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "x", Namespace: w.cluster.Namespace(t), ReadyExpr: "dep.spec.postBuild.substitute.password == 'x'"}}
	})
	w.notReady("app", "AccessDenied", "spec.dependsOn[0].readyExpr|cross-namespace references have been blocked")
}

// TestReferencesAsOwner: with the flag not even what a Kustomization refers to is read in
// the operator's own name.
func TestReferencesAsOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.own, w.tenants = true, true
	rules := may("", "configmaps")
	w.serviceAccount("tenant", rules)
	revision := w.push(testenv.Files{"app/a.yaml": configMap("a", "${value}")})
	w.source(func(s *sourcev1.GitRepository) { w.mine(s) })
	w.runOwn(t.TempDir(), func(c *config.Operator) { c.ReferencesAsOwner = true })
	w.secret("variables", map[string]string{"value": "one"})
	w.kustomization("app", as("tenant"), func(k *kustomizev1.Kustomization) {
		w.mine(k)
		k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "Secret", Name: "variables"}}}
	})
	w.notReady("app", "BuildFailed", "substitute from 'Secret/variables'|not readable|forbidden|system:serviceaccount:"+w.namespace+":tenant")
	w.grantAs("tenant-more", "tenant", may("", "secrets"))
	w.ready("app", revision)
	w.data("a", "one")
	w.patch(w.namedSecret("variables"), `{"stringData":{"value":"two"}}`)
	w.data("a", "two")
	for _, r := range w.cluster.Requests(t, userAgent) {
		if r.ObjectRef.Namespace == w.namespace && r.ObjectRef.Resource == "secrets" && r.ImpersonatedUser == nil {
			t.Errorf("in its own name the operator sent %s %s", r.Verb, r.RequestURI)
		}
	}
}
