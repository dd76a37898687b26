package install

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/plumb-gitops/plumb/internal/testenv"
)

// The recording of what a real Flux left in a cluster; its README tells how it was made.
const (
	recordedFolder = "testdata/flux"
	recordedFile   = recordedFolder + "/objects.json"
)

// recordedFiles are those of the repository that was recorded. A commit of them is
// the recorded one, as its author and times are always the same.
func (w *world) recordedFiles() testenv.Files {
	w.Helper()
	files := testenv.Files{}
	root := os.DirFS(filepath.Join(recordedFolder, "repo"))
	w.check(fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, path)
		files[path] = string(data)
		return err
	}))
	return files
}

// objects are those of a cluster that a recording is about: all that Flux's inventories
// name, and what was there before Flux.
type objects []*unstructured.Unstructured

// recorded reads the recording.
func (w *world) recorded() objects {
	w.Helper()
	data, err := os.ReadFile(recordedFile)
	w.check(err)
	var all objects
	w.check(json.Unmarshal(data, &all))
	return all
}

// now reads the same objects from the cluster, as they are there.
func (all objects) now(w *world) objects {
	w.Helper()
	out := make(objects, len(all))
	for n, o := range all {
		out[n] = w.read(o)
	}
	return out
}

// read reads an object from the cluster.
func (w *world) read(o *unstructured.Unstructured) *unstructured.Unstructured {
	w.Helper()
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	w.check(w.dynamic.Get(w.Context(), client.ObjectKeyFromObject(o), live))
	return live
}

// managed are the objects that Flux's inventories name, but for Flux's own kinds.
func (all objects) managed() objects {
	named := map[string]bool{}
	for _, o := range all {
		for _, id := range inventory(o) {
			named[id] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(o *unstructured.Unstructured) bool { return !named[entry(*o)["id"]] || ofFlux(o) })
}

// owners are the custom resources of Flux.
func (all objects) owners() objects {
	return slices.DeleteFunc(slices.Clone(all), func(o *unstructured.Unstructured) bool { return !ofFlux(o) })
}

// suspended are the custom resources of Flux that nobody works on.
func (all objects) suspended() objects {
	return slices.DeleteFunc(all.owners(), func(o *unstructured.Unstructured) bool {
		suspend, _, _ := unstructured.NestedBool(o.Object, "spec", "suspend")
		return !suspend
	})
}

func ofFlux(o *unstructured.Unstructured) bool {
	return strings.HasSuffix(o.GroupVersionKind().Group, ".toolkit.fluxcd.io")
}

// custom tells whether no controller of Kubernetes itself writes the status of an object.
func (all objects) custom(o *unstructured.Unstructured) bool {
	return ofFlux(o) || slices.ContainsFunc(all, func(definition *unstructured.Unstructured) bool {
		return definition.GetKind() == "CustomResourceDefinition" && strings.HasSuffix(definition.GetName(), "."+o.GroupVersionKind().Group)
	})
}

// inventory are the identifiers in the inventory of a Kustomization, sorted.
func inventory(o *unstructured.Unstructured) (ids []string) {
	entries, _, _ := unstructured.NestedSlice(o.Object, "status", "inventory", "entries")
	for _, e := range entries {
		ids = append(ids, e.(map[string]any)["id"].(string))
	}
	slices.Sort(ids)
	return ids
}

// placeOf names an object for people.
func placeOf(o *unstructured.Unstructured) string {
	return o.GetKind() + "/" + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
}

// comparable is an object without what another cluster gives to it at another time.
func comparable(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	return timeless(o.Object).(map[string]any)
}

// timeless takes times out of a value, the uid in labels of a Job, the count of
// generations, which says how often something was changed, and the order of conditions, which says what was first.
func timeless(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, field := range v {
			switch text, _ := field.(string); {
			case slices.Contains([]string{"observedGeneration", "time", "autoscaling.alpha.kubernetes.io/conditions"}, key),
				strings.HasSuffix(key, "controller-uid"), strings.HasPrefix(key, "last") && isTime(text):
				delete(v, key)
			default:
				v[key] = timeless(field)
			}
			if conditions, ok := v[key].([]any); ok && key == "conditions" {
				slices.SortFunc(conditions, func(a, b any) int {
					return strings.Compare(a.(map[string]any)["type"].(string), b.(map[string]any)["type"].(string))
				})
			}
		}
	case []any:
		for n := range v {
			v[n] = timeless(v[n])
		}
	}
	return value
}

