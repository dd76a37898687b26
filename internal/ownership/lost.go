package ownership

import (
	"encoding/json"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Lost names the fields of a manifest that others have and our own Apply entry
// does not, as paths like .spec.replicas, and the managers that have them, both
// sorted. It is empty for a manifest whose object is as we left it. An entry that
// cannot be read is left out: it names nobody.
func Lost(managedFields []metav1.ManagedFieldsEntry, keys gitops.Keys, manifest []byte) (fields, managers []string) {
	var object map[string]any
	if err := decode(manifest, &object); err != nil {
		return nil, nil
	}
	own := node{}
	for _, entry := range ownEntries(managedFields, keys) {
		if n, err := parseFields(rawFields(entry)); err == nil {
			own.merge(n)
		}
	}
	for i := range managedFields {
		entry := &managedFields[i]
		if isOwn(entry, keys) || entry.Subresource == "status" {
			continue
		}
		theirs, err := parseFields(rawFields(entry))
		if err != nil {
			continue
		}
		found := lostIn(theirs, own, object, "")
		if len(found) > 0 {
			fields = append(fields, found...)
			managers = append(managers, entry.Manager)
		}
	}
	slices.Sort(fields)
	slices.Sort(managers)
	return slices.Compact(fields), slices.Compact(managers)
}

// lostIn gives the paths of value that theirs has and own has not.
func lostIn(theirs, own node, value any, path string) []string {
	var found []string
	for element, child := range theirs {
		if element == self {
			continue
		}
		part, name, ok := declared(value, element)
		if !ok {
			continue
		}
		mine, have := own[element]
		switch {
		case !child.leaf():
			found = append(found, lostIn(child, mine, part, path+name)...)
		case !have:
			found = append(found, path+name)
		}
	}
	return found
}

// declared is what a manifest has at a path element, and the element in the form
// in which a person would write it.
func declared(value any, element string) (part any, name string, ok bool) {
	if field, is := strings.CutPrefix(element, fieldPrefix); is {
		object, _ := value.(map[string]any)
		part, ok = object[field]
		return part, "." + field, ok
	}
	items, _ := value.([]any)
	if text, is := strings.CutPrefix(element, keyPrefix); is {
		var keys map[string]any
		if decode([]byte(text), &keys) != nil {
			return nil, "", false
		}
		for _, item := range items {
			if object, _ := item.(map[string]any); hasKeys(object, keys) {
				return item, "[" + keyText(keys) + "]", true
			}
		}
		return nil, "", false
	}
	if text, is := strings.CutPrefix(element, valuePrefix); is {
		for _, item := range items {
			if encoded, err := json.Marshal(item); err == nil && string(encoded) == text {
				return item, "[" + text + "]", true
			}
		}
	}
	return nil, "", false
}

// hasKeys tells whether an item has the keys of an associative list; one that it
// lacks may have been defaulted.
func hasKeys(item, keys map[string]any) bool {
	matched := false
	for key, want := range keys {
		have, ok := item[key]
		if ok && !sameScalar(have, want) {
			return false
		}
		matched = matched || ok
	}
	return matched
}

func keyText(keys map[string]any) string {
	var parts []string
	for key, value := range keys {
		encoded, err := json.Marshal(value)
		if err != nil {
			continue
		}
		parts = append(parts, key+"="+strings.Trim(string(encoded), `"`))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
