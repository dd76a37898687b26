package ownership

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestLost(t *testing.T) {
	t.Parallel()
	manifest := `{"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"app","image":"a:1"}]}}},"metadata":{"finalizers":["x"]}}`
	entry := func(manager, operation, subresource, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationType(operation), Subresource: subresource,
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields),
		}
	}
	own := entry("me", "Apply", "", `{"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:name":{},"f:image":{}}}}}}}`)
	for name, test := range map[string]struct {
		entries  []metav1.ManagedFieldsEntry
		fields   []string
		managers []string
	}{
		"nothing is lost while the own entry has everything": {
			entries: []metav1.ManagedFieldsEntry{own, entry("other", "Update", "", `{"f:spec":{"f:replicas":{},"f:paused":{}}}`)},
		},
		"a scalar that another manager took is named with the manager": {
			entries: []metav1.ManagedFieldsEntry{
				entry("me", "Apply", "", `{"f:spec":{"f:template":{}}}`),
				entry("scaler", "Update", "scale", `{"f:spec":{"f:replicas":{}}}`),
			},
			fields: []string{".spec.replicas"}, managers: []string{"scaler"},
		},
		"a field of a list item is named by the item's keys": {
			entries: []metav1.ManagedFieldsEntry{
				entry("me", "Apply", "", `{"f:spec":{"f:replicas":{}}}`),
				entry("setter", "Update", "", `{"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{"f:image":{}}}}}}}`),
			},
			fields: []string{".spec.template.spec.containers[name=app].image"}, managers: []string{"setter"},
		},
		"a member of a set is named by its value": {
			entries: []metav1.ManagedFieldsEntry{own, entry("guard", "Update", "", `{"f:metadata":{"f:finalizers":{".":{},"v:\"x\"":{}}}}`)},
			fields:  []string{`.metadata.finalizers["x"]`}, managers: []string{"guard"},
		},
		"status and entries that cannot be read name nobody": {
			entries: []metav1.ManagedFieldsEntry{
				entry("kcm", "Update", "status", `{"f:spec":{"f:replicas":{}}}`),
				entry("odd", "Update", "", `{"x:spec":{}}`),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fields, managers := Lost(test.entries, gitops.Keys{Manager: "me"}, []byte(manifest))
			if diff := cmp.Diff(test.fields, fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.managers, managers); diff != "" {
				t.Errorf("managers (-want +got):\n%s", diff)
			}
		})
	}
}