func isTime(text string) bool {
	_, err := time.Parse(time.RFC3339, text)
	return err == nil
}

// without takes a field out of what is compared.
func without(o map[string]any, path ...string) map[string]any {
	unstructured.RemoveNestedField(o, path...)
	return o
}

// load makes the recorded objects in a cluster that does not have them: with their
// labels, annotations and finalizers, their status, and who manages which field.
func (w *world) load(all objects, sourceURL string) {
	w.Helper()
	for _, o := range all {
		o = o.DeepCopy()
		if o.GetKind() == "GitRepository" {
			w.check(unstructured.SetNestedField(o.Object, sourceURL, "spec", "url"))
		}
		for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
			unstructured.RemoveNestedField(o.Object, "metadata", field)
		}
		if o.GetKind() == "Job" { // the API server derives these from its uid
			unstructured.RemoveNestedField(o.Object, "spec", "selector")
			unstructured.RemoveNestedField(o.Object, "spec", "template", "metadata", "labels")
		}
		w.create(o)
	}
	for _, o := range all {
		if status, found := o.Object["status"]; found && all.custom(o) {
			w.change(o, func(live *unstructured.Unstructured) error {
				live.Object["status"] = status
				return w.dynamic.Status().Update(w.Context(), live)
			})
		}
	}
	// Kubernetes' own controllers write the status of what they work on, which has to
	// have an end before it is said who has written it.
	for _, o := range all {
		want := without(comparable(o), "metadata", "managedFields")
		var live *unstructured.Unstructured
		w.within(patience, func() string {
			live = w.read(o)
			if o.GetKind() == "GitRepository" {
				want["spec"] = live.Object["spec"]
			}
			return cmp.Diff(want, without(comparable(live), "metadata", "managedFields"))
		}, placeOf(o)+" is not as it was recorded (-recorded +loaded)")
		w.change(o, func(live *unstructured.Unstructured) error {
			live.SetManagedFields(o.GetManagedFields())
			return w.dynamic.Update(w.Context(), live)
		})
	}
	w.likeRecorded(all)
}

// create creates an object.
func (w *world) create(o *unstructured.Unstructured) {
	w.Helper()
	w.within(patience, func() string {
		err := w.dynamic.Create(w.Context(), o.DeepCopy(), client.FieldOwner("loader"))
		if err == nil {
			return ""
		}
		return err.Error() // its definition or namespace may not be known yet
	}, "create "+placeOf(o))
}

// change reads an object, and changes it, until nobody else has changed it meanwhile.
func (w *world) change(o *unstructured.Unstructured, change func(live *unstructured.Unstructured) error) {
	w.Helper()
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error { return change(w.read(o)) }); err != nil {
		w.Fatalf("change %s: %v", placeOf(o), err)
	}
}

// within asks until nothing is amiss any more.
func (w *world) within(limit time.Duration, amiss func() string, what string) {
	w.Helper()
	deadline := time.Now().Add(limit)
	for {
		problem := amiss()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s: %s", what, problem)
		}
		select {
		case <-w.Context().Done():
			w.Fatal(w.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// likeRecorded fails where objects of the cluster are not as they were recorded, field
// managers included. What a source and a Kustomization say of a reconciliation is theirs.
func (w *world) likeRecorded(all objects) {
	w.Helper()
	for _, o := range all {
		want, got := comparable(o), comparable(w.read(o))
		if o.GetKind() == "GitRepository" {
			want["spec"] = got["spec"] // the server is another one
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("%s is not as it was recorded (-recorded +now):\n%s", placeOf(o), diff)
		}
	}
}

// untouched fails where an object has been written to since it was read.
func (w *world) untouched(before objects) {
	w.Helper()
	for n, now := range before.now(w) {
		if diff := cmp.Diff(before[n].Object, now.Object); diff != "" {
			w.Errorf("%s was written to (-before +now):\n%s", placeOf(now), diff)
		}
	}
}

// written are the writes of a program so far that were more than a trial, but for its
// leases and events.
func (w *world) written(userAgent string) []testenv.Request {
	w.Helper()
	return slices.DeleteFunc(w.cluster.Requests(w, userAgent), func(r testenv.Request) bool {
		reads := r.Verb == "get" || r.Verb == "list" || r.Verb == "watch"
		return reads || strings.Contains(r.RequestURI, "dryRun=All") || r.ObjectRef.Resource == "events" || r.ObjectRef.Resource == "leases"
	})
}
