package ownership

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// recorded is the answer of kube-apiserver 1.37 to an apply of a manifest, and to
// some writes of others after it.
type recorded struct {
	Manifest      json.RawMessage
	ManagedFields []metav1.ManagedFieldsEntry
}

func records(t *testing.T) map[string]recorded {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no records: %v", err)
	}
	all := map[string]recorded{}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var r recorded
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(path)] = r
	}
	return all
}

// TestRecordsAreNamedExactly goes through every field of what an API server has
// said: with it our entry names the manifest exactly, without it not.
func TestRecordsAreNamedExactly(t *testing.T) {
	t.Parallel()
	for file, r := range records(t) {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			entry, ok := OwnEntry(r.ManagedFields, testKeys())
			if !ok || !NamesExactly(r.ManagedFields, testKeys(), r.Manifest) {
				t.Fatalf("not named exactly: %s", rawFields(&entry))
			}
			fields, err := parseFields(rawFields(&entry))
			if err != nil {
				t.Fatal(err)
			}
			tried := 0
			without(fields, func(path string) {
				raw, err := json.Marshal(fields)
				if err != nil {
					t.Fatal(err)
				}
				entry.FieldsV1 = metav1.NewFieldsV1(string(raw))
				if EntryNamesExactly(entry, r.Manifest) {
					t.Errorf("named exactly without %s", path)
				}
				tried++
			})
			if tried < 2 {
				t.Errorf("%d fields tried", tried)
			}
		})
	}
}

// without calls each with every leaf and every subtree taken out in turn, and
// parents that are left empty with it, as an API server does. What only says that
// a map is named itself is left: it is not needed.
func without(n node, each func(path string)) {
	for _, element := range slices.Sorted(maps.Keys(n)) {
		child := n[element]
		if element == self {
			continue
		}
		delete(n, element)
		if len(n) > 0 {
			each(element)
		}
		n[element] = child
		without(child, func(path string) { each(element + " " + path) })
	}
}

func TestRecordsAreObserved(t *testing.T) {
	t.Parallel()
	r := records(t)["deployment-d.json"]
	live := Observe(&metav1.ObjectMeta{ManagedFields: r.ManagedFields}, testKeys())
	if diff := cmp.Diff([]string{"kubectl-edit"}, live.TakeOver); diff != "" {
		t.Errorf("TakeOver (-want +got):\n%s", diff)
	}
	result, changed, err := TakeOver(r.ManagedFields, testKeys(), "apps/v1")
	if err != nil || !changed {
		t.Fatalf("changed = %v, err = %v", changed, err)
	}
	var managers []string
	for _, e := range result {
		managers = append(managers, e.Manager+"/"+e.Subresource)
	}
	slices.Sort(managers)
	want := []string{"applier/", "flux-client-side-apply/", "kubectl-patch/status", "kubectl-rollout/"}
	managers = slices.DeleteFunc(managers, func(m string) bool { return m == "localcluster/status" || m == "kube-controller-manager/status" })
	if diff := cmp.Diff(want, managers); diff != "" {
		t.Errorf("managers after the take-over (-want +got):\n%s", diff)
	}
	if NamesExactly(result, testKeys(), r.Manifest) {
		t.Error("after the take-over our entry names exactly the manifest, though it holds more")
	}
}
