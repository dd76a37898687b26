package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// The tests of this file have a control plane each, one after the other: they are
// about what there is once in a cluster.

// patience is how long a control plane may take for what should be done at once.
const patience = time.Minute

// installation is an installer and the lines that it says.
type installation struct {
	*Installer
	mu    sync.Mutex // guards lines
	lines []string
}

func installer(t *testing.T, c *testenv.Cluster) *installation {
	t.Helper()
	in := &installation{}
	var err error
	in.Installer, err = New(c.REST, func(format string, args ...any) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.lines = append(in.lines, fmt.Sprintf(format, args...))
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func (in *installation) said(part string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.ContainsFunc(in.lines, func(line string) bool { return strings.Contains(line, part) })
}

// put installs and gives the objects with what became of each, but for those that
// did not change.
func (in *installation) put(t *testing.T, change ...func(*Options)) map[string]Action {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	changes, err := in.Install(ctx, options(change...))
	if err != nil {
		t.Fatal(err)
	}
	return actions(changes)
}

func actions(changes []Change) map[string]Action {
	became := map[string]Action{}
	for _, c := range changes {
		if c.Action != Unchanged {
			became[c.Object] = c.Action
		}
	}
	return became
}

func counted(became map[string]Action) map[Action]int {
	count := map[Action]int{}
	for _, action := range became {
		count[action]++
	}
	return count
}

func get(t *testing.T, c *testenv.Cluster, args ...string) string {
	t.Helper()
	return strings.TrimSpace(c.Kubectl(t, append([]string{"get", "--ignore-not-found"}, args...)...))
}

func TestInstallAndUninstall(t *testing.T) {
	c := testenv.Start(t)
	in := installer(t, c)

	if got := counted(in.put(t)); got[Created] != 25 || len(got) != 1 {
		t.Fatalf("the first time gives %v, want 25 created", got)
	}
	// The namespace takes restricted pods only: that there is one says that it is.
	pod := get(t, c, "pods", "-n", "flux-system", "-l", "app=source-controller", "-o", "jsonpath={.items[*].status.phase}")
	if pod != "Running" {
		t.Errorf("the pod is %q", pod)
	}
	if got := get(t, c, "namespace", "flux-system", "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); got != "restricted" {
		t.Errorf("pod security is %q", got)
	}
	if got := in.put(t); len(got) > 0 {
		t.Errorf("the second time changes %v", got)
	}

	// Another image is a new pod; another profile takes the old rights away.
	if diff := cmp.Diff(map[string]Action{"Deployment/flux-system/plumb": Configured}, in.put(t, func(o *Options) { o.Image = "example.org/plumb:v2" })); diff != "" {
		t.Errorf("another image (-want +got):\n%s", diff)
	}
	want := map[string]Action{
		"Deployment/flux-system/plumb":                  Configured,
		"ClusterRole/plumb-operator-flux-system":        Created,
		"ClusterRoleBinding/plumb-operator-flux-system": Created,
		"Role/flux-system/plumb-lease":                  Created,
		"RoleBinding/flux-system/plumb-lease":           Created,
		"ClusterRoleBinding/plumb-admin-flux-system":    Deleted,
	}
	if diff := cmp.Diff(want, in.put(t, func(o *Options) { o.Profile = Tenants })); diff != "" {
		t.Errorf("another profile (-want +got):\n%s", diff)
	}

	// A custom resource stays, and keeps the namespace.
	c.Apply(t, `
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system, finalizers: [finalizers.fluxcd.io]}
spec: {interval: 1h, prune: true, sourceRef: {kind: GitRepository, name: repo}}
`)
	changes, err := in.Uninstall(t.Context(), "flux-system")
	if err != nil {
		t.Fatal(err)
	}
	if got := counted(actions(changes)); got[Deleted] != 12 || len(got) != 1 {
		t.Errorf("uninstall gives %v of %v, want 12 deleted", got, changes)
	}
	change, err := in.RemoveNamespace(t.Context(), "flux-system")
	if err != nil || change.Action != Kept || change.Message != "it holds Kustomization/apps" {
		t.Errorf("the namespace is %v, %v", change, err)
	}
	for _, kind := range []string{"deployments,pods,services,networkpolicies,resourcequotas,roles,rolebindings,leases"} {
		if left := get(t, c, kind, "-n", "flux-system", "-o", "name"); left != "" {
			t.Errorf("there is still %s", left)
		}
	}
	if left := get(t, c, "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/managed-by=plumb", "-o", "name"); left != "" {
		t.Errorf("there is still %s", left)
	}

	// Once it is empty, it goes.
	c.Kubectl(t, "patch", "ks", "apps", "-n", "flux-system", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	c.Kubectl(t, "delete", "ks", "apps", "-n", "flux-system")
	if change, err := in.RemoveNamespace(t.Context(), "flux-system"); err != nil || change.Action != Deleted {
		t.Errorf("the empty namespace is %v, %v", change, err)
	}
	changes, err = in.Uninstall(t.Context(), "flux-system")
	if err != nil || len(changes) > 0 {
		t.Errorf("to remove nothing gives %v, %v", changes, err)
	}
}

const fluxService = `
apiVersion: v1
kind: Service
metadata: {name: source-controller, namespace: %[1]s, labels: {app.kubernetes.io/part-of: flux}}
spec: {selector: {app: %[2]s}, ports: [{name: http, port: 80, protocol: TCP, targetPort: http}]}
`

func fluxController(name, namespace, labels string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s, labels: {app.kubernetes.io/part-of: flux%[3]s}}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: manager, image: "example.org/%[1]s:v1"}]}
---`, name, namespace, labels)
}

func TestInstallWhereFluxIs(t *testing.T) {
	c := testenv.Start(t)
	in := installer(t, c)
	c.Kubectl(t, "create", "namespace", "flux-system")
	c.Apply(t, fluxController("source-controller", "flux-system", "")+
		fluxController("kustomize-controller", "flux-system", ", kustomize.toolkit.fluxcd.io/name: flux-system, kustomize.toolkit.fluxcd.io/namespace: flux-system")+
		fluxController("helm-controller", "flux-system", "")+fmt.Sprintf(fluxService, "flux-system", "source-controller"))

	_, err := in.Install(t.Context(), options())
	if err == nil {
		t.Fatal("it is installed although Flux's controllers run")
	}
	want := `controllers run that work on the same objects: flux-system/kustomize-controller, flux-system/source-controller. Scale them down first:
  kubectl -n flux-system scale deployment kustomize-controller --replicas=0
  kubectl -n flux-system scale deployment source-controller --replicas=0
