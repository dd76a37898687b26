package install

import (
	"fmt"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// A life of one Kustomization under the rights that plumb install gives.
func TestOneTeam(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(w, "main", testenv.Files{"apps/all.yaml": fmt.Sprintf(manifests, "default")})
	w.start(w.installedKubeconfig(), w.installedCommand())
	w.appsFrom("flux-system", "./apps")
	w.await("-n flux-system kustomization/apps", "condition=Ready")
	w.await("-n default configmap/settings", "jsonpath={.data.colour}=green")
	if url := w.cluster.Kubectl(t, "get", "-n", "flux-system", "gitrepository/repo", "-o", "jsonpath={.status.artifact.url}"); !strings.HasPrefix(url, "http://source-controller.flux-system.svc.cluster.local./gitrepository/flux-system/repo/") {
		t.Errorf("the artifact's URL is %s", url)
	}

	w.cluster.Kubectl(t, "patch", "-n", "default", "configmap/settings", "--type=merge", "-p", `{"data":{"colour":"red"}}`)
	w.await("-n default configmap/settings", "jsonpath={.data.colour}=green")

	w.cluster.Kubectl(t, "delete", "-n", "flux-system", "kustomization/apps", "--timeout=60s")
	w.await("-n default configmap/settings role/reader", "delete")

	if refused := w.refused(); len(refused) > 0 {
		t.Errorf("the operator was refused:\n%s", strings.Join(refused, "\n"))
	}
	requests := w.requests()
	for _, r := range requests {
		if r.User.Username != "system:serviceaccount:flux-system:plumb" {
			t.Fatalf("%s %s was asked for as %s", r.Verb, r.RequestURI, r.User.Username)
		}
	}
	if len(requests) == 0 {
		t.Error("the audit log holds no request of the operator")
	}
}

// Definitions that are deleted take custom resources away, and no controller may take
// that for the wish to delete what these manage: not even one that nobody knows of.
func TestUninstallUnderAnOperatorPrunesNothing(t *testing.T) {
	w := newWorld(t)
	w.repo.Commit(w, "main", testenv.Files{"apps/all.yaml": fmt.Sprintf(manifests, "default")})
	w.start(w.cluster.Kubeconfig, w.installedCommand())
	w.appsFrom("flux-system", "./apps")
	w.await("-n flux-system kustomization/apps", "condition=Ready")

	said := w.plumb("uninstall", "--crds", "--yes")
	for _, part := range []string{"This deletes 15 definitions and with them 2 custom resources", "Kustomization: 1", "The 2 objects that they manage stay", "CustomResourceDefinition/kustomizations.kustomize.toolkit.fluxcd.io deleted"} {
		if !strings.Contains(said, part) {
			t.Errorf("%q is not said:\n%s", part, said)
		}
	}
	if left := w.cluster.Kubectl(t, "get", "crd", "-o", "name"); left != "" {
		t.Errorf("there are still %s", left)
	}
	w.cluster.Kubectl(t, "get", "-n", "default", "configmap/settings", "role/reader")
	for _, r := range w.requests() {
		if r.Verb == "delete" {
			t.Errorf("the operator has deleted %s", r.RequestURI)
		}
	}
}
