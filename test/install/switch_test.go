package install

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// fluxComponents are what flux bootstrap puts into gotk-components.yaml, in little,
// besides the definitions.
const fluxComponents = `apiVersion: v1
kind: Namespace
metadata: {name: flux-system, labels: {app.kubernetes.io/part-of: flux}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: kustomize-controller, namespace: flux-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cluster-reconciler-flux-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: kustomize-controller, namespace: flux-system}]
---
apiVersion: v1
kind: Service
metadata: {name: source-controller, namespace: flux-system, labels: {control-plane: controller}}
spec: {selector: {app: source-controller}, ports: [{name: http, port: 80, protocol: TCP, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: source-controller, namespace: flux-system, labels: {app.kubernetes.io/part-of: flux}}
spec:
  replicas: 1
  selector: {matchLabels: {app: source-controller}}
  template:
    metadata: {labels: {app: source-controller}}
    spec: {containers: [{name: manager, image: "example.org/source-controller:v1"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kustomize-controller, namespace: flux-system, labels: {app.kubernetes.io/part-of: flux}}
spec:
  replicas: 1
  selector: {matchLabels: {app: kustomize-controller}}
  template:
    metadata: {labels: {app: kustomize-controller}}
    spec: {serviceAccountName: kustomize-controller, containers: [{name: manager, image: "example.org/kustomize-controller:v1"}]}
`

