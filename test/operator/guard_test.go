package operator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/plumb-gitops/plumb/internal/config"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

const approval = "plumb.dev/approve-deletion"

// held waits until deletions of a Kustomization are held for a reason, with a
// message that holds all words, and it is Ready beside that.
func (w *world) held(name, revision, reason, words string) *kustomizev1.Kustomization {
	w.t.Helper()
	return waitFor(w, w.named(name), "Ready at "+revision+" and holding deletions, "+reason+": "+words, func(k *kustomizev1.Kustomization) bool {
		held := conditionOf(k.Status.Conditions, "DeletionHeld")
		return held.Status == "True" && held.Reason == reason && says(held.Message, words+"|"+revision) &&
			conditionOf(k.Status.Conditions, "Ready").Status == "True" && k.Status.LastAppliedRevision == revision
	})
}

// notHeld waits until nothing is held.
func (w *world) notHeld(name, revision string) {
	w.t.Helper()
	waitFor(w, w.named(name), "holding nothing at "+revision, func(k *kustomizev1.Kustomization) bool {
		return conditionOf(k.Status.Conditions, "DeletionHeld").Status == "" && k.Status.LastAppliedRevision == revision &&
			conditionOf(k.Status.Conditions, "Ready").Status == "True"
	})
}

// handled asks for a reconciliation and waits for its end.
func (w *world) handled(name string) {
	w.t.Helper()
	value := w.request(w.named(name))
	waitFor(w, w.named(name), "handled", func(k *kustomizev1.Kustomization) bool {
		return k.Status.LastHandledReconcileAt == value
	})
}

// deletions are the deletions of ConfigMaps that the operator asked for.
func (w *world) deletions() []string {
	w.t.Helper()
	var found []string
	for _, r := range w.writes("configmaps", w.namespace, "") {
		if r.Verb == "delete" {
			found = append(found, r.ObjectRef.Name)
		}
	}
	return found
}

// TestNothingIsNoDeletion is what happens to a Kustomization's objects when its
// source loses them in a way that is more likely a mistake than a wish.
func TestNothingIsNoDeletion(t *testing.T) {
	t.Parallel()
	whole := func(k *kustomizev1.Kustomization) { k.Spec.Path = "./" }
	tests := map[string]struct {
		spec   func(*kustomizev1.Kustomization)
		change testenv.Files
		reason string // of Ready; empty where the build is good and empty
		words  string
	}{
		"the tree is empty":                   {spec: whole, change: testenv.Files{"app": testenv.Delete}},
		"all files are ignored":               {spec: whole, change: testenv.Files{".sourceignore": "/*\n"}},
		"the kustomization lists nothing":     {change: testenv.Files{"app/kustomization.yaml": "resources: []\n"}},
		"the folder has no manifest any more": {change: testenv.Files{"app/a.yaml": testenv.Delete, "app/b.yaml": testenv.Delete, "app/README.md": "moved\n"}},
		"the path is gone":                    {change: testenv.Files{"app": testenv.Delete, "other/a.md": "x"}, reason: "ArtifactFailed", words: `there is no directory "app"`},
		"the path is ignored":                 {change: testenv.Files{".sourceignore": "/app\n"}, reason: "ArtifactFailed", words: `there is no directory "app"`},
		"a generator fails": {
			change: testenv.Files{"app/kustomization.yaml": "configMapGenerator:\n- name: g\n  files: [gone.txt]\n"},
			reason: "BuildFailed", words: "gone.txt",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "README.md": "x"})
			w.source()
			w.kustomization("app", func(k *kustomizev1.Kustomization) {
				if tt.spec != nil {
					tt.spec(k)
				}
			})
			w.ready("app", first)
			a, b := w.data("a", "1"), w.data("b", "1")
			second := w.push(tt.change)
			if tt.reason != "" {
				w.notReady("app", tt.reason, tt.words)
			} else {
				w.held("app", second, "EmptyBuild", "2 deletions are held|ConfigMap/"+w.namespace+"/a|ConfigMap/"+w.namespace+"/b")
				w.event("Kustomization", "app", "DeletionHeld", "2 deletions are held|plumb approve kustomization app -n "+w.namespace+" --revision "+second)
			}
			w.handled("app")
			w.same(a)
			w.same(b)
			if deleted := w.deletions(); len(deleted) > 0 {
				t.Errorf("deleted: %v", deleted)
			}
			// What is not declared any more is not repaired; what is kept is known.
			k := w.named("app")
			w.check(w.client.Get(w.context(), client.ObjectKeyFromObject(k), k))
			if n := len(k.Status.Inventory.Entries); n != 2 {
				t.Errorf("the inventory has %d entries, want 2", n)
			}
		})
	}
}

