package operator_test

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// An object that moves from one Kustomization to another in one commit is never
// deleted: its new owner takes it over before the old one prunes.
func TestMoveBetweenKustomizationsKeepsTheObject(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kustomizev1.Kustomization){
		"two that are independent": func(*kustomizev1.Kustomization) {},
		"to one that depends on the old owner": func(k *kustomizev1.Kustomization) {
			k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "old"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.push(testenv.Files{
				"old/moves.yaml": configMap("moves", "1"), "old/stays.yaml": configMap("stays", "1"),
				"old/goes.yaml": configMap("goes", "1"), "new/other.yaml": configMap("other", "1"),
			})
			w.source()
			w.kustomization("old")
			w.kustomization("new", change)
			w.ready("old", first)
			w.ready("new", first)
			moved, gone := w.data("moves", "1"), w.data("goes", "1")
			second := w.push(testenv.Files{
				"old/moves.yaml": testenv.Delete, "old/goes.yaml": testenv.Delete, "new/moves.yaml": configMap("moves", "2"),
			})
			w.ready("new", second)
			w.ready("old", second)
			w.data("moves", "2")
			w.same(moved)
			w.gone(gone)
			for _, r := range w.writes("configmaps", w.namespace, "moves") {
				if r.Verb == "delete" {
					t.Errorf("the object was deleted on its way: %s", r.RequestURI)
				}
			}
			waitFor(w, w.named("old"), "without what moved and went", func(k *kustomizev1.Kustomization) bool {
				return k.Status.Inventory != nil && len(k.Status.Inventory.Entries) == 1
			})
		})
	}
}
