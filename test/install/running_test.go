package install

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plumb-gitops/plumb/test/lab"
)

// switchFromRunning has Flux itself set up the cluster, records what it leaves, and has
// it go on after the switch there and back.
func switchFromRunning(t *testing.T, folder string) {
	w := emptyWorld(t)
	revision := "main@sha1:" + w.repo.Commit(t, "main", w.recordedFiles())
	for _, name := range []string{"source-controller", "kustomize-controller"} {
		w.cluster.Kubectl(t, "apply", "--server-side", "-f", filepath.Join(folder, name, "config/crd/bases"))
	}
	w.cluster.Kubectl(t, "wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
	before, err := os.ReadFile(filepath.Join(recordedFolder, "cluster.yaml"))
	w.check(err)
	for namespace, name := range map[string]string{"apps": "adopted", "more": "more-left"} {
		w.cluster.Kubectl(t, "create", "namespace", namespace)
		w.cluster.Apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: "+name+", namespace: "+namespace+"}, data: {key: hand}}")
	}
	w.cluster.Apply(t, strings.ReplaceAll(string(before), recordedURL, w.server.URL("repo")), "--server-side", "--field-manager=flux")

	stop := w.startFlux(folder)
	for _, name := range kustomizations {
		w.await("-n flux-system kustomization/"+name, "jsonpath={.status.lastAppliedRevision}="+revision)
	}
	w.others()
	w.reconcile(revision, kustomizations...)
	stop()
	left := w.left()
	w.write(left)
	revision, made := w.switchThereAndBack(left, revision)

	// Flux, once more, and now it is Flux that must have nothing to write.
	managed := append(left.managed(), made...).now(w)
	written := len(w.written("kustomize-controller/"))
	w.startFlux(folder)
	w.reconcile(revision, append(slices.Clone(kustomizations), "copy")...)
	w.untouched(managed)
	w.likeRecorded(left.managed())
	for _, r := range w.written("kustomize-controller/")[written:] {
		if r.ObjectRef.Subresource != "status" || r.ObjectRef.Resource != "kustomizations" {
			w.Errorf("Flux has written: %s %s", r.Verb, r.RequestURI)
		}
	}
	w.Logf("Flux has taken back %d objects without a write to one", len(managed))
}

// startFlux runs Flux's controllers until the test ends, or stop is called.
func (w *world) startFlux(folder string) (stop func()) {
	w.Helper()
	var stops []func()
	// The Service of a cluster leads nowhere here; Flux knows a detour.
	storage := lab.FreeAddress(w.T)
	for name, args := range map[string][]string{
		"source-controller":    {"--storage-path=" + w.TempDir(), "--storage-addr=" + storage, "--storage-adv-addr=source-controller.flux-system.svc.cluster.local."},
		"kustomize-controller": {"--requeue-dependency=2s"},
	} {
		cmd := exec.Command(filepath.Join(folder, "bin", name), append(args, "--events-addr=", "--metrics-addr=0", "--health-addr=127.0.0.1:0", "--log-level=info")...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+w.cluster.Kubeconfig, "RUNTIME_NAMESPACE=flux-system", "SOURCE_CONTROLLER_LOCALHOST="+storage)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		cmd.SysProcAttr = lab.DieWithParent()
		w.check(cmd.Start())
		gone := make(chan struct{})
		go func() {
			_ = cmd.Wait() // the test ends it
			close(gone)
		}()
		stops = append(stops, func() {
			_ = cmd.Process.Kill() // it may be gone already
			<-gone
		})
		w.Cleanup(func() {
			if w.Failed() {
				w.Logf("the log of %s:\n%s", name, log.Bytes())
			}
		})
	}
	stop = func() {
		for _, end := range stops {
			end()
		}
	}
	w.Cleanup(stop)
	return stop
}

// others do in the cluster what others than Flux do in a cluster.
func (w *world) others() {
	w.Helper()
	for _, change := range [][]string{
		{"autoscaler", "deployment/scaled", `{"spec":{"replicas":2}}`, "--subresource=scale"},
		{"cainjector", "validatingwebhookconfiguration/widgets.example.org", `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"bm90IGEgY2VydGlmaWNhdGU="}]`, "--type=json"},
		{"other", "configmap/merged", `{"data":{"theirs":"2"}}`},
		{"other", "namespace/apps", `{"metadata":{"labels":{"example.org/seen":"true"},"annotations":{"example.org/seen":"now"}}}`},
		{"other", "ingress/web", `{"metadata":{"finalizers":["example.org/balancer"]}}`},
		{"widgets", "widget/first", `{"status":{"observedGeneration":1,"phase":"done"}}`, "--subresource=status"},
	} {
		args := append([]string{"patch", "-n", "apps", "--field-manager=" + change[0], change[1], "-p", change[2]}, change[3:]...)
		if len(change) < 4 || change[3] != "--type=json" {
			args = append(args, "--type=merge")
		}
		w.cluster.Kubectl(w, args...)
	}
	w.edit("apps")
	w.await("-n apps deployment/scaled", "jsonpath={.status.readyReplicas}=2")
}

// edit changes by hand what is made once.
func (w *world) edit(namespace string) {
	w.Helper()
	w.cluster.Kubectl(w, "patch", "-n", namespace, "--field-manager=person", "configmap/once", "--type=merge", "-p", `{"data":{"key":"second"}}`)
}

// left are the objects of the recorded repository and what was there before Flux, as
// they are in the cluster.
func (w *world) left() (all objects) {
	w.Helper()
	add := func(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(schema.FromAPIVersionAndKind(apiVersion, kind))
		o.SetNamespace(namespace)
		o.SetName(name)
		o = w.read(o)
		if !slices.ContainsFunc(all, func(other *unstructured.Unstructured) bool { return other.GetUID() == o.GetUID() }) {
			all = append(all, o)
		}
		return o
	}
	add("v1", "Namespace", "", "flux-system")
	add("v1", "ConfigMap", "flux-system", "cluster-vars")
	add("v1", "Secret", "flux-system", "sops-age")
	var owners objects
	owners = append(owners, add("source.toolkit.fluxcd.io/v1", "GitRepository", "flux-system", "flux-system"))
	for _, name := range kustomizations {
		owners = append(owners, add("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "flux-system", name))
	}
	for _, owner := range owners {
		entries, _, err := unstructured.NestedSlice(owner.Object, "status", "inventory", "entries")
		w.check(err)
		for _, e := range entries {
			words := strings.Split(e.(map[string]any)["id"].(string), "_")
			group := schema.GroupVersion{Group: words[2], Version: e.(map[string]any)["v"].(string)}
			add(group.String(), words[3], words[0], words[1])
		}
	}
	// Those that others need come first.
	rank := func(o *unstructured.Unstructured) int {
		switch {
		case o.GetKind() == "Namespace", o.GetKind() == "CustomResourceDefinition":
			return 0
		case ofFlux(o):
			return 2
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return all
}

// recordedURL is in the recording in the place of the repository's address.
const recordedURL = "http://git.example.org/repo"

// write writes the recording.
func (w *world) write(all objects) {
	w.Helper()
	data, err := json.MarshalIndent(all, "", " ")
	w.check(err)
	text := strings.ReplaceAll(string(data), w.server.URL("repo"), recordedURL)
	w.check(os.WriteFile(recordedFile, []byte(text+"\n"), 0o644))
}