// fluxSync is gotk-sync.yaml.
const fluxSync = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {url: %q, interval: 1h, ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1h, retryInterval: 2s, prune: true, path: ./cluster, sourceRef: {kind: GitRepository, name: flux-system}}
`

const kustomizationOf = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s, gotk-sync.yaml]\n"

// bootstrap leaves the cluster as flux bootstrap does: everything applied in Flux's
// name, labelled, and in the inventory of the Kustomization flux-system.
func (w *world) bootstrap() (sync string) {
	w.Helper()
	definitions, _ := w.run("crds")
	sync = fmt.Sprintf(fluxSync, w.server.URL("repo"))
	w.repo.Commit(w, "main", testenv.Files{
		"cluster/flux-system/gotk-components.yaml": fluxComponents + definitions,
		"cluster/flux-system/gotk-sync.yaml":       sync,
		"cluster/flux-system/kustomization.yaml":   fmt.Sprintf(kustomizationOf, "gotk-components.yaml"),
		"cluster/app.yaml":                         fmt.Sprintf(manifests, "default"),
	})
	asFlux := []string{"--server-side", "--field-manager=kustomize-controller"}
	w.cluster.Apply(w, fluxComponents+definitions, asFlux...)
	w.cluster.Kubectl(w, "wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
	w.cluster.Apply(w, sync+"---\n"+fmt.Sprintf(manifests, "default"), asFlux...)
	var entries []map[string]string
	for _, o := range w.list("namespace/flux-system", "clusterrolebinding/cluster-reconciler-flux-system", "crd") {
		entries = append(entries, entry(o))
	}
	for _, o := range w.list("-n", "flux-system", "serviceaccount/kustomize-controller", "service/source-controller",
		"deployment/source-controller", "deployment/kustomize-controller", "gitrepository/flux-system", "kustomization/flux-system") {
		entries = append(entries, entry(o))
	}
	for _, o := range w.list("-n", "default", "configmap/settings", "role/reader") {
		entries = append(entries, entry(o))
	}
	status, err := json.Marshal(map[string]any{"status": map[string]any{"inventory": map[string]any{"entries": entries}}})
	w.check(err)
	w.cluster.Kubectl(w, "patch", "-n", "flux-system", "kustomization/flux-system", "--subresource=status", "--type=merge", "-p", string(status))
	return sync
}

// list reads objects by name, or all of a kind, and has them bear the labels of the
// Kustomization flux-system.
func (w *world) list(args ...string) []unstructured.Unstructured {
	w.Helper()
	one := func(name string, flags ...string) (found []unstructured.Unstructured) {
		w.cluster.Kubectl(w, append([]string{"label", name, "kustomize.toolkit.fluxcd.io/name=flux-system",
			"kustomize.toolkit.fluxcd.io/namespace=flux-system", "--field-manager=kustomize-controller", "--overwrite"}, flags...)...)
		var object unstructured.Unstructured
		w.check(object.UnmarshalJSON([]byte(w.cluster.Kubectl(w, append([]string{"get", name, "-o", "json"}, flags...)...))))
		return append(found, object)
	}
	var flags []string
	if args[0] == "-n" {
		flags, args = args[:2], args[2:]
	}
	var found []unstructured.Unstructured
	for _, name := range args {
		if strings.Contains(name, "/") {
			found = append(found, one(name, flags...)...)
			continue
		}
		for _, each := range strings.Fields(w.cluster.Kubectl(w, "get", name, "-o", "name")) {
			found = append(found, one(each, flags...)...)
		}
	}
	return found
}

// entry is an object in an inventory.
func entry(o unstructured.Unstructured) map[string]string {
	gvk := o.GroupVersionKind()
	return map[string]string{"id": o.GetNamespace() + "_" + o.GetName() + "_" + gvk.Group + "_" + gvk.Kind, "v": gvk.Version}
}

// uids are those of objects that a switch must not touch.
func (w *world) uids() string {
	w.Helper()
	const each = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{'\\n'}{end}"
	return w.cluster.Kubectl(w, "get", "crd", "-o", each) +
		w.cluster.Kubectl(w, "get", "namespace/flux-system", "-o", "jsonpath={.metadata.uid}") + "\n" +
		w.cluster.Kubectl(w, "get", "-n", "flux-system", "service/source-controller", "gitrepository/flux-system", "kustomization/flux-system", "-o", each) +
		w.cluster.Kubectl(w, "get", "-n", "default", "configmap/settings", "role/reader", "-o", each)
}

// The steps of docs/install.md, there and back.
func TestSwitchFromFluxAndBack(t *testing.T) {
	w := emptyWorld(t)
	sync := w.bootstrap()
	before := w.uids()

	w.plumb("suspend", "kustomization", "flux-system")
	w.cluster.Kubectl(t, "-n", "flux-system", "scale", "deployment", "source-controller", "kustomize-controller", "--replicas=0")
	w.install()
	stop := w.start(w.installedKubeconfig(), w.installedCommand())
	exported, _ := w.run("install", "--export", "--image", "example.org/plumb:test")
	w.repo.Commit(t, "main", testenv.Files{
		"cluster/flux-system/gotk-components.yaml":  testenv.Delete,
		"cluster/flux-system/plumb-components.yaml": exported,
		"cluster/flux-system/kustomization.yaml":    fmt.Sprintf(kustomizationOf, "plumb-components.yaml"),
	})
	w.plumb("reconcile", "gitrepository", "flux-system")
	running := w.deployment().Generation
	w.plumb("resume", "kustomization", "flux-system")

	if left := w.cluster.Kubectl(t, "get", "-n", "flux-system", "deployments,serviceaccounts", "-o", "name"); left != "deployment.apps/plumb\nserviceaccount/default\nserviceaccount/plumb\n" {
		t.Errorf("after the switch there are\n%s", left)
	}
	if after := w.uids(); after != before {
		t.Errorf("objects were made anew: before\n%s\nafter\n%s", before, after)
	}
	if now := w.deployment().Generation; now != running {
		t.Errorf("the operator's own Deployment was changed: generation %d after %d", now, running)
	}

	w.plumb("suspend", "kustomization", "flux-system")
	definitions, _ := w.run("crds")
	w.repo.Commit(t, "main", testenv.Files{
		"cluster/flux-system/plumb-components.yaml": testenv.Delete,
		"cluster/flux-system/gotk-components.yaml":  fluxComponents + definitions,
		"cluster/flux-system/gotk-sync.yaml":        sync,
		"cluster/flux-system/kustomization.yaml":    fmt.Sprintf(kustomizationOf, "gotk-components.yaml"),
	})
	stop()
	w.plumb("uninstall")
	w.cluster.Apply(t, fluxComponents+definitions, "--server-side", "--force-conflicts")
	if left := w.cluster.Kubectl(t, "get", "-n", "flux-system", "deployments", "-o", "name"); left != "deployment.apps/kustomize-controller\ndeployment.apps/source-controller\n" {
		t.Errorf("after the way back there are\n%s", left)
	}
	// The Service had become the operator's, by Git, and is Flux's again.
	service := regexp.MustCompile(`Service/source-controller \S+`)
	if after := service.ReplaceAllString(w.uids(), ""); after != service.ReplaceAllString(before, "") {
		t.Errorf("objects were made anew on the way back: before\n%s\nafter\n%s", before, after)
	}
}

func (w *world) deployment() metav1.ObjectMeta {
	w.Helper()
	d, err := w.client.AppsV1().Deployments("flux-system").Get(w.Context(), "plumb", metav1.GetOptions{})
	w.check(err)
	return d.ObjectMeta
}
