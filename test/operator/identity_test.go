package operator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// serviceAccount creates a service account with the right to do everything with
// some resources of the test's namespace.
func (w *world) serviceAccount(name string, rules ...rbacv1.PolicyRule) {
	w.t.Helper()
	at := metav1.ObjectMeta{Namespace: w.namespace, Name: name}
	w.check(w.client.Create(w.context(), &corev1.ServiceAccount{ObjectMeta: at}))
	w.grant(name, rules...)
}

// grant gives a service account more rights.
func (w *world) grant(name string, rules ...rbacv1.PolicyRule) {
	w.t.Helper()
	if len(rules) == 0 {
		return
	}
	w.grantAs(name, name, rules...)
}

// grantAs gives a service account rights by a Role and a RoleBinding of a name.
func (w *world) grantAs(name, account string, rules ...rbacv1.PolicyRule) {
	w.t.Helper()
	at := metav1.ObjectMeta{Namespace: w.namespace, Name: name}
	w.check(w.client.Create(w.context(), &rbacv1.Role{ObjectMeta: at, Rules: rules}))
	w.check(w.client.Create(w.context(), &rbacv1.RoleBinding{
		ObjectMeta: at,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: w.namespace}},
	}))
}

// may is the right to do everything with resources of an API group.
func may(group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: []string{"*"}}
}

// as has a Kustomization applied with the rights of a service account.
func as(name string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) { k.Spec.ServiceAccountName = name }
}

// checkIdentity fails where the audit log has a request of the operator about
// objects of the test's namespace that it must not make in its own name for an owner
// with an identity, and returns how many it made as the service account.
func (w *world) checkIdentity(name string) (impersonated int) {
	w.t.Helper()
	user := fmt.Sprintf("system:serviceaccount:%s:%s", w.namespace, name)
	for _, r := range w.cluster.Requests(w.t, userAgent) {
		if r.ObjectRef.Namespace != w.namespace {
			continue
		}
		if as := r.ImpersonatedUser; as != nil {
			if as.Username != user {
				w.t.Errorf("%s %s was made as %s", r.Verb, r.RequestURI, as.Username)
			}
			impersonated++
			continue
		}
		if !ownName(r) {
			w.t.Errorf("in its own name the operator sent %s %s", r.Verb, r.RequestURI)
		}
	}
	return impersonated
}

// ownName tells whether a request is one of those that the operator makes in its own
// name for an owner with an identity: its custom resources, events, and reading what
// a specification names.
func ownName(r testenv.Request) bool {
	o := r.ObjectRef
	reads := slices.Contains([]string{"get", "list", "watch"}, r.Verb)
	switch {
	case strings.HasSuffix(o.APIGroup, ".toolkit.fluxcd.io"), o.Resource == "events", o.Resource == "leases":
		return true
	case o.Resource == "secrets" || o.Resource == "configmaps":
		return reads && o.Name != "" || r.Verb == "watch" && strings.Contains(r.RequestURI, "fieldSelector=metadata.name")
	case o.Resource == "serviceaccounts":
		return r.Verb == "get"
	}
	return false
}