Kustomization flux-system/flux-system declares them and would have them started again: suspend it, and take them out of Git
before it is resumed (docs/install.md, Switching from Flux).
--beside-flux installs the operator beside them; see that they share no object`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("the refusal differs (-want +got):\n%s", diff)
	}
	if got := get(t, c, "crd,clusterroles", "-l", "app.kubernetes.io/managed-by=plumb", "-o", "name"); got != "" {
		t.Errorf("a refusal has installed %s", got)
	}

	// Beside it the operator has a name of its own, and Flux's Service its pod.
	became := in.put(t, func(o *Options) { o.BesideFlux = true })
	if became["Service/flux-system/plumb"] != Created || became["Namespace/flux-system"] != Kept {
		t.Errorf("beside Flux %v", became)
	}
	if pods := get(t, c, "pods", "-n", "flux-system", "-l", "app=source-controller", "-o", "name"); strings.Contains(pods, "pod/plumb") {
		t.Errorf("Flux's Service selects %s", pods)
	}

	// In its place it takes the Service over as it is, and gives up its own.
	c.Kubectl(t, "scale", "deployment", "-n", "flux-system", "source-controller", "kustomize-controller", "--replicas=0")
	became = in.put(t)
	wanted := map[string]Action{
		"Namespace/flux-system": Kept, "Service/flux-system/source-controller": Kept,
		"Service/flux-system/plumb": Deleted, "Deployment/flux-system/plumb": Configured,
	}
	if diff := cmp.Diff(wanted, became); diff != "" {
		t.Errorf("in place of Flux (-want +got):\n%s", diff)
	}
	if !in.said("Service/flux-system/source-controller kept: it was there, and selects the operator's pod") {
		t.Errorf("it is not said that the Service is kept: %q", in.lines)
	}

	// A second installation would work on the same objects as well.
	_, err = in.Install(t.Context(), options(func(o *Options) { o.Namespace = "other" }))
	if err == nil || !strings.Contains(err.Error(), "work on the same objects: flux-system/plumb.") {
		t.Errorf("a second installation gives %v", err)
	}

	// helm-controller would uninstall releases whose definition is deleted.
	if _, err := in.Holdings(t.Context(), "flux-system"); err == nil || !strings.Contains(err.Error(), "would delete what the custom resources manage: flux-system/helm-controller.") {
		t.Errorf("to take definitions from under helm-controller gives %v", err)
	}

	// What Flux has made is there after the operator is gone.
	if _, err := in.Uninstall(t.Context(), "flux-system"); err != nil {
		t.Fatal(err)
	}
	if got := get(t, c, "service", "source-controller", "-n", "flux-system", "-o", "jsonpath={.spec.selector.app}"); got != "source-controller" {
		t.Errorf("Flux's Service selects %q", got)
	}
	if change, err := in.RemoveNamespace(t.Context(), "flux-system"); err != nil || change.Action != Kept || change.Message != "plumb install has not made it" {
		t.Errorf("Flux's namespace is %v, %v", change, err)
	}
}

func TestWhyItIsNotAvailable(t *testing.T) {
	c := testenv.Start(t)
	tests := map[string]struct {
		manifest string
		change   func(*Options)
		want     string
	}{
		"a quota leaves no room": {`
