package install

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// fluxVariable names a folder with the source trees of Flux's source-controller and
// kustomize-controller, and their programs in bin.
const fluxVariable = "PLUMB_FLUX"

// kustomizations are those of the recorded repository, in the order of their needs.
var kustomizations = []string{"flux-system", "infra", "apps", "more"}

// What a real Flux left in a cluster is taken over without one write to an object that
// it manages, and can be given back.
func TestSwitchFromFlux(t *testing.T) {
	if folder := os.Getenv(fluxVariable); folder != "" {
		t.Run("that runs and is recorded anew", func(t *testing.T) { switchFromRunning(t, folder) })
	}
	t.Run("that was recorded", switchFromRecorded)
}

func switchFromRecorded(t *testing.T) {
	w := emptyWorld(t)
	revision := "main@sha1:" + w.repo.Commit(t, "main", w.recordedFiles())
	definitions, _ := w.run("crds")
	w.cluster.Apply(t, definitions, "--server-side")
	w.cluster.Kubectl(t, "wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
	recorded := w.recorded()
	for _, o := range recorded.owners() {
		if was, found, _ := unstructured.NestedString(o.Object, "status", "lastAppliedRevision"); found && was != revision {
			t.Fatalf("%s has applied %s, and the folder %s/repo is %s: record anew", placeOf(o), was, recordedFolder, revision)
		}
	}
	w.load(recorded, w.server.URL("repo"))
	w.switchThereAndBack(recorded, revision)
}

// switchThereAndBack installs and runs the operator in a cluster that Flux has left, and
// removes it again. It gives the revision that was applied last, and the objects that
// the operator has made, in the same way as Flux had made others.
func (w *world) switchThereAndBack(left objects, revision string) (last string, made objects) {
	w.Helper()
	managed := left.managed()
	if len(managed) < 60 {
		w.Fatalf("only %d objects are managed", len(managed))
	}
	before, suspended := managed.now(w), left.suspended().now(w)
	w.install()
	stop := w.start(w.installedKubeconfig(), w.installedCommand())
	w.reconcile(revision, kustomizations...)
	w.untouched(before)
	w.like(left.owners(), "after the switch")
	w.Logf("%d objects were taken over with %d writes, of status", len(managed), w.onlyStatus())

	// It has taken over indeed: what is changed in Git is changed, and nothing else.
	config := func(value string) {
		revision = "main@sha1:" + w.repo.Commit(w, "main", testenv.Files{"apps/special.yaml": strings.Replace(w.recordedFiles()["apps/special.yaml"], `number: "10"`, `number: "`+value+`"`, 1)})
		w.reconcile(revision, kustomizations...)
		w.await("-n apps configmap/kept", "jsonpath={.data.number}="+value)
	}
	config("11")
	config("10")
	w.onlyStatus("apps/configmaps/kept", "apps/configmaps/kept")
	made = w.copies(left)

	stop()
	w.plumb("uninstall")
	w.likeRecorded(managed)
	w.like(left.owners(), "after the way back")
	w.untouched(suspended)
	return revision, made
}

// copies has the operator apply, into another namespace, what Flux has applied from the
// folder apps. It fails where the operator has said other fields of an object than Flux.
func (w *world) copies(left objects) (made objects) {
	w.Helper()
	byFlux := map[string]*unstructured.Unstructured{}
	copied := &unstructured.Unstructured{}
	for _, o := range left {
		byFlux[entry(*o)["id"]] = o
		if o.GetKind() == "Kustomization" && o.GetName() == "apps" {
			copied.SetGroupVersionKind(o.GroupVersionKind())
			copied.Object["spec"] = o.DeepCopy().Object["spec"]
		}
	}
	copied.SetNamespace("flux-system")
	copied.SetName("copy")
	w.check(unstructured.SetNestedField(copied.Object, "copy", "spec", "targetNamespace"))
	w.cluster.Kubectl(w, "create", "namespace", "copy")
	w.create(copied)
	w.await("-n flux-system kustomization/copy", "condition=Ready")
	w.edit("copy") // as others have done in the other namespace
	copied = w.read(copied)
	if diff := cmp.Diff([]string{"finalizers.fluxcd.io"}, copied.GetFinalizers()); diff != "" {
		w.Errorf("finalizers of a new Kustomization: -Flux's +now:\n%s", diff)
	}
	for _, id := range inventory(copied) {
		flux := byFlux["apps"+strings.TrimPrefix(id, "copy")]
		if flux == nil {
			w.Errorf("%s is in the inventory; Flux had nothing like it", id)
			continue
		}
		o := flux.DeepCopy()
		o.SetNamespace("copy")
		o = w.read(o)
		if diff := cmp.Diff(applied(flux), applied(o)); diff != "" {
			w.Errorf("%s is applied otherwise (-Flux +now):\n%s", placeOf(o), diff)
		}
		made = append(made, o)
	}
	if len(made) < 20 {
		w.Errorf("only %d objects were made", len(made))
	}
	return made
}

// applied are the fields that an object has from the entry of Flux in managedFields.
func applied(o *unstructured.Unstructured) (fields []string) {
	for _, m := range o.GetManagedFields() {
		if m.Manager == "kustomize-controller" && m.Operation == "Apply" {
			fields = append(fields, m.APIVersion+" "+m.FieldsV1.GetRawString())
		}
	}
	return fields
}

// reconcile asks for a reconciliation of all, as the command line of Flux does, and
// waits until all have done it for a revision, and are Ready.
func (w *world) reconcile(revision string, kustomizations ...string) {
	w.Helper()
	request := time.Now().UTC().Format(time.RFC3339Nano)
	done := func(what, field string) {
		w.Helper()
		w.cluster.Kubectl(w, "annotate", "-n", "flux-system", "--overwrite", "--field-manager=flux", what, "reconcile.fluxcd.io/requestedAt="+request)
		what = "-n flux-system " + what
		w.await(what, "jsonpath={.status.lastHandledReconcileAt}="+request)
		w.await(what, "jsonpath={.status."+field+"}="+revision)
		w.await(what, "condition=Ready")
	}
	done("gitrepository/flux-system", "artifact.revision")
	for _, name := range kustomizations {
		done("kustomization/"+name, "lastAppliedRevision")
	}
}

// onlyStatus fails where the operator has written more than the status of custom
// resources of Flux, and the objects that are named, as often as they are named. It
// counts the writes.
func (w *world) onlyStatus(allowed ...string) (writes int) {
	w.Helper()
	kinds := []string{"gitrepositories", "kustomizations"}
	for _, r := range w.written("plumb/" + version + " (") {
		writes++
		place := r.ObjectRef.Namespace + "/" + r.ObjectRef.Resource + "/" + r.ObjectRef.Name
		if n := slices.Index(allowed, place); n >= 0 {
			allowed = slices.Delete(slices.Clone(allowed), n, n+1)
			continue
		}
		if r.ObjectRef.Subresource != "status" || !slices.Contains(kinds, r.ObjectRef.Resource) {
			w.Errorf("the operator has written: %s %s", r.Verb, r.RequestURI)
		}
	}
	if len(allowed) > 0 {
		w.Errorf("not written: %q", allowed)
	}
	return writes
}

// like fails where Flux would not find in its custom resources what it had put there:
// inventories, labels, finalizers and conditions that it knows.
func (w *world) like(owners objects, when string) {
	w.Helper()
	for _, o := range owners {
		live := w.read(o)
		for _, c := range []struct {
			what      string
			want, got any
		}{
			{"labels", o.GetLabels(), live.GetLabels()},
			{"finalizers", o.GetFinalizers(), live.GetFinalizers()},
			{"inventory", inventory(o), inventory(live)},
			{"conditions", conditionTypes(o), conditionTypes(live)},
			{"field managers", managers(o), managers(live)},
		} {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				w.Errorf("%s: the %s of %s are others (-Flux +now):\n%s", when, c.what, placeOf(o), diff)
			}
		}
	}
}

func conditionTypes(o *unstructured.Unstructured) (types []string) {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		condition := c.(map[string]any)
		types = append(types, condition["type"].(string)+"="+condition["status"].(string))
	}
	slices.Sort(types)
	return types
}

// managers are who has set fields of an object, and how.
func managers(o *unstructured.Unstructured) (names []string) {
	for _, m := range o.GetManagedFields() {
		names = append(names, string(m.Operation)+" by "+m.Manager+" of "+m.Subresource)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