// manifestsOf are ConfigMaps c00, c01 and so on in one folder.
func manifestsOf(folder string, n int) testenv.Files {
	files := testenv.Files{}
	for i := range n {
		name := fmt.Sprintf("c%02d", i)
		files[folder+"/"+name+".yaml"] = configMap(name, "1")
	}
	return files
}

func TestManyDeletionsAreHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(manifestsOf("app", 21))
	w.source()
	w.kustomization("app")
	w.ready("app", first)
	drop := func(n int) testenv.Files {
		files := testenv.Files{"app/more.yaml": configMap("more", fmt.Sprint(n))}
		for i := range n {
			files[fmt.Sprintf("app/c%02d.yaml", i)] = testenv.Delete
		}
		return files
	}
	c := make([]*corev1.ConfigMap, 12)
	for i := range c {
		c[i] = w.data(fmt.Sprintf("c%02d", i), "1")
	}
	second := w.push(drop(12))
	w.held("app", second, "ManyDeletions", "12 deletions are held|ConfigMap/"+w.namespace+"/c11")
	w.data("more", "12") // the rest is applied
	for _, object := range c {
		w.same(object)
	}
	// Somebody deletes a part by hand. What is left of it alone would not be held,
	// but it was.
	for _, object := range c[:4] {
		w.check(w.client.Delete(w.context(), object))
	}
	w.held("app", second, "ManyDeletions", "8 deletions are held")
	w.handled("app")
	for _, object := range c[4:] {
		w.same(object)
	}
	// A new build is judged anew: eight of eighteen are not many.
	third := w.push(testenv.Files{"app/more.yaml": configMap("more", "3")})
	w.notHeld("app", third)
	for _, object := range c[4:] {
		w.gone(object)
	}
}

const keepers = `apiVersion: v1
kind: Namespace
metadata:
  name: NAMESPACE-kept
---
apiVersion: v1
kind: PersistentVolume
metadata:
  name: NAMESPACE-kept
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: NAMESPACE
  hostPath: {path: /nowhere}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: kept
  namespace: NAMESPACE
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: NAMESPACE-none
  resources: {requests: {storage: 1Mi}}
`

func (w *world) keepers() []client.Object {
	return []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-kept"}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-kept"}},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "kept", Namespace: w.namespace}},
	}
}

func anywhere(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" }

func TestProtectedKindsAreHeldUntilConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(w.filled(testenv.Files{
		"app/keepers.yaml": keepers, "app/goes.yaml": placed("goes", "1", w.namespace), "app/stays.yaml": placed("stays", "1", w.namespace),
	}))
	w.source()
	w.kustomization("app", anywhere)
	w.ready("app", first)
	objects, goes, stays := w.keepers(), w.data("goes", "1"), w.data("stays", "1")
	for _, object := range objects {
		w.check(w.client.Get(w.context(), client.ObjectKeyFromObject(object), object))
	}
	second := w.push(testenv.Files{"app/keepers.yaml": testenv.Delete, "app/goes.yaml": testenv.Delete})
	names := "Namespace/" + w.namespace + "-kept|PersistentVolume/" + w.namespace + "-kept|PersistentVolumeClaim/" + w.namespace + "/kept"
	held := w.held("app", second, "ProtectedKind", "3 deletions are held|"+names)
	w.gone(goes)
	if n := len(held.Status.Inventory.Entries); n != 4 {
		t.Errorf("the inventory has %d entries, want 4", n)
	}
	// A confirmation for another revision confirms nothing.
	w.annotate(w.named("app"), approval, first)
	w.handled("app")
	for _, object := range append(objects, stays) {
		w.same(object)
	}
	// A new build is judged anew. The same set is told of once.
	third := w.push(testenv.Files{"app/stays.yaml": placed("stays", "3", w.namespace)})
	w.held("app", third, "ProtectedKind", names)
	w.annotate(w.named("app"), approval, second)
	w.handled("app")
	for _, object := range append(objects, stays) {
		w.same(object)
	}
	if events := w.events("Kustomization", "app", "deletions are held"); len(events) != 1 || events[0].Count > 1 || events[0].Type != corev1.EventTypeWarning {
		t.Errorf("want one warning, got %+v", events)
	}
	w.annotate(w.named("app"), approval, third)
	for _, object := range objects {
		w.gone(object)
	}
	w.notHeld("app", third)
	w.event("Kustomization", "app", "Progressing", "Namespace/"+w.namespace+"-kept deleted")
	w.same(stays)
}

func TestDefinitionIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.push(w.filled(testenv.Files{
		"app/crd.yaml": definition, "app/stays.yaml": placed("stays", "1", w.namespace),
		"widgets/widget.yaml": widget, "widgets/a.yaml": configMap("a", "1"),
	}))
	w.source()
	w.kustomization("app", anywhere)
	w.kustomization("widgets", func(k *kustomizev1.Kustomization) {
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "app"}}
	})
	w.ready("app", first)
	w.ready("widgets", first)
	exists := func(*unstructured.Unstructured) bool { return true }
	made, a := waitFor(w, w.namedWidget(), "made", exists), w.data("a", "1")

	second := w.push(testenv.Files{"app/crd.yaml": testenv.Delete})
	w.held("app", second, "ProtectedKind", "1 deletion is held|CustomResourceDefinition/")
	w.same(made)

	// Declared again nothing is held, and the objects of the kind are the same.
	third := w.push(w.filled(testenv.Files{"app/crd.yaml": definition}))
	w.notHeld("app", third)
	w.ready("widgets", third)
	w.same(made)

	// Deleted by hand it comes back, and so do its objects. Nothing else is touched.
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	crd.SetName("widgets." + w.namespace + ".example.com")
	w.check(w.client.Delete(w.context(), crd))
	waitFor(w, crd, "made again", func(d *unstructured.Unstructured) bool { return d.GetDeletionTimestamp() == nil })
	w.same(a)
	if deleted := w.deletions(); len(deleted) > 0 {
		t.Errorf("deleted: %v", deleted)
	}
}

// TestDefinitionThatSomebodyElseDeletes: while a kind is not there, what is of other kinds
// stays as it is, and once it is there again so are its objects.
func TestDefinitionThatSomebodyElseDeletes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	install := func() {
		t.Helper()
		crd := &unstructured.Unstructured{}
		w.check(yaml.Unmarshal([]byte(w.filled(testenv.Files{"crd": definition})["crd"]), &crd.Object))
		w.check(w.client.Create(w.context(), crd))
		w.established(crd.GetName())
	}
	remove := func() {
		t.Helper()
		crd := &unstructured.Unstructured{}
		crd.SetAPIVersion("apiextensions.k8s.io/v1")
		crd.SetKind("CustomResourceDefinition")
		crd.SetName("widgets." + w.namespace + ".example.com")
		w.check(w.client.Delete(w.context(), crd))
		w.gone(crd)
	}
	install()
	first := w.push(w.filled(testenv.Files{
		"app/widget.yaml": widget, "app/a.yaml": configMap("a", "1"), "app/goes.yaml": configMap("goes", "1"),
		"other/other.yaml": configMap("other", "1"),
	}))
	w.source()
	w.kustomization("app", func(k *kustomizev1.Kustomization) { k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second} })
	w.kustomization("other")
	w.ready("app", first)
	w.ready("other", first)
	a, goes, other := w.data("a", "1"), w.data("goes", "1"), w.data("other", "1")

	remove()
	second := w.push(testenv.Files{"app/a.yaml": configMap("a", "2"), "app/goes.yaml": testenv.Delete, "other/other.yaml": configMap("other", "2")})
	k := w.notReady("app", "ReconciliationFailed", "Widget/"+w.namespace+"/widget (app/widget.yaml:1)|kind Widget."+w.namespace+".example.com|install its CustomResourceDefinition, or declare it")
	w.ready("other", second)
	w.handled("app")
	for _, object := range []client.Object{a, goes, other} {
		w.same(object)
	}
	if n := len(k.Status.Inventory.Entries); n != 3 {
		t.Errorf("the inventory has %d entries, want 3", n)
	}
	install()
	w.ready("app", second)
	waitFor(w, w.namedWidget(), "made again", func(*unstructured.Unstructured) bool { return true })
	w.gone(goes)
	w.same(a)

	// What is declared no more when its kind is gone is gone itself.
	remove()
	third := w.push(testenv.Files{"app/widget.yaml": testenv.Delete})
	w.ready("app", third)
	waitFor(w, w.named("app"), "without the widget in its inventory", func(k *kustomizev1.Kustomization) bool { return len(k.Status.Inventory.Entries) == 1 })
	w.same(a)
	w.same(other)
	if deleted := w.deletions(); !slices.Equal(deleted, []string{"goes"}) {
		t.Errorf("deleted: %v", deleted)
	}
}

func TestObjectsMayGoUnguarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	unguarded := strings.ReplaceAll(keepers, "metadata:\n", "metadata:\n  annotations: {plumb.dev/deletion-guard: disabled}\n")
	first := w.push(w.filled(testenv.Files{"app/keepers.yaml": unguarded, "app/stays.yaml": placed("stays", "1", w.namespace)}))
	w.source()
	w.kustomization("app", anywhere)
	w.ready("app", first)
	second := w.push(testenv.Files{"app/keepers.yaml": testenv.Delete})
	for _, object := range w.keepers() {
		w.gone(object)
	}
	w.notHeld("app", second)
	w.quiet("app")
}