// deployment is a manifest of a Deployment with one replica.
func deployment(name string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: main, image: example.com/main:1}]}
`, name)
}

func TestServiceAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serviceAccount("deployer", may("", "configmaps"), may("apps", "deployments"))
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "app/run.yaml": deployment("run")})
	w.source()
	app := w.kustomization("app", as("deployer"), func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	done := w.ready("app", first)
	if h := conditionOf(done.Status.Conditions, "Healthy"); h.Status != "True" {
		t.Errorf("health was not found with the account's rights: %+v", h)
	}
	a, b := w.data("a", "1"), w.data("b", "1")
	// Drift is seen by the operator and repaired by the account.
	w.patch(w.namedConfig("a"), `{"data":{"key":"mine"}}`)
	w.data("a", "1")
	w.same(a)
	second := w.push(testenv.Files{"app/b.yaml": testenv.Delete})
	w.ready("app", second)
	w.gone(b)
	if n := w.checkIdentity("deployer"); n < 8 {
		t.Errorf("only %d requests were made as the service account", n)
	}
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.gone(a)
	w.checkIdentity("deployer")
}

func TestServiceAccountWithoutRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serviceAccount("poor", may("", "configmaps"))
	revision := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/run.yaml": deployment("run")})
	w.source()
	w.kustomization("app", as("poor"), func(k *kustomizev1.Kustomization) {
		k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
	})
	w.notReady("app", "ReconciliationFailed", "Deployment/"+w.namespace+"/run|forbidden|system:serviceaccount:"+w.namespace+":poor")
	if err := w.client.Get(w.context(), w.key("a"), w.namedConfig("a")); err == nil {
		t.Error("a part of the set was applied")
	}
	w.check(w.client.Create(w.context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "more"}, Rules: []rbacv1.PolicyRule{may("apps", "deployments")},
	}))
	w.check(w.client.Create(w.context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "more"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "more"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "poor", Namespace: w.namespace}},
	}))
	w.ready("app", revision)
	w.data("a", "1")
	w.checkIdentity("poor")
}

func TestServiceAccountCannotLeaveItsNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newWorld(t)
	w.serviceAccount("deployer", may("", "configmaps"))
	w.push(testenv.Files{"app/a.yaml": strings.Replace(configMap("a", "1"), "name: a\n", "name: a\n  namespace: "+other.namespace+"\n", 1)})
	w.source()
	w.kustomization("app", as("deployer"), func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" })
	w.notReady("app", "ReconciliationFailed", "ConfigMap/"+other.namespace+"/a|forbidden")
	if err := other.client.Get(w.context(), other.key("a"), other.namedConfig("a")); err == nil {
		t.Error("an object of another namespace was written")
	}
}

func TestServiceAccountGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serviceAccount("deployer", may("", "configmaps"))
	revision := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	app := w.kustomization("app", as("deployer"))
	w.ready("app", revision)
	a := w.data("a", "1")
	w.check(w.client.Delete(w.context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "deployer"}}))
	w.check(w.client.Delete(w.context(), app))
	w.gone(app)
	w.same(a)
	w.event("Kustomization", "app", "Orphaned", "1 object is left behind|service account|deployer|ConfigMap/"+w.namespace+"/a")
}

func TestServiceAccountChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serviceAccount("one", may("", "configmaps"))
	w.serviceAccount("two", may("", "configmaps"))
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	w.source()
	w.kustomization("app", as("one"))
	w.ready("app", first)
	a := w.data("a", "1")
	w.patch(w.named("app"), `{"spec":{"serviceAccountName":"two"}}`)
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2")})
	w.ready("app", second)
	w.data("a", "2")
	w.same(a)
	two := "system:serviceaccount:" + w.namespace + ":two"
	if !slices.ContainsFunc(w.writes("configmaps", w.namespace, "a"), func(r testenv.Request) bool {
		return r.ImpersonatedUser != nil && r.ImpersonatedUser.Username == two
	}) {
		t.Error("nothing was written as the new service account")
	}
}

func TestServiceAccountLooksByItsOwnRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serviceAccount("deployer", may("", "configmaps"))
	revision := w.push(testenv.Files{"app/a.yaml": configMap("a", "1")})
	gate := w.namedConfig("gate")
	gate.Data = map[string]string{"key": "closed"}
	w.check(w.client.Create(w.context(), gate))
	w.source()
	w.kustomization("app", as("deployer"), func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: "gate"}}
		k.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{{
			APIVersion: "v1", Kind: "ConfigMap",
			HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: "data.key == 'open'"},
		}}
	})
	waitFor(w, w.named("app"), "waiting for the gate", func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "Healthy").Status == "Unknown"
	})
	w.patch(w.namedConfig("gate"), `{"data":{"key":"open"}}`)
	w.ready("app", revision)
	user := "system:serviceaccount:" + w.namespace + ":deployer"
	if !slices.ContainsFunc(w.cluster.Requests(t, userAgent), func(r testenv.Request) bool {
		return r.Verb == "get" && r.ObjectRef.Name == "gate" && r.ImpersonatedUser != nil && r.ImpersonatedUser.Username == user
	}) {
		t.Error("the object was not read with the account's rights")
	}
	w.checkIdentity("deployer")
}
