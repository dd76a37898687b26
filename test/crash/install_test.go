package crash_test

import (
	"fmt"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
	"github.com/plumb-gitops/plumb/test/lab"
)

// installed is one round of everything that an install goes through: a Namespace,
// a definition with an object of its kind, a class, a Deployment that is waited
// for, and an object whose fields are taken over from kubectl. Id tells rounds
// apart.
func installed(namespace, id string) testenv.Files {
	return testenv.Files{id + "/all.yaml": fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata:
  name: %[1]s-%[2]s
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.%[1]s-%[2]s.example.com
spec:
  group: %[1]s-%[2]s.example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer}
---
apiVersion: %[1]s-%[2]s.example.com/v1
kind: Widget
metadata:
  name: widget
  namespace: %[1]s-%[2]s
spec:
  size: 3
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: %[1]s-%[2]s
spec:
  controller: example.com/none
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  namespace: %[1]s-%[2]s
data:
  key: value
---
apiVersion: v1
kind: Secret
metadata:
  name: secret
  namespace: %[1]s-%[2]s
stringData:
  key: value
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: adopted-%[2]s
  namespace: %[1]s
data:
  key: value
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: %[1]s-%[2]s
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example.com/web:1
`, namespace, id)}
}

func installedKinds(namespace, id string) []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Version: "v1", Kind: "Namespace"},
		{Version: "v1", Kind: "ConfigMap"},
		{Version: "v1", Kind: "Secret"},
		{Group: "apps", Version: "v1", Kind: "Deployment"},
		{Group: "networking.k8s.io", Version: "v1", Kind: "IngressClass"},
		{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
		{Group: namespace + "-" + id + ".example.com", Version: "v1", Kind: "Widget"},
	}
}

// installer makes rounds of an install and a deletion.
type installer struct {
	*lab.Lab
	want   map[string]string
	counts map[string]int
}

func TestKilledInstallAndDeletion(t *testing.T) {
	t.Parallel()
	i := installer{Lab: lab.New(t), counts: map[string]int{"install": 0, "delete": 0}}
	i.Push(testenv.Files{"README.md": "nothing yet\n"})
	i.Source()
	i.Start()
	i.round("r0", 0, before)
	for _, when := range []moment{before, after} {
		for write := 1; i.round(fmt.Sprintf("%s%d", when, write), write, when) && !t.Failed(); write++ {
		}
	}
	points(i.Lab, i.counts)
}

// round installs and deletes; it tells whether the operator was killed in one of
// the two. Write 0 is none.
func (i *installer) round(id string, write int, when moment) bool {
	i.Helper()
	kinds := installedKinds(i.Namespace, id)
	adopted := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: i.Namespace, Name: "adopted-" + id},
		Data:       map[string]string{"key": "other", "added": "by kubectl"},
	}
	i.Check(i.Client.Create(i.Context(), adopted, client.FieldOwner("kubectl-client-side-apply")))
	revision := i.Push(installed(i.Namespace, id))
	i.SourceReady(revision)

	trap := arm(i.Lab, write, when)
	i.Kustomization(id, func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	inInstall := trap.reach(kinds, readyOr(i.Lab, id, revision), id)
	i.Ready(id, revision)
	got := state(i.Lab, id, kinds, id, "ROUND")
	if write == 0 {
		i.want = got
		if len(got) != 8 {
			i.Errorf("%d objects are there, want 8: %v", len(got), got)
		}
	}
	same(i.Lab, i.want, got, where("install", write, when))

	trap = arm(i.Lab, write, when)
	i.Check(i.Client.Delete(i.Context(), i.Named(id)))
	inDelete := trap.reach(kinds, func(stop <-chan struct{}) bool {
		return lab.GoneOr(i.Lab, stop, i.Named(id))
	}, id)
	i.Vanished(i.Named(id))
	for _, left := range i.Owned(id, kinds) {
		i.Errorf("%s: left over: %s", where("deletion", write, when), lab.InventoryID(&left))
	}
	if inInstall {
		i.counts["install"]++
	}
	if inDelete {
		i.counts["delete"]++
	}
	return inInstall || inDelete
}