// Without the guard, deletions are made as Flux makes them.
func TestGuardOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runOwn(t.TempDir(), func(cfg *config.Operator) { cfg.DeletionGuard = false })
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("app", first)
	a, b := w.data("a", "1"), w.data("b", "1")
	second := w.push(testenv.Files{"app/kustomization.yaml": "resources: []\n"})
	w.gone(a)
	w.gone(b)
	w.notHeld("app", second)
	w.quiet("app")
}

// After a restart the held refs are in the inventory still and are judged again:
// nothing is written, told or deleted.
func TestHeldOverRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	stop := w.runOwn(dir, func(*config.Operator) {})
	first := w.push(testenv.Files{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "other/other.yaml": configMap("other", "1")})
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.kustomization("other", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("app", first)
	a, b := w.data("a", "1"), w.data("b", "1")
	second := w.push(testenv.Files{"app/kustomization.yaml": "resources: []\n"})
	before := w.held("app", second, "EmptyBuild", "2 deletions are held")
	w.ready("other", second)
	w.event("Kustomization", "app", "DeletionHeld", "2 deletions are held")
	stop()

	w.runOwn(dir, func(*config.Operator) {})
	// It is at work once it repairs, and has judged once it deletes what is confirmed.
	w.patch(w.namedConfig("other"), `{"data":{"key":"drift"}}`)
	w.data("other", "1")
	w.same(a)
	w.same(b)
	after := w.named("app")
	w.check(w.client.Get(w.context(), client.ObjectKeyFromObject(after), after))
	if after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the restart wrote: %+v, before %+v", after.Status, before.Status)
	}
	w.annotate(after, approval, second)
	w.gone(a)
	w.gone(b)
	w.notHeld("app", second)
	if events := w.events("Kustomization", "app", "deletions are held"); len(events) != 1 || events[0].Count > 1 {
		t.Errorf("want one event, got %+v", events)
	}
}

// What is held stays held over later builds and restarts, although the objects that
// came instead are in the inventory by then and make the deletions look few.
func TestHeldStaysHeldWhateverFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	stop := w.runOwn(dir, func(*config.Operator) {})
	files := func(prefix, value string) testenv.Files {
		all := testenv.Files{}
		for i := range 12 {
			name := fmt.Sprintf("%s-%02d", prefix, i)
			all["app/"+name+".yaml"] = configMap(name, value)
		}
		return all
	}
	replaced := files("new", "1")
	for path := range files("old", "1") {
		replaced[path] = testenv.Delete
	}
	first := w.push(files("old", "1"))
	w.source(func(s *sourcev1.GitRepository) { w.owned(s) })
	w.kustomization("app", func(k *kustomizev1.Kustomization) { w.owned(k) })
	w.ready("app", first)
	old := w.data("old-07", "1")
	second := w.push(replaced)
	w.held("app", second, "ManyDeletions", "12 deletions are held")
	third := w.push(testenv.Files{"app/new-00.yaml": configMap("new-00", "2")})
	w.held("app", third, "ManyDeletions", "12 deletions are held")
	w.data("new-00", "2")
	w.same(old)
	stop()

	w.runOwn(dir, func(*config.Operator) {})
	fourth := w.push(testenv.Files{"app/new-00.yaml": configMap("new-00", "3")})
	w.held("app", fourth, "ManyDeletions", "12 deletions are held")
	w.data("new-00", "3")
	w.same(old)
	w.annotate(w.named("app"), approval, fourth)
	w.gone(old)
	w.notHeld("app", fourth)
}

// To delete a Kustomization is to ask for the deletion of its objects, guarded kinds
// included, also where the same commit removes what it was built from.
func TestKustomizationDeletedWithItsPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := testenv.Files{
		"fleet/app.yaml": strings.Replace(child(w, "app", "app"), "  targetNamespace: "+w.namespace+"\n", "", 1), "fleet/fleet.yaml": configMap("fleet", "1"),
		"app/keepers.yaml": keepers, "app/a.yaml": placed("a", "1", w.namespace), "other/other.yaml": configMap("other", "1"),
	}
	first := w.push(w.filled(files))
	w.source()
	w.kustomization("fleet")
	w.kustomization("other")
	w.ready("app", first)
	w.ready("other", first)
	a, other, fleet := w.data("a", "1"), w.data("other", "1"), w.data("fleet", "1")
	second := w.push(testenv.Files{"fleet/app.yaml": testenv.Delete, "app": testenv.Delete})
	w.gone(w.named("app"))
	w.gone(a)
	for _, object := range w.keepers() {
		w.gone(object)
	}
	w.ready("fleet", second)
	w.ready("other", second)
	w.same(other)
	w.same(fleet)
}
