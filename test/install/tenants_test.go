package install

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// workload is something to wait for.
const workload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "example.org/web:v1"}]}
`

// tenant makes a namespace, of which the account "default" may do what the rules say.
func (w *world) tenant(name, rules string) {
	w.Helper()
	w.cluster.Kubectl(w, "create", "namespace", name)
	w.cluster.Apply(w, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant, namespace: %[1]s}
rules: [%[2]s]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{kind: ServiceAccount, name: default, namespace: %[1]s}]
`, name, rules))
}

// condition is reason and message of a Kustomization that is not ready.
func (w *world) condition(namespace string) string {
	w.Helper()
	return w.cluster.Kubectl(w, "get", "-n", namespace, "kustomization/apps", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].reason}: {.status.conditions[?(@.type=='Ready')].message}")
}

// A life of Kustomizations of several tenants, under the rights that plumb install
// --profile tenants gives to the operator and those that the tenants have.
func TestTenants(t *testing.T) {
	w := newWorld(t, "--profile", "tenants")
	w.repo.Commit(w, "main", testenv.Files{
		"red/all.yaml":   fmt.Sprintf(manifests+"---\n"+workload, "red"),
		"gone/all.yaml":  fmt.Sprintf(manifests, "gone"),
		"blue/all.yaml":  fmt.Sprintf(manifests, "blue"),
		"thief/all.yaml": strings.NewReplacer("settings", "loot", "reader", "looter").Replace(fmt.Sprintf(manifests, "red")),
	})
	w.start(w.installedKubeconfig(), w.installedCommand())
	const rules = `{apiGroups: ["", apps, rbac.authorization.k8s.io], resources: [configmaps, deployments, roles], verbs: ["*"]}`
	for name, allowed := range map[string]string{"red": rules, "blue": "", "thief": rules, "gone": rules} {
		w.tenant(name, allowed)
		w.appsFrom(name, "./"+name)
	}

	// One that has the rights has all of it.
	w.await("-n red kustomization/apps", "condition=Ready")
	w.await("-n red deployment/web", "condition=Available")
	w.cluster.Kubectl(t, "patch", "-n", "red", "configmap/settings", "--type=merge", "-p", `{"data":{"colour":"violet"}}`)
	w.await("-n red configmap/settings", "jsonpath={.data.colour}=green")

	// One that has none, or reaches for another's, is told so and changes nothing.
	for name, account := range map[string]string{"blue": "system:serviceaccount:blue:default", "thief": "system:serviceaccount:thief:default"} {
		w.await("-n "+name+" kustomization/apps", "condition=Ready=False")
		if c := w.condition(name); !strings.HasPrefix(c, "ReconciliationFailed: ") || !strings.Contains(c, "is forbidden") || !strings.Contains(c, account) {
			t.Errorf("%s is told %q", name, c)
		}
	}
	if stolen := w.cluster.Kubectl(t, "get", "-n", "red", "configmap/loot", "role/looter", "--ignore-not-found", "-o", "name"); stolen != "" {
		t.Errorf("another tenant has made %s", stolen)
	}
	w.cluster.Kubectl(t, "patch", "-n", "blue", "kustomization/apps", "--type=merge", "-p", `{"spec":{"sourceRef":{"namespace":"red"}}}`)
	w.await("-n blue kustomization/apps", "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=AccessDenied")

	w.cluster.Kubectl(t, "delete", "-n", "red", "kustomization/apps", "--timeout=60s")
	w.await("-n red configmap/settings role/reader deployment/web", "delete")
	w.cluster.Kubectl(t, "get", "-n", "red", "role/tenant")

	// A tenant that loses its rights and then its namespace is not kept by what it can
	// delete no more.
	w.await("-n gone kustomization/apps", "condition=Ready")
	w.cluster.Kubectl(t, "delete", "-n", "gone", "rolebinding/tenant")
	w.cluster.Kubectl(t, "delete", "namespace/gone", "--timeout=60s")

	w.checkOwnName()
}

// checkOwnName fails where the operator did something in its own name that it has no
// right to, or that its profile does not name.
func (w *world) checkOwnName() {
	w.Helper()
	own, impersonated := 0, 0
	for _, r := range w.requests() {
		if r.User.Username != "system:serviceaccount:flux-system:plumb" {
			w.Errorf("%s %s was asked for as %s", r.Verb, r.RequestURI, r.User.Username)
		}
		if r.ImpersonatedUser != nil {
			impersonated++
			continue
		}
		own++
		// Nothing can be written to a namespace that is going, whoever writes.
		if r.ResponseStatus.Code == http.StatusForbidden && r.ObjectRef.Namespace != "gone" {
			w.Errorf("the operator was refused %s %s", r.Verb, r.RequestURI)
		}
		reads := slices.Contains([]string{"get", "list", "watch"}, r.Verb)
		if !reads && !slices.Contains([]string{"gitrepositories", "kustomizations", "events", "leases"}, r.ObjectRef.Resource) {
			w.Errorf("in its own name the operator sent %s %s", r.Verb, r.RequestURI)
		}
	}
	if own == 0 || impersonated == 0 {
		w.Errorf("%d requests in its own name and %d as a tenant", own, impersonated)
	}
}