apiVersion: v1
kind: ResourceQuota
metadata: {name: none, namespace: %s}
spec: {hard: {pods: "0"}}
`, nil, "exceeded quota: none"},
		"a Service of somebody else": {fluxService, nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			namespace := c.Namespace(t)
			if strings.Contains(tt.manifest, "%[2]s") {
				c.Apply(t, fmt.Sprintf(tt.manifest, namespace, "somebody"))
			} else {
				c.Apply(t, fmt.Sprintf(tt.manifest, namespace))
			}
			in := installer(t, c)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := in.Install(ctx, options(func(o *Options) { o.Namespace, o.BesideFlux = namespace, tt.want != "" }))
			if tt.want == "" {
				if err != nil || !in.said("artifacts are not served under its name until its spec.selector is app: source-controller") {
					t.Errorf("error is %v, lines are %q", err, in.lines)
				}
			} else if err == nil || !strings.Contains(err.Error(), "the time is up") || !strings.Contains(err.Error(), tt.want) || !in.said(tt.want) {
				t.Errorf("error is %v, lines are %q", err, in.lines)
			}
			if _, err := in.Uninstall(t.Context(), namespace); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDefinitionsOfOtherReleases(t *testing.T) {
	c := testenv.Start(t)
	in := installer(t, c)
	definition := func(plural, kind, version, label string) string {
		return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: %[1]s.notification.toolkit.fluxcd.io
  labels: {app.kubernetes.io/part-of: flux, app.kubernetes.io/version: %[4]s}
spec:
  group: notification.toolkit.fluxcd.io
  scope: Namespaced
  names: {kind: %[2]s, listKind: %[2]sList, plural: %[1]s}
  versions: [{name: %[3]s, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---`, plural, kind, version, label)
	}
	c.Apply(t, definition("alerts", "Alert", "v2", "v99.0.0")+definition("providers", "Provider", "v1beta1", "v0.30.0"))
	c.Kubectl(t, "wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")

	_, err := in.Install(t.Context(), options())
	if err == nil || !strings.Contains(err.Error(), "CustomResourceDefinition/providers.notification.toolkit.fluxcd.io: ") || !strings.Contains(err.Error(), "run `flux migrate` first") {
		t.Errorf("a version that is stored and not served gives %v", err)
	}
	c.Kubectl(t, "delete", "crd", "providers.notification.toolkit.fluxcd.io")
	if became := in.put(t); became["CustomResourceDefinition/alerts.notification.toolkit.fluxcd.io"] != Kept {
		t.Errorf("a newer definition is not kept: %v", became)
	}
	if !in.said("it is that of Flux v99.0.0, which is newer than") {
		t.Errorf("it is not said that it is newer: %q", in.lines)
	}

	// Its objects go in the version that is stored.
	c.Apply(t, `
apiVersion: notification.toolkit.fluxcd.io/v2
kind: Alert
metadata: {name: a, namespace: default, finalizers: [finalizers.fluxcd.io]}
`)
	holdings, err := in.Holdings(t.Context(), "flux-system")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.RemoveDefinitions(t.Context(), holdings); err != nil {
		t.Error(err)
	}
}

