package ownership

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// TakeOver gives the fields of the managers that we take over to our own Apply
// entry, which is made where there is none. An apply with the result as the live
// managedFields then removes what these managers added and the manifest does not
// declare, unless a third manager has it too.
//
// Entries of a subresource and entries that hold nothing but kept annotations stay
// as they are. The result is the entries that stay, in their order, and then ours. Our own entry keeps its API version; apiVersion is that of an entry
// that has to be made. managedFields is not changed. The error says which
// manager's entry cannot be read; then nothing is taken over.
func TakeOver(managedFields []metav1.ManagedFieldsEntry, keys gitops.Keys, apiVersion string) (result []metav1.ManagedFieldsEntry, changed bool, err error) {
	if len(takeOverNames(managedFields, keys)) == 0 {
		return managedFields, false, nil
	}
	own := metav1.ManagedFieldsEntry{
		Manager:    keys.Manager,
		Operation:  metav1.ManagedFieldsOperationApply,
		APIVersion: apiVersion,
		FieldsType: "FieldsV1",
	}
	union := node{}
	have := false
	for i := range managedFields {
		entry := &managedFields[i]
		mine := isOwn(entry, keys)
		if !mine && !takenOver(entry, keys) {
			result = append(result, *entry)
			continue
		}
		fields, err := parseFields(rawFields(entry))
		if err != nil {
			return nil, false, fmt.Errorf("managed fields of %q: %w", entry.Manager, err)
		}
		union.merge(fields)
		if mine && !have {
			own.APIVersion, own.Time, have = entry.APIVersion, entry.Time, true
		}
		if !have && (own.Time == nil || own.Time.Before(entry.Time)) {
			own.Time = entry.Time
		}
	}
	raw, err := json.Marshal(union)
	if err != nil {
		return nil, false, fmt.Errorf("managed fields of %q: %w", keys.Manager, err)
	}
	own.FieldsV1 = metav1.NewFieldsV1(string(raw))
	return append(result, own), true, nil
}

// takeOverNames names the managers that have an entry to take over, sorted.
func takeOverNames(entries []metav1.ManagedFieldsEntry, keys gitops.Keys) []string {
	var names []string
	for i := range entries {
		if takenOver(&entries[i], keys) {
			names = append(names, entries[i].Manager)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// takenOver tells whether the fields of an entry are to become ours.
func takenOver(e *metav1.ManagedFieldsEntry, keys gitops.Keys) bool {
	if e.Subresource != "" || !listed(e, keys) {
		return false
	}
	fields, err := parseFields(rawFields(e))
	return err != nil || !keptOnly(fields, keys.KeepFields)
}

func listed(e *metav1.ManagedFieldsEntry, keys gitops.Keys) bool {
	if e.Manager == keys.Manager {
		return e.Operation == metav1.ManagedFieldsOperationUpdate
	}
	return slices.ContainsFunc(keys.TakeOver, func(beginning string) bool {
		return beginning != "" && strings.HasPrefix(e.Manager, beginning)
	})
}

// keptOnly tells whether a set holds nothing but the kept annotations, of the
// object or of a template in it, and the maps that they stand in.
func keptOnly(n node, keep []string) bool {
	for element, child := range n {
		switch element {
		case self:
			return false
		case fieldPrefix + "annotations":
			if !onlyAnnotations(child, keep) {
				return false
			}
		default:
			if !strings.HasPrefix(element, fieldPrefix) || child.leaf() {
				return false
			}
			rest := child
			if element == fieldPrefix+"metadata" {
				rest = child.clone()
				delete(rest, self)
			}
			if !keptOnly(rest, keep) {
				return false
			}
		}
	}
	return true
}

func onlyAnnotations(n node, keep []string) bool {
	for element := range n {
		name, ok := strings.CutPrefix(element, fieldPrefix)
		if element != self && (!ok || !slices.Contains(keep, name)) {
			return false
		}
	}
	return true
}
