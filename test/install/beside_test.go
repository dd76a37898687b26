package install

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// atRest is the patch of docs/install.md for flux-system/kustomization.yaml.
const atRest = `patches:
  - target: {kind: Deployment, name: kustomize-controller}
    patch: |
      - op: replace
        path: /spec/replicas
        value: 0
`

// sourcesOf is the command line of somebody else who works on sources, and publishes where
// this machine finds it.
func sourcesOf(command []string) (sources []string) {
	for _, arg := range command {
		if !strings.HasPrefix(arg, "--controllers=") && !strings.HasPrefix(arg, "--storage-adv-addr=") && !strings.HasPrefix(arg, "--enable-leader-election") {
			sources = append(sources, arg)
		}
	}
	return append(sources, "--controllers=source")
}

// The steps of docs/install.md for Kustomizations alone: Flux's controllers, which the
// repository declares, stay as they are, and what is applied too.
func TestKustomizationsBesideFlux(t *testing.T) {
	w := emptyWorld(t)
	w.bootstrap()
	revision := w.repo.Commit(t, "main", testenv.Files{
		"cluster/flux-system/kustomization.yaml": strings.ReplaceAll(kustomizationOf, "%s", "gotk-components.yaml") + atRest,
	})
	// What Flux makes of that commit.
	w.cluster.Kubectl(t, "-n", "flux-system", "scale", "deployment", "kustomize-controller", "--replicas=0")
	before := w.uids()

	w.install("--beside-flux", "--arg=--controllers=kustomize")
	w.start(w.installedKubeconfig(), sourcesOf(w.installedCommand()))
	stop := w.start(w.installedKubeconfig(), w.installedCommand())
	w.await("-n flux-system kustomization/flux-system", "jsonpath={.status.lastAppliedRevision}=main@sha1:"+revision)
	w.await("-n flux-system kustomization/flux-system", "condition=Ready")
	const each = "jsonpath={range .items[*]}{.metadata.name} {.spec.replicas}{'\\n'}{end}"
	if now := w.cluster.Kubectl(t, "get", "-n", "flux-system", "deployments", "-o", each); now != "kustomize-controller 0\nplumb 1\nsource-controller 1\n" {
		t.Errorf("the controllers and their replicas are\n%s", now)
	}

	stop()
	w.plumb("uninstall")
	if after := w.uids(); after != before {
		t.Errorf("objects were made anew: before\n%s\nafter\n%s", before, after)
	}
	if left := w.cluster.Kubectl(t, "get", "-n", "flux-system", "deployments", "-o", "name"); left != "deployment.apps/kustomize-controller\ndeployment.apps/source-controller\n" {
		t.Errorf("after the way back there are\n%s", left)
	}
}