func TestDefinitionsGoAndObjectsStay(t *testing.T) {
	c := testenv.Start(t)
	in := installer(t, c)
	in.put(t)
	c.Apply(t, `
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: default, finalizers: [finalizers.fluxcd.io]}
spec: {interval: 1h, prune: true, sourceRef: {kind: GitRepository, name: repo}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: held, namespace: default, finalizers: [finalizers.fluxcd.io, example.org/mine]}
spec: {interval: 1h, prune: true, suspend: true, sourceRef: {kind: GitRepository, name: repo}}
---
apiVersion: source.extensions.fluxcd.io/v1beta1
kind: ArtifactGenerator
metadata: {name: g, namespace: default, finalizers: [source.extensions.fluxcd.io/finalizer]}
spec:
  sources: [{alias: repo, kind: GitRepository, name: repo}]
  artifacts: [{name: a, copy: [{from: "@repo/**", to: "@artifact/"}]}]
`)
	c.Kubectl(t, "patch", "ks", "apps", "-n", "default", "--subresource=status", "--type=merge", "-p",
		`{"status":{"inventory":{"entries":[{"id":"default_kube-root-ca.crt__ConfigMap","v":"v1"}]}}}`)

	holdings, err := in.Holdings(t.Context(), "flux-system")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, h := range holdings {
		if h.Objects > 0 {
			got[h.Kind] = fmt.Sprint(h.Objects, " ", h.Managed)
		}
	}
	if diff := cmp.Diff(map[string]string{"Kustomization": "2 1", "ArtifactGenerator": "1 0"}, got); diff != "" || len(holdings) != 15 {
		t.Errorf("%d holdings differ (-want +got):\n%s", len(holdings), diff)
	}

	// Somebody else's finalizer is not ours to drop: it is named when the time is up.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = in.RemoveDefinitions(ctx, holdings)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `it waits for Kustomization/default/held (finalizers ["example.org/mine"])`) {
		t.Errorf("error is %v", err)
	}
	// What an operator would see of it on its way out: nothing to be pruned.
	if got := get(t, c, "ks", "held", "-n", "default", "-o", `jsonpath={.spec.suspend} {.metadata.annotations.plumb\.dev/orphan}`); got != "true true" {
		t.Errorf("the object that is held is suspended and orphaned: %q", got)
	}
	c.Kubectl(t, "patch", "ks", "held", "-n", "default", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	if holdings, err = in.Holdings(t.Context(), "flux-system"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.RemoveDefinitions(t.Context(), holdings); err != nil {
		t.Error(err)
	}
	if left := get(t, c, "crd", "-l", "app.kubernetes.io/part-of=flux", "-o", "name"); left != "" {
		t.Errorf("there are still %s", left)
	}
	if get(t, c, "configmap", "kube-root-ca.crt", "-n", "default", "-o", "name") == "" {
		t.Error("what was managed is gone")
	}
}
