package ownership

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Relax gives a manifest the form in which it leaves fields of a live object to
// others. The fields are JSON pointers (RFC 6901) into the manifest. Each value at and
// below them is looked at by itself:
//
//   - one that somebody else has, and we have not or with another value, is left out;
//   - one that nobody else has, and that differs, is sent as it is in the cluster: to
//     leave it out would delete it;
//   - one that the cluster has not is left out;
//   - one that is as declared, and ours, stays.
//
// The items of an associative list are found by their keys, those of another list by
// their place. What managedFields do not take apart, such as an atomic list, is one
// value. The labels that name the owner stay, whatever the pointers say. A manifest that
// nothing changes in is returned as it came.
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
	owner := ownerLabels(object, keys)
	spent := 0
	changed := false
	for _, pointer := range pointers {
		f, ok := find(object, live.Object, own, others, pointer, &spent)
		if !ok {
			continue
		}
		value, keep, differs := f.settle()
		if spent > maxSpent {
			return nil, errors.New("the lists in it are too long for parts of them to be left to others")
		}
		switch {
		case !differs:
			continue
		case keep:
			f.set(value)
		default:
			f.remove()
		}
		changed = true
	}
	if !changed {
		return manifest, nil
	}
	restoreLabels(object, owner)
	return json.Marshal(swept(object))
}

// maxSpent bounds the comparisons of list items that a call of Relax makes. Each takes
// some microseconds.
const maxSpent = 100_000

// settle is what becomes of a field: its value, whether it is sent at all, and whether
// that differs from what is declared.
func (f field) settle() (value any, keep, differs bool) {
	switch declared := f.declared.(type) {
	case map[string]any:
		if f.isApart() && len(declared) > 0 {
			return f.settleMap(declared)
		}
	case []any:
		if f.isApart() && len(declared) > 0 {
			return f.settleList(declared)
		}
	}
	same := f.inLive && sameValue(f.declared, f.live)
	switch {
	case same && (f.ours || !f.theirs):
		return f.declared, true, false
	case !f.inLive || f.theirs:
		return nil, false, true
	default:
		return f.live, true, true
	}
}

// isApart tells whether managedFields name parts of the field.
func (f field) isApart() bool { return f.own.children() > 0 || f.others.children() > 0 }

func (f field) settleMap(declared map[string]any) (value any, keep, differs bool) {
	out := make(map[string]any, len(declared))
	for name := range declared {
		below, _ := f.key(declared, name)
		v, kept, changed := below.settle()
		differs = differs || changed
		if kept {
			out[name] = v
		}
	}
	return out, len(out) > 0, differs
}

// settleList goes through an associative list. The keys of an item stay as long as the
// item does; one of which nothing else is left stays only if it is ours.
func (f field) settleList(declared []any) (value any, keep, differs bool) {
	var out []any
	for i := range declared {
		item, element, ok := f.item(declared, strconv.Itoa(i))
		if !ok {
			return nil, false, true // too much: see maxSpent
		}
		object, isMap := item.declared.(map[string]any)
		if element == "" || !isMap {
			v, kept, changed := item.settle()
			if differs = differs || changed; kept {
				out = append(out, v)
			}
			continue
		}
		rest, names := map[string]any{}, keysOf(element)
		for name := range object {
			if names[name] {
				rest[name] = object[name]
				continue
			}
			below, _ := item.key(object, name)
			v, kept, changed := below.settle()
			if differs = differs || changed; kept {
				rest[name] = v
			}
		}
		if len(rest) > len(names) || item.ours {
			out = append(out, rest)
		} else {
			differs = true
		}
	}
	return out, len(out) > 0, differs
}

// keysOf are the names in an element that is a key.
func keysOf(element string) map[string]bool {
	var values map[string]any
	raw, _ := strings.CutPrefix(element, keyPrefix)
	_ = decode([]byte(raw), &values) // an element that is no key has none
	names := make(map[string]bool, len(values))
	for name := range values {
		names[name] = true
	}
	return names
}

// ownerLabels are the labels of an object that name its owner.
func ownerLabels(object map[string]any, keys gitops.Keys) map[string]any {
	meta, _ := object["metadata"].(map[string]any)
	labels, _ := meta["labels"].(map[string]any)
	kept := map[string]any{}
	for _, name := range []string{keys.OwnerNameLabel, keys.OwnerNamespaceLabel} {
		if value, ok := labels[name]; ok && name != "" {
			kept[name] = value
		}
	}
	return kept
}

func restoreLabels(object, kept map[string]any) {
	if len(kept) == 0 {
		return
	}
	meta, ok := object["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		object["metadata"] = meta
	}
	labels, ok := meta["labels"].(map[string]any)
	if !ok {
		labels = map[string]any{}
		meta["labels"] = labels
	}
	maps.Copy(labels, kept)
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
	// managedFields name it; own and others are what they name below it.
	inLive, ours, theirs bool
	own, others          node
	// spent counts comparisons of list items.
	spent *int
	// set changes the field in the manifest, and remove takes it out.
	set    func(any)
	remove func()
}

// find follows a pointer through a manifest and, as far as it goes, through the live
// object and what managedFields name. It is false where the manifest has no such field.
func find(object map[string]any, live any, own, others node, pointer string, spent *int) (field, bool) {
	f := field{spent: spent, declared: object, live: live, inLive: live != nil, ours: true, theirs: true, own: own, others: others, remove: func() {}}
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		var ok bool
		switch parent := f.declared.(type) {
		case map[string]any:
			f, ok = f.key(parent, strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
		case []any:
			f, _, ok = f.item(parent, part)
		}
		if !ok {
			return field{}, false
		}
	}
	return f, true
}

// step goes down one element of what managedFields name.
func (f field) step(element string) field {
	var ok bool
	f.own, ok = f.own[element]
	f.ours = f.ours && ok
	f.others, ok = f.others[element]
	f.theirs = f.theirs && ok
	return f
}

// key goes down to a key of a map. A map that loses its last key goes too.
func (f field) key(parent map[string]any, name string) (field, bool) {
	declared, ok := parent[name]
	if !ok {
		return field{}, false
	}
	f = f.step(fieldPrefix + name)
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

// item goes down to an item of a list. Its element is empty where managedFields do not
// name it.
func (f field) item(parent []any, part string) (out field, element string, ok bool) {
	index, err := strconv.Atoi(part)
	if err != nil || index < 0 || index >= len(parent) {
		return field{}, "", false
	}
	list, _ := f.live.([]any)
	f.declared, f.live, f.inLive = parent[index], nil, false
	if *f.spent += len(f.own) + len(f.others) + len(list); *f.spent > maxSpent {
		return field{}, "", false
	}
	element = elementOf(f.declared, f.own, f.others)
	for i, item := range list {
		if present, all := matches(element, item); element != "" && present == all || element == "" && i == index {
			f.live, f.inLive = item, true
			break
		}
	}
	f.set = func(value any) { parent[index] = value }
	// The places of other items are not to change while pointers count them.
	f.remove = func() { parent[index] = gone{} }
	return f.step(element), element, true
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
