package ownership

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Relax gives a manifest the form in which it leaves fields of a live object to
// others. The fields are JSON pointers (RFC 6901) into the manifest:
//
//   - one that somebody else has, and we have not, is left out;
//   - one that nobody else has, and that differs, is sent as it is in the cluster: to
//     leave it out would delete it;
//   - one that the cluster has not is left out.
//
// A field that is as declared and ours, or that the manifest does not have, is not
// touched. The items of an associative list are found by their keys, those of another
// list by their place. A manifest that nothing changes in is returned as it came.
func Relax(manifest []byte, live *unstructured.Unstructured, keys gitops.Keys, pointers []string) ([]byte, error) {
	var object map[string]any
	if err := decode(manifest, &object); err != nil {
		return nil, fmt.Errorf("manifest is not a JSON object: %w", err)
	}
	own, others := node{}, node{}
	for i, entries := 0, live.GetManagedFields(); i < len(entries); i++ {
		fields, err := parseFields(rawFields(&entries[i]))
		switch {
		case err != nil:
		case isOwn(&entries[i], keys):
			own.merge(fields)
		default:
			others.merge(fields)
		}
	}
	changed := false
	for _, pointer := range pointers {
		f, ok := find(object, live.Object, own, others, pointer)
		if !ok {
			continue
		}
		same := f.inLive && sameValue(f.declared, f.live)
		switch {
		case same && (f.ours || !f.theirs):
			continue
		case !f.inLive || f.theirs:
			f.remove()
		default:
			f.set(f.live)
		}
		changed = true
	}
	if !changed {
		return manifest, nil
	}
	return json.Marshal(swept(object))
}

// gone stands for an item that was removed from a list.
type gone struct{}

// swept takes removed items out of all lists.
func swept(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			v[key] = swept(below)
		}
	case []any:
		v = slices.DeleteFunc(v, func(item any) bool { return item == any(gone{}) })
		for i, below := range v {
			v[i] = swept(below)
		}
		return v
	}
	return value
}

// CheckPointer tells what is wrong with a JSON pointer to a field that is left to
// others.
func CheckPointer(pointer string) error {
	if !strings.HasPrefix(pointer, "/") || pointer == "/" {
		return errors.New("it is no JSON pointer to a field, such as /spec/replicas")
	}
	for part := range strings.SplitSeq(pointer[1:], "/") {
		for i := 0; i < len(part); i++ {
			if part[i] == '~' && (i+1 == len(part) || part[i+1] != '0' && part[i+1] != '1') {
				return errors.New("it has a ~ that is neither ~0 (for ~) nor ~1 (for /)")
			}
		}
	}
	switch pointer {
	case "/apiVersion", "/kind", "/metadata", "/metadata/name", "/metadata/namespace":
		return errors.New("it is what tells the object from others")
	}
	return nil
}

// field is a place in a manifest, with what is known of it.
type field struct {
	declared, live any
	// inLive is set where the cluster has the field, and ours and theirs where
	// managedFields name it.
	inLive, ours, theirs bool
	// set changes the field in the manifest, and remove takes it out.
	set    func(any)
	remove func()
}

// find follows a pointer through a manifest and, as far as it goes, through the live
// object and what managedFields name. It is false where the manifest has no such field.
func find(object map[string]any, live any, own, others node, pointer string) (field, bool) {
	f := field{declared: object, live: live, inLive: live != nil, ours: true, theirs: true, remove: func() {}}
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		var ok bool
		var element string
		switch parent := f.declared.(type) {
		case map[string]any:
			part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
			element = fieldPrefix + part
			f, ok = f.key(parent, part)
		case []any:
			f, element, ok = f.item(parent, part, own, others)
		}
		if !ok {
			return field{}, false
		}
		own, f.ours = step(own, element, f.ours)
		others, f.theirs = step(others, element, f.theirs)
	}
	return f, true
}

// step goes down one element of what managedFields name.
func step(n node, element string, so bool) (node, bool) {
	below, ok := n[element]
	return below, so && ok
}

// key goes down to a key of a map. A map that loses its last key goes too.
func (f field) key(parent map[string]any, name string) (field, bool) {
	declared, ok := parent[name]
	if !ok {
		return field{}, false
	}
	removeParent := f.remove
	f.declared = declared
	live, _ := f.live.(map[string]any)
	f.live, f.inLive = live[name], has(live, name)
	f.set = func(value any) { parent[name] = value }
	f.remove = func() {
		if delete(parent, name); len(parent) == 0 {
			removeParent()
		}
	}
	return f, true
}

// item goes down to an item of a list.
func (f field) item(parent []any, part string, own, others node) (out field, element string, ok bool) {
	index, err := strconv.Atoi(part)
	if err != nil || index < 0 || index >= len(parent) {
		return field{}, "", false
	}
	list, _ := f.live.([]any)
	f.declared, f.live, f.inLive = parent[index], nil, false
	element = elementOf(f.declared, own, others)
	for i, item := range list {
		if present, all := matches(element, item); element != "" && present == all || element == "" && i == index {
			f.live, f.inLive = item, true
			break
		}
	}
	f.set = func(value any) { parent[index] = value }
	// The places of other items are not to change while pointers count them.
	f.remove = func() { parent[index] = gone{} }
	return f, element, true
}

// elementOf is how managedFields name an item; empty where they do not.
func elementOf(item any, named ...node) string {
	for _, n := range named {
		candidates := make(map[string]any, len(n))
		for element := range n {
			if element != self {
				candidates[element] = nil
			}
		}
		if element, ok := exactElement(candidates, item); ok {
			return element
		}
	}
	return ""
}

func has(m map[string]any, name string) bool {
	_, ok := m[name]
	return ok
}

// sameValue compares what a manifest has with what the cluster has; numbers by value.
func sameValue(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for key, value := range x {
			if !has(y, key) || !sameValue(value, y[key]) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !sameValue(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	return sameScalar(a, b) || reflect.DeepEqual(a, b)
}
